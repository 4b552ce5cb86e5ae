// The source of a search: rows of ids, checked, since a graph cannot throw.

import { ArtefactError } from "./errors.mjs";

/** Throw unless the model can read every row. */
export function checkIds(manifest, rows, what) {
  const { source_vocabulary: vocabulary, max_source_length: most } = manifest;
  rows.forEach((row, index) => {
    const outside = row.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabulary);
    if (outside !== undefined) {
      throw new ArtefactError(
        `${what} ${index + 1}: an id is outside the vocabulary. Expected: 0 to ${vocabulary - 1}. Received: ${outside}`,
      );
    }
    if (most !== null && row.length > most) {
      throw new ArtefactError(
        `${what} ${index + 1} is too long for this model. Expected: at most ${most} tokens with EOS. ` +
          `Received: ${row.length}. Split the sentence`,
      );
    }
  });
}

/** Return the rows without padding. Throws unless each ends with EOS, followed by nothing but padding. */
export function withoutPadding(manifest, rows) {
  const { pad, eos } = manifest.special_ids;
  return rows.map((row, index) => {
    const length = row.findLastIndex((id) => id !== pad) + 1;
    const real = row.slice(0, length);
    if (real.at(-1) !== eos || real.includes(pad)) {
      throw new ArtefactError(
        `row ${index + 1} is no source. Expected: ids, EOS (${eos}), then padding (${pad}) alone. ` +
          `Received: [${row.join(", ")}]`,
      );
    }
    return real;
  });
}

/** Return checked source ids of each sentence, with EOS. Throws for no text, an empty one, or one that is too long. */
export function encodeSentences(manifest, tokenizer, sentences) {
  const most = manifest.trained_source_length ?? Infinity;
  const rows = sentences.map((text, index) => {
    const line = `line ${index + 1}`;
    if (/\p{Surrogate}/u.test(text)) {
      throw new ArtefactError(`${line} holds a lone surrogate, which is no text. Expected: Unicode text`);
    }
    const ids = tokenizer.encode(text);
    if (!ids.length || !text.trim()) {
      throw new ArtefactError(`${line} is empty. Expected: a sentence. Remove the line`);
    }
    if (ids.length > most) {
      throw new ArtefactError(
        `${line}: ${ids.length} tokens. Expected: at most ${most}, the limit of training. Split the sentence`,
      );
    }
    return [...ids, manifest.special_ids.eos];
  });
  checkIds(manifest, rows, "line");
  return rows;
}
