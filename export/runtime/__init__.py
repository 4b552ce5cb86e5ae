"""Translate with an exported artefact, without TensorFlow or Keras.

    python ARTEFACT/runtime < sentences.txt

This folder needs NumPy, one interpreter (`ai-edge-litert` for TFLite files, `onnxruntime` or `openvino` for ONNX files)
and, for subwords, `sentencepiece`. It lies in an artefact and reads that one, or the one of `--artefact`. As a module,
with ARTEFACT on `sys.path`:

    from runtime import Artefact
    artefact = Artefact("path/to/ARTEFACT", backend="litert")
    for hypotheses in artefact.translate(["a sentence"], n_best=2):
        print(hypotheses[0].text, hypotheses[0].score)

Two routes find the same tokens. The graph `translate` holds the encoder and the beam search, with the beam size fixed
at export. The host loop runs `encode` once and `decode_step` for each token, with any beam size. Both take the knobs
that the manifest names, each with its default: `max_length`, `min_length`, `length_penalty`, `allowed` (tokens that may
be generated), `prefix` (ids that each translation begins with) and those of the exported search. Groups, phrases,
samples, contrastive search and agreement are in the graph alone. Every file is compared with its SHA-256 in
`manifest.json` before it is read.
"""

from .artefact import Artefact, Hypothesis
from .backends import BACKENDS
from .beam_search import beam_search
from .command import main
from .errors import MOST_THREADS, WIDEST, ArtefactError, MissingPackageError
from .host_loop import has_translate, only_in_graph, run_translate, search_on_host
from .inputs import source_lengths
from .knobs import filled, knob_values
from .manifest import FORMAT_VERSION, check_file, manifest_checksum, read_manifest, sha256
from .tokenizer import Tokenizer

__all__ = [
    "Artefact",
    "Hypothesis",
    "ArtefactError",
    "MissingPackageError",
    "Tokenizer",
    "BACKENDS",
    "beam_search",
    "search_on_host",
    "run_translate",
    "has_translate",
    "only_in_graph",
    "knob_values",
    "filled",
    "source_lengths",
    "read_manifest",
    "check_file",
    "sha256",
    "manifest_checksum",
    "main",
    "FORMAT_VERSION",
    "WIDEST",
    "MOST_THREADS",
]
