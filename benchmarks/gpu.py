"""Training throughput on a GPU, under the backends of Keras that have one, beside PyTorch's own layers.

    python benchmarks/gpu.py --output docs/images/gpu --into docs/results/gpu.md

The network, its sizes and the random ids are those of `throughput.py`. Each contender is a process of its own with
another `KERAS_BACKEND`, one after the other: each has the whole card. The share of the roofline is the time that the
step's products would take at the measured peak of their dtype over the time taken. Needs JAX or PyTorch that sees a
GPU; a contender that cannot run is named with its reason. TensorFlow is not needed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tables import report
from throughput import add_options, make_ours, make_torch, step_flops

CONTENDERS = {
    # name: backend, products, input feeding
    "ours, JAX": ("jax", "float32", False),
    "ours, JAX, bfloat16 products": ("jax", "bfloat16", False),
    "ours, JAX, bfloat16 products, input feeding": ("jax", "bfloat16", True),
    "ours, PyTorch backend, bfloat16 products": ("torch", "bfloat16", False),
    "PyTorch": ("", "float32", False),
    "PyTorch, bfloat16 autocast": ("", "bfloat16", False),
}


def peak(backend: str, products: str, size: int = 8192, times: int = 20) -> float:
    """Floating-point operations a second of products of square matrices, random, of the backend's own library."""
    if backend == "jax":
        import jax

        one = jax.random.normal(jax.random.key(1), (size, size), products)
        multiply = jax.jit(lambda left, right: left @ right)

        def run(number: int) -> None:
            result = one
            for _ in range(number):
                result = multiply(one, one)
            result.block_until_ready()
    else:
        import torch  # type: ignore[import-not-found, unused-ignore]

        device = "cuda" if torch.cuda.is_available() else "cpu"
        # As JAX does by default, products of float32 on the matrix units (TF32).
        torch.set_float32_matmul_precision("high")
        two = torch.randn((size, size), device=device, dtype=getattr(torch, products))

        def run(number: int) -> None:
            for _ in range(number):
                _ = two @ two
            if device == "cuda":
                torch.cuda.synchronize()

    run(3)
    started = time.perf_counter()
    run(times)
    return 2.0 * size**3 * times / (time.perf_counter() - started)


def device_name(backend: str) -> str:
    if backend == "jax":
        import jax

        return str(jax.devices()[0].device_kind)
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else "cpu"


def autocast(run: Callable[[int], None]) -> Callable[[int], None]:
    """`run` with PyTorch's mixed precision."""
    import torch

    def inside(number: int) -> None:
        with torch.autocast("cuda" if torch.cuda.is_available() else "cpu", dtype=torch.bfloat16):
            run(number)

    return inside


def work(options: argparse.Namespace) -> None:
    """A contender's process: one line of JSON."""
    backend, products, feeding = CONTENDERS[options.worker]
    ceiling = peak(backend, products, options.peak_size)
    if backend:
        run = make_ours(options, feeding, products)
    else:
        run = make_torch(options)
        if products == "bfloat16":
            run = autocast(run)
    run(3)
    seconds = []
    for _ in range(options.rounds):
        started = time.perf_counter()
        run(options.steps)
        if not backend:
            import torch

            if torch.cuda.is_available():
                torch.cuda.synchronize()
        seconds.append((time.perf_counter() - started) / options.steps)
    result = {"seconds": seconds, "peak": ceiling, "device": device_name(backend)}
    print("result", json.dumps(result), flush=True)


def measure(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """What a contender's process found, or the `reason` why it found nothing."""
    keys = ("threads", "steps", "batch", "length", "vocabulary", "rounds", "peak_size")
    passed = [f"--{key.replace('_', '-')}={getattr(options, key)}" for key in keys]
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if CONTENDERS[name][0]:
        environment["KERAS_BACKEND"] = CONTENDERS[name][0]
    command = [sys.executable, __file__, "--worker", name, *passed]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=options.limit)
    except subprocess.TimeoutExpired:
        return {"reason": f"took more than {options.limit:g} seconds"}
    for line in done.stdout.splitlines():
        if line.startswith("result "):
            found: dict[str, Any] = json.loads(line.removeprefix("result "))
            return found
    lines = done.stderr.strip().splitlines()
    return {"reason": lines[-1] if lines else f"exit status {done.returncode}"}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Training throughput on a GPU.")
    add_options(parser, CONTENDERS, rounds=5)
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 512], help="sentences of a batch")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds that a contender may take")
    parser.add_argument("--peak-size", type=int, default=8192, help="rows of the matrices that the peak is measured by")
    options = parser.parse_args(arguments)
    if options.worker:
        work(options)
        return
    lines = ["| | batch | target tokens/s | share of the roofline | peak, TFLOP/s |", "|---|---|---|---|---|"]
    rows: list[dict[str, Any]] = []
    devices = set()
    for batch in options.batches:
        options.batch = batch
        for name in options.only or CONTENDERS:
            found = measure(options, name)
            if "reason" in found:
                lines.append(f"| {name} | {batch} | did not run: {found['reason'][:200]} | | |")
                continue
            devices.add(found["device"])
            step = statistics.median(found["seconds"])
            share = step_flops(options, CONTENDERS[name][2]) / found["peak"] / step
            tokens = batch * options.length / step
            lines.append(f"| {name} | {batch} | {tokens:,.0f} | {100 * share:.1f} % | {found['peak'] / 1e12:.0f} |")
            rows += [
                {"contender": name, "batch": batch, "round": number + 1, "seconds_per_step": seconds}
                for number, seconds in enumerate(found["seconds"])
            ]
    if not rows:
        raise SystemExit("error: no contender ran:\n" + "\n".join(lines[2:]))
    head = f"{', '.join(sorted(devices))}; {options.rounds} rounds of {options.steps} steps"
    report(options, "gpu", f"{head}\n\n" + "\n".join(lines), rows)


if __name__ == "__main__":
    main()
