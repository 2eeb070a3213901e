"""One `skipway train` command: the data, how they are read and divided, and what the user named of the plan."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from skipway.data.groups import NONE
from skipway.data.layouts import Reading
from skipway.errors import Problem, UsageError
from skipway.request import Request

MOST_WORKERS = 256


@dataclass(frozen=True)
class Order:
    """What is trained on what, and where it goes.

    Attributes:
        images: Folder of images, a multi-page TIFF, or a folder that holds a data set.
        masks: Folder of masks, a multi-page TIFF, or a file of shapes; None where `images` holds them too.
        output: Run folder.
        request: What the user named of the plan.
        task: "classes", "objects" or "multilabel"; None reads it from the masks.
        val: Validation data, see `data.splits.split`.
        reading: What the user says about the layout.
        ignore: Mask value of pixels that nobody annotated.
        groups: A table of groups, or "none".
        fold: Which part of how many validates, such as "2/5".
        folds: How many folds are trained one after the other in one run folder; None trains one network.
        device: Where to run; None chooses.
        self_test: Whether a new run is tested first; it changes nothing of the run.
        workers: Threads that make batches, 0 for none of their own; no result depends on it.

    Raises:
        UsageError: a number of threads that cannot be.
    """

    images: Path
    masks: Path | None
    output: Path
    request: Request = field(default_factory=Request)
    task: str | None = None
    val: Path | None = None
    reading: Reading = field(default_factory=Reading)
    ignore: int | None = None
    groups: str | None = None
    fold: str | None = None
    folds: int | None = None
    device: str | None = None
    self_test: bool = True
    workers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.workers <= MOST_WORKERS:
            raise UsageError(Problem(f"found {self.workers}", "--workers", f"0 to {MOST_WORKERS}"))

    @property
    def asked(self) -> dict[str, Any]:
        """What makes two commands the same command, as it is stored in the run folder."""
        paths = {
            "images": self.images,
            "masks": self.masks,
            "val": self.val,
            "pairs": self.reading.pairs,
            "colours": self.reading.colours,
            "groups": None if self.groups in (None, NONE) else Path(self.groups),
        }
        resolved = {name: None if path is None else str(path.resolve()) for name, path in paths.items()}
        return {
            **resolved,
            "groups": resolved["groups"] or self.groups,
            "task": self.task,
            "layout": self.reading.layout,
            "suffix": self.reading.suffix,
            "colour": self.reading.colour,
            "ignore": self.ignore,
            "fold": self.fold,
            "folds": self.folds,
            **asdict(self.request),
        }
