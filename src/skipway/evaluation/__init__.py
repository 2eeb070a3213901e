"""Scores of predicted masks against true ones, from files: pairing, what the masks are, and the numbers.

`docs/metrics.md` holds the definitions and the rules by which the scores are chosen.
"""

from skipway.evaluation.run import evaluate
from skipway.metrics.summary import Evaluation, ImageScores

__all__ = ["Evaluation", "ImageScores", "evaluate"]
