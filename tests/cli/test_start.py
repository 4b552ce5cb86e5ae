"""Start and end of the command: modules that it loads, standard error, signals."""

import argparse
import os
import pathlib
import resource
import runpy
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
START = "import sys; sys.path.insert(0, {root!r}); import keras_attention_command as command\n"


def child(code: str, folder: pathlib.Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """A Python process without what pytest has loaded and set."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "COV"))}
    return subprocess.Popen(
        [sys.executable, "-c", START.format(root=str(ROOT)) + code, *arguments],
        cwd=folder,
        env={**variables, **more},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


HELP = """
heavy = ("tensorflow", "keras", "jax", "torch", "numpy", "matplotlib", "onnx")
import contextlib, io
def ask(*arguments):
    sys.argv = ["keras-attention", *arguments]
    try:
        command.main()
    except SystemExit as end:
        return end.code
from keras_attention_command import make_known
make_known()
from keras_attention.cli import app as cli
for name in [None, *(one.__name__ for one in cli.EXAMPLES)]:
    arguments = ["--help"] if name is None else [name, "--help"]
    assert ask(*arguments) == 0, name
assert ask("--version") == 0
assert ask() == 0
print([name for name in heavy if name in sys.modules])
"""


def test_help_and_version_load_no_backend(tmp_path: pathlib.Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with child(HELP, tmp_path) as process:
        out, err = process.communicate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert err == ""
    assert out.splitlines()[-1] == "[]"
    assert out.count("Usage: keras-attention") == 15
    assert "\nkeras-luong " in out
    # All of them together take half a second; TensorFlow alone would take four.
    assert after.ru_utime - before.ru_utime < 2.5


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_the_library_loads(number: signal.Signals, status: int, tmp_path: pathlib.Path) -> None:
    (tmp_path / "keras").mkdir()
    stub = "import time\nprint('loading', flush=True)\ntry: time.sleep(60)\nexcept BaseException: raise ImportError"
    (tmp_path / "keras" / "__init__.py").write_text(stub)
    with child("command.main()", tmp_path, "verify", "nowhere", PYTHONPATH=str(tmp_path)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(number)
        _, err = process.communicate()
    assert process.returncode == status
    assert err.splitlines() == ["interrupted" if number == signal.SIGINT else "terminated"]


RUNNING = """
command.make_known()
from keras_attention.cli import app as cli, process
sys.modules["keras_attention"].__all__ = []  # nothing more to load
import time
class Lost:
    def __del__(self):
        print("running", flush=True)
        time.sleep(60)
def plain():
    print("running", flush=True)
    time.sleep(60)
def wrapped():
    try:
        plain()
    except BaseException:
        raise ImportError("cannot import name 'x'")
def lost():
    one = Lost()
    del one
    time.sleep(60)
def deaf():
    while True:
        try:
            plain()
        except BaseException:
            pass
work = globals()[sys.argv[1]]
sys.argv = ["keras-attention"]
cli.app.command(cls=cli.ResumedCommand, name="work", epilog="")(lambda: work())
sys.argv = ["keras-attention", "work"]
process.run()
"""


@pytest.mark.parametrize(("kind", "signals"), [("plain", 1), ("wrapped", 1), ("lost", 1), ("deaf", 2)])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_a_command_runs(
    kind: str, signals: int, number: signal.Signals, status: int, tmp_path: pathlib.Path
) -> None:
    """Also where Python code hides the exception, or cannot pass it on; the second signal always ends it."""
    with child(RUNNING, tmp_path, kind) as process:
        assert process.stdout is not None
        for _ in range(signals):
            assert process.stdout.readline() == "running\n"
            process.send_signal(number)
        _, err = process.communicate()
    assert process.returncode == status
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 1
    if kind in ("plain", "wrapped"):
        word = "interrupted" if number == signal.SIGINT else "terminated"
        assert err == f"{word}: the same command goes on where it was\n"


LOG = r"""
command.make_known()
import os
from keras_attention.cli.quiet_log import quiet
noise = [b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n",
         b"I0000 00:00:1796080202.255110    1102 port.cc:153] oneDNN custom operations are on.\n",
         b"2026-11-30 22:00:00.000000: W external/local_xla/x.cc:1] cuda\n",
         b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n",
         b"E0000 00:00:1796080205.804684    1102 cuda_platform.cc:52] failed call to cuInit\n"]
with quiet():
    for line in noise:
        os.write(2, line)
    os.write(2, b"F0000 00:00:1796080205.804684    1102 check.cc:1] Check failed\n")
    os.system("echo a child says so >&2")
    print("python says so", file=sys.stderr)
    os.write(2, b"no end of line")
    if sys.argv[1] == "crash":
        os.kill(os.getpid(), 9)
print("after", file=sys.stderr)
os.write(2, noise[1])
"""


def test_logs_are_kept_off_and_the_rest_passes(tmp_path: pathlib.Path) -> None:
    with child(LOG, tmp_path, "whole") as process:
        _, err = process.communicate()
    lines = err.splitlines()
    assert {"python says so", "a child says so", "no end of line"} <= set(lines)
    assert next(line for line in lines if line.startswith(("F0000", "I0000"))).startswith("F0000")
    assert lines[-2:] == [
        "after",
        "I0000 00:00:1796080202.255110    1102 port.cc:153] oneDNN custom operations are on.",
    ]
    assert "cuInit" not in err
    assert "absl" not in err
    assert "XNNPACK" not in err


def test_a_crash_shows_the_log(tmp_path: pathlib.Path) -> None:
    with child(LOG, tmp_path, "crash") as process:
        _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert "failed call to cuInit" in err


def test_a_user_who_wants_the_log_has_it(tmp_path: pathlib.Path) -> None:
    with child(LOG, tmp_path, "whole", TF_CPP_MIN_LOG_LEVEL="0") as process:
        _, err = process.communicate()
    assert "failed call to cuInit" in err


def test_a_backend_that_is_not_there(tmp_path: pathlib.Path) -> None:
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "__init__.py").write_text("raise ModuleNotFoundError('no', name='torch')")
    with child("command.main()", tmp_path, "verify", "nowhere", PYTHONPATH=str(tmp_path)) as process:
        _, err = process.communicate()
    assert process.returncode == 1
    assert err.startswith("error: Keras needs torch, which is not installed. Run: pip install ")
    assert len(err.splitlines()) == 1


def test_the_runtime_ends_with_a_line_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", interrupted)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "export" / "runtime"), run_name="__main__")
    assert (end.value.code, capsys.readouterr().err) == (130, "interrupted\n")


def test_shell_completion_answers(tmp_path: pathlib.Path) -> None:
    asked = {"_KERAS_ATTENTION_COMPLETE": "complete_bash", "COMP_WORDS": "keras-attention tra", "COMP_CWORD": "1"}
    with child("command.main()", tmp_path, **asked) as process:
        out, err = process.communicate()
    assert (out.split(), err) == (["train", "translate"], "")


@pytest.mark.slow
def test_a_real_training_ends_with_one_line(tmp_path: pathlib.Path) -> None:
    """Nor does TensorFlow's log come before it, or half a file stay behind."""
    command = ["train", "--recipe", "dates", "--output", "run"]
    with child("command.main()", tmp_path, *command, KERAS_BACKEND="tensorflow") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("training: ")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    assert (process.returncode, err) == (143, "terminated: the same command goes on where it was\n")
    assert not list((tmp_path / "run").rglob(".partial-*"))


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
def test_standard_output_that_is_closed(tmp_path: pathlib.Path, closed: str) -> None:
    """One line, and no file takes its number."""
    code = START.format(root=str(ROOT)) + "sys.argv = ['keras-attention', '--version']; command.main()"
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output is closed") == (closed == ">&-")
    assert len(done.stderr.splitlines()) == (closed == ">&-")


@pytest.mark.slow
def test_standard_input_that_is_closed(tmp_path: pathlib.Path) -> None:
    code = START.format(root=str(ROOT)) + "sys.argv = ['keras-attention', 'translate', 'run']; command.main()"
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" <&-', sys.executable, code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"},
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: Standard input is closed")
