"""Arm's Vela compiler, if installed (extra `npu`): an Ethos-U's share of a graph, with time and memory."""

import csv
import dataclasses
import importlib.util
import pathlib
import re
import tempfile
from collections.abc import Mapping

from ...errors import ConversionError
from .. import child_process

ACCELERATORS = ("ethos-u55-128", "ethos-u65-256", "ethos-u85-256")


@dataclasses.dataclass(frozen=True)
class Placement:
    """One graph on one accelerator, as Vela estimates it.

    Attributes:
        accelerator, graph: names.
        on_npu, on_cpu: operators placed on each, of Vela's own graph, into which a fused LSTM is unrolled.
        cycles, macs: of one call.
        milliseconds: at the clock of Vela's default system for that accelerator.
        sram, other: kibibytes of memory on the chip, and off it (weights among them).
    """

    accelerator: str
    graph: str
    on_npu: int
    on_cpu: int
    cycles: int
    macs: int
    milliseconds: float
    sram: float
    other: float

    @property
    def share(self) -> float:
        """Share of the operators on the NPU, in percent."""
        return 100.0 * self.on_npu / max(self.on_npu + self.on_cpu, 1)


def installed() -> bool:
    return importlib.util.find_spec("ethosu") is not None


def place(files: Mapping[str, pathlib.Path]) -> list[Placement]:
    """Compile graphs for each accelerator.

    Args:
        files: graphs by name.

    Raises:
        ConversionError: if Vela fails.
    """
    found = []
    for accelerator in ACCELERATORS:
        for graph, path in files.items():
            with tempfile.TemporaryDirectory() as folder:
                found.append(_place(accelerator, graph, path, pathlib.Path(folder)))
    return found


def _place(accelerator: str, graph: str, path: pathlib.Path, folder: pathlib.Path) -> Placement:
    program = "import sys; from ethosu.vela.vela import main; sys.exit(main())"
    options = ["--accelerator-config", accelerator, "--output-dir", str(folder), "--show-cpu-operations"]
    finished = child_process.run(["-c", program, str(path), *options], text=True, errors="replace")
    summaries = list(folder.glob("*_summary_*.csv"))
    if finished.returncode or not summaries:
        words = (finished.stderr or finished.stdout).strip().splitlines() or ["no reason given"]
        raise ConversionError(f"Vela refused {graph} for {accelerator}: {words[-1][:300]}")
    with summaries[0].open(newline="", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    counts = {kind: re.search(rf"{kind} operators = (\d+)", finished.stdout) for kind in ("CPU", "NPU")}
    on_cpu, on_npu = (int(match[1]) if match else 0 for match in counts.values())
    memories = ("dram", "on_chip_flash", "off_chip_flash")
    return Placement(
        accelerator,
        graph,
        on_npu,
        on_cpu,
        int(float(row["cycles_total"])),
        int(float(row["nn_macs"])),
        1e3 * float(row["inference_time"]),
        float(row["sram_memory_used"]),
        sum(float(row[f"{name}_memory_used"]) for name in memories),
    )
