"""What one look at a pair of files keeps of it."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from skipway.data.alignment import Fit
from skipway.data.values import MaskValues
from skipway.images import shown

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class FileRecord:
    """What the check saw of one pair.

    Attributes:
        name: Of the pair.
        size: (H, W).
        channels: Of the image.
        dtype: Of the image as it is stored, such as "uint16".
        kind: For people, such as "16-bit grey".
        sha256: Of the image's pixels (size, type and values): equal for one picture saved in two formats.
        mask_sha256: Of the mask's pixels.
        low: Smallest image value.
        high: Largest.
        mean: Mean over pixels and channels.
        constant: Channels of one value only.
        values: Of the mask.
        notes: What the reading policy did.
        format: Of the image file.
        levels: Different values in a sample of a float image, at most 257; 0 for other types.
        thumbnail: See `sketch.thumbnail`.
        fit: How well the mask lies on the image; None where it cannot be told.
        rings: Mask values that are only seams, one pixel wide, between lower and higher values.
        spacing: Size of a pixel along (Z, Y, X) or (Y, X), where the image says so.
        polarity: See `polarity.polarity`.
    """

    name: str
    size: tuple[int, int]
    channels: int
    dtype: str
    kind: str
    sha256: str
    mask_sha256: str
    low: float
    high: float
    mean: float
    constant: int
    values: MaskValues
    notes: tuple[str, ...] = ()
    format: str = ""
    levels: int = 0
    thumbnail: str = field(default="", repr=False)
    fit: Fit | None = None
    rings: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    polarity: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "FileRecord":
        """A record that was stored.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        plain = {key: _tuples(item) for key, item in value.items()}
        seen = None if plain.get("fit") is None else Fit(**_fields(value["fit"]))
        return cls(**{**plain, "values": MaskValues(**_fields(value["values"])), "fit": seen})


def _fields(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _tuples(item) for key, item in value.items()}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def groups(records: Iterable[FileRecord], key: Callable[[FileRecord], K]) -> dict[K, list[FileRecord]]:
    """Records by what `key` says of them, in their order."""
    groups: dict[K, list[FileRecord]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups


def some_of(records: Sequence[FileRecord], limit: int = 5) -> str:
    """The first names, and how many more."""
    names = [shown(record.name) for record in records]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
