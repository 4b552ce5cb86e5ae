"""Kills, malformed files and bad options: is anything lost, silent or incomprehensible?

    python benchmarks/faults.py --kills 100 --inputs 1000 --workers 2

Two small models are trained and exported by the installed command. Trainings and exports are killed at random moments
and started again: the run must end as an uninterrupted one, a former artefact must go on translating, no process and no
folder may stay. Then commands read files that are cut, edited, exchanged or of another kind, and get numbers that make
no sense. Each must end with status 0 and the output of pristine files, or with a message and another status: a
traceback, a hang (a minute), a crash, 6 GB of memory, another output or no message is a fault. Files of an artefact
are edited without making their checksums anew. Linux.
"""

from __future__ import annotations

import argparse
import collections
import inspect
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import typing
from typing import Any

import fault_children
import fault_inputs
import fault_kills

WORDS = {
    *(
        ("the", "la"),
        ("no", "neniu"),
        ("each", "ĉiu"),
        ("old", "olda"),
        ("blue", "blua"),
        ("cat", "kato"),
        ("dog", "hundo"),
    ),
    *(
        ("robot", "roboto"),
        ("sees", "vidas"),
        ("wants", "volas"),
        ("finds", "trovas"),
        ("it", "ĝin"),
        ("a bird", "birdon"),
    ),
    ("42", "42"),
}


def write_text(folder: pathlib.Path) -> None:
    """Sentences of a small language, to train on and to test with."""
    draw, words = random.Random(5), sorted(WORDS)
    rows = [[draw.choice(words) for _ in range(draw.randint(2, 6))] for _ in range(330)]
    for number, name in enumerate(("source", "target")):
        lines = [" ".join(word[number] for word in row) + ".\n" for row in rows]
        (folder / f"train.{name}").write_text("".join(lines[:300]), encoding="utf-8")
        (folder / f"test.{name}").write_text("".join(lines[300:305]), encoding="utf-8")


def command(folder: pathlib.Path, *arguments: str) -> None:
    done = subprocess.run([fault_kills.COMMAND, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: keras-attention {' '.join(arguments)}:\n{done.stderr[-2000:]}")


def prepare(folder: pathlib.Path) -> None:
    """Pristine runs and artefacts, where they are not there."""
    if (folder / "npu").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder)
    command(folder, "train", *fault_inputs.LEARN, "--output=run")
    command(folder, "train", *fault_inputs.LEARN, "--tokenizer=char", "--output=other")
    command(folder, "export", "run", "--to=tflite", "--to=onnx", "--output=artefact")
    command(folder, "export", "other", "--to=npu", "--calibration=train.source", "--output=npu")


def numeric_options(artefact: pathlib.Path) -> dict[str, list[tuple[str, str]]]:
    """Name and flag of each option that takes a number, for each command and the artefact's runtime."""
    import typer.main

    from keras_attention.cli import app as cli

    found = {}
    for name, command in typer.main.get_command(cli.app).commands.items():  # type: ignore[attr-defined]
        flags = {one.name: one.opts[0] for one in command.params}
        parameters = inspect.signature(command.callback, eval_str=True).parameters
        found[name] = [(one, flags[one]) for one, given in parameters.items() if _is_number(given.annotation)]
    found = {name: options for name, options in found.items() if options and name in fault_inputs.BASES}
    # In a process of its own: children that are forked from this one must not find a runtime loaded.
    line = [sys.executable, str(artefact / "runtime"), "--help"]
    written = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    flags = re.findall(r"(--[a-z-]+) [A-Z_]+", written)
    found["runtime"] = [(flag, flag) for flag in dict.fromkeys(flags) if flag not in ("--artefact", "--alignments")]
    return found


def _is_number(hint: Any) -> bool:
    """Whether a parameter takes an int or a float, or may be left out."""
    plain = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
    return bool({int, float} & {plain, *typing.get_args(plain)})


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Kills, malformed files and bad options.")
    for name, value in (("kills", 100), ("inputs", 1000), ("workers", 2), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--models", type=pathlib.Path, help="folder of the small models; made where it is not there")
    parser.add_argument("--show", action="store_true", help="print each outcome, not the faults alone")
    options = parser.parse_args(arguments)
    tried: collections.Counter[str] = collections.Counter()
    faults: collections.Counter[str] = collections.Counter()

    def count(kind: str, what: str, fault: str) -> None:
        tried[kind] += 1
        faults[kind] += bool(fault)
        if fault or options.show:
            print(f"{'FAULT' if fault else 'ok'} {kind}: {what}: {fault}", flush=True)

    with tempfile.TemporaryDirectory(prefix="faults") as work:
        pristine = pathlib.Path(work) / "pristine"
        prepare(options.models or pristine)
        if options.models:
            shutil.copytree(options.models, pristine)
        if options.inputs:
            fault_children.import_everything()
            rights = [fault_inputs.Case("right", name, *given) for name, given in fault_inputs.COMMANDS.items()]
            found = {outcome.case.what: outcome for outcome in fault_children.run(rights, pristine, options.workers)}
            broken = [outcome for outcome in found.values() if outcome.status]
            if broken:
                raise SystemExit(f"error: {broken[0].case.what} fails on pristine files:\n{broken[0].err[-2000:]}")
            right = {name: outcome.out for name, outcome in found.items()}
            given = fault_inputs.cases(pristine, numeric_options(pristine / "artefact"), options.inputs, options.seed)
            for outcome in fault_children.run(given, pristine, options.workers):
                count(outcome.case.kind.partition(":")[0], outcome.case.what, outcome.fault(right))
        if options.kills:
            (pristine / "run").rename(pristine / "whole")
            export = ["whole", "--to=tflite"]
            for what, fault in fault_kills.kills(pristine, fault_inputs.LEARN, export, options.kills, options.seed):
                kind = "killed" if " killed by " in what else "went on after kills"
                count(f"{what.partition(' ')[0]}, {kind}", what, fault)
    print(f"{'':32}{'tried':>8}{'survived':>10}{'failed':>8}")
    for kind in tried:
        print(f"{kind:32}{tried[kind]:>8}{tried[kind] - faults[kind]:>10}{faults[kind]:>8}")
    return 1 if faults.total() else 0


if __name__ == "__main__":
    sys.exit(main())
