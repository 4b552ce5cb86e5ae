// Beam search with length and coverage penalties over a `step` function.

/** GNMT length penalty ((5 + length) / 6) ** alpha (Wu et al. 2016, equation 14), float32. */
function lengthPenalty(length, alpha) {
  return Math.fround(Math.pow(Math.fround(Math.fround(5 + length) / 6), Math.fround(alpha)));
}

/**
 * Beam search, one `step` for all hypotheses at a time; the rules are those of `runtime/beam_search.py`.
 *
 * `step(tokens, parents)` extends all hypotheses: `tokens` are their last tokens, `parents` the flat rows whose states
 * they continue (null at first); it returns `{logProbs, vocabulary, alignments}`, flat float32 arrays.
 */
export async function beamSearch(step, { batch, beams, sourceLengths, limits, knobs, special, finishedFirst }) {
  const rows = batch * beams;
  const hypotheses = Array.from({ length: rows }, (_, row) => ({
    ids: [],
    alignment: [],
    coverage: null,
    logProb: row % beams ? -Infinity : 0,
    score: row % beams ? -Infinity : 0,
    active: row % beams === 0,
    finished: false,
  }));
  let current = hypotheses;
  let parents = null;
  const longest = Math.max(...limits);
  for (let t = 0; t < longest && current.some((one) => one.active); t++) {
    const tokens = current.map((one) => (t === 0 ? special.bos : (one.active ? one.ids[t - 1] : special.pad)));
    const { logProbs, vocabulary, alignments } = await step(tokens, parents);
    const width = alignments.length / rows;
    const divisor = lengthPenalty(t + 1, knobs.length_penalty);
    const next = [];
    parents = [];
    for (let b = 0; b < batch; b++) {
      const forced = t < knobs.prefix[b].length ? knobs.prefix[b][t] : special.pad;
      const candidates = [];
      for (let k = 0; k < beams; k++) {
        const row = b * beams + k;
        const one = current[row];
        const alignment = alignments.subarray(row * width, (row + 1) * width);
        if (!one.active) {
          if (one.score !== -Infinity) candidates.push({ order: k * vocabulary + special.pad, row, score: one.score });
          continue;
        }
        const coverage = Float32Array.from(alignment, (weight, s) => weight + (one.coverage ? one.coverage[s] : 0));
        let penalty = 0;
        if (knobs.coverage_penalty) {
          for (let s = 0; s < sourceLengths[b]; s++) penalty += Math.log(Math.min(Math.max(coverage[s], 1e-6), 1));
          penalty = Math.fround(knobs.coverage_penalty * penalty);
        }
        for (let word = 0; word < vocabulary; word++) {
          if (word === special.pad) continue;
          if (forced !== special.pad) {
            if (word !== forced) continue;
          } else if (!knobs.allowed[word] || (word === special.eos && t + 1 < knobs.min_length)) continue;
          const logProb = Math.fround(one.logProb + logProbs[row * vocabulary + word]);
          if (logProb === -Infinity) continue;
          const score = Math.fround(Math.fround(logProb / divisor) + penalty);
          candidates.push({ order: k * vocabulary + word, row, word, score, logProb, alignment, coverage });
        }
      }
      candidates.sort((a, z) => z.score - a.score || a.order - z.order);
      for (let k = 0; k < beams; k++) {
        const best = candidates[k];
        parents.push(best ? best.row : b * beams);
        if (!best) {
          next.push({ ids: [], alignment: [], logProb: -Infinity, score: -Infinity, active: false, finished: false });
        } else if (best.word === undefined) {
          next.push(current[best.row]);
        } else {
          const former = current[best.row];
          const ended = best.word === special.eos;
          next.push({
            ids: [...former.ids, best.word],
            alignment: [...former.alignment, Float32Array.from(best.alignment)],
            coverage: best.coverage,
            logProb: best.logProb,
            score: best.score,
            active: !ended && t + 1 < limits[b],
            finished: ended,
          });
        }
      }
    }
    current = next;
  }
  const found = Array.from({ length: batch }, (_, b) => current.slice(b * beams, (b + 1) * beams));
  if (finishedFirst) for (const row of found) row.sort((a, z) => z.finished - a.finished);
  return found;
}
