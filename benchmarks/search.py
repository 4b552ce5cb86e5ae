"""What a search costs beside the steps that it must make: `1 - L * time(step) / time(search)`.

    python benchmarks/search.py --output docs/images/search --into docs/results/search-cost.md

The steps are timed by themselves, in a graph that makes L of them and chooses nothing, on the same rows. The end of
sentence is made impossible, so that every search makes all L steps. All contenders in turn, medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from tables import add_outputs, report

SEARCHES = ("greedy", "beam", "beam, early stop", "diverse beam", "beam, no repeated trigram", "sampling")


def contenders(options: argparse.Namespace) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """Compiled functions without arguments, and for each search the function of the steps alone that it is held to."""
    import tensorflow as tf
    from keras import ops

    from keras_attention import Constraints, EncoderDecoder, Seq2SeqConfig, build_seq2seq
    from keras_attention.search import tile_rows

    words, half = options.vocabulary, options.hidden // 2
    config = Seq2SeqConfig(words, words, embedding_size=half, encoder_units=half, decoder_units=options.hidden)
    net = EncoderDecoder(build_seq2seq(config))
    bias = np.zeros(words, "float32")
    bias[2] = -1e9
    net.output.bias.assign(bias)
    source = np.random.default_rng(1).integers(4, words, (options.batch, options.source)).astype("int32")
    source[:, -1] = 2
    state, memory = net.encode(source)

    def steps(rows: int) -> Callable[[], Any]:
        """L steps one after the other: each reads the word and the state of the one before."""
        wide = tile_rows((state, memory), rows)

        def run() -> Any:
            def body(t: Any, token: Any, kept: list[Any], total: Any) -> Any:
                packed = dict(zip(wide[0], kept, strict=True))
                log_probs, new, alignment = net.step(token, packed, wide[1])
                # Something of every result is kept, so that nothing is left out of the graph.
                total = total + log_probs[:, 0] + alignment[:, 0]
                return t + 1, token, [new[name] for name in wide[0]], total

            token = ops.full((options.batch * rows,), 5, dtype="int32")
            start = (0, token, list(wide[0].values()), ops.zeros((options.batch * rows,)))
            return ops.while_loop(lambda t, *_: t < options.length, body, start)[-1]

        return tf.function(run)

    def search(**choices: Any) -> Callable[[], Any]:
        def run() -> Any:
            from keras_attention import beam_search, greedy_search, sample_search

            kind = choices.get("by", "beam")
            own = {name: value for name, value in choices.items() if name != "by"}
            arguments = {"max_length": options.length, "source_length": options.source, **own}
            function = {"greedy": greedy_search, "beam": beam_search, "sample": sample_search}[kind]
            found = function(net.step, state, memory, **arguments)
            return found["ids"], found["alignments"]

        return tf.function(run)

    beam = options.beam
    functions = {
        "steps of one": steps(1),
        "steps of the beam": steps(beam),
        "greedy": search(by="greedy"),
        "beam": search(beam_size=beam),
        "beam, early stop": search(beam_size=beam, stop="best"),
        "diverse beam": search(beam_size=beam, groups=beam),
        "beam, no repeated trigram": search(beam_size=beam, constraints=Constraints(no_repeat_ngram=3)),
        "sampling": search(by="sample", num_samples=beam, seed=1),
    }
    bare = {name: "steps of one" if name == "greedy" else "steps of the beam" for name in SEARCHES}
    return functions, bare


def profile(functions: dict[str, Callable[[], Any]], calls: int = 3, shown: int = 12) -> str:
    """A table of the operations of a beam search beside those of its steps alone: milliseconds of work of one search.

    Work of all threads, waiting left out: more than the wall time where operations run side by side.
    """
    import tensorflow as tf
    from profile_step import trace

    found = {}
    for name in ("beam", "steps of the beam"):
        with tempfile.TemporaryDirectory() as folder:
            tf.profiler.experimental.start(folder)
            for _ in range(calls):
                tf.nest.map_structure(lambda tensor: tensor.numpy(), functions[name]())
            tf.profiler.experimental.stop()
            found[name] = trace(pathlib.Path(folder))
    search, steps = found["beam"], found["steps of the beam"]
    more = {kind: search[kind] - steps[kind] for kind in search}
    kinds = sorted(more, key=lambda kind: -more[kind])[:shown]
    rest = sum(more.values()) - sum(more[kind] for kind in kinds)
    lines = ["| operation | ms in a search | ms in its steps | more |", "|---|---|---|---|"]
    for kind in kinds:
        each = [value / 1e9 / calls for value in (search[kind], steps[kind], more[kind])]
        lines.append(f"| {kind} | " + " | ".join(f"{value:.1f}" for value in each) + " |")
    lines.append(f"| all others | | | {rest / 1e9 / calls:.1f} |")
    totals = [sum(one.values()) / 1e9 / calls for one in (search, steps)]
    return "\n".join([*lines, f"| all | {totals[0]:.1f} | {totals[1]:.1f} | {totals[0] - totals[1]:.1f} |"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_outputs(parser)
    parser.add_argument("--profile", action="store_true", help="also print what the beam's time goes into")
    sizes = {"batch": 32, "beam": 5, "hidden": 512, "vocabulary": 8000, "length": 30, "source": 30}
    for name, value in {**sizes, "rounds": 7, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args(arguments)
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    functions, bare = contenders(options)
    for run in functions.values():
        run()
    if options.profile:
        print(profile(functions))
    rows: list[dict[str, Any]] = []
    for number in range(options.rounds):
        for name, run in functions.items():
            started = time.perf_counter()
            tf.nest.map_structure(lambda tensor: tensor.numpy(), run())
            rows.append({"round": number + 1, "contender": name, "seconds": time.perf_counter() - started})
    medians = {name: float(np.median([r["seconds"] for r in rows if r["contender"] == name])) for name in functions}
    lines = ["| | ms a search | of them steps alone | overhead |", "|---|---|---|---|"]
    overheads = {}
    for name in SEARCHES:
        overheads[name] = 1.0 - medians[bare[name]] / medians[name]
        share = f"{1000 * medians[bare[name]]:,.0f} | {100 * overheads[name]:.0f} %"
        lines.append(f"| {name} | {1000 * medians[name]:,.0f} | {share} |")
    report(options, "search", "\n".join(lines), rows)
    print(json.dumps({"overhead": {name: round(value, 4) for name, value in overheads.items()}}))


if __name__ == "__main__":
    main()
