"""Trainings and exports killed at random moments, and what is left of them."""

from __future__ import annotations

import csv
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LONGEST = 180.0
COMMAND = str(pathlib.Path(sys.executable).with_name("keras-attention"))


def kills(
    folder: pathlib.Path, train: Sequence[str], export: Sequence[str], count: int, seed: int
) -> Iterator[tuple[str, str]]:
    """Kill two trainings for each export; yields what was killed, and what was wrong afterwards (empty: nothing).

    Args:
        folder: where the commands are run; it holds `whole`, an uninterrupted run, and `artefact`, an export of it.
        train, export: arguments of the commands, `--output` aside.
        count: kills.
        seed: of the moments and signals.
    """
    draw = random.Random(seed)
    trainings = _Chain(folder, "train", train, lambda output: _same_run(folder / "whole", output))
    exports = _Chain(folder, "export", [*export, "--overwrite"], lambda output: _works(output, folder))
    shutil.copytree(folder / "artefact", exports.output)
    for number in range(count):
        chain = exports if number % 3 == 2 else trainings
        yield from chain.kill(draw)
    for chain in (trainings, exports):
        yield from chain.finish()


class _Chain:
    """One command started again after each kill, on the same output, until it comes to its end."""

    def __init__(self, folder: pathlib.Path, name: str, arguments: Sequence[str], check: Callable[[pathlib.Path], str]):
        self.folder, self.name, self.check = folder, name, check
        self.output = folder / f"killed_{name}"
        self.arguments = [COMMAND, name, *arguments, f"--output={self.output.name}"]
        self.seconds = 0.0
        self.killed = 0

    def kill(self, draw: random.Random) -> Iterator[tuple[str, str]]:
        """Start it and kill it; one that came to its end first is looked at, and the chain begins anew."""
        if not self.seconds:
            yield from self.finish()
        while True:
            delay, sent = draw.uniform(0.05, 1.0) * self.seconds, draw.choice(SIGNALS)
            process = self._start()
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                break
            yield from self._ended(process)
        process.send_signal(sent)
        what = f"{self.name} killed by {sent.name} after {delay:.1f} s"
        err = _last_words(process, LONGEST)
        self.killed += err is not None
        yield what, "hang" if err is None else self._fault_after_kill(err)

    def finish(self) -> Iterator[tuple[str, str]]:
        """Run it to its end."""
        started = time.monotonic()
        process = self._start()
        yield from self._ended(process, LONGEST * 2)
        self.seconds = self.seconds or time.monotonic() - started

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.arguments, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip

    def _ended(self, process: subprocess.Popen[str], longest: float = LONGEST) -> Iterator[tuple[str, str]]:
        what = f"{self.name} run to its end after {self.killed} kills"
        err = _last_words(process, longest)
        if err is None:
            yield what, "hang"
            return
        fault = f"status {process.returncode}: {err[-300:]}" if process.returncode else self.check(self.output)
        yield what, fault or self._leftovers()
        self.killed = 0
        if self.name == "train":
            shutil.rmtree(self.output, ignore_errors=True)

    def _fault_after_kill(self, err: str) -> str:
        if "Traceback (most recent call last)" in err:
            return "traceback"
        time.sleep(1.5)  # for children that watch their parent
        living = _processes(self.folder, self.output.name)
        if living:
            return f"lives on: {living[0]}"
        if self.name == "export":
            return self.check(self.output)
        return ""

    def _leftovers(self) -> str:
        left = [path.name for path in self.folder.glob(f".{self.output.name}*")]
        return f"left over: {left[0]}" if left else ""


def _last_words(process: subprocess.Popen[str], longest: float) -> str | None:
    """Standard error of a process that ends; None for one that had to be killed because it does not."""
    try:
        return process.communicate(timeout=longest)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        return None


def _processes(folder: pathlib.Path, name: str) -> list[str]:
    """Command lines of living processes that were started in the folder and name the output."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            here = path.with_name("cwd").samefile(folder)
        except OSError:
            continue
        if name in line and here:
            found.append(line[:200])
    return found


def _same_run(whole: pathlib.Path, output: pathlib.Path) -> str:
    """The weights and the history of an uninterrupted training, the seconds aside."""
    rows = []
    for path in (whole, output):
        with (path / "history.csv").open(newline="", encoding="utf-8") as file:
            rows.append([{name: row[name] for name in row if name != "seconds"} for row in csv.DictReader(file)])
    if rows[0] != rows[1]:
        return f"another history: {rows[1]} for {rows[0]}"
    weights = []
    for path in (whole, output):
        with zipfile.ZipFile(path / "model.keras") as archive:
            weights.append(archive.read("model.weights.h5"))
    return "" if weights[0] == weights[1] else "other weights"


def _works(output: pathlib.Path, folder: pathlib.Path) -> str:
    """An empty text if the artefact, the former or the new one, translates as the first export did."""
    found = []
    for path in (folder / "artefact", output):
        done = subprocess.run(
            [sys.executable, str(path / "runtime")], input="no robot\n", capture_output=True, text=True, check=False
        )
        if done.returncode:
            return f"the artefact is lost: {done.stderr.strip()}"
        found.append(done.stdout)
    return "" if found[0] == found[1] else f"another translation: {found[1]!r} for {found[0]!r}"
