"""Prediction in exact tiles: images and arrays of any size, with a certificate that tiles changed nothing."""

from .certificate import Certificate
from .logits import class_map, combine, probabilities
from .pixels import ArrayPixels, PagePixels, Pixels
from .stream import Options, Prediction, evaluating, predict_array, predict_page, predict_pixels

__all__ = [
    "ArrayPixels",
    "Certificate",
    "Options",
    "PagePixels",
    "Pixels",
    "Prediction",
    "class_map",
    "combine",
    "evaluating",
    "predict_array",
    "predict_page",
    "predict_pixels",
    "probabilities",
]
