// Translate with an exported artefact in a browser or in Node, by a build of ONNX Runtime for JavaScript.
//
//   import * as ort from "onnxruntime-web";
//   import { Artefact } from "./web/artefact.mjs";
//   const artefact = await Artefact.open(".", ort);          // a folder in Node, an address in a browser
//   const [hypotheses] = await artefact.translate(["Sunday, 22 Nov. 2026"]);
//   console.log(hypotheses[0].text, hypotheses[0].alignment);
//
// It runs an ONNX export, as `runtime/` does in Python, and generates the same tokens: by the graph
// `translate`, or by a host loop over `encode` and `decode_step` with any beam size. Text goes through tokenizers of
// characters, words or, by `subwords.mjs`, subwords; `search` takes rows of ids. Each file is compared with its SHA-256
// in the manifest.

import { ArtefactError } from "./errors.mjs";
import { onlyInGraph, searchOnHost } from "./host_loop.mjs";
import { checkIds, encodeSentences, withoutPadding } from "./inputs.mjs";
import { checkNames, knobValues } from "./knobs.mjs";
import { readFile, readManifest, reader } from "./manifest.mjs";
import { Tokenizer } from "./tokenizer.mjs";

export { ArtefactError };

/** A translator read from an artefact: `await Artefact.open(folder or address, ort)`. */
export class Artefact {
  /**
   * Open an artefact. `ort` is a build of ONNX Runtime: the module `onnxruntime-web` or `onnxruntime-node`.
   * `executionProviders` are those of its sessions, in order of preference, as `["webgpu", "wasm"]` or `["cpu"]`.
   */
  static async open(location, ort, { executionProviders = ["wasm"] } = {}) {
    const read = reader(location);
    const manifest = await readManifest(location, read);
    if (manifest.kind !== "translator" || !manifest.formats.onnx) {
      throw new ArtefactError(`${location} holds no translator as ONNX. Export one with --to onnx`);
    }
    if (manifest.copy_words || manifest.source_features) {
      throw new ArtefactError(
        `${location} copies words or reads features, which the runtime in Python knows and this one does not`,
      );
    }
    const artefact = new Artefact(manifest, read, ort, executionProviders);
    for (const side of ["source", "target"]) await artefact.#openTokenizer(side);
    return artefact;
  }

  constructor(manifest, read, ort, executionProviders = ["wasm"]) {
    Object.assign(this, { manifest, read, ort, executionProviders });
    Object.assign(this, { sessions: {}, source: null, target: null, noText: "" });
  }

  async #openTokenizer(side) {
    const entry = this.manifest.tokenizers[side];
    if (!entry) return;
    const content = JSON.parse(new TextDecoder().decode(await this.file(entry.file)));
    if (content.kind !== "subword") {
      this[side] = new Tokenizer(content, this.manifest.special_ids);
      return;
    }
    const model = await this.file(content.model);
    const { SubwordTokenizer } = await import("./subwords.mjs");
    try {
      this[side] = new SubwordTokenizer(model, this.manifest.special_ids);
    } catch (error) {
      this.noText = ` (${content.model}: ${error.message})`; // rows of ids need no tokenizer
    }
  }

  /** Read one file, after its size and SHA-256 were compared with the manifest. */
  async file(name) {
    return readFile(this.manifest, this.read, name);
  }

  /** Run one graph on `{name: {data, dims}}`; types are those of the manifest. */
  async run(graph, inputs) {
    if (!this.sessions[graph]) {
      const bytes = await this.file(this.manifest.formats.onnx.files[graph]);
      // Log errors only: the warnings are about its own rewriting of loops.
      const options = { executionProviders: this.executionProviders, logSeverityLevel: 3 };
      this.sessions[graph] = await this.ort.InferenceSession.create(bytes, options);
    }
    const feeds = {};
    for (const [name, port] of Object.entries(this.manifest.signatures[graph].inputs)) {
      const { data, dims } = inputs[name];
      feeds[name] = data instanceof this.ort.Tensor ? data : new this.ort.Tensor(port.dtype, data, dims);
    }
    return this.sessions[graph].run(feeds);
  }

  /**
   * Beam search for rows of source ids, each with EOS: for each row its hypotheses, best first, as
   * `{ids, score, logProb, finished, alignment}`.
   */
  async search(rows, { beamSize, hostLoop = false, ...given } = {}) {
    const { manifest } = this;
    checkNames(manifest, given);
    if (!rows.length) return [];
    checkIds(manifest, rows, "row");
    rows = withoutPadding(manifest, rows);
    const knobs = knobValues(manifest, given, rows);
    const length = Math.max(...rows.map((row) => row.length));
    const { pad } = manifest.special_ids;
    const ids = Int32Array.from(rows.flatMap((row) => [...row, ...new Array(length - row.length).fill(pad)]));
    const source = { data: ids, dims: [rows.length, length] };
    const beams = beamSize ?? manifest.beam_size;
    if (!Number.isInteger(beams) || beams < 1) {
      throw new ArtefactError(`The beam size is out of range. Expected: at least 1. Received: ${beams}`);
    }
    const onHost =
      hostLoop || beams !== manifest.beam_size || !manifest.formats.onnx.signatures.includes("translate");
    if (!onHost) return this.#inGraph(rows, source, knobs);
    if (onlyInGraph(manifest)) {
      throw new ArtefactError("This search is in the graph alone. Expected: no host loop, and the exported beam size");
    }
    const run = (graph, inputs) => this.run(graph, inputs);
    return searchOnHost(run, this.ort.Tensor, manifest, rows, source, beams, knobs);
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

  /** Return checked source ids of each sentence, with EOS. Throws for no text, an empty one, or one that is too long. */
  encode(sentences) {
    if (!this.source || !this.target) {
      throw new ArtefactError(`No tokenizers that read text here${this.noText}. Use search with rows of ids`);
    }
    return encodeSentences(this.manifest, this.source, sentences);
  }

  /**
   * Return the hypotheses of each sentence, best first, as `{text, ids, tokens, sourceTokens, score, logProb, finished,
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
