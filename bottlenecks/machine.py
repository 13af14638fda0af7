"""What this machine has: cores, a GPU, bfloat16; and the defaults that follow from it.

All are looked up when they are wanted: what a process may use can change while it runs.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bottlenecks.forks import PerProcess

MOST_THREADS = 32


def usable_cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU that this process may use; known without TensorFlow."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all") not in ("", "-1")
    return visible and any(Path("/dev").glob("nvidia[0-9]*"))


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 (AVX512_BF16 or AMX); False where unknown."""
    return bool(_processor_flags() & {"avx512_bf16", "amx_bf16"})


def most_of_int8() -> int:
    """The largest whole number that it multiplies with a level of 8 bits exactly; 0 for none.

    With VNNI or AMX, 127: products are added in 32 bits. With AVX2 two of them are added in 16, so
    that 2 x 255 x 64 is the most that fits (oneDNN's guide, "Nuances of int8 computations"), and
    OpenVINO was found to be twice as fast as in floats all the same.
    """
    flags = _processor_flags()
    if flags & {"avx512_vnni", "avx_vnni", "amx_int8"}:
        return 127
    return 64 if "avx2" in flags else 0


def _processor_flags() -> set[str]:
    """What Linux says that all cores can do; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    found = [set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")]
    return set.intersection(*found) if found else set()


def threads() -> int:
    """How many read and decode photos, unless it is set: at most `MOST_THREADS`.

    On two cores the network takes 30 ms for a photo and the decoder 5; a GPU is faster than 8
    threads decode.
    """
    return min(MOST_THREADS if has_gpu() else 8, usable_cores())


def batch_size() -> int:
    """How many photos go through the network at once, unless it is set.

    More were no faster on two cores, and take 15 MB of memory a photo.
    """
    return 64 if has_gpu() else 16


class _BlasLimit:
    """How many want BLAS to have one thread, and what sets it back when none does."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.wanted = 0
        self.limits: Any = None


_blas = PerProcess(_BlasLimit)


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let NumPy's and SciPy's products take one thread; for the whole process, until all are done.

    For small products: with more, one thread waits for the other, which took 30 times as long on a
    busy machine. Threads may overlap in it: the first sets it, the last sets it back.
    """
    from threadpoolctl import threadpool_limits

    limit = _blas()
    with limit.lock:
        if not limit.wanted:
            limit.limits = threadpool_limits(1)
        limit.wanted += 1
    try:
        yield
    finally:
        with limit.lock:
            limit.wanted -= 1
            if not limit.wanted:
                limit.limits.restore_original_limits()
