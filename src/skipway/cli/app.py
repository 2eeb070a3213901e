"""The verbs of `skipway`: each reads its options, calls one function and prints what came of it.

The two with the most options, `train` and `predict`, have files of their own.
"""

from pathlib import Path
from typing import Annotated

import typer

from skipway import devices
from skipway.cli import options
from skipway.cli.console import Console, Event, events, print_json
from skipway.cli.predict import predict
from skipway.cli.train import train
from skipway.errors import Problem, UsageError

app = typer.Typer(
    name="skipway",
    help="Train and run the whole U-Net family on your own images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        from skipway import __version__

        typer.echo(f"skipway {__version__}")
        raise typer.Exit


@app.callback()
def skipway(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Train and run the whole U-Net family on your own images."""


app.command()(train)


@app.command()
def check(
    images: options.Images,
    masks: options.Masks = None,
    html: Annotated[
        Path | None, typer.Option(help="Also write a sheet of pictures, the suspicious ones first.")
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also try to learn the masks, for about a minute.")
    ] = False,
    task: options.TaskName = None,
    val: options.Val = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    help_all: options.HelpAll = False,
    ignore: options.Ignore = None,
    layout: options.LayoutName = None,
    pairs: options.PairsTable = None,
    suffix: options.Suffix = None,
    colours: options.Colours = None,
    colour: options.Colour = None,
    groups: options.GroupsTable = None,
    fold: options.FoldOf = None,
    isolate: Annotated[
        bool | None,
        typer.Option(
            "--isolate/--no-isolate",
            hidden=True,
            help="Decode in child processes that may crash.  [default: from 200 pairs on]",
        ),
    ] = None,
) -> None:
    """Say what is in a data set, what is odd and what is wrong, before anything is trained."""
    from skipway.data.layouts import Reading
    from skipway.doctor.examination import examine_data

    if deep:
        devices.use_granted_cores()
    found = examine_data(
        images,
        masks,
        Reading(layout, suffix, pairs, colours, colour=colour),
        task=task,
        val=val,
        ignore=ignore,
        groups=groups,
        fold=fold,
        deep=deep,
        isolate=isolate,
        event=Console(),
    )
    if html is not None:
        from skipway.doctor.sheet import write_sheet

        write_sheet(html, found)
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(str(found))
    if not found.ok:
        raise typer.Exit(found.error.exit_code)


app.command()(predict)


@app.command()
def evaluate(
    pred: Annotated[Path, typer.Argument(help="Folder of predicted masks, or one file.")],
    truth: Annotated[Path, typer.Argument(help="Folder of true masks with the same names, or one file.")],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures as JSON; - for standard output.")
    ] = None,
    score: Annotated[
        list[str] | None,
        typer.Option(help="classes, objects or em; may be repeated.  [default: read from the masks]"),
    ] = None,
    partly: Annotated[
        bool,
        typer.Option("--partly", help="Score the truths that have a prediction, though others have none."),
    ] = False,
    help_all: options.HelpAll = False,
    layout: options.LayoutName = None,
) -> None:
    """Score predicted masks against true ones, and say by which convention."""
    from skipway.data.layouts import Reading
    from skipway.evaluation import evaluate as evaluate_folders

    kinds = None if not score else frozenset(score)
    found = evaluate_folders(pred, truth, kinds=kinds, reading=Reading(layout=layout), partly=partly)
    if str(json_file) == "-":
        print_json(found.to_json())
        return
    if json_file is not None:
        from skipway.disk import write_json

        write_json(json_file, found.to_json())
    typer.echo(found.table())


Size = Annotated[
    str | None,
    typer.Option(help="Input side, or sides as in 32x128x128.  [default: 256; with valid padding 572]"),
]


Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Argument of the network, as width=16; may be repeated."),
]


@app.command()
def prune(
    run: Annotated[Path, typer.Argument(help="Run folder of a network with several outputs.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the pruned run.  [default: RUN-L<level>]"),
    ] = None,
    level: Annotated[
        int | None, typer.Option(help="Level to keep.  [default: the smallest that is good enough]")
    ] = None,
    within: Annotated[
        float, typer.Option(help="Score that a smaller network may lose against the whole one.")
    ] = 0.005,
    device: options.Device = None,
    as_json: options.Json = False,
    help_all: options.HelpAll = False,
) -> None:
    """Measure what each level of a supervised network is worth and costs, and keep the smallest that will do."""
    from skipway.pruning import prune as prune_run

    found = prune_run(run, output, level=level, within=within, device=device, event=events(as_json))
    if not as_json:
        typer.echo(str(found))


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="All about this one, node by node.")] = None,
    size: Size = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    help_all: options.HelpAll = False,
) -> None:
    """List every network: parameters, operations, receptive field, halo, source; of one, its nodes and options."""
    from skipway.cli.models import card, cards, page, table

    if name is None:
        if settings:
            raise UsageError(
                Problem("options of no network", "--set", fix="name it: skipway models NAME --set …")
            )
        if as_json:
            print_json(cards(size))
        else:
            typer.echo(table(size))
        return
    found = card(name, size, settings or ())
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(page(found, settings or ()))


@app.command()
def draw(
    model: Annotated[str, typer.Argument(help="A name of `skipway models`.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="SVG file; - for standard output.  [default: MODEL.svg]"),
    ] = None,
    size: Size = None,
    level: Annotated[
        int | None, typer.Option(help="Grey out what pruning to this output (1, 2, …) drops.")
    ] = None,
    settings: Settings = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    help_all: options.HelpAll = False,
) -> None:
    """Draw a network from its graph: nodes with channels and sizes, what each reads, the outputs."""
    from skipway.cli.drawing import drawing, save

    text = drawing(model, settings or (), size=size, level=level)
    if str(output) == "-":
        typer.echo(text, nl=False)
        return
    path = output or Path(f"{model}.svg")
    save(text, path, overwrite=overwrite)
    typer.echo(path)


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for everything the demo makes.")
    ] = Path("skipway-demo"),
    seed: Annotated[int, typer.Option(help="Of the drawn cells and the training.")] = 0,
    steps: Annotated[
        int | None, typer.Option(hidden=True, help="Optimiser steps instead of the usual number.")
    ] = None,
    device: options.Device = None,
    as_json: options.Json = False,
    help_all: options.HelpAll = False,
) -> None:
    """Draw touching cells, train on them, predict a larger image, score it, report. Needs no data."""
    from skipway.demo import run_demo

    devices.use_granted_cores()
    text = run_demo(output, seed=seed, steps=steps, device=device, event=events(as_json))
    if not as_json:
        typer.echo(text)


__all__ = ["Event", "app"]
