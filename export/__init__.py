"""Export: SavedModel, TFLite and ONNX, each proved against Keras."""
