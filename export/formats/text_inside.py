"""Checks for files that read sentences."""

from collections.abc import Sequence

from keras_attention.errors import UserError
from keras_attention.models.encoder_decoder import EncoderDecoder

from ..members import Members
from ..request import Request
from .base import Format


def check_text(formats: Sequence[Format], request: Request) -> None:
    """Raise `UserError` where no file can read sentences: another format, other tokenizers, copied words, samples."""
    if request.precision == "int8":
        raise UserError("A file that reads sentences holds `translate`, which int8 files do not. Expected: no --text")
    if request.settings.method == "sample":
        raise UserError("A text file has no input for numbers to draw by. Expected: another method, or no text inside")
    able = [one for one in formats if one.text_file is not None]
    if not able:
        raise UserError(
            "Text inside is an option for TFLite and ONNX; the SavedModel has it always. "
            f"Expected: one of them among the formats. Received: {', '.join(one.name for one in formats)}"
        )
    for one in able:
        one.check_tokenizers(request.tokenizers)
    model = request.model
    try:
        net = model.ensemble if isinstance(model, Members) else EncoderDecoder(model)
        copies = net.config.copy_words
    except ValueError:
        raise UserError("Only a translator reads text. Expected: a model of build_seq2seq, or no text inside") from None
    if copies is not None:
        raise UserError("A model that copies words reads ids of each text's own. Expected: no text inside for it")
