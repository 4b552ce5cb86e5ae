"""TFLite (LiteRT): one file with several signatures, built-in operators only.

The converter reads a SavedModel and may crash the interpreter, so it runs as a process of its own:

    python -m keras_attention.export.formats.to_tflite.convert SAVED_MODEL OUTPUT PRECISION builtin|custom SIGNATURE...
"""

import collections
import pathlib
import sys
from collections.abc import Sequence


def convert(
    saved_model: pathlib.Path, signatures: Sequence[str], precision: str = "float32", custom: bool = False
) -> bytes:
    """Convert some signatures of a SavedModel to a TFLite file with built-in operators only.

    Args:
        saved_model: folder that `write_saved_model` wrote.
        signatures: their names.
        precision: `"float32"`; `"float16"`: float16 weights, products in float32; `"dynamic_int8"`: int8 weights of
            products, one scale for each output, activations quantised dynamically by row; loops included.
        custom: whether to keep operators that are not built in as custom ones; Flex is never used.

    Raises:
        Exception: the converter's own, for an operator without a built-in form.
    """
    import tensorflow as tf

    if custom:
        import tensorflow_text  # noqa: F401  registers the operators for text, without which the graph cannot be read

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=list(signatures))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    converter.allow_custom_ops = custom
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return bytes(converter.convert())


def operators(content: bytes) -> dict[str, dict[str, int]]:
    """Count a TFLite file's operators, `{"builtin": {name: count}, "custom": {name: count}}`; Flex ones are custom."""
    from tensorflow.lite.python import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    counts: dict[str, collections.Counter[str]] = {"builtin": collections.Counter(), "custom": collections.Counter()}
    for subgraph in model.subgraphs:
        for operator in subgraph.operators or []:
            code = model.operatorCodes[operator.opcodeIndex]
            number = max(code.builtinCode, code.deprecatedBuiltinCode)
            if names[number] == "CUSTOM":
                counts["custom"][code.customCode.decode()] += 1
            else:
                counts["builtin"][names[number]] += 1
    return {kind: dict(sorted(counter.items())) for kind, counter in counts.items()}


def main(arguments: Sequence[str]) -> int:
    saved_model, output, precision, kinds, *signatures = arguments
    content = convert(pathlib.Path(saved_model), signatures, precision, kinds == "custom")
    pathlib.Path(output).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
