"""The one place where TensorFlow is imported: late, and without its log lines."""

import os
import sys
import tempfile
from contextlib import suppress
from types import ModuleType


def import_tensorflow() -> ModuleType:
    """Return the ``tensorflow`` module, imported (3 s) with its C++ log lines held back.

    ``TF_CPP_MIN_LOG_LEVEL`` keeps the user's value where there is one. What TensorFlow writes
    to file descriptor 2 before its logging is set up (CUDA and oneDNN notices) is dropped, and
    shown only if the import fails.
    """
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # TensorFlow imports Keras
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as held_back:
            os.dup2(held_back.fileno(), 2)
            try:
                import tensorflow  # noqa: F401
            except Exception:
                os.dup2(kept, 2)
                held_back.seek(0)
                os.write(2, held_back.read())
                raise
            finally:
                os.dup2(kept, 2)
    finally:
        os.close(kept)
    return sys.modules["tensorflow"]
