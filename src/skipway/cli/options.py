"""Options that several verbs have: what the data are, how they are read, who validates."""

from pathlib import Path
from typing import Annotated

import typer


def _show_all(context: typer.Context, value: bool) -> None:
    """`--help-all`: the help with the options that `--help` leaves out."""
    if value:
        for parameter in context.command.params:
            if hasattr(parameter, "hidden"):
                parameter.hidden = False
        typer.echo(context.get_help())
        raise typer.Exit


HelpAll = Annotated[
    bool, typer.Option("--help-all", callback=_show_all, is_eager=True, help="Show every option and exit.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON event a line.")]
KeepHeap = Annotated[
    bool,
    typer.Option(
        "--keep-heap",
        hidden=True,
        help="Keep freed memory in the process: less time, up to its peak for good.",
    ),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1 or mps.  [default: CUDA if there is one]")
]
Images = Annotated[
    Path,
    typer.Argument(help="Folder of images or of a whole data set, a stack, or a table of pairs."),
]
Masks = Annotated[
    Path | None, typer.Argument(help="Folder of masks with the same names, a stack, or a file of shapes.")
]
TaskName = Annotated[
    str | None, typer.Option("--task", help="classes, objects or multilabel.  [default: read from the masks]")
]
Val = Annotated[
    Path | None,
    typer.Option("--val", help="Validation: a folder like IMAGES, or a file: names, a table, a split."),
]
LayoutName = Annotated[
    str | None,
    typer.Option(
        "--layout", hidden=True, help="How IMAGES is laid out: a name of docs/layouts.md.  [default: found]"
    ),
]
PairsTable = Annotated[
    Path | None,
    typer.Option(
        "--pairs", hidden=True, help="CSV with columns image, mask, and perhaps group, split, page."
    ),
]
Suffix = Annotated[
    str | None, typer.Option("--suffix", hidden=True, help="What a mask's name has that its image's has not.")
]
Colours = Annotated[
    Path | None, typer.Option("--colours", hidden=True, help="Table name,r,g,b of masks in colours.")
]
Colour = Annotated[
    str | None,
    typer.Option("--colour", hidden=True, help="Read all images as grey or as rgb.  [default: as stored]"),
]
Ignore = Annotated[
    int | None, typer.Option("--ignore", hidden=True, help="Mask value of pixels nobody annotated.")
]
GroupsTable = Annotated[
    str | None,
    typer.Option(
        "--groups",
        hidden=True,
        help="Images not to be parted: a table of name and group, or none.  [default: found]",
    ),
]
FoldOf = Annotated[
    str | None,
    typer.Option("--fold", hidden=True, help="The part of the images that validates, such as 2/5."),
]
Folds = Annotated[
    int | None,
    typer.Option(
        "--folds", hidden=True, help="Train so many folds in one run folder: every image validates once."
    ),
]
