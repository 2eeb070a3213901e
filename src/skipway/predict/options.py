"""What may be asked of a prediction of files."""

from dataclasses import dataclass, field
from pathlib import Path

from skipway.errors import Problem, UsageError
from skipway.parts import Part
from skipway.predict.logits import Outputs
from skipway.predict.making import Quantity
from skipway.predict.planes import PLANES
from skipway.predict.stream import Engine

FORMATS = ("", "zarr")


@dataclass(frozen=True)
class StreamOptions:
    """How files are predicted region by region.

    Attributes:
        ram: Bytes that the process may hold; by default 80 % of what is free.
        vram: The same of the GPU.
        format: "zarr" writes OME-Zarr; else the format follows from the image.
        quantity: What is written of the classes beside the labels.
        skip_empty: Whether regions with nothing in them are background; see `looking.FLAT`.
        only: A mask, or a folder of masks called like the images: 0 where there is background.
        always: Whether small images go region by region too, as they do where anything of this is given.
        part: Which of several parts of all regions this process makes; no file is written then.
        cluster: Where the regions are made: address of a Dask scheduler, or number of local processes; "" here.
    """

    ram: int | None = None
    vram: int | None = None
    format: str = ""
    quantity: Quantity = ""
    skip_empty: bool = False
    only: Path | None = None
    always: bool = False
    part: Part | None = None
    cluster: str = ""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(Problem(f"found {self.format!r}", "--format", "zarr, or none"))
        if self.quantity == "logits" and (self.skip_empty or self.only):
            found = "what is not looked at has no logits"
            raise UsageError(Problem(found, "--logits", fix="leave out --skip-empty and --only, or --logits"))
        if self.cluster and (self.part or self.skip_empty or self.only):
            found = "--cluster beside --part, --skip-empty or --only"
            raise UsageError(Problem(found, "predict", "--cluster alone", "use --part with the others"))

    @property
    def asked(self) -> bool:
        """Whether anything was given."""
        named = (self.ram, self.vram, self.format, self.quantity, self.skip_empty, self.only)
        return self.always or any((*named, self.part, self.cluster))


@dataclass(frozen=True)
class FileOptions:
    """How to predict files.

    Attributes:
        probabilities: Write `<stem>_probabilities.tif`, float32 (K, H, W) or (P, K, H, W), beside each mask;
            the pages of a stack come first, predicted one by one or as a volume.
        objects: Write object ids even where the run learned classes.
        tile: Side of a tile in pixels; of strips, their rows.
        overwrite: Replace files that exist.
        outputs: Which supervised outputs: "last" or "mean".
        level: Another output than the last, by its column.
        layout: How the folder is laid out, a name of `data.layouts.LAYOUTS`; found where it is left out.
        tta: Test-time augmentation, one of `predict.views.KINDS`.
        unseen: Whether it may show the network what training never did.
        planes: 3 shows a network of two axes the slices of a volume along all three axes; 1 along the first.
        review: Whether to write `review.csv`, what a person should look at first.
        whole_norms: Whether norms over the map take the statistics of the whole image.
        stream: How files are predicted region by region; those that do not fit into memory always are.
        backend: What computes the network, see `Predictor.running`; "auto" is measured on tiles of the images.
        precision: In what arithmetic: "fp32", "bf16" or "int8".
        engine: "tiles" or "strips", see `stream.Options`.
    """

    probabilities: bool = False
    objects: bool = False
    tile: int | None = None
    overwrite: bool = False
    outputs: Outputs = "last"
    level: int | None = None
    layout: str | None = None
    tta: str | None = None
    unseen: bool = False
    planes: int = 1
    review: bool = True
    whole_norms: bool = False
    stream: StreamOptions = field(default_factory=StreamOptions)
    backend: str = "torch"
    precision: str = "fp32"
    engine: Engine | None = None

    def __post_init__(self) -> None:
        if self.tile is not None and self.tile < 1:
            raise UsageError(
                Problem(f"found {self.tile}", "--tile", "a side in pixels above 0", "--tile 512")
            )
        if self.planes not in PLANES:
            raise UsageError(Problem(f"found {self.planes}", "--planes", "1 or 3", "--planes 3"))
        if self.level is not None and self.outputs == "mean":
            raise UsageError(Problem("both --level and --outputs mean are given", "predict", "one of them"))
        if self.stream.cluster and (self.backend, self.precision) != ("torch", "fp32"):
            found = "both --cluster and --backend or --precision are given"
            raise UsageError(Problem(found, "predict", "--part, or one process"))
        if self.engine == "strips" and (self.tta or self.planes > 1):
            found = f"both --engine strips and {'--tta' if self.tta else '--planes'} are given"
            raise UsageError(Problem(found, "predict", "one of them"))
        if self.engine == "strips" and self.backend == "compile":
            found = "both --engine strips and --backend compile are given"
            raise UsageError(Problem(found, "predict", "one of them", "--backend packed"))
        if self.engine == "strips" and self.stream.cluster:
            found = "both --engine strips and --cluster are given"
            raise UsageError(Problem(found, "predict", "--part, or one process"))
        if self.whole_norms and self.stream.cluster:
            raise UsageError(
                Problem("both --whole-norms and --cluster are given", "predict", "--part, or one process")
            )

    @property
    def quantity(self) -> Quantity:
        """What is written of the classes beside the masks."""
        return self.stream.quantity or ("float32" if self.probabilities else "")
