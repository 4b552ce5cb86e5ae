// The host loop: beam search over the graphs `encode` and `decode_step`.

import { beamSearch } from "./beam_search.mjs";

/** Return whether only the graph `translate` supports the exported search. */
export function onlyInGraph(manifest) {
  const { method, groups, phrases, stop, no_repeat_ngram: ngram, length_penalty_kind: kind } = manifest.search;
  const plain = method === "beam" && groups === 1 && !phrases && stop === "all" && !ngram && kind === "gnmt";
  return !plain || "repetition_penalty" in manifest.knobs;
}

/** Search rows of ids: for each its hypotheses, best first. `run(graph, inputs)` runs one graph. */
export async function searchOnHost(run, Tensor, manifest, rows, source, beams, knobs) {
  const batch = rows.length;
  const lengths = rows.map((row) => row.length);
  const limits = lengths.map((length) => {
    if (manifest.max_length_factor === null) return knobs.max_length;
    const relative = Math.floor(Math.fround(length * Math.fround(manifest.max_length_factor)));
    return Math.max(Math.min(knobs.max_length, relative + manifest.max_length_offset), 1);
  });
  const encoded = await run("encode", { source_ids: source });
  const everyRow = Array.from({ length: batch * beams }, (_, row) => Math.floor(row / beams));
  const tensors = Object.fromEntries(Object.entries(encoded).map(([name, t]) => [name, take(Tensor, t, everyRow)]));
  const updates = manifest.state_updates;
  const step = async (tokens, parents) => {
    if (parents) for (const name of Object.keys(updates)) tensors[name] = take(Tensor, tensors[name], parents);
    const inputs = { token_ids: { data: Int32Array.from(tokens), dims: [tokens.length] } };
    for (const [name, data] of Object.entries(tensors)) inputs[name] = { data };
    const found = await run("decode_step", inputs);
    for (const [name, next] of Object.entries(updates)) tensors[name] = found[next];
    return {
      logProbs: found.log_probs.data,
      vocabulary: found.log_probs.dims[1],
      alignments: found.alignment.data,
    };
  };
  const special = manifest.special_ids;
  const rules = { sourceLengths: lengths, limits, knobs, special, finishedFirst: manifest.search.finished_first };
  const found = await beamSearch(step, { batch, beams, ...rules });
  return found.map((hypotheses, b) =>
    hypotheses.map(({ ids, score, logProb, finished, alignment }) => ({
      ids,
      score,
      logProb,
      finished,
      alignment: alignment.map((weights) => weights.slice(0, lengths[b])),
    })),
  );
}

/** Return rows of a tensor, in another order or repeated. */
function take(Tensor, tensor, chosen) {
  const size = tensor.dims.slice(1).reduce((product, axis) => product * axis, 1);
  const data = new tensor.data.constructor(chosen.length * size);
  chosen.forEach((row, place) => data.set(tensor.data.subarray(row * size, (row + 1) * size), place * size));
  return new Tensor(tensor.type, data, [chosen.length, ...tensor.dims.slice(1)]);
}
