"""Malformed files of every kind that the product reads, and bad options, drawn at random from a seed."""

from __future__ import annotations

import copy
import dataclasses
import json
import pathlib
import random
import shutil
from collections.abc import Callable, Iterator
from typing import Any

Damage = Callable[[pathlib.Path], None]


@dataclasses.dataclass(frozen=True)
class Case:
    """One command on files that something happened to.

    `right` names the command whose output on pristine files this one must not differ from where it succeeds.
    """

    kind: str
    what: str
    arguments: list[str]
    stdin: bytes = b""
    damage: Damage | None = None
    right: str = ""


LINES = b"the old cat sees it.\nno robot wants a bird.\neach dog finds 42.\n"
RUN = ["keras-attention"]
LEARN = [
    *("--source=train.source", "--target=train.target", "--epochs=3", "--batch-size=16", "--seed=3"),
    *("--set=embedding_size=16", "--set=encoder_units=16", "--set=decoder_units=32"),
]
"""Of the command `train`: the small models."""
COMMANDS: dict[str, tuple[list[str], bytes]] = {
    "translate": ([*RUN, "translate", "run"], LINES),
    "translate characters": ([*RUN, "translate", "other", "--beam=2", "--scores"], LINES),
    "resume": ([*RUN, "train", *LEARN, "--output=run", "--epochs=4"], b""),
    "evaluate": ([*RUN, "evaluate", "run", "--source", "test.source", "--target", "test.target"], b""),
    "score": ([*RUN, "score", "run", "--source", "test.source", "--target", "test.target"], b""),
    "estimate": ([*RUN, "estimate", "run"], b""),
    "verify": ([*RUN, "verify", "artefact"], b""),
    "verify npu": ([*RUN, "verify", "npu"], b""),
    "LiteRT": (["artefact/runtime", "--backend", "litert", "--scores"], LINES),
    "ONNX": (["artefact/runtime", "--backend", "onnx", "--scores"], LINES),
    "host loop": (["artefact/runtime", "--backend", "onnx", "--host-loop", "--scores"], LINES),
    "NPU": (["npu/runtime", "--scores"], LINES),
}
READERS = {
    "run": ("translate", "translate", "translate", "evaluate", "score", "estimate", "resume"),
    "other": ("translate characters",),
    "artefact": ("LiteRT", "LiteRT", "ONNX", "ONNX", "host loop", "verify"),
    "npu": ("NPU", "NPU", "verify npu"),
}
"""Commands that read each folder; those named twice are drawn twice as often."""
UNREAD = {".py", ".mjs", ".html", ".md", ".png"}
"""Programs, and what people look at."""


def replace(path: pathlib.Path, content: bytes) -> None:
    """Write a file anew; the pristine one, to which it is a link, stays as it is."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


# --- bytes ---


def _cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(max(len(data), 1))]


def _flip(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data or b"\0")
    changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _noise(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(max(len(data), 1))
    return data[:start] + draw.randbytes(draw.choice([1, 16, 400])) + data[start:]


BYTES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": _cut,
    "a bit flipped": _flip,
    "noise inside": _noise,
    "empty": lambda data, draw: b"",
    "random": lambda data, draw: draw.randbytes(min(len(data), 5000)),
    "twice": lambda data, draw: data * 2,
    "zeros": lambda data, draw: bytes(len(data)),
    "null": lambda data, draw: b"null",
    "a list": lambda data, draw: b"[]",
    "an object": lambda data, draw: b"{}",
    "deep lists": lambda data, draw: b"[" * 100_000 + b"]" * 100_000,
    "deep objects": lambda data, draw: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a byte order mark": lambda data, draw: b"\xef\xbb\xbf" + data,
    "UTF-16": lambda data, draw: data[:5000].decode("utf-8", "replace").encode("utf-16"),
}


# --- JSON ---

VALUES: tuple[Any, ...] = (
    *(None, -1, 0, 3, 1.5, 1e308, 2**70, True, "", "x", "x" * 10_000, "../../etc/passwd", "/etc/passwd"),
    *([], {}, [[]], {"a": None}, float("nan"), float("inf")),
)


def _places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _places(value, (*path, name))
    elif isinstance(content, list):
        for number, value in list(enumerate(content))[:20]:
            yield from _places(value, (*path, number))


def change_json(data: bytes, draw: random.Random) -> tuple[str, bytes]:
    """A value replaced, deleted, or exchanged with a neighbour."""
    content = copy.deepcopy(json.loads(data))
    *way, last = draw.choice(list(_places(content)))
    holder = content
    for part in way:
        holder = holder[part]
    where = "/".join(map(str, [*way, last]))[-60:]
    deed = draw.choice(["replace", "replace", "delete", "exchange"])
    if deed == "delete":
        del holder[last]
        return f"without {where}", json.dumps(content).encode()
    if deed == "exchange" and len(holder) > 1:
        other = draw.choice(
            [part for part in (holder if isinstance(holder, dict) else range(len(holder))) if part != last]
        )
        holder[last], holder[other] = holder[other], holder[last]
        return f"{where} and {other} exchanged", json.dumps(content, ensure_ascii=False).encode()
    holder[last] = value = draw.choice(VALUES)
    return f"{where} = {str(value)[:20]!r}", json.dumps(content, ensure_ascii=False).encode()


# --- files of a run and of an artefact ---


def damaged_file(pristine: pathlib.Path, folder: str, draw: random.Random) -> Case:
    """One file of a folder changed, gone, a folder, a dangling link, or that of another run."""
    files = sorted(path for path in (pristine / folder).rglob("*") if path.is_file() and path.suffix not in UNREAD)
    path = draw.choice(files)
    name = str(path.relative_to(pristine))
    data = path.read_bytes()
    deeds = ["bytes", "bytes", "bytes", "gone", "folder", "link", "foreign"]
    deed = draw.choice(deeds + ["json"] * 8 * (path.suffix == ".json"))
    if deed == "json":
        what, changed = change_json(data, draw)
    elif deed == "bytes":
        what = draw.choice(list(BYTES))
        changed = BYTES[what](data, draw)
    elif deed == "foreign":
        others = [one for one in sorted(pristine.rglob(f"*{path.suffix}")) if one.is_file() and one != path]
        other = draw.choice(others or [path])
        what, changed = f"{other.relative_to(pristine)} in its place", other.read_bytes()
    else:
        what, changed = deed, None

    def damage(work: pathlib.Path) -> None:
        target = work / name
        if changed is not None:
            replace(target, changed)
            return
        target.unlink()
        if deed == "folder":
            target.mkdir()
        elif deed == "link":
            target.symlink_to("nowhere")

    reader = draw.choice(READERS[folder])
    arguments, stdin = COMMANDS[reader]
    return Case(
        f"{folder}: {path.name}",
        f"{name}: {what}, read by {reader}",
        arguments,
        stdin,
        damage,
        "" if reader == "resume" else reader,
    )


# --- text ---

GOOD = LINES.splitlines()
BAD_LINES = (
    *(
        b"",
        b" ",
        b"\t",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\0",
        b"\xe2\x80\x8b",
        b"\xef\xbb\xbf",
        b"\r",
        b"$a$ b$",
        b"\x1b[31m",
    ),
    *(
        b"a\tb\tc\td",
        b"x" * 100_000,
        b"word " * 5000,
        "é\u0301\u202e‮ 😀".encode(),
        b"<s> </s> <pad> <unk>",
        b"\\",
    ),
    *("\u2028".encode(), "\x85".encode(), b'{"a": 1}', b"-1", b"nan 1 2", b"0-0 9-99", b"the 1 2", b"the nan inf"),
)
BAD_TEXTS = (
    *(b"", b"\n", b"\n\n\n\n", b"one", b"\r\n\r\n", b"a\rb\rc", LINES.replace(b"\n", b"\r\n"), LINES.rstrip(b"\n")),
    *(b"\xef\xbb\xbf" + LINES, LINES.decode().encode("utf-16"), b"\x1f\x8b\x08" + bytes(40), b"\0" * 400),
)
TRAIN = [
    *(*RUN, "train", "--output=new", "--epochs=1", "--tokenizer=char", "--set=embedding_size=4"),
    *("--set=encoder_units=4", "--set=decoder_units=4", "--time-limit=0.5", "--validation-sentences=3"),
]
SOURCES = ["--source=test.source", "--target=test.target"]
TEXT_COMMANDS: tuple[list[str], ...] = (
    [*RUN, "translate", "run", "<"],
    [*RUN, "translate", "run", "--skip-errors", "<"],
    [*RUN, "translate", "other", "--n-best=2", "<"],
    ["artefact/runtime", "--backend=onnx", "<"],
    ["artefact/runtime", "--backend=litert", "<"],
    ["npu/runtime", "<"],
    [*RUN, "evaluate", "run", "--source=bad", "--target=test.target"],
    [*RUN, "evaluate", "run", "--source=test.source", "--target=bad"],
    [*RUN, "evaluate", "run", "--tsv=bad"],
    [*RUN, "evaluate", "run", "--skip-errors", "--source=bad", "--target=bad"],
    [*RUN, "compare", "run", "other", "--tsv=bad"],
    [*RUN, "score", "run", "--source=bad", "--target=test.target"],
    [*RUN, "score", "run", "--source=test.source", "--target=bad"],
    [*RUN, "translate", "run", "--replace-unknown", "--dictionary=bad"],
    [*RUN, "synthesize", "run", "--source=bad", "--output=new.tsv"],
    [*RUN, "shortlist", "run", "--tsv=bad", "--output=new"],
    [*RUN, "estimate", "bad"],
    [*TRAIN, "--source=bad", "--target=test.target"],
    [*TRAIN, "--tsv=bad"],
    [*TRAIN, *SOURCES, "--val-tsv=bad"],
    [*TRAIN, *SOURCES, "--source-vectors=bad", "--set=embedding_size=2"],
    [*TRAIN, *SOURCES, "--alignments=bad", "--guided-alignment=0.1"],
    [*TRAIN, *SOURCES, "--synthetic=bad"],
    [*TRAIN, *SOURCES, "--also-validate=news=bad"],
    [*TRAIN, "--shards=shards"],
    [*RUN, "export", "run", "--sentences=bad", "--output=new", "--to=nowhere"],
    [*RUN, "export", "other", "--to=npu", "--calibration=bad", "--output=new"],
)


def damaged_text(pristine: pathlib.Path, draw: random.Random) -> Case:
    """A text that a user might give by mistake, where the product reads one."""
    if draw.random() < 0.3:
        content = draw.choice(BAD_TEXTS)
        what = repr(content[:20])
    else:
        lines = [draw.choice(GOOD) for _ in range(5)]
        bad = draw.choice(BAD_LINES)
        lines[draw.randrange(5)] = bad
        joint = draw.choice([b"", b"", b"\tla kato."])
        content = b"".join(line + joint + b"\n" for line in lines)
        what = f"a line {bad[:20]!r}"
    arguments = list(draw.choice(TEXT_COMMANDS))
    stdin = LINES
    if arguments[-1] == "<":
        arguments.pop()
        stdin = content

    def damage(work: pathlib.Path) -> None:
        replace(work / "bad", content)
        (work / "shards").mkdir()
        shutil.copy(work / "bad", work / "shards" / "0.tsv")

    shown = " ".join(part for part in arguments if not part.startswith("--set"))
    return Case("text", f"{shown} with {what}", arguments, stdin, damage)


# --- options ---

NUMBERS = ("0", "-1", "-5", "nan", "inf", "1e30", "1000000000", "0.5", "some", "", "99999999999999999999", "٣")
ENDLESS = {"epochs", "epochs_per_validation", "steps_per_execution", "seconds", "samples", "time_limit"}
"""Options for which a great number is a long work rightly asked for."""
BASES = {
    "train": [*TRAIN, *SOURCES],
    "translate": [*RUN, "translate", "run"],
    "evaluate": COMMANDS["evaluate"][0],
    "compare": [*RUN, "compare", "run", "other", *SOURCES],
    "score": COMMANDS["score"][0],
    "synthesize": [*RUN, "synthesize", "run", "--source=test.source", "--output=new.tsv"],
    "shortlist": [*RUN, "shortlist", "run", *SOURCES, "--output=new"],
    "attention": [*RUN, "attention", "run", "the old cat"],
    "estimate": COMMANDS["estimate"][0],
    "benchmark": [*RUN, "benchmark", "artefact", "--seconds=0.1"],
    "export": [*RUN, "export", "run", "--to=nowhere", "--output=new"],
}


def bad_option(options: dict[str, list[tuple[str, str]]], draw: random.Random) -> Case:
    """A number that no option of its kind should take, or that few models can bear.

    Args:
        options: of each command, the names and flags of its numeric options.
    """
    command = draw.choice([*options, "translate", "translate", "evaluate", "train", "runtime"])
    name, flag = draw.choice(options[command])
    value = draw.choice([number for number in NUMBERS if name not in ENDLESS or len(number) < 4])
    base = ["artefact/runtime", "--backend=onnx"] if command == "runtime" else BASES[command]
    arguments = [*base, f"{flag}={value}"]
    return Case("option", f"{command} {flag}={value}", arguments, LINES)


def cases(pristine: pathlib.Path, options: dict[str, list[tuple[str, str]]], count: int, seed: int) -> Iterator[Case]:
    """`count` cases: a third on runs, a third on artefacts, the rest on text and options."""
    draw = random.Random(seed)
    for _ in range(count):
        kind = draw.choices(["run", "other", "artefact", "npu", "text", "option"], [25, 8, 25, 8, 17, 17])[0]
        if kind == "text":
            yield damaged_text(pristine, draw)
        elif kind == "option":
            yield bad_option(options, draw)
        else:
            yield damaged_file(pristine, kind, draw)
