"""Mutation testing: plant one bug at a time and see which tests notice it.

    make mutants                        # every planted bug, at most an hour; goes on where it stopped
    python -m tests.mutants --only beam # those whose file, name or area contains "beam"
    python -m tests.mutants --list

`tests/planted_bugs/*.toml` holds the bugs as data: `file`, `name`, `before`, `after`, the `tests` that should fail, and
for a change that no test can notice `equivalent`, the reason. `before` must occur exactly once in `file`.

Each bug meets, until a test fails: its named tests of the fast part, the fast tests of files that import the changed
module, the named slow tests, the slow tests of those files, the whole fast part, and with `--everything` the whole slow
part. Tests run in copies of the tree, in processes forked from one that has loaded TensorFlow but nothing of this
project.

A mutation tool that makes its changes itself (mutmut, cosmic-ray) would need some ten thousand runs here, of seconds to
minutes each.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUGS = ROOT / "tests" / "planted_bugs"
RESULTS = ROOT / ".cache" / "mutants.jsonl"
PACKAGES = ("keras_attention", "training", "export")
WARM = (
    *("tensorflow", "keras", "numpy", "pytest", "sentencepiece", "sacrebleu", "matplotlib.pyplot", "rich"),
    *("typer", "onnx", "tf2onnx", "onnxruntime", "tensorflow_text", "ai_edge_litert.interpreter"),
)
STAGE_SECONDS = 900
"""A stage that takes longer hangs: the bug made something endless, which counts as noticed."""
PASSED, FAILED, BROKEN, USAGE, NOTHING = 0, 1, 2, 4, 5
"""Exit statuses of pytest."""


@dataclasses.dataclass(frozen=True)
class Bug:
    """One planted bug: the one place of `before` in `file` becomes `after`."""

    area: str
    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]
    equivalent: str = ""

    def planted(self, source: str) -> str:
        """The source with the bug.

        Raises:
            ValueError: if `before` is not there exactly once, or the result is no Python.
        """
        if source.count(self.before) != 1:
            raise ValueError(
                f"{self.file}: {self.name!r}. Expected: `before` once. Received: {source.count(self.before)}"
            )
        changed = source.replace(self.before, self.after)
        if self.file.endswith(".py"):
            ast.parse(changed)
        return changed

    def key(self) -> str:
        """A digest of all that the result depends on: the bug, the file, the named tests and their files."""
        files = {self.file, *(test.partition("::")[0] for test in self.tests)}
        texts = [json.dumps(dataclasses.asdict(self))]
        texts += [(ROOT / name).read_text(encoding="utf-8") for name in sorted(files) if (ROOT / name).exists()]
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def read_bugs() -> list[Bug]:
    bugs = []
    for path in sorted(BUGS.glob("*.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["bug"]:
            bugs.append(Bug(area=path.stem, **entry | {"tests": tuple(entry["tests"])}))
    return bugs


def importing_files(changed: str) -> list[str]:
    """Test files that import the module of a source file, directly or through another file of `tests`."""
    module = changed.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    module = module if module.startswith("keras_attention") else f"keras_attention.{module}"
    package, _, leaf = module.rpartition(".")

    def imports(path: pathlib.Path) -> set[str]:
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = "tests" + (f".{node.module}" if node.module else "") if node.level else str(node.module)
                found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        return found

    files = {path: imports(path) for path in sorted((ROOT / "tests").rglob("*.py"))}
    wanted = {module, f"{package}.{leaf}"}
    helpers = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts) for path, names in files.items() if names & wanted
    }
    tests = [path for path, names in files.items() if path.name.startswith("test_") and names & (wanted | helpers)]
    return [path.relative_to(ROOT).as_posix() for path in tests]


def stages(bug: Bug, extent: str) -> Iterator[tuple[str, list[str]]]:
    """Which tests the bug meets, stage by stage: where a failure counts (`fast` or `full`), and pytest's arguments."""
    importing = importing_files(bug.file) if extent != "named" else []
    fast, slow = ["-m", "not slow"], ["-m", "slow"]
    if bug.tests:
        yield "fast", [*fast, *bug.tests]
    if importing:
        yield "fast", [*fast, *importing]
    if bug.tests:
        yield "full", [*slow, *bug.tests]
    if importing:
        yield "full", [*slow, *importing]
    if extent != "named":
        yield "fast", [*fast, "tests"]
    if extent == "everything":
        yield "full", [*slow, "tests"]


def run_tests(tree: pathlib.Path, arguments: Sequence[str], log: pathlib.Path) -> int | None:
    """pytest's exit status in a fork of this process, in `tree`; None if it had to be ended."""
    child = os.fork()
    if child == 0:
        os.setsid()
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(tree)
        os.environ["PYTHONPATH"] = str(tree)
        sys.path[0] = str(tree)
        for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "keras_attention")]:
            del sys.modules[name]
        import pytest

        status = 3
        try:
            status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *arguments]))
        finally:
            sys.stdout.flush()
            os._exit(status)
    deadline = time.monotonic() + STAGE_SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def copy_tree(folder: pathlib.Path) -> None:
    """A copy of the tracked and new files, in which the folders are found under their installed names."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for name in ("training", "export"):
        (folder / "keras_attention" / name).symlink_to(folder / name)


def meet(bug: Bug, tree: pathlib.Path, extent: str) -> dict[str, Any]:
    """Plant a bug in a copy of the tree and run its stages; what noticed it, if anything."""
    source = (ROOT / bug.file).read_text(encoding="utf-8")
    path, log, start = tree / bug.file, tree / "pytest.log", time.monotonic()
    result: dict[str, Any] = {
        "key": bug.key(),
        "area": bug.area,
        "name": bug.name,
        "file": bug.file,
        "caught": "nothing",
    }
    path.write_text(bug.planted(source), encoding="utf-8")
    try:
        for part, arguments in stages(bug, extent):
            status = run_tests(tree, arguments, log)
            if status in (PASSED, NOTHING):
                continue
            result["caught"], result["by"] = part, first_failure(log)
            if status in (BROKEN, USAGE):
                result["caught"], result["by"] = "error", log.read_text(encoding="utf-8", errors="replace")[-500:]
            break
    finally:
        path.write_text(source, encoding="utf-8")
    return result | {"seconds": round(time.monotonic() - start, 1)}


def first_failure(log: pathlib.Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.split()[1] for line in lines if line.startswith(("FAILED ", "ERROR "))), "crash or no end")


def work(bugs: Any, results: Any, extent: str, deadline: float) -> None:
    """A worker: bugs from a queue, in a tree of its own."""
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(pathlib.Path(folder))
        while time.monotonic() < deadline and (bug := bugs.get()) is not None:
            results.put(meet(bug, pathlib.Path(folder), extent))
    results.put(None)


def known_results() -> dict[str, dict[str, Any]]:
    with contextlib.suppress(FileNotFoundError):
        rows = map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines())
        return {row["key"]: row for row in rows if row["caught"] != "error"}
    return {}


def run(bugs: Sequence[Bug], workers: int, extent: str, minutes: float) -> dict[str, dict[str, Any]]:
    """Meet all bugs that have no result yet, several at once; results are kept as they come."""
    found = known_results() if extent == "usual" else {}
    pending = [bug for bug in bugs if not bug.equivalent and bug.key() not in found]
    if not pending:
        return found
    for name in WARM:
        __import__(name)
    context = multiprocessing.get_context("fork")
    waiting, results = context.Queue(), context.Queue()
    for bug in [*pending, *[None] * workers]:
        waiting.put(bug)
    deadline = time.monotonic() + 60 * minutes
    for _ in range(workers):
        context.Process(target=work, args=(waiting, results, extent, deadline)).start()
    RESULTS.parent.mkdir(exist_ok=True)
    running = workers
    with RESULTS.open("a", encoding="utf-8") as file:
        while running:
            if (row := results.get()) is None:
                running -= 1
                continue
            found[row["key"]] = row
            if row["caught"] in ("fast", "full") or extent != "named":
                file.write(json.dumps(row) + "\n")
                file.flush()
            print(
                f"{row['caught']:8}{row['seconds']:7.1f} s  {row['file']}: {row['name']}  [{row.get('by', '')}]",
                flush=True,
            )
    while not waiting.empty():  # the queue's thread would wait for a reader
        waiting.get()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Plant bugs and see which tests notice them.")
    parser.add_argument("--only", default="", help="bugs whose area, file or name contains this")
    parser.add_argument("--list", action="store_true", help="name the bugs and end")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no bug after this time")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--named", action="store_true", help="meet the named tests alone, and meet all bugs anew")
    extent.add_argument(
        "--everything", action="store_true", help="survivors meet the slow part too; meet all bugs anew"
    )
    options = parser.parse_args(arguments)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("MPLBACKEND", "agg")
    bugs = [bug for bug in read_bugs() if any(options.only in text for text in (bug.area, bug.file, bug.name))]
    for bug in bugs:
        bug.planted((ROOT / bug.file).read_text(encoding="utf-8"))
    if options.list:
        for bug in bugs:
            print(f"{bug.area}: {bug.file}: {bug.name}" + (" (equivalent)" if bug.equivalent else ""))
        return 0
    extent_of = "named" if options.named else "everything" if options.everything else "usual"
    found = run(bugs, options.workers, extent_of, options.minutes)
    rows = [found[bug.key()] for bug in bugs if bug.key() in found]
    count = {part: sum(row["caught"] == part for row in rows) for part in ("fast", "full", "nothing", "error")}
    same, missing = (
        sum(bool(bug.equivalent) for bug in bugs),
        sum(bug.key() not in found for bug in bugs if not bug.equivalent),
    )
    for row in rows:
        if row["caught"] in ("nothing", "error"):
            print(f"{row['caught']}: {row['file']}: {row['name']} {row.get('by', '')}")
    print(
        f"{len(bugs)} planted, {same} equivalent, {missing} not met yet: {count['fast']} caught by the fast part, "
        f"{count['full']} by the slow part alone, {count['nothing']} by nothing, {count['error']} broken"
    )
    return 0 if rows and not (missing or count["nothing"] or count["error"]) else 1


if __name__ == "__main__":
    sys.exit(main())
