"""Abilities of the processor and the system."""

from __future__ import annotations

import ctypes
import pathlib

CPU_INFO = pathlib.Path("/proc/cpuinfo")
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


def choose_products(wanted: str, cpu_info: pathlib.Path = CPU_INFO) -> str:
    """Matmul dtype for `TrainConfig.matmul_dtype`: "auto" is bfloat16 where an x86 processor multiplies it natively.

    Where the processor does not say (no such file, as on macOS), "auto" is float32.
    """
    if wanted != "auto":
        return wanted
    try:
        words = cpu_info.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return "float32"
    return "bfloat16" if BFLOAT16_FLAGS.intersection(words) else "float32"


_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
KEPT = {
    _M_TOP_PAD: 128 * 2**20,
    # Where one is set, glibc no longer adapts these two, which begin with 128 KiB: what it would come to, and more.
    _M_MMAP_THRESHOLD: 32 * 2**20,
    _M_TRIM_THRESHOLD: 256 * 2**20,
}


def keep_freed_memory() -> bool:
    """Ask the C library to keep what is freed for what is allocated next; whether it could be asked.

    A training step allocates and frees some hundred megabytes of tensors, of the same sizes at every step. glibc gives
    the end of each thread's heap back to the system as soon as it is free and asks for it again a moment later; every
    page of it then faults and is cleared once more, a tenth of a step's time. The peak of memory grows by a
    few hundredths, that of one large step by more. Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl and macOS have none; Windows has no such handle
        return False
    return all([bool(mallopt(option, value)) for option, value in KEPT.items()])
