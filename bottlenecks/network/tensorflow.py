"""The one place where TensorFlow is imported: late, and without its log lines."""

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from importlib import metadata
from types import ModuleType
from typing import Any

from bottlenecks.errors import TensorFlowError
from bottlenecks.forks import PerProcess

# Lines of absl's logging, its warning that it is not set up yet, and what LiteRT prints.
_LOGGED = re.compile(
    rb"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: |)[IWEF](\d{4} | tensorflow/| external/)|"
    rb"WARNING: All log messages before absl::InitializeLog|To enable the following instructions: |"
    rb"fully_quantize: \d|INFO: Created TensorFlow Lite "
)
_importing = PerProcess(threading.Lock)


def import_tensorflow() -> ModuleType:
    """Return the ``tensorflow`` module, imported (3 s) with its C++ log lines held back.

    ``TF_CPP_MIN_LOG_LEVEL`` keeps the user's value where there is one. What TensorFlow writes
    to file descriptor 2 before its logging is set up (CUDA and oneDNN notices) is dropped, and
    shown only if the import fails: `TensorFlowError`. What others write meanwhile is shown when it
    is done. Threads that come meanwhile wait.
    """
    with _importing():  # the module is in sys.modules long before it is whole
        if "tensorflow" not in sys.modules:
            _import_quietly()
        import tensorflow  # which waits where somebody else is importing it

        module: ModuleType = tensorflow
        return module


def version() -> str:
    """The version of the TensorFlow that is installed, known without its import where it can be."""
    try:
        return metadata.version("tensorflow")
    except metadata.PackageNotFoundError:  # tensorflow-cpu, or a build of one's own
        return str(import_tensorflow().__version__)


def new_saved_model() -> Any:
    """An empty SavedModel message, whose class has no public name in TensorFlow."""
    import_tensorflow()
    from tensorflow.core.protobuf import saved_model_pb2

    return saved_model_pb2.SavedModel()


def _import_quietly() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # TensorFlow imports Keras
    if os.path.expanduser("~") == "~":  # there is none, and they would make a folder of that name
        os.environ.setdefault("KERAS_HOME", os.path.join(os.devnull, "keras"))
    try:
        with logged_lines_dropped():
            import tensorflow  # noqa: F401
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise TensorFlowError(
            f"cannot import TensorFlow ({reason}); install it again, and look at Keras' "
            "configuration: keras.json in ~/.keras, or where KERAS_HOME says"
        ) from error


@contextlib.contextmanager
def logged_lines_dropped() -> Iterator[None]:
    """Hold back what is written to descriptor 2; drop what TensorFlow logs, unless it raises."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    held_back, kept = _anonymous_file(), os.dup(2)
    failed = False
    try:
        os.dup2(held_back, 2)
        yield
    except Exception:
        failed = True
        raise
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.lseek(held_back, 0, os.SEEK_SET)
        with os.fdopen(held_back, "rb") as written:
            lines = [line for line in written if failed or not _LOGGED.match(line)]
        with contextlib.suppress(OSError):
            os.write(2, b"".join(lines))


def _anonymous_file() -> int:
    """The descriptor of a file without a name: in memory where that can be had, as in Linux.

    There need be no folder for temporary files that can be written to; without, it leads nowhere.
    """
    with contextlib.suppress(AttributeError, OSError):
        return os.memfd_create("stderr")
    try:
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    except OSError:
        return os.open(os.devnull, os.O_RDWR)
