"""Names of what `export` writes; not in `exporting`, because the command line needs them first."""

FORMATS = ("savedmodel", "tflite", "onnx")
DEFAULT_FORMAT = "savedmodel"
