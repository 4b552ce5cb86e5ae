// sentencepiece subwords, from text and back, by the model file that training wrote (NAME.tok.model).
//
// The file is a protocol buffer. Read from it are the pieces with their scores, and the normalisation: a trie of
// UTF-8 bytes (Darts, double array) that maps a sequence of bytes to its replacement. Text is then split into pieces
// whose scores have the largest sum (Viterbi; Kudo 2018, "Subword Regularization", section 3.1).

const SPACE = "\u2581";
const UNKNOWN_PENALTY = 10;
const KINDS = { normal: 1, unknown: 2, control: 3, unused: 5 };

/** The numbered fields of a protocol buffer: numbers, or bytes. */
function* fields(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let place = 0;
  const number = () => {
    let [value, factor, byte] = [0, 1, 0];
    do {
      byte = bytes[place++];
      value += (byte & 127) * factor;
      factor *= 128;
    } while (byte & 128);
    return value;
  };
  while (place < bytes.length) {
    const key = number();
    const kind = key % 8;
    if (kind === 0) {
      yield [key >>> 3, number()];
    } else if (kind === 2) {
      const size = number();
      yield [key >>> 3, bytes.subarray(place, (place += size))];
    } else if (kind === 5) {
      yield [key >>> 3, view.getFloat32(place, true)];
      place += 4;
    } else if (kind === 1) {
      place += 8;
    } else {
      throw new Error("no sentencepiece model");
    }
  }
}

/** Return a function that normalises the longest known prefix: `(bytes, start) -> [length, replacement] or null`. */
function readMap(blob) {
  if (!blob.length) return () => null;
  const view = new DataView(blob.buffer, blob.byteOffset, blob.byteLength);
  const size = view.getUint32(0, true);
  const units = Array.from({ length: size / 4 }, (_, index) => view.getUint32(4 + 4 * index, true));
  const strings = blob.subarray(4 + size);
  const offset = (unit) => (unit >>> 10) << ((unit & 512) >>> 6);
  return (bytes, start) => {
    let found = null;
    let node = offset(units[0]);
    for (let place = start; place < bytes.length; place++) {
      node ^= bytes[place];
      const unit = units[node];
      if (((unit & 0x800000ff) >>> 0) !== bytes[place]) break;
      node ^= offset(unit);
      if ((unit >>> 8) & 1) found = [place + 1 - start, units[node] & 0x7fffffff];
    }
    if (!found) return null;
    const [length, from] = found;
    return [length, strings.subarray(from, strings.indexOf(0, from))];
  };
}

/** A unigram model of sentencepiece. Throws an `Error` for another kind of model. */
export class SubwordTokenizer {
  constructor(model, special) {
    this.special = new Set(Object.values(special));
    this.unknown = special.unk;
    this.vocabulary = [];
    this.scores = new Map(); // piece -> [id, score]
    let map = new Uint8Array();
    Object.assign(this, { prefix: true, trim: true, longest: 0 });
    const text = new TextDecoder();
    let [lowest, refused] = [Infinity, ""];
    for (const [field, value] of fields(model)) {
      if (field === 1) {
        const piece = { text: "", score: 0, kind: KINDS.normal };
        for (const [part, content] of fields(value)) {
          if (part === 1) piece.text = text.decode(content);
          if (part === 2) piece.score = content;
          if (part === 3) piece.kind = content;
        }
        if (!Object.values(KINDS).includes(piece.kind)) refused = "pieces of its user's or of bytes";
        if (piece.kind === KINDS.normal) {
          lowest = Math.min(lowest, piece.score);
          this.scores.set(piece.text, [this.vocabulary.length, piece.score]);
          this.longest = Math.max(this.longest, Array.from(piece.text).length);
        }
        this.vocabulary.push(piece.text);
      } else if (field === 2) {
        for (const [part, content] of fields(value)) {
          if (part === 3 && content !== 1) refused = "another algorithm than unigram";
          if (part === 24 && content) refused = "white space behind words";
        }
      } else if (field === 3) {
        for (const [part, content] of fields(value)) {
          if (part === 2) map = content;
          if (part === 3) this.prefix = Boolean(content);
          if (part === 4) this.trim = Boolean(content);
          if (part === 5 && !content) refused = "white space that is not written as a letter";
        }
      }
    }
    if (refused) throw new Error(`the sentencepiece model has ${refused}, which only the Python runtime knows`);
    this.unknownScore = Math.fround(lowest - UNKNOWN_PENALTY);
    this.map = readMap(map);
  }

  /** Normalise text before segmentation: letters in their normal form, each blank as one mark. */
  normalized(text) {
    const bytes = new TextEncoder().encode(text);
    const found = [];
    let blank = this.trim; // also at the beginning of the text
    for (let place = 0; place < bytes.length; ) {
      let [length, piece] = this.map(bytes, place) ?? [0, null];
      if (!piece) {
        const first = bytes[place];
        length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
        piece = bytes.subarray(place, place + length);
      }
      for (const byte of piece) {
        const space = byte === 32;
        if (!(space && blank)) found.push(byte);
        if (this.trim) blank = space;
      }
      place += length;
    }
    if (this.trim) while (found.at(-1) === 32) found.pop();
    const whole = new TextDecoder().decode(Uint8Array.from(found));
    return whole && (this.prefix ? " " + whole : whole).replaceAll(" ", SPACE);
  }

  encode(text) {
    const letters = Array.from(this.normalized(text));
    const best = [{ score: 0 }];
    for (let start = 0; start < letters.length; start++) {
      const reach = (end, id, score) => {
        const sum = Math.fround(best[start].score + score);
        if (!best[end] || sum > best[end].score) best[end] = { score: sum, start, id };
      };
      let piece = "";
      let known = false;
      for (let end = start + 1; end <= Math.min(letters.length, start + this.longest); end++) {
        piece += letters[end - 1];
        const entry = this.scores.get(piece);
        if (entry) reach(end, ...entry);
        known ||= Boolean(entry) && end === start + 1;
      }
      if (!known) reach(start + 1, this.unknown, this.unknownScore);
    }
    const ids = [];
    for (let end = letters.length; end > 0; end = best[end].start) {
      const { id } = best[end];
      if (!(id === this.unknown && ids.at(-1) === id)) ids.push(id); // adjacent unknown letters are one token
    }
    return ids.reverse();
  }

  tokens(ids) {
    return ids.map((id) => this.vocabulary[id]);
  }

  decode(ids) {
    const text = this.tokens(ids.filter((id) => !this.special.has(id))).join("").replaceAll(SPACE, " ");
    return this.prefix || this.trim ? text.replace(/^ +/, "") : text;
  }
}
