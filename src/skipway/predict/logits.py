"""From logits to what is kept: one set of logits, a class map, probabilities."""

from collections.abc import Iterable, Sequence
from math import log
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Outputs = Literal["last", "mean"]


def combine(outputs: Sequence[Tensor], how: Outputs = "last", *, overlapping: bool = False) -> Tensor:
    """One set of logits out of the supervised outputs of a network.

    "last" takes the last output. "mean" averages *probabilities*, p = (1/n) Σ softmax(z_i), and returns
    logits of that mean: log p, or log p - log(1 - p) for a single channel and for classes that overlap.
    Averaging logits would be another, sharper, rule.

    Args:
        outputs: Logits of shape (B, K, *S); larger ones (valid convolutions) are cropped to the last one's
            centre, those without spatial axes (presence of foreground) are left out.
        how: "last" or "mean".
        overlapping: Whether each channel has a sigmoid of its own.

    Returns:
        Logits of shape (B, K, *S).

    Raises:
        ValueError: `how` is neither of the two.

    Source: Zhou et al. 2019, UNet++, section III-C: accurate mode is the mean of all outputs, fast mode
        takes one.
    """
    if how == "last":
        return outputs[-1]
    if how != "mean":
        raise ValueError(f"outputs are combined by 'last' or 'mean', not {how!r}")
    size = outputs[-1].shape[2:]
    maps = (centred(output, size) for output in outputs if output.ndim > 2)
    return averaged(maps, overlapping=overlapping)


def averaged(found: Iterable[Tensor], *, overlapping: bool = False) -> Tensor:
    """Logits of the mean of probabilities, (1/n) Σ p(z_i), holding one z_i at a time.

    Args:
        found: Logits of shape (B, K, *S), at least one.
        overlapping: Whether each channel has a sigmoid of its own.

    Returns:
        Logits of shape (B, K, *S): log p, or log p - log(1 - p) for a sigmoid.

    >>> averaged([torch.tensor([[[2.0]]]), torch.tensor([[[-2.0]]])]).item()
    0.0
    """
    total: tuple[Tensor, ...] | None = None
    count = 0
    for logits in found:
        parts = log_parts(logits, overlapping=overlapping)
        total = parts if total is None else more(total, parts)
        count += 1
    if total is None:
        raise ValueError("the mean of no logits was asked for")
    return logits_of(total, count)


def log_parts(logits: Tensor, *, overlapping: bool = False) -> tuple[Tensor, ...]:
    """(log p,) of a softmax over axis 1, or (log p, log(1 - p)) of a sigmoid; each of the shape of the logits.

    bfloat16 becomes float32, for sums of logarithms need more than 8 bits.
    """
    logits = logits.float() if logits.dtype == torch.bfloat16 else logits
    if overlapping or logits.shape[1] == 1:
        return F.logsigmoid(logits), F.logsigmoid(-logits)
    return (F.log_softmax(logits, 1),)


def more(total: tuple[Tensor, ...], parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Sums of probabilities, as logarithms."""
    return tuple(torch.logaddexp(a, b) for a, b in zip(total, parts, strict=True))


def logits_of(total: tuple[Tensor, ...], count: int) -> Tensor:
    """Logits of the mean of `count` probabilities, from the logarithms of their sums."""
    return total[0] - total[1] if len(total) == 2 else total[0] - log(count)


def class_map(logits: Tensor) -> Tensor:
    """Class of each pixel as uint8: the first of the largest logits, as argmax; for one channel, logit > 0.

    A running compare, channel by channel: `torch.argmax` over a leading axis walks memory across the
    channels and makes int64, which costs about a hundred times as much for two classes (pytorch#140000).

    Args:
        logits: Shape (K, *S), K ≤ 256, finite.

    Returns:
        Tensor of shape (*S), uint8.

    Raises:
        ValueError: More classes than uint8 can name.

    >>> class_map(torch.tensor([[3.0, 1.0, 0.0], [3.0, 2.0, 0.0], [1.0, 2.0, 5.0]])).tolist()
    [0, 1, 2]
    """
    if len(logits) > 256:
        raise ValueError(f"a class map of 8 bits holds 256 classes at most, found {len(logits)}")
    if len(logits) == 1:
        return (logits[0] > 0).view(torch.uint8)
    classes = (logits[1] > logits[0]).view(torch.uint8)
    best = torch.maximum(logits[0], logits[1])
    for k in range(2, len(logits)):
        # k exceeds every class so far, so the maximum puts it where it won and leaves the rest.
        torch.maximum(classes, (logits[k] > best).view(torch.uint8).mul_(k), out=classes)
        torch.maximum(best, logits[k], out=best)
    return classes


def class_sets(logits: Tensor) -> Tensor:
    """Set of the classes of each pixel, Σ 2^k over the channels k of logit ≥ 0: probability of at least ½.

    Args:
        logits: Shape (K, *S), K ≤ 62, finite.

    Returns:
        Tensor of shape (*S): uint8 for up to 8 classes, else int64.

    >>> class_sets(torch.tensor([[3.0, -1.0, -2.0], [1.0, 0.0, -2.0]])).tolist()
    [3, 2, 0]
    """
    dtype = torch.uint8 if len(logits) <= 8 else torch.int64
    sets = torch.zeros(logits.shape[1:], dtype=dtype, device=logits.device)
    for k in range(len(logits)):
        sets |= (logits[k] >= 0).to(dtype) << k
    return sets


def decided(logits: Tensor, *, overlapping: bool = False) -> Tensor:
    """`class_sets` where classes overlap, else `class_map`."""
    return class_sets(logits) if overlapping else class_map(logits)


def probabilities(logits: Tensor, *, overlapping: bool = False, temperature: float = 1.0) -> Tensor:
    """Softmax of logits / T over the channels; sigmoid for a single one and for classes that overlap.

    Shape (K, *S) in and out.
    """
    sigmoid = overlapping or len(logits) == 1
    logits = logits if temperature == 1.0 else logits / temperature
    return torch.sigmoid(logits) if sigmoid else torch.softmax(logits, 0)


def log_odds(probabilities: Tensor, *, overlapping: bool = False) -> Tensor:
    """Logits whose `probabilities` these are: log p, and log p − log(1 − p) for a sigmoid.

    Shape (K, *S) in and out; a probability of 0 counts as 1e-12.
    """
    known = probabilities.clamp_min(1e-12).log()
    sigmoid = overlapping or len(probabilities) == 1
    return known - (1 - probabilities).clamp_min(1e-12).log() if sigmoid else known


def centred(output: Tensor, size: Sequence[int]) -> Tensor:
    """The middle of (B, K, *S), as large as `size`."""
    first = [(have - want) // 2 for have, want in zip(output.shape[2:], size, strict=True)]
    return output[:, :, *(slice(f, f + want) for f, want in zip(first, size, strict=True))]
