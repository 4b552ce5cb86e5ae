"""Children of an export end with it, however it ends, and leave nothing."""

import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from keras_attention.export.formats import child_process
from keras_attention.export.formats import converter as conversion
from tests.export.test_export_artefact import make_run

PARENT = """
import importlib.util, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from what it starts with "&"
spec = importlib.util.spec_from_file_location("child_process", sys.argv[1])
child_process = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child_process)
child_process.run(["-c", "import os, time; print(os.getpid(), file=open(1001, 'w'), flush=True); time.sleep(600)"],
                  pass_fds=[1001])
"""
SECONDS = 20.0


def ended(process: int) -> bool:
    """Whether a process ends within some seconds."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            state = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_child_ends_with_its_parent(number: signal.Signals) -> None:
    read, write = os.pipe()
    os.dup2(write, 1001, inheritable=True)
    os.close(write)
    command = [sys.executable, "-c", PARENT, child_process.__file__]
    with subprocess.Popen(command, pass_fds=[1001], stderr=subprocess.DEVNULL) as parent:
        os.close(1001)
        with os.fdopen(read) as told:
            child = int(told.readline())
        assert pathlib.Path(f"/proc/{child}").exists()
        parent.send_signal(number)
        parent.wait()
        assert ended(child)


def test_a_child_whose_parent_is_gone_does_nothing(tmp_path: pathlib.Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    program = [sys.executable, "-P", child_process.__file__, str(gone.pid), "-c", "print('ran')"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")


def test_what_a_child_is_given_and_gives(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys; print(sys.argv, sys.stdin.read(), __name__)")
    done = child_process.run([str(script), "-x"], input="in", text=True)
    assert (done.returncode, done.stdout) == (0, f"{[str(script), '-x']} in __main__\n")
    done = child_process.run(["-c", "import sys; print(sys.argv); sys.exit(3)", "a"], text=True)
    assert (done.returncode, done.stdout) == (3, "['-c', 'a']\n")
    done = child_process.run(["-m", "json.tool", "--help"], text=True)
    assert done.stdout.startswith("usage: ")


def test_an_interrupt_ends_the_converters(tmp_path: pathlib.Path) -> None:
    """The threads that wait for them would wait on."""
    script = tmp_path / "slow.py"
    script.write_text("import sys, time; open(sys.argv[1], 'w').close(); time.sleep(600)")
    began = time.monotonic()

    def convert() -> None:
        with conversion.background() as start:
            start(conversion.run_converter, "ONNX", str(script), [str(tmp_path / "on")], tmp_path)
            while not (tmp_path / "on").exists():
                time.sleep(0.02)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert()
    assert time.monotonic() - began < 60.5  # the script sleeps ten times as long


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_killed_command(tmp_path: pathlib.Path, number: signal.Signals) -> None:
    """No converter lives on; what SIGKILL leaves goes with the next export."""
    run, output = make_run(tmp_path / "run").path, tmp_path / "artefact"
    command: list[Any] = [pathlib.Path(sys.executable).with_name("keras-attention"), "export", run, "--output", output]
    with subprocess.Popen([*command, "--to", "onnx", "--max-length", "9"], stderr=subprocess.DEVNULL) as process:
        children = pathlib.Path(f"/proc/{process.pid}/task")
        converters: list[int] = []
        while not converters and process.poll() is None:
            told = [path.read_text() for path in children.glob("*/children")]
            converters = [int(one) for text in told for one in text.split()]
            time.sleep(0.05)
        assert converters
        process.send_signal(number)
        process.wait()
    assert process.returncode in (-number, 128 + number, 1)
    assert process.returncode != 0
    assert all(ended(one) for one in converters)
    left = {path.name for path in tmp_path.iterdir()} - {"run"}
    assert left == ({".artefact.export"} if number == signal.SIGKILL else set())
    if number == signal.SIGKILL:
        subprocess.run([*command, "--to", "tflite", "--max-length", "9"], check=True, capture_output=True)
        assert {path.name for path in tmp_path.iterdir()} == {"run", "artefact"}
