"""Notices a network that has come to predict one thing everywhere."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

EVERY = 10
"""Steps from one look to the next; a look costs one pass over the logits of a batch."""

PATIENCE = 15
"""Looks in a row that must find it: the first steps of a training often predict background for a while."""

LATEST, FEWEST = 180, 5
"""Steps after which so few looks are enough, where most batches, or the part of them seen, hold one class only."""


@dataclass
class Collapse:
    """How long the predictions have been constant.

    Attributes:
        names: Of the classes.
        overlapping: Whether each class is decided on its own.
        unknown: What the target is where nobody annotated.
        since: Step of the first look that found them so, None while they are not.
        looks: Looks in a row.
        last: Step of the last look that could tell.
        named: Whether it was said.
    """

    names: Sequence[str]
    overlapping: bool = False
    unknown: int = 255
    since: int | None = None
    looks: int = 0
    last: int = 0
    named: bool = False

    def look(self, step: int, logits: Tensor, target: Tensor) -> str | None:
        """A line for people, once for each time that it sets in.

        Args:
            step: Number of the step.
            logits: Of its batch or a part of it, (B, channels, *S).
            target: Its truth (B, *S); a batch of one class says nothing, and the next one is looked at.
        """
        if step - step % EVERY <= self.last or target[target != self.unknown].unique().numel() < 2:
            return None
        self.last = step
        only = self._only(logits.detach())
        if only is None:
            self.since, self.looks, self.named = None, 0, False
            return None
        self.since, self.looks = self.since or step, self.looks + 1
        patient = self.looks >= PATIENCE or (step - self.since >= LATEST and self.looks >= FEWEST)
        if self.named or not patient:
            return None
        self.named = True
        return (
            f"since step {self.since} the network predicts {only} everywhere: compare images and masks with "
            "`skipway check --deep`, or try a lower --lr"
        )

    def _only(self, logits: Tensor) -> str | None:
        """What is predicted for every pixel of a batch, if it is one thing."""
        if logits.shape[1] == 1 or self.overlapping:
            found = (logits > 0).flatten(2).transpose(0, 1).flatten(1)
            if bool((found != found[:, :1]).any()):
                return None
            if not self.overlapping:
                return self.names[int(found[0, 0])]
            there = [name for name, here in zip(self.names, found[:, 0].tolist(), strict=True) if here]
            return ", ".join(there) or "no class"
        decided = torch.argmax(logits, 1)
        first = int(decided.flatten()[0])
        return None if bool((decided != first).any()) else self.names[first]
