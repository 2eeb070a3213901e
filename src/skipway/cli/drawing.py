"""What `skipway draw` does: from words on the command line to an SVG file."""

from collections.abc import Sequence
from pathlib import Path

from skipway.cli.settings import parsed
from skipway.disk import replacing
from skipway.draw import lay_out, svg
from skipway.errors import Problem, ShapeError, TopologyError, UsageError
from skipway.models import BUILDERS, arguments, sketch, strangers
from skipway.models.cards import documented
from skipway.nn.graph import SkipGraph


def drawing(
    name: str, settings: Sequence[str] = (), *, size: str | None = None, level: int | None = None
) -> str:
    """SVG of a network.

    Args:
        name: Of the builder.
        settings: Arguments of the builder as `key=value`, the value in JSON or else a string.
        size: Input size as typed, see `sides`.
        level: Output that is kept; what pruning to it drops turns grey.

    Raises:
        UsageError: Something of this cannot be.
    """
    config = parsed(settings)
    asked = {key: f"--set {key}" for key in config}
    if name in BUILDERS and (unknown := strangers(name, asked, besides=("in_channels", "classes"))):
        raise UsageError(*unknown)
    try:
        model = sketch(name, **config)
    except ValueError as error:
        fix = "other values with --set, as KEY=VALUE"
        raise UsageError(Problem(f"{name} cannot be built: {error}", " ".join(settings), fix=fix)) from error
    try:
        figure = lay_out(
            model,
            sides(size),
            level=level,
            title=" ".join([name, *settings]),
            source=documented(BUILDERS[name])[1],
        )
    except TopologyError as error:
        raise UsageError(Problem(str(error), f"--level {level}", fix=_more_outputs(name, model))) from error
    except ShapeError as error:
        raise UsageError(
            Problem(str(error), "--size", fix="one side for all axes, or one per axis")
        ) from error
    return svg(figure)


def _more_outputs(name: str, model: SkipGraph) -> str:
    """What to type for the output of a level that a network does not have."""
    if "supervised" in arguments(name) and len(model.topology.outputs) == 1:
        return "--set supervised=true gives every level an output"
    return "leave --level out" if len(model.topology.outputs) == 1 else "one of the levels that it has"


def save(text: str, path: Path, *, overwrite: bool) -> None:
    """Write a drawing, over another file only when told so.

    Raises:
        UsageError: The file is there already, or its folder is not, or its name is that of another format.
    """
    if path.suffix.lower() not in ("", ".svg"):
        raise UsageError(
            Problem(
                f"named *{path.suffix}",
                str(path),
                "a name that ends in .svg",
                "drawings are SVG, which every browser shows",
            )
        )
    if path.exists() and not overwrite:
        raise UsageError(Problem("the file exists already", str(path), fix="--overwrite, or another -o"))
    if not path.parent.is_dir():
        raise UsageError(Problem("there is no such folder", str(path.parent), fix="make it, or another -o"))
    with replacing(path) as file:
        file.write(text.encode())


def sides(size: str | None) -> tuple[int, ...] | int | None:
    """A size as typed: one side for all axes, or one per axis.

    >>> sides("572"), sides("32x128x128"), sides(None)
    (572, (32, 128, 128), None)
    """
    if size is None:
        return None
    parts = size.replace("×", "x").split("x")
    if not all(part.isdecimal() and len(part) < 10 and int(part) for part in parts):
        raise UsageError(Problem(f"found {size!r}", "--size", "a side in pixels, or sides as in 32x128x128"))
    return int(parts[0]) if len(parts) == 1 else tuple(map(int, parts))
