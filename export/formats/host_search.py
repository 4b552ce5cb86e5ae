"""Searches that int8 files support: those of the runtime's host loop."""

from keras_attention.errors import UserError
from keras_attention.search_policy import SearchPolicy

from .. import runtime
from ..graphs.knobs import describe_search


def check_host_search(settings: SearchPolicy) -> None:
    """Raise `UserError` unless the host loop of the artefact's runtime supports the search, the only one of int8."""
    missing = runtime.only_in_graph({"search": describe_search(settings)})
    if missing:
        raise UserError(f"int8 files are searched on the host, which knows no {missing}. Expected: a plain beam search")
