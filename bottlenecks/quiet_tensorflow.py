"""The one place where TensorFlow is imported: late, and without its log lines."""

import os
import sys
import tempfile
from contextlib import suppress
from types import ModuleType

from bottlenecks.errors import TensorFlowError


def import_tensorflow() -> ModuleType:
    """Return the ``tensorflow`` module, imported (3 s) with its C++ log lines held back.

    ``TF_CPP_MIN_LOG_LEVEL`` keeps the user's value where there is one. What TensorFlow writes
    to file descriptor 2 before its logging is set up (CUDA and oneDNN notices) is dropped, and
    shown only if the import fails. Raises `TensorFlowError` then.
    """
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # TensorFlow imports Keras
    if os.path.expanduser("~") == "~":  # there is none, and they would make a folder of that name
        os.environ.setdefault("KERAS_HOME", os.path.join(os.devnull, "keras"))
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as held_back:
            os.dup2(held_back.fileno(), 2)
            try:
                import tensorflow  # noqa: F401
            except Exception as error:
                os.dup2(kept, 2)
                held_back.seek(0)
                os.write(2, held_back.read())
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                raise TensorFlowError(
                    f"cannot import TensorFlow ({reason}); install it again, and look at Keras' "
                    "configuration: keras.json in ~/.keras, or where KERAS_HOME says"
                ) from error
            finally:
                os.dup2(kept, 2)
    finally:
        os.close(kept)
    return sys.modules["tensorflow"]
