"""Prediction in exact tiles or strips: images and arrays of any size, with a certificate that they changed nothing."""

from .certificate import Certificate
from .logits import class_map, combine, probabilities
from .pixels import ArrayPixels, PagePixels, Pixels
from .stream import Options, Prediction, evaluating, predict_array, predict_page, predict_pixels
from .strips import Strips, plan_strips

__all__ = [
    "ArrayPixels",
    "Certificate",
    "Options",
    "PagePixels",
    "Pixels",
    "Prediction",
    "Strips",
    "class_map",
    "combine",
    "evaluating",
    "plan_strips",
    "predict_array",
    "predict_page",
    "predict_pixels",
    "probabilities",
]
