"""Translate sentences with an ONNX file that reads text, in a process without TensorFlow.

    python read_text.py translate_text.onnx < sentences.json > texts.json

It maps a list of strings to a list of lists of strings. TensorFlow's sentencepiece and that of
onnxruntime-extensions crash each other in one process. So this file runs as a process of its own, and imports
nothing of this package.
"""

import json
import sys
from collections.abc import Sequence

import numpy as np


def main(arguments: Sequence[str]) -> int:
    import onnxruntime
    import onnxruntime_extensions

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # as in the runtime
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    session = onnxruntime.InferenceSession(arguments[0], options, providers=["CPUExecutionProvider"])
    text = np.array(json.load(sys.stdin), object)
    found = session.run(["translations"], {"text": text})[0]
    json.dump([[str(one) for one in row] for row in found], sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
