"""What the processor at hand is good at."""

from __future__ import annotations

import pathlib

CPU_INFO = pathlib.Path("/proc/cpuinfo")
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


def choose_products(wanted: str, cpu_info: pathlib.Path = CPU_INFO) -> str:
    """The dtype of products for `Settings.products`: "auto" is bfloat16 where an x86 processor multiplies it natively.

    Where the processor does not say (no such file, as on macOS), "auto" is float32.
    """
    if wanted != "auto":
        return wanted
    try:
        words = cpu_info.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return "float32"
    return "bfloat16" if BFLOAT16_FLAGS.intersection(words) else "float32"
