"""Report of an export: parity, content, size and latency of each format."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_attention.models.encoder_decoder import EncoderDecoder

from ..formats.table import by_name
from ..parity.parity import Parity
from ..parity.tolerances import NEAR_TIE
from ..plan import Plan
from .benchmark import Latency
from .cost import of_net

SHOWN_LENGTH = 20
"""Number of tokens of the sentence in MAC counts."""
SHOWN_WEIGHTS = 20


@dataclasses.dataclass(frozen=True)
class Report:
    """Parity and latency of every format, and all warnings."""

    kind: str
    precision: str
    versions: dict[str, str]
    parities: list[Parity]
    latencies: list[Latency]
    macs: dict[str, int] = dataclasses.field(default_factory=dict)
    """Multiply-accumulates of a translator, by component; see `estimate`."""
    weights: dict[str, int] = dataclasses.field(default_factory=dict)
    """Bytes of each of the model's weights in float32, largest first."""

    @property
    def warnings(self) -> list[str]:
        return [warning for parity in self.parities for warning in parity.warnings]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"warnings": self.warnings}


def build(manifest: Mapping[str, Any], parities: Sequence[Parity], latencies: Sequence[Latency], plan: Plan) -> Report:
    """Return the report of a verified artefact."""
    macs = {}
    if isinstance(plan.net, EncoderDecoder):
        settings = plan.settings
        # Two beams, each of whose hypotheses the other direction scores.
        hypotheses = settings.beam_size * (4 if settings.method == "agreement" else 1)
        costs = of_net(plan.net, SHOWN_LENGTH, SHOWN_LENGTH, hypotheses)
        macs = {
            "a source token": costs.encoder_macs,
            f"a step of one hypothesis, {SHOWN_LENGTH} source tokens": costs.step_macs,
            f"a sentence, {SHOWN_LENGTH} tokens on each side": costs.sentence_macs,
        }
    sizes = {weight.path: 4 * int(np.prod(weight.shape)) for weight in plan.model.weights}
    return Report(
        manifest["kind"],
        manifest["precision"],
        dict(manifest["versions"]),
        list(parities),
        list(latencies),
        macs,
        dict(sorted(sizes.items(), key=lambda item: -item[1])),
    )


def write(report: Report, directory: pathlib.Path) -> None:
    """Write `report.json` and `report.md`."""
    text = json.dumps(report.to_dict(), indent=1, ensure_ascii=False)
    (directory / "report.json").write_text(text + "\n", encoding="utf-8")
    (directory / "report.md").write_text(markdown(report), encoding="utf-8")


def header(report: Report) -> list[str]:
    """Return the columns of `table`."""
    tokens = ["same tokens", "near-ties"] if report.kind == "translator" else ["cases"]
    return ["format", "size", *tokens, "largest difference", "median ms", "p90 ms", "rows/s", "operators"]


def table(report: Report) -> list[list[str]]:
    """Return one row of text for each format."""
    rows = []
    for parity, latency in zip(report.parities, report.latencies, strict=True):
        if report.kind == "translator":
            # At lower precision the best translations count, as in its loss; in float32 all hypotheses.
            same = parity.loss.same if parity.loss else parity.identical
            tokens = [f"{same} of {parity.sentences}", str(parity.near_ties)]
        else:
            tokens = [str(parity.cases)]
        rows.append(
            [
                parity.format,
                readable_size(latency.bytes),
                *tokens,
                f"{max(parity.largest_difference.values(), default=0.0):.1e}",
                f"{latency.median_ms:.2f}",
                f"{latency.p90_ms:.2f}",
                f"{latency.per_second:.0f} (batch {latency.batch_size})",
                by_name(parity.format).summary(parity.operators),
            ]
        )
    return rows


def readable_size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def markdown(report: Report) -> str:
    """Return the report as Markdown."""
    lines = ["# Export report", "", f"Precision: {report.precision}.", ""]
    lines += ["| " + " | ".join(header(report)) + " |", "|" + "---|" * len(header(report))]
    lines += ["| " + " | ".join(row) + " |" for row in table(report)]
    lines += [""]
    if report.kind == "translator":
        lines += [
            "Every sentence was searched by Keras and by each artefact. A near-tie is a sentence whose search came to "
            f"a margin below {NEAR_TIE:g} and whose tokens differ; "
            + (
                "any other difference would have failed the export."
                if report.precision == "float32"
                else "with lower precision others may differ too."
            ),
            "",
        ]
        losses = [f"- {parity.format}: {parity.loss}." for parity in report.parities if parity.loss]
        if losses:
            lines += [f"What {report.precision} costs, on the best translation of each sentence:", "", *losses, ""]
        for parity in report.parities:
            lines += [
                f"- {parity.format}: search on the host over `encode` and `decode_step`: "
                f"{parity.host_loop_identical} of {parity.host_loop_sentences} sentences with the same tokens"
                + (
                    f"; `translate_text`: {parity.texts_identical} of {parity.texts} with the same text"
                    if parity.texts
                    else ""
                )
                + "."
            ]
        lines += [""]
    if report.warnings:
        lines += ["## Warnings", "", *(f"- {warning}" for warning in report.warnings), ""]
    lines += ["## Largest differences from Keras", "", "| format | output | difference |", "|---|---|---|"]
    for parity in report.parities:
        lines += [f"| {parity.format} | {name} | {value:.2e} |" for name, value in parity.largest_difference.items()]
    lines += ["", "## Operators", ""]
    for parity in report.parities:
        counted = by_name(parity.format).operator_counts(parity.operators)
        lines += [f"- {title}: {count_list(counts)}" for title, counts in counted.items()]
    for parity in report.parities:
        lines += device_lines(parity)
    lines += cost_lines(report)
    lines += ["", "## Made with", "", ", ".join(f"{name} {version}" for name, version in report.versions.items()), ""]
    return "\n".join(lines)


def cost_lines(report: Report) -> list[str]:
    """Return lines on multiply-accumulates, memory, and bytes by tensor."""
    lines = []
    if report.macs:
        lines += ["", "## Multiply-accumulates", "", *(f"- {what}: {count:,}" for what, count in report.macs.items())]
    peaks = [one for one in report.latencies if one.peak_bytes is not None]
    if peaks:
        lines += ["", "## Peak memory", "", "Resident, of a Python process that opens the files and runs one row:", ""]
        lines += [f"- {one.runtime}: {readable_size(one.peak_bytes or 0)}" for one in peaks]
    lines += ["", "## Weights", "", "In float32, largest first:", "", "| weight | bytes |", "|---|---|"]
    shown = list(report.weights.items())
    lines += [f"| {path} | {count:,} |" for path, count in shown[:SHOWN_WEIGHTS]]
    rest = sum(count for _, count in shown[SHOWN_WEIGHTS:])
    return lines + ([f"| {len(shown) - SHOWN_WEIGHTS} more | {rest:,} |"] if rest else [])


def placed(parity: Parity) -> list[str]:
    """Return a line for each accelerator that graphs were compiled for, and one for TensorFlow Lite Micro."""
    lines = []
    for accelerator in dict.fromkeys(one.accelerator for one in parity.placements):
        mine = [one for one in parity.placements if one.accelerator == accelerator]
        share = 100.0 * sum(one.on_npu for one in mine) / sum(one.on_npu + one.on_cpu for one in mine)
        times = ", ".join(f"{one.graph} {one.milliseconds:.2f} ms" for one in mine)
        lines.append(f"{accelerator}: {share:.0f} % of operators placed; {times}")
    if parity.micro:
        arenas = ", ".join(f"{name} {one.arena:,}" for name, one in parity.micro.items())
        lines.append(f"TensorFlow Lite Micro, bytes of arena: {arenas}")
    return lines


def device_lines(parity: Parity) -> list[str]:
    """Return results of Vela and TensorFlow Lite Micro for the graphs of the NPU format."""
    lines: list[str] = []
    if parity.placements:
        lines += ["", "## On the NPU", "", "Estimates of Vela, one call of each graph:", ""]
        lines += ["| accelerator | graph | operators on the NPU | MACs | cycles | ms | SRAM KiB | other memory KiB |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for one in parity.placements:
            placed = f"{one.on_npu} of {one.on_npu + one.on_cpu} ({one.share:.0f} %)"
            lines += [
                f"| {one.accelerator} | {one.graph} | {placed} | {one.macs:,} | {one.cycles:,} "
                f"| {one.milliseconds:.3f} | {one.sram:.1f} | {one.other:.1f} |"
            ]
    if parity.micro:
        lines += ["", "## In TensorFlow Lite Micro", "", "| graph | arena, bytes | steps of int8 beside LiteRT |"]
        lines += ["|---|---|---|", *(f"| {name} | {one.arena:,} | {one.steps} |" for name, one in parity.micro.items())]
    return lines


def count_list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
