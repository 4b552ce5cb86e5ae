"""Each format as a user of it reads it, without this project: `python readers.py KIND FOLDER < text > text`.

Only the interpreter of the format and what `docs/export.md` says of its files are used.
"""

import sys

import numpy as np


def saved_model(folder: str, lines: list[str]) -> list[str]:
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  its operators

    found = tf.saved_model.load(f"{folder}/saved_model").signatures["serving_default"](text=tf.constant(lines))
    return [row[0].decode() for row in found["text"].numpy()]


def tflite_text(folder: str, lines: list[str]) -> list[str]:
    import tensorflow_text
    from ai_edge_litert.interpreter import InterpreterWithCustomOps

    operators = tensorflow_text.tflite_registrar.SELECT_TFTEXT_OPS
    interpreter = InterpreterWithCustomOps(
        model_path=f"{folder}/translate_text.tflite", custom_op_registerers=operators
    )
    runner = interpreter.get_signature_runner("translate_text")
    found = runner(text=np.array(lines, dtype=object))
    rows = zip(found["pieces"][:, 0], found["lengths"][:, 0], strict=True)
    return [b"".join(pieces[:length]).decode().replace("\u2581", " ").lstrip(" ") for pieces, length in rows]


def onnx_text(folder: str, lines: list[str]) -> list[str]:
    import onnxruntime
    import onnxruntime_extensions

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
    session = onnxruntime.InferenceSession(f"{folder}/onnx/translate_text.onnx", options)
    (found,) = session.run(["translations"], {"text": np.array(lines, dtype=object)})
    return [str(row[0]) for row in found]


if __name__ == "__main__":
    text = sys.stdin.buffer.read().decode().splitlines()
    reader = {"saved_model": saved_model, "tflite_text": tflite_text, "onnx_text": onnx_text}[sys.argv[1]]
    for line in reader(sys.argv[2], text):
        sys.stdout.buffer.write(f"{line}\n".encode())
