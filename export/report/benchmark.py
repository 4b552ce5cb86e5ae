"""Size and latency of an artefact, in every runtime that it has files for."""

import dataclasses
import functools
import json
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping, Set
from typing import Any

import numpy as np

from keras_attention.errors import UserError

from .. import integrity, runtime
from ..formats import child_process
from ..formats.table import by_name
from ..parity import cases as reference
from ..parity.cases import Reference
from ..verifier import REFERENCE_FILE


@dataclasses.dataclass(frozen=True)
class Latency:
    """Latency of one graph in one runtime at batch 1, and throughput in a larger batch."""

    format: str
    runtime: str
    graph: str
    bytes: int
    median_ms: float
    p90_ms: float
    batch_size: int
    per_second: float
    peak_bytes: int | None = None
    """Resident memory of a process that opens the format and runs one row, interpreter included; None: not measured."""


def measure(
    directory: pathlib.Path,
    manifest: Mapping[str, Any],
    cases: Reference,
    seconds: float = 3.0,
    threads: int | None = None,
    memory: bool = False,
) -> list[Latency]:
    """Time the whole graph (`translate`, or `call`) of every format on the inputs of the cases.

    Args:
        directory, manifest: the artefact.
        cases: source of the inputs, one row at a time, and in one larger batch.
        seconds: time spent on each of the two measurements, for each format.
        threads: threads of LiteRT and ONNX Runtime; their own defaults if `None`.
        memory: whether to measure a separate process' peak too, for formats that the standalone runtime runs.
    """
    graph = "translate" if manifest["kind"] == "translator" else "call"
    chosen = list(cases.of(graph))
    ports = manifest["signatures"][graph]["inputs"]
    batched = {name for name, port in ports.items() if port["axes"][:1] == ["batch"]}
    singles = [one_row(case.inputs, row, batched) for case in chosen for row in range(rows(case.inputs))]
    larger = max((case.inputs for case in chosen), key=rows)
    results = []
    for format_ in manifest["formats"]:
        backend = by_name(format_).open(directory, manifest, threads)
        call = functools.partial(backend.run, graph)
        if graph == "translate":
            call = functools.partial(runtime.run_translate, backend, manifest)
        times, batch_times = repeat(call, singles, seconds), repeat(call, [larger], seconds)
        results.append(
            Latency(
                format_,
                by_name(format_).interpreter,
                graph,
                size(directory, manifest, format_),
                float(np.median(times)) * 1e3,
                float(np.quantile(times, 0.9)) * 1e3,
                rows(larger),
                rows(larger) / float(np.median(batch_times)),
                peak_memory(directory, manifest, format_, graph, singles[0]) if memory else None,
            )
        )
    return results


PEAK = """
import importlib.util, json, pathlib, resource, sys
import numpy as np
path, folder, backend, graph, work = sys.argv[1:]
spec = importlib.util.spec_from_file_location("runtime", path)
runtime = sys.modules["runtime"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runtime)
manifest = json.loads((pathlib.Path(work) / "manifest.json").read_text())
inputs = dict(np.load(pathlib.Path(work) / "inputs.npz"))
opened = runtime.BACKENDS[backend](pathlib.Path(folder), manifest, None)
if graph == "translate":
    runtime.run_translate(opened, manifest, inputs)
else:
    opened.run(graph, inputs)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
status = pathlib.Path("/proc/self/status")
if status.exists():  # the former counts the parent's pages, too
    peak = 1024 * int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1])
print(peak)
"""


def peak_memory(
    directory: pathlib.Path, manifest: Mapping[str, Any], format_: str, graph: str, inputs: Mapping[str, np.ndarray]
) -> int | None:
    """Measure the peak resident memory, in bytes, of a process with the standalone runtime that runs one row."""
    names = [name for name, kind in runtime.BACKENDS.items() if kind.format == format_]
    if not names:
        return None
    with tempfile.TemporaryDirectory() as work:
        (pathlib.Path(work) / "manifest.json").write_text(json.dumps(dict(manifest)), encoding="utf-8")
        np.savez(pathlib.Path(work) / "inputs.npz", allow_pickle=False, **inputs)
        arguments = [runtime.__file__, str(directory), names[0], graph, work]
        finished = child_process.run(["-c", PEAK, *arguments], text=True)
        finished.check_returncode()
        return int(finished.stdout.split()[-1])


def repeat(call: Callable[[Any], Any], inputs: list[Any], seconds: float, least: int = 3) -> list[float]:
    """Return the seconds of each call, over the inputs in turn, after an unmeasured round of at most three of them."""
    for item in inputs[:3]:
        call(item)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        call(inputs[len(times) % len(inputs)])
        times.append(time.perf_counter() - start)
    return times


def rows(inputs: Mapping[str, np.ndarray]) -> int:
    """Return the batch size of some inputs: that of the first one."""
    first = next(iter(inputs.values()))
    return int(first.shape[0]) if first.ndim else 1


def one_row(inputs: Mapping[str, np.ndarray], row: int, batched: Set[str]) -> dict[str, np.ndarray]:
    """Return one row of the batched inputs, and the others unchanged; the source is cut at its padding."""
    chosen = {name: value[row : row + 1] if name in batched else value for name, value in inputs.items()}
    for name in {"source_ids", "source_features"} & set(chosen):
        length = int(runtime.source_lengths(chosen[name])[0])
        chosen[name] = chosen[name][:, :length]
    return chosen


def size(directory: pathlib.Path, manifest: Mapping[str, Any], format_: str) -> int:
    """Return the bytes of one format's files together, without the one that reads text."""
    entry, files = manifest["formats"][format_], manifest["files"]
    if "folder" in entry:
        return sum(file["bytes"] for name, file in files.items() if name.startswith(f"{entry['folder']}/"))
    return sum(files[name]["bytes"] for name in ([entry["file"]] if "file" in entry else entry["files"].values()))


def benchmark(directory: str | pathlib.Path, seconds: float = 3.0, threads: int | None = None) -> list[Latency]:
    """Measure size and latency of an artefact directory, in every runtime that it has files for.

    Args:
        directory: result of `export`.
        seconds: time spent on each measurement.
        threads: threads of LiteRT and ONNX Runtime; their own defaults if `None`.

    Raises:
        UserError: if the directory is no artefact, or a file is missing, truncated or edited.
    """
    directory = pathlib.Path(directory)
    try:
        manifest = runtime.read_manifest(directory)
        for problem in integrity.impossible(manifest):
            raise UserError(f"{directory / 'manifest.json'}: {problem}. Export again")
        cases = reference.load(runtime.check_file(directory, manifest, REFERENCE_FILE))
        return measure(directory, manifest, cases, seconds, threads, True)
    except runtime.ArtefactError as error:
        raise UserError(str(error)) from None


def as_json(latencies: list[Latency]) -> str:
    """Return one JSON object: `{"results": [...]}`."""
    return json.dumps({"results": [dataclasses.asdict(latency) for latency in latencies]})
