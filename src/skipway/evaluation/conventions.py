"""The sentences that say what the numbers of an evaluation mean."""

from collections.abc import Sequence

from skipway.evaluation.rules import Scheme


def conventions(scheme: Scheme) -> tuple[str, ...]:
    """What the numbers mean, one sentence an entry."""
    texts = [
        "every score is made per image (page), then averaged over the images that have it; n counts those",
        "0/0 has no value (n/a, null): a class in neither truth nor prediction counts neither as 0 nor as 1",
    ]
    if scheme.binarise:
        texts.append("pixel scores: 1 = any object, 0 = background")
    if scheme.ignore is not None:
        texts.append(f"pixels whose truth is {scheme.ignore} are not counted")
    if "objects" in scheme.kinds:
        texts += _object_conventions(scheme)
    if "em" in scheme.kinds:
        texts += _membrane_conventions(scheme)
    return tuple(texts)


def _object_conventions(scheme: Scheme) -> Sequence[str]:
    how = {True: "the values of the mask", False: "connected components (edge neighbours) of the mask"}
    return (
        f"true objects are {how[scheme.truth_ids]}, predicted ones {how[scheme.prediction_ids]}",
        "objects match one to one at IoU ≥ threshold (Hungarian); AP = TP / (TP + FP + FN); "
        "mean_ap over 0.50, 0.55 … 0.95; PQ at 0.5; SEG as in the Cell Tracking Challenge, but per image",
        "an image without true and predicted objects has no object score; objects on one side only score 0",
    )


def _membrane_conventions(scheme: Scheme) -> Sequence[str]:
    cut = (
        "interior probability cut at 0, 0.1 … 1, best mean over the set"
        if scheme.probabilities
        else "hard labels, one cut"
    )
    return (
        f"V_rand, V_info: foreground-restricted, 4-connected regions, value {scheme.values[0]} is wall, "
        f"predicted walls thinned by watershed to one pixel (ISBI 2012, Fiji); {cut}",
    )
