"""The scores of a set of images: per image, then the mean over the images where a score exists."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from skipway.metrics.membranes import MembraneScores, best_threshold
from skipway.metrics.objects import ObjectScores
from skipway.metrics.pixel import PixelScores, mean_defined

_PIXEL_COLUMNS = ("dice", "iou", "sensitivity", "specificity", "precision", "f2")
_OBJECT_COLUMNS = ("ap50", "ap75", "mean_ap", "pq", "sq", "rq", "seg")


@dataclass(frozen=True)
class ImageScores:
    """All scores of one image (or of one page of a stack).

    Attributes:
        name: Name of the pair.
        pixel_error: Share of pixels with the wrong class; `None` when no pixel counts.
        classes: The user's label value as text -> scores of that class against all others; background first.
        objects: Object scores, or `None` when they were not asked for.
        membranes: One pair of scores a threshold; empty when they were not asked for.
    """

    name: str
    pixel_error: float | None
    classes: Mapping[str, PixelScores]
    objects: ObjectScores | None = None
    membranes: tuple[MembraneScores, ...] = ()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ImageScores":
        """Scores of an image out of the JSON of an evaluation; of membranes those of the best thresholds."""
        return cls(
            value["name"],
            value["pixel_error"],
            {name: PixelScores(**one) for name, one in value.get("classes", {}).items()},
            ObjectScores(**value["objects"]) if "objects" in value else None,
            (MembraneScores(**value["em"]),) if "em" in value else (),
        )


@dataclass(frozen=True)
class Evaluation:
    """Scores of a set of images, and the conventions they were made by.

    Attributes:
        images: Scores of each image.
        convention: What every number means, one sentence an entry.
        warnings: What was left out or taken on trust.
        thresholds: Cuts of the interior probability behind the membrane scores; empty for hard labels.
        calibration: Of the probabilities beside the masks `ece`, `nll`, `pixels` and `pages`; None without any.
    """

    images: tuple[ImageScores, ...]
    convention: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()
    calibration: Mapping[str, Any] | None = None

    @classmethod
    def pooled(cls, parts: Sequence[Mapping[str, Any]]) -> "Evaluation":
        """One evaluation of all images of several, out of their JSON; membranes count where all parts have them."""
        images = tuple(ImageScores.from_json(image) for part in parts for image in part["images"])
        if any(bool(image.membranes) != bool(images[0].membranes) for image in images):
            images = tuple(replace(image, membranes=()) for image in images)
        convention, warnings = (
            tuple(dict.fromkeys(text for part in parts for text in part[key]))
            for key in ("convention", "warnings")
        )
        return cls(images, convention, warnings)

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.images)

    @property
    def pixel_error(self) -> float | None:
        """Mean pixel error over the images."""
        return mean_defined(image.pixel_error for image in self.images)[0]

    def to_json(self) -> dict[str, Any]:
        """The evaluation as dicts, lists, numbers and `None`: strict JSON, keys absent where nothing applies.

        Returns:
            `n`, `pixel_error`, `classes.<value>`, `objects`, `em`, `calibration`, `convention`, `warnings`,
            `images`.
        """
        cuts = self._cuts()
        out: dict[str, Any] = {"n": self.n, "pixel_error": self.pixel_error}
        if self._values():
            out["classes"] = {value: self._class_means(value) for value in self._values()}
        if self._with_objects():
            out["objects"] = self._object_means()
        if cuts is not None:
            out["em"] = self._membrane_means(cuts)
        if self.calibration is not None:
            out["calibration"] = dict(self.calibration)
        out["convention"] = list(self.convention)
        out["warnings"] = list(self.warnings)
        out["images"] = [_image_json(image, cuts) for image in self.images]
        return out

    def worst(self, count: int = 5) -> tuple[ImageScores, ...]:
        """The images with the lowest scores, worst first; images without a score are left out.

        The score is AP at 0.5 where objects were scored, else V_rand, else the mean Dice of all classes but
        the first (background).
        """
        scored = [(score, image) for image in self.images if (score := self.ranking(image)) is not None]
        return tuple(image for _, image in sorted(scored, key=lambda pair: pair[0])[:count])

    def ranking(self, image: ImageScores) -> float | None:
        """The one score by which images are ordered (see `worst`)."""
        if image.objects is not None:
            return image.objects.ap50
        cuts = self._cuts()
        if cuts is not None:
            return image.membranes[cuts[0]].v_rand
        classes = list(image.classes.values())
        return mean_defined(one.dice for one in (classes[1:] or classes))[0]

    def table(self) -> str:
        """The means as text with n beside them, the conventions, and the worst images."""
        lines = [f"{self.n} image{'' if self.n == 1 else 's'}, pixel error {_text(self.pixel_error)}", ""]
        rows: list[Sequence[str]] = [("class", "n", *_PIXEL_COLUMNS)]
        for value in self._values():
            means = self._class_means(value)
            rows.append((value, str(means["n"]), *(_text(means[name]) for name in _PIXEL_COLUMNS)))
        lines += _aligned(rows) if rows[1:] else []
        if self._with_objects():
            means = self._object_means()
            cells = ("", str(means["n"]), *(_text(means[name]) for name in _OBJECT_COLUMNS))
            lines += ["", *_aligned([("objects", "n", *_OBJECT_COLUMNS), cells])]
            lines += [f"{means['truth']} true objects, {means['predicted']} predicted"]
        cuts = self._cuts()
        if cuts is not None:
            means = self._membrane_means(cuts)
            cells = ("", str(means["n"]), _text(means["v_rand"]), _text(means["v_info"]))
            lines += ["", *_aligned([("membranes", "n", "v_rand", "v_info"), cells])]
        if (found := self.calibration) is not None:
            said = f"expected calibration error {_text(found['ece'])}, −log likelihood {_text(found['nll'])}"
            lines += ["", f"probabilities  {said}, on {found['pixels']:,} pixels of {found['pages']} pages"]
        if self.n > 1:
            lines += ["", f"lowest {self._ranking_name()}"]
            lines += [f"  {_text(self.ranking(image))}  {image.name}" for image in self.worst()]
        lines += [
            "",
            *(f"- {text}" for text in self.convention),
            *(f"warning: {text}" for text in self.warnings),
        ]
        return "\n".join(lines)

    def _values(self) -> Sequence[str]:
        return list(self.images[0].classes) if self.images else []

    def _with_objects(self) -> bool:
        return any(image.objects is not None for image in self.images)

    def _ranking_name(self) -> str:
        return "AP at 0.5" if self._with_objects() else "V_rand" if self._cuts() is not None else "Dice"

    def _cuts(self) -> tuple[int, int] | None:
        """Positions of the best thresholds for V_rand and V_info; `None` when membranes were not scored."""
        if not any(image.membranes for image in self.images):
            return None
        return (
            best_threshold([[one.v_rand for one in image.membranes] for image in self.images]),
            best_threshold([[one.v_info for one in image.membranes] for image in self.images]),
        )

    def _class_means(self, value: str) -> dict[str, Any]:
        """Mean of each score of a class; `n` counts the images where its Dice exists."""
        found = [image.classes[value] for image in self.images]
        return _means(found, lambda one: asdict(one), "dice")

    def _object_means(self) -> dict[str, Any]:
        """Mean of each object score; `truth` and `predicted` count objects over all images."""
        found = [image.objects for image in self.images if image.objects is not None]
        means = _means(found, lambda one: {name: getattr(one, name) for name in _OBJECT_COLUMNS}, "ap50")
        counts = {"truth": sum(one.truth for one in found), "predicted": sum(one.predicted for one in found)}
        return means | counts

    def _membrane_means(self, cuts: tuple[int, int]) -> dict[str, Any]:
        found = [_membrane_json(image, cuts) for image in self.images]
        return _means(found, lambda one: one, "v_rand")


def _means(
    found: Sequence[Any], fields: Callable[[Any], dict[str, float | None]], key: str
) -> dict[str, Any]:
    """Mean of each field over its defined values; `n` is that of `key`, `n_by_score` lists all others."""
    rows = [fields(one) for one in found]
    means = {name: mean_defined(row[name] for row in rows) for name in (rows[0] if rows else ())}
    n = means[key][1] if means else 0
    others = {name: count for name, (_, count) in means.items() if count != n}
    return (
        {name: mean for name, (mean, _) in means.items()}
        | {"n": n}
        | ({"n_by_score": others} if others else {})
    )


def _image_json(image: ImageScores, cuts: tuple[int, int] | None) -> dict[str, Any]:
    out: dict[str, Any] = {"name": image.name, "pixel_error": image.pixel_error}
    if image.classes:
        out["classes"] = {value: asdict(one) for value, one in image.classes.items()}
    if image.objects is not None:
        out["objects"] = asdict(image.objects)
    if cuts is not None:
        out["em"] = _membrane_json(image, cuts)
    return out


def _membrane_json(image: ImageScores, cuts: tuple[int, int]) -> dict[str, float | None]:
    return {"v_rand": image.membranes[cuts[0]].v_rand, "v_info": image.membranes[cuts[1]].v_info}


def _text(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines; the first column to the left, numbers to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]
