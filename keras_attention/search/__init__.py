"""Searches over a `step` function and a state tree, independent of models and text."""

from keras_attention.search.agreement import agreement_search
from keras_attention.search.beam import beam_search
from keras_attention.search.constraints import Constraints, allow_words
from keras_attention.search.contract import SearchResult, Step, length_limits, tile_rows
from keras_attention.search.contrastive import contrastive_search
from keras_attention.search.ensemble_step import ensemble_step
from keras_attention.search.greedy import greedy_search
from keras_attention.search.penalties import length_penalty_factor
from keras_attention.search.sampling import sample_search

__all__ = [
    "Constraints",
    "SearchResult",
    "Step",
    "agreement_search",
    "allow_words",
    "beam_search",
    "contrastive_search",
    "ensemble_step",
    "greedy_search",
    "length_limits",
    "length_penalty_factor",
    "sample_search",
    "tile_rows",
]
