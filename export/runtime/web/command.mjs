// The command: translate standard input, one sentence per line, to JSON lines (text, ids, score, tokens, alignment).
//
//   node ARTEFACT/web/command.mjs ARTEFACT < sentences.txt
//   node ARTEFACT/web/command.mjs ARTEFACT '{"max_length": 20, "prefix": "ein"}' < sentences.txt
//
// The second argument holds the options of `translate` and, for another build of ONNX Runtime than onnxruntime-web, its
// package and its execution providers: {"ort": "onnxruntime-node", "executionProviders": ["cuda", "cpu"]}.

import { Artefact } from "./artefact.mjs";
import { ArtefactError } from "./errors.mjs";
import { parsed } from "./manifest.mjs";

const PROVIDERS = { "onnxruntime-node": ["cpu"] };

async function main([folder = ".", options = "{}"]) {
  const { ort: name = "onnxruntime-web", executionProviders = PROVIDERS[name], ...settings } = parsed(options, "the options");
  const { text } = await import("node:stream/consumers");
  const ort = await import(name).catch(() => {
    throw new ArtefactError(`${name} is needed. Run: npm install ${name}`);
  });
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "error";
  const artefact = await Artefact.open(folder, ort, { executionProviders });
  const content = (await text(process.stdin)).replace(/\n$/, "");
  const sentences = content ? content.split("\n").map((line) => line.replace(/\r$/, "")) : [];
  artefact.encode(sentences); // a bad line ends the command before the first result
  for (const sentence of sentences) {
    const [hypotheses] = await artefact.translate([sentence], settings);
    const plain = hypotheses.map((one) => ({ ...one, alignment: one.alignment.map((weights) => Array.from(weights)) }));
    console.log(JSON.stringify(plain));
  }
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  console.error(error instanceof ArtefactError ? `error: ${error.message}` : error);
  process.exitCode = 1;
}
