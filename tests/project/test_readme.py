"""Every snippet and command of the README, and every snippet of the docs, run as written, on small generated data."""

import ast
import os
import pathlib
import random
import re
import shlex
import subprocess
import sys
import tomllib
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement

from tests.support import warm
from tests.support.parts import fast

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]

# Training to the end is the recipes' business: here the commands must work, not learn.
SHORTENED = {
    "keras-attention train --source": "--epochs 2 --vocabulary 60",
    "keras-attention export runs/en-de --precision": "--loss-limit 100",  # so short a training translates at random
}


def name_of(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: pathlib.Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: pathlib.Path) -> list[str]:
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    return [line.partition(" # ")[0].rstrip() for line in lines if line.strip() and not line.startswith("#")]


SNIPPETS = [page for page in PAGES if blocks(page, "python")]
RUNNABLE = [line for line in commands(README) if not line.startswith(("make ", "pip "))]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the text files that the README's commands name."""
    folder = tmp_path_factory.mktemp("readme")
    words = {
        "a": "ein",
        "small": "kleiner",
        "big": "großer",
        "dog": "hund",
        "man": "mann",
        "sleeps": "schläft",
        "runs": "rennt",
    }
    generator = random.Random(7)
    for name, count in (("train", 200), ("val", 20), ("test", 10)):
        pairs = []
        for _ in range(count):
            parts = [generator.choice(group) for group in (["a"], ["small", "big"], ["dog", "man"], ["sleeps", "runs"])]
            pairs.append((" ".join(parts), " ".join(words[word] for word in parts)))
        for index, language in enumerate(("en", "de")):
            text = "".join(f"{pair[index]}\n" for pair in pairs)
            (folder / f"{name}.{language}").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def shims(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """`keras-attention` as the README calls it, without the time that TensorFlow takes to start."""
    return warm.shims(tmp_path_factory.mktemp("bin"))


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNNABLE)
def test_command(workspace: pathlib.Path, shims: pathlib.Path, command: str) -> None:
    for start, more in SHORTENED.items():
        command = f"{command} {more}" if command.startswith(start) else command
    folders = [str(shims), str(pathlib.Path(sys.executable).parent), os.environ["PATH"]]
    variables = {**os.environ, "PATH": os.pathsep.join(folders)}
    run = subprocess.run(
        ["bash", "-c", command], cwd=workspace, env=variables, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, f"{command}\n{run.stdout}\n{run.stderr}"
    assert "Traceback" not in run.stderr
    if "> test.out" in command:
        assert len((workspace / "test.out").read_text(encoding="utf-8").splitlines()) == 10
    if "--output attention.png" in command:
        assert (workspace / "attention.png").read_bytes().startswith(b"\x89PNG")
    if command.startswith("python "):
        assert len(run.stdout.splitlines()) == 10


def test_the_commands_that_install() -> None:
    targets = {line.split()[1] for line in commands(README) if line.startswith("make ")}
    assert targets == {"demo", "test"}
    for target in (*targets, "check", "format", "venv"):
        run = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (line,) = [line for line in commands(README) if line.startswith("pip ")]
    folder = shlex.split(line)[-1]
    assert folder.startswith(".[")
    assert Requirement(project["name"] + folder[1:]).extras <= set(project["optional-dependencies"])


@pytest.mark.parametrize(
    "page", fast(SNIPPETS, ROOT / "docs" / "training.md", ROOT / "docs" / "scores.md"), ids=name_of
)
def test_snippets(page: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), found)
    if page == README:
        check_readme(found, tmp_path)


def check_readme(found: dict[str, Any], folder: pathlib.Path) -> None:
    """What the README's snippets promise: six numbers written backwards, three artefacts each, stock exports too."""
    source, ids = found["source"][:4], np.asarray(found["found"]["ids"])[:, 0, :7]
    np.testing.assert_array_equal(ids[:, :6], source[:, :6][:, ::-1])
    for artefact in ("classifier", "backwards"):
        files = [path.name for path in (folder / "artefacts" / artefact).rglob("*") if path.is_file()]
        for ending in (".pb", ".tflite", ".onnx"):
            assert [name for name in files if name.endswith(ending)], (artefact, ending)
    for name in ("saved_model/saved_model.pb", "classifier.tflite", "classifier.onnx"):
        assert (folder / "stock" / name).stat().st_size > 0


def anchors(page: pathlib.Path) -> set[str]:
    """Anchors of a page's titles, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name_of)
def test_links_lead_somewhere(page: pathlib.Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", text):
        if not link.startswith("http"):
            target = page.parent / link if link else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), (link, anchor)


def test_every_page_is_reached_from_the_readme() -> None:
    seen, waiting = set(), [README]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        links = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text(encoding="utf-8"))
        found = {(page.parent / link).resolve() for link in links if not link.startswith("http")}
        waiting += found - seen
    assert set(PAGES) <= seen


def test_tables_are_put_where_their_page_has_marks() -> None:
    """Every `--into PAGE` of pages and of docstrings names a page with a pair of marks."""
    texts = [page.read_text(encoding="utf-8") for page in [*PAGES, *(ROOT / "benchmarks").glob("*.py")]]
    named = {name for text in texts for name in re.findall(r"--into (docs/[\w/.-]+)", text)}
    assert len(named) > 5
    for name in named:
        page = (ROOT / name).read_text(encoding="utf-8")
        starts = re.findall(r"^<!-- (?!end of )(.*) -->$", page, re.MULTILINE)
        assert starts, name
        assert re.findall(r"^<!-- end of (.*) -->$", page, re.MULTILINE) == starts, name


def test_troubleshooting_quotes_messages_that_exist() -> None:
    """Each quoted message, piece by piece between the names and numbers of a user, is text of the source."""
    texts = []
    for folder in ("keras_attention", "training", "export"):
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            texts += [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    found = [text for text in texts if isinstance(text, str)]
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\*\*`+ ?(.*?) ?`+\*\*$", page, re.MULTILINE)
    assert len(quoted) > 15
    pieces = [piece for message in quoted for piece in re.split("…|: it", message) if len(piece.strip(" .,:()")) > 3]
    assert [piece for piece in pieces if not any(piece in text for text in found)] == []


def test_score_table_is_the_layer_s() -> None:
    from keras_attention.attention.choices import SCORES

    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "scores.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert tuple(rows) == SCORES


def test_continuous_integration_runs_the_readme_s_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "set -euo pipefail" in script
    assert script.index("\nmake check") < script.index("\nmake test")
