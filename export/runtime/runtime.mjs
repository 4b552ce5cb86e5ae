// Translate with an exported artefact in a browser or in Node, by ONNX Runtime Web.
//
//   import * as ort from "onnxruntime-web";
//   import { Artefact } from "./runtime.mjs";
//   const artefact = await Artefact.open(".", ort);          // a folder in Node, an address in a browser
//   const [hypotheses] = await artefact.translate(["Sunday, 22 Nov. 2026"]);
//   console.log(hypotheses[0].text, hypotheses[0].alignment);
//
// It reads what an ONNX export wrote, as `runtime.py` does, and finds the same tokens: by the graph `translate`, or by a
// host loop over `encode` and `decode_step` with any beam size. Text goes through tokenizers of characters, words or, by
// `subwords.mjs` beside this file, subwords; `search` takes rows of ids. Each file is compared with its SHA-256 in the
// manifest.
//
// In Node, as a command: node runtime.mjs FOLDER < sentences.txt (JSON lines: text, ids, score, tokens, alignment).

const FORMAT_VERSION = 4;

/** The artefact, or what was asked of it, is not right; the message says what, where and what to do. */
export class ArtefactError extends Error {}

const IN_NODE = typeof process !== "undefined" && Boolean(process.versions?.node);

/** A function that reads one file of a folder or an address. */
function reader(location) {
  if (IN_NODE) {
    return async (name) => {
      const [{ readFile }, { join }] = await Promise.all([import("node:fs/promises"), import("node:path")]);
      try {
        return new Uint8Array(await readFile(join(location, name)));
      } catch (error) {
        throw new ArtefactError(`${location}/${name} cannot be read (${error.code}). Copy the whole artefact`);
      }
    };
  }
  return async (name) => {
    const response = await fetch(`${location}/${name}`);
    if (!response.ok) throw new ArtefactError(`${location}/${name} cannot be read (${response.status})`);
    return new Uint8Array(await response.arrayBuffer());
  };
}

/** JSON, or an error that names where it stands. */
function parsed(text, where) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ArtefactError(`${where} is no JSON (${error.message})`);
  }
}

async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) {
    throw new ArtefactError("SHA-256 is missing here: open the page by https, or on localhost");
  }
  const digest = new Uint8Array(await globalThis.crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// --- text <-> ids ---

/** Text to ids and back: characters or words. */
class Tokenizer {
  constructor(content, special) {
    this.kind = content.kind;
    this.vocabulary = content.vocabulary;
    this.special = new Set(Object.values(special));
    this.unknown = special.unk;
    this.ids = new Map(this.vocabulary.map((piece, id) => [piece, id]).filter(([, id]) => !this.special.has(id)));
  }

  pieces(text) {
    return this.kind === "char" ? Array.from(text) : text.split(/[ \t\n\r\f\v]+/).filter((word) => word);
  }

  encode(text) {
    return this.pieces(text).map((piece) => this.ids.get(piece) ?? this.unknown);
  }

  tokens(ids) {
    return ids.map((id) => this.vocabulary[id]);
  }

  decode(ids) {
    return this.tokens(ids.filter((id) => !this.special.has(id))).join(this.kind === "char" ? "" : " ");
  }
}

// --- search on the host ---

/** GNMT length penalty ((5 + length) / 6) ** alpha (Wu et al. 2016, equation 14), float32. */
function lengthPenalty(length, alpha) {
  return Math.fround(Math.pow(Math.fround(Math.fround(5 + length) / 6), Math.fround(alpha)));
}

/**
 * Beam search, one `step` for all hypotheses at a time; the rules are those of `beam_search` in runtime.py.
 *
 * `step(tokens, parents)` extends all hypotheses: `tokens` are their last words, `parents` the flat rows whose states
 * they continue (null at first); it returns `{logProbs, vocabulary, alignments}`, flat float32 arrays.
 */
async function beamSearch(step, { batch, beams, sourceLengths, limits, knobs, special, finishedFirst }) {
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

// --- the artefact ---

/** A translator read from an artefact: `await Artefact.open(folder or address, ort)`. */
export class Artefact {
  static async open(location, ort) {
    const read = reader(location);
    const written = new TextDecoder().decode(await read("manifest.json"));
    const manifest = parsed(written, "manifest.json");
    if (manifest.format_version !== FORMAT_VERSION) {
      throw new ArtefactError(
        `${location} is of another version. Expected: format_version ${FORMAT_VERSION}. ` +
          `Received: ${manifest.format_version}. ` +
          (manifest.format_version > FORMAT_VERSION ? "It is newer: use the runtime that lies in it" : "Export again"),
      );
    }
    // The checksum is that of the text with zeros in its place.
    const { checksum } = manifest;
    const zeroed = checksum ? written.replaceAll(checksum, "0".repeat(64)) : "";
    if ((await sha256(new TextEncoder().encode(zeroed))) !== checksum) {
      throw new ArtefactError(
        `${location}: manifest.json was changed after the export (its checksum does not match). Export again`,
      );
    }
    if (manifest.kind !== "translator" || !manifest.formats.onnx) {
      throw new ArtefactError(`${location} holds no translator as ONNX. Export one with --to onnx`);
    }
    if (manifest.copy_words || manifest.source_features) {
      throw new ArtefactError(`${location} copies words or reads features, which runtime.py knows and this file does not`);
    }
    const artefact = new Artefact(manifest, read, ort);
    for (const side of ["source", "target"]) {
      const entry = manifest.tokenizers[side];
      if (!entry) continue;
      const content = JSON.parse(new TextDecoder().decode(await artefact.file(entry.file)));
      if (content.kind === "subword") {
        const model = await artefact.file(content.model);
        const { SubwordTokenizer } = await import("./subwords.mjs");
        try {
          artefact[side] = new SubwordTokenizer(model, manifest.special_ids);
        } catch (error) {
          artefact.noText = ` (${content.model}: ${error.message})`; // rows of ids will do
        }
      } else {
        artefact[side] = new Tokenizer(content, manifest.special_ids);
      }
    }
    return artefact;
  }

  constructor(manifest, read, ort) {
    Object.assign(this, { manifest, read, ort, sessions: {}, source: null, target: null, noText: "" });
  }

  /** One file, after its size and SHA-256 were compared with the manifest. */
  async file(name) {
    const entry = this.manifest.files[name];
    if (/^([/\\]|\w:)|\\|(^|\/)\.\.(\/|$)/.test(name)) {
      throw new ArtefactError(
        `The artefact names a file outside of itself. Expected: names below it. Received: '${name}'. Export again`,
      );
    }
    const bytes = entry ? await this.read(name) : "";
    if (!entry || bytes.length !== entry.bytes || (await sha256(bytes)) !== entry.sha256) {
      throw new ArtefactError(`${name} is not the exported file. Copy it again, or export again`);
    }
    return bytes;
  }

  /** Run one graph on `{name: {data, dims}}`; types are those of the manifest. */
  async run(graph, inputs) {
    if (!this.sessions[graph]) {
      const bytes = await this.file(this.manifest.formats.onnx.files[graph]);
      // Of its log errors alone: the warnings are about its own rewriting of loops.
      const options = { executionProviders: ["wasm"], logSeverityLevel: 3 };
      this.sessions[graph] = await this.ort.InferenceSession.create(bytes, options);
    }
    const feeds = {};
    for (const [name, port] of Object.entries(this.manifest.signatures[graph].inputs)) {
      const { data, dims } = inputs[name];
      feeds[name] = data instanceof this.ort.Tensor ? data : new this.ort.Tensor(port.dtype, data, dims);
    }
    return this.sessions[graph].run(feeds);
  }

  /** The knobs, with the manifest's defaults where none is given; checked. Arrays beside those two are flat. */
  knobs(given, rows) {
    const values = {};
    for (const [name, knob] of Object.entries(this.manifest.knobs)) {
      if (name === "allowed" || name === "prefix") continue;
      const { axes } = this.manifest.signatures.translate.inputs[name];
      if (axes.length) {
        const count = axes.reduce((product, axis) => product * (axis === "batch" ? rows.length : axis), 1);
        const fill = () => (knob.random ? knob.minimum + Math.random() * (knob.maximum - knob.minimum) : knob.default);
        values[name] = given[name] ?? Array.from({ length: count }, fill);
        const wrong = Array.from(values[name]).some((one) => !(one >= knob.minimum && one <= knob.maximum));
        if (values[name].length !== count || wrong) {
          throw new ArtefactError(
            `${name} does not fit. Expected: ${count} numbers, ${knob.minimum} to ${knob.maximum}, row by row`,
          );
        }
        continue;
      }
      const value = given[name] ?? knob.default;
      const whole = this.manifest.signatures.translate.inputs[name].dtype === "int32";
      if (!(whole ? Number.isInteger(value) : Number.isFinite(value)) || value < (knob.minimum ?? -Infinity) || value > (knob.maximum ?? Infinity)) {
        let range = knob.minimum === undefined ? "a finite number" : `at least ${knob.minimum}, and finite`;
        if (knob.maximum !== undefined) range = `${knob.minimum} to ${knob.maximum} (fixed at export)${whole ? ", a whole number" : ""}`;
        throw new ArtefactError(`${name} is out of range. Expected: ${range}. Received: ${value}`);
      }
      values[name] = value;
    }
    if (values.min_length > values.max_length) {
      throw new ArtefactError(`min_length is above max_length. Received: ${values.min_length}, ${values.max_length}`);
    }
    const [vocabulary] = this.manifest.signatures.translate.inputs.allowed.axes;
    values.allowed = given.allowed ?? new Array(vocabulary).fill(true);
    values.prefix = given.prefix ?? rows.map(() => []);  // where there is no such knob, it stays empty
    if (values.allowed.length !== vocabulary || values.prefix.length !== rows.length) {
      throw new ArtefactError(`Expected: ${vocabulary} values in allowed, and a prefix for each of ${rows.length} rows`);
    }
    const { eos, pad } = this.manifest.special_ids;
    for (const prefix of values.prefix) {
      const wrong = prefix.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabulary || id === eos || id === pad);
      if (wrong !== undefined) {
        throw new ArtefactError(`A prefix holds what cannot be written there. Expected: ids of words. Received: ${wrong}`);
      }
      if (prefix.length > values.max_length) {
        throw new ArtefactError(
          `A prefix is longer than a translation may be. Expected: at most ${values.max_length} tokens. ` +
            `Received: ${prefix.length}`,
        );
      }
    }
    return values;
  }

  /**
   * Beam search for rows of source ids, each with EOS: for each row its hypotheses, best first, as
   * `{ids, score, logProb, finished, alignment}`.
   */
  async search(rows, { beamSize, hostLoop = false, ...given } = {}) {
    const { manifest } = this;
    const special = manifest.special_ids;
    const known = new Set(Object.keys(manifest.knobs));
    const stranger = Object.keys(given).find((name) => !known.has(name) && given[name] !== undefined);
    if (stranger) throw new ArtefactError(`No knob ${stranger}. Expected: one of ${[...known].join(", ")}`);
    if (!rows.length) return [];
    this.#checkIds(rows, "row");
    rows = this.#withoutPadding(rows);
    const knobs = this.knobs(given, rows);
    const length = Math.max(...rows.map((row) => row.length));
    const ids = Int32Array.from(rows.flatMap((row) => [...row, ...new Array(length - row.length).fill(special.pad)]));
    const source = { data: ids, dims: [rows.length, length] };
    const beams = beamSize ?? manifest.beam_size;
    if (!Number.isInteger(beams) || beams < 1) {
      throw new ArtefactError(`The beam size is out of range. Expected: at least 1. Received: ${beams}`);
    }
    const onHost =
      hostLoop || beams !== manifest.beam_size || !manifest.formats.onnx.signatures.includes("translate");
    const { method, groups, phrases, stop, no_repeat_ngram: ngram, length_penalty_kind: kind } = manifest.search;
    const plain = method === "beam" && groups === 1 && !phrases && stop === "all" && !ngram && kind === "gnmt";
    if (onHost && (!plain || "repetition_penalty" in knobs)) {
      throw new ArtefactError("This search is in the graph alone. Expected: no host loop, and the exported beam size");
    }
    return onHost
      ? this.#onHost(rows, source, beams, knobs)
      : this.#inGraph(rows, source, knobs);
  }

  /** Throws unless every row is one that the model can read: a graph itself cannot. */
  #checkIds(rows, what) {
    const { source_vocabulary: vocabulary, max_source_length: most } = this.manifest;
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

  /** The rows without the padding behind them. Throws unless each ends with EOS, and padding stands behind it alone. */
  #withoutPadding(rows) {
    const { pad, eos } = this.manifest.special_ids;
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

  async #inGraph(rows, source, knobs) {
    const { inputs } = this.manifest.signatures.translate;
    const feeds = { source_ids: source };
    for (const name of Object.keys(knobs)) {
      if (!inputs[name] || name === "prefix" || name === "allowed") continue;
      const kind = inputs[name].dtype === "int32" ? Int32Array : Float32Array;
      const dims = inputs[name].axes.map((axis) => (axis === "batch" ? rows.length : axis));
      feeds[name] = { data: kind.from(dims.length ? knobs[name] : [knobs[name]]), dims };
    }
    feeds.allowed = { data: Uint8Array.from(knobs.allowed, Number), dims: [knobs.allowed.length] };
    if (inputs.prefix) {
      const width = Math.max(1, ...knobs.prefix.map((prefix) => prefix.length));
      const pad = this.manifest.special_ids.pad;
      const padded = knobs.prefix.flatMap((prefix) => [...prefix, ...new Array(width - prefix.length).fill(pad)]);
      feeds.prefix = { data: Int32Array.from(padded), dims: [rows.length, width] };
    }
    const found = await this.run("translate", feeds);
    const [, beams, capacity, sources] = found.alignments.dims;
    return rows.map((row, b) =>
      Array.from({ length: beams }, (_, k) => {
        const at = b * beams + k;
        const count = found.lengths.data[at];
        return {
          ids: Array.from(found.ids.data.subarray(at * capacity, at * capacity + count)),
          score: found.scores.data[at],
          logProb: found.log_probs.data[at],
          finished: Boolean(found.finished.data[at]),
          alignment: Array.from({ length: count }, (_, t) => {
            const start = (at * capacity + t) * sources;
            return found.alignments.data.slice(start, start + row.length);
          }),
        };
      }),
    );
  }

  async #onHost(rows, source, beams, knobs) {
    const { manifest } = this;
    const batch = rows.length;
    const lengths = rows.map((row) => row.length);
    const limits = lengths.map((length) => {
      if (manifest.max_length_factor === null) return knobs.max_length;
      const relative = Math.floor(Math.fround(length * Math.fround(manifest.max_length_factor)));
      return Math.max(Math.min(knobs.max_length, relative + manifest.max_length_offset), 1);
    });
    const encoded = await this.run("encode", { source_ids: source });
    const everyRow = Array.from({ length: batch * beams }, (_, row) => Math.floor(row / beams));
    const tensors = Object.fromEntries(Object.entries(encoded).map(([name, t]) => [name, this.#take(t, everyRow)]));
    const updates = manifest.state_updates;
    const step = async (tokens, parents) => {
      if (parents) for (const name of Object.keys(updates)) tensors[name] = this.#take(tensors[name], parents);
      const inputs = { token_ids: { data: Int32Array.from(tokens), dims: [tokens.length] } };
      for (const [name, data] of Object.entries(tensors)) inputs[name] = { data };
      const found = await this.run("decode_step", inputs);
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

  /** Rows of a tensor, in another order or repeated. */
  #take(tensor, chosen) {
    const size = tensor.dims.slice(1).reduce((product, axis) => product * axis, 1);
    const data = new tensor.data.constructor(chosen.length * size);
    chosen.forEach((row, place) => data.set(tensor.data.subarray(row * size, (row + 1) * size), place * size));
    return new this.ort.Tensor(tensor.type, data, [chosen.length, ...tensor.dims.slice(1)]);
  }

  /** Checked source ids of each sentence, with EOS. Throws for what is no text, empty, or longer than in training. */
  encode(sentences) {
    if (!this.source || !this.target) {
      throw new ArtefactError(`No tokenizers that read text here${this.noText}. Use search with rows of ids`);
    }
    const most = this.manifest.trained_source_length ?? Infinity;
    const rows = sentences.map((text, index) => {
      const line = `line ${index + 1}`;
      if (/\p{Surrogate}/u.test(text)) {
        throw new ArtefactError(`${line} holds a lone surrogate, which is no text. Expected: Unicode text`);
      }
      const ids = this.source.encode(text);
      if (!ids.length || !text.trim()) {
        throw new ArtefactError(`${line} is empty. Expected: a sentence. Remove the line`);
      }
      if (ids.length > most) {
        throw new ArtefactError(
          `${line}: ${ids.length} tokens. Expected: at most ${most}, the limit of training. Split the sentence`,
        );
      }
      return [...ids, this.manifest.special_ids.eos];
    });
    this.#checkIds(rows, "line");
    return rows;
  }

  /**
   * The hypotheses of each sentence, best first, as `{text, ids, tokens, sourceTokens, score, logProb, finished,
   * alignment}`. Options: those of `search`, but `prefix` is a text for all sentences, and `banned` a list of tokens.
   */
  async translate(sentences, { prefix = "", banned = [], ...options } = {}) {
    const rows = this.encode(sentences);
    const written = (text) => {
      const ids = this.target.encode(text);
      if (ids.includes(this.target.unknown)) throw new ArtefactError(`${text} holds what the model cannot write`);
      return ids;
    };
    const begun = written(prefix);
    if (!Array.isArray(banned)) throw new ArtefactError(`Expected: a list of banned tokens. Received: ${banned}`);
    let { allowed } = options;
    if (banned.length) {
      const refused = new Set();
      for (const word of banned) {
        const ids = written(word);
        if (ids.length !== 1) throw new ArtefactError(`The banned word ${word} is not one token`);
        refused.add(ids[0]);
      }
      allowed = this.target.vocabulary.map((_, id) => !refused.has(id) && (allowed?.[id] ?? true));
    }
    const prefixes = begun.length ? rows.map(() => begun) : undefined;
    const found = await this.search(rows, { ...options, allowed, prefix: prefixes });
    return found.map((hypotheses, b) =>
      hypotheses
        .filter((one) => one.ids.length)
        .map((one) => {
          const ids = one.finished ? one.ids.slice(0, -1) : one.ids;
          const sourceTokens = this.source.tokens(rows[b]);
          return { ...one, ids, text: this.target.decode(ids), tokens: this.target.tokens(ids), sourceTokens };
        }),
    );
  }
}

// --- command ---

async function main([folder = ".", options = "{}"]) {
  const settings = parsed(options, "the options");
  const { text } = await import("node:stream/consumers");
  const ort = await import("onnxruntime-web").catch(() => {
    throw new ArtefactError("onnxruntime-web is needed. Run: npm install onnxruntime-web");
  });
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "error";
  const artefact = await Artefact.open(folder, ort);
  const content = (await text(process.stdin)).replace(/\n$/, "");
  const sentences = content ? content.split("\n").map((line) => line.replace(/\r$/, "")) : [];
  artefact.encode(sentences); // a bad line ends the command before the first result
  for (const sentence of sentences) {
    const [hypotheses] = await artefact.translate([sentence], settings);
    const plain = hypotheses.map((one) => ({ ...one, alignment: one.alignment.map((weights) => Array.from(weights)) }));
    console.log(JSON.stringify(plain));
  }
}

if (IN_NODE && process.argv[1]) {
  const { pathToFileURL } = await import("node:url");
  if (import.meta.url === pathToFileURL(process.argv[1]).href) {
    try {
      await main(process.argv.slice(2));
    } catch (error) {
      console.error(error instanceof ArtefactError ? `error: ${error.message}` : error);
      process.exitCode = 1;
    }
  }
}
