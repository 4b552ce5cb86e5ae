"""The command: translate standard input, one sentence per line, to standard output."""

import argparse
import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import sys
from collections.abc import Sequence

from .artefact import Artefact
from .backends import BACKENDS
from .errors import ArtefactError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


KNOB_OPTIONS = (
    "max_length",
    "min_length",
    "length_penalty",
    "coverage_penalty",
    "repetition_penalty",
    "diversity",
    "temperature",
    "top_p",
    "alpha",
    "backward_weight",
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="runtime", description="Translate standard input, one sentence per line, to standard output."
    )
    parser.add_argument(
        "--artefact",
        default=str(pathlib.Path(__file__).resolve().parents[1]),
        help="artefact directory (default: the one that holds this folder)",
    )
    parser.add_argument("--backend", default="auto", choices=["auto", *BACKENDS])
    parser.add_argument("--beam", type=int, help="beam size; another than the exported one takes the host loop")
    parser.add_argument("--n-best", type=int, default=1, help="hypotheses per sentence, best first")
    parser.add_argument("--scores", action="store_true", help="write the score and a tab before each hypothesis")
    parser.add_argument(
        "--alignments", metavar="FILE", help="write one JSON object per hypothesis: tokens and attention weights"
    )
    parser.add_argument("--max-length", type=int, help="longest translation, in tokens with EOS")
    parser.add_argument("--min-length", type=int, help="shortest translation, in tokens with EOS")
    parser.add_argument("--length-penalty", type=float, help="exponent of the GNMT length penalty")
    parser.add_argument("--coverage-penalty", type=float, help="beta of the GNMT coverage penalty")
    parser.add_argument("--repetition-penalty", type=float, help="above 1, makes tokens that are there less likely")
    parser.add_argument("--diversity", type=float, help="how much groups avoid each other's words")
    parser.add_argument("--temperature", type=float, help="of samples; below 1 likely words come more often")
    parser.add_argument("--top-p", type=float, help="samples are drawn from the words that hold this probability")
    parser.add_argument("--seed", type=int, help="of samples")
    parser.add_argument("--alpha", type=float, help="of contrastive search")
    parser.add_argument("--backward-weight", type=float, help="of agreement between both directions")
    parser.add_argument("--prefix", default="", metavar="TEXT", help="what each translation begins with")
    parser.add_argument("--ban", action="append", metavar="TOKEN", help="a token that no translation holds; repeat")
    parser.add_argument("--require", action="append", metavar="TEXT", help="what each translation holds; repeat")
    parser.add_argument("--host-loop", action="store_true", help="search in Python over encode and decode_step")
    parser.add_argument("--batch", type=int, default=16, help="sentences per call")
    parser.add_argument("--threads", type=int, help="interpreter threads")
    return parser.parse_args(arguments)


def read_lines(content: bytes) -> list[str]:
    r"""Return the lines of a UTF-8 text, without line ends (\n or \r\n) and without a byte order mark.

    Raises:
        ArtefactError: that names the line with other bytes.
    """
    content = content.removeprefix(BYTE_ORDER_MARK)
    lines = []
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n") if content else [], start=1):
        try:
            lines.append(line.rstrip(b"\r").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ArtefactError(
                f"standard input, line {number}, is not UTF-8 text ({error}). Convert it first"
            ) from None
    return lines


def warn_of_unknown(artefact: Artefact, sentences: Sequence[str]) -> None:
    """Say on standard error which lines hold tokens outside of the vocabulary."""
    for number, row in enumerate(artefact.encode(sentences), start=1):
        count = row.count(artefact.special["unk"])
        if count:
            say(f"warning: line {number}: {count} token(s) not in the vocabulary")


def check_streams() -> None:
    """Raise if a standard stream is closed, as by `<&-`."""
    for stream, name in ((sys.stdin, "input"), (sys.stdout, "output")):
        if stream is None:
            raise ArtefactError(f"Standard {name} is closed. Expected: an open one, or /dev/null")


def say(message: str) -> None:
    """Write one line to standard error if it is open: `print` would take standard output in its place."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(message, file=sys.stderr)


def no_more_output() -> None:
    """Discard further output, since the interpreter would complain of a closed pipe when it ends."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; a mistake is one line on standard error and status 1.

    A reader that goes away (`| head -1`) ends it in silence, with status 1 too.
    """
    options = parse(arguments)
    try:
        check_streams()
        artefact = Artefact(options.artefact, options.backend, options.threads)
        sentences = read_lines(sys.stdin.buffer.read())
        knobs = {name: getattr(options, name) for name in KNOB_OPTIONS}
        found = artefact.translate(
            sentences,
            options.n_best,
            options.batch,
            options.beam,
            options.host_loop,
            options.prefix,
            options.ban or (),
            options.require or (),
            options.seed,
            **knobs,
        )
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open(options.alignments, "w", encoding="utf-8")) if options.alignments else None
            for number, hypotheses in enumerate(found, start=1):
                if number == 1:
                    warn_of_unknown(artefact, sentences)
                for hypothesis in hypotheses:
                    prefix = f"{hypothesis.score:.6f}\t" if options.scores else ""
                    sys.stdout.buffer.write(f"{prefix}{hypothesis.text}\n".encode())
                    if file:
                        fields = dataclasses.asdict(hypothesis)
                        fields |= {"line": number, "alignment": hypothesis.alignment.round(6).tolist()}
                        file.write(json.dumps(fields, ensure_ascii=False) + "\n")
                sys.stdout.buffer.flush()
    except KeyboardInterrupt:
        no_more_output()
        raise
    except (ArtefactError, OSError) as error:
        if not (isinstance(error, OSError) and error.errno == errno.EPIPE):
            say(f"error: {error}")
        if isinstance(error, OSError):
            no_more_output()
        return 1
    return 0
