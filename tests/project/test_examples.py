"""Every example in a docstring, and every script under examples/, runs."""

import doctest
import importlib
import pathlib
import runpy

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = {
    "keras_attention": "keras_attention",
    "keras_attention.training": "training",
    "keras_attention.export": "export",
}
MODULES = sorted(
    ".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts]).removesuffix(".__init__")
    for package, folder in FOLDERS.items()
    for path in (ROOT / folder).rglob("*.py")
)
ONCE = {
    name: pytest.mark.once(reason="export runs on TensorFlow")
    for name in MODULES
    if name.startswith("keras_attention.export")
}
SHARED = ("tables", "fault_children", "fault_inputs", "fault_kills")  # no commands of their own
SCRIPTS = sorted(
    {*(ROOT / "examples").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")}
    - {ROOT / "benchmarks" / f"{name}.py" for name in SHARED}
)


@pytest.mark.parametrize("name", [pytest.param(name, marks=ONCE.get(name, ())) for name in MODULES])
def test_docstring_examples(name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


@pytest.mark.once(reason="no backend computes anything for `--help`")
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_explain_themselves(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each opens with its command, and `--help` answers."""
    assert f"python {path.relative_to(ROOT).as_posix()}" in path.read_text(encoding="utf-8")
    monkeypatch.setattr("sys.argv", [str(path), "--help"])
    monkeypatch.syspath_prepend(str(path.parent))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(path), run_name="__main__")
    assert not end.value.code
    assert "usage: " in capsys.readouterr().out
