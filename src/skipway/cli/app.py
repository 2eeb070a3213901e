"""The verbs of `skipway`: each reads its options, calls one function and prints what came of it."""

import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Literal

import typer

from skipway import devices
from skipway.cli import options
from skipway.cli.console import Console, Event, JsonLines
from skipway.cli.settings import parsed
from skipway.errors import Problem, UsageError

app = typer.Typer(
    name="skipway",
    help="Train and run the whole U-Net family on your own images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_all(context: typer.Context, value: bool) -> None:
    """`--help-all`: the help with the options that `--help` leaves out."""
    if value:
        for parameter in context.command.params:
            if hasattr(parameter, "hidden"):
                parameter.hidden = False
        typer.echo(context.get_help())
        raise typer.Exit


def _version(value: bool) -> None:
    if value:
        from skipway import __version__

        typer.echo(f"skipway {__version__}")
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


@app.callback()
def skipway(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Train and run the whole U-Net family on your own images."""


@app.command()
def train(
    images: options.Images,
    masks: options.Masks = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Run folder; the same command again goes on in it.")
    ] = Path("run"),
    model: Annotated[str | None, typer.Option(help="A name of `skipway models`.  [default: unet]")] = None,
    task: options.TaskName = None,
    val: options.Val = None,
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps.  [default: by the number of images]")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Wall-clock budget instead: 90s, 20m or 2h; a plain number is seconds.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    device: Device = None,
    preset: Annotated[
        str, typer.Option(help="default, or 2015 for the recipe of the first U-Net.")
    ] = "default",
    as_json: Json = False,
    help_all: HelpAll = False,
    plan: Annotated[
        Path | None,
        typer.Option(hidden=True, help="Run folder or plan.json to repeat: the same network, every number."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", hidden=True, help="Run folder to start from: its network and weights."),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(hidden=True, help="A name of docs/losses.md, such as ce-dice, focal or unet++."),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(hidden=True, help="A timm encoder such as resnet34 in place of the plain one."),
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(hidden=True, help="Weights of the backbone: cache, download, or a .safetensors file."),
    ] = None,
    supervised: Annotated[
        bool | None,
        typer.Option(
            "--supervised/--no-supervised",
            hidden=True,
            help="Heads on every level, so that `prune` has a choice.  [default: where the model offers it]",
        ),
    ] = None,
    supervision: Annotated[
        str, typer.Option(hidden=True, help="Weights of those heads in the loss: equal, halving or last.")
    ] = "equal",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", hidden=True, help="An option of the model, as KEY=VALUE; may be repeated."),
    ] = None,
    width: Annotated[int | None, typer.Option(hidden=True, help="Features at the finest level.")] = None,
    depth: Annotated[int | None, typer.Option(hidden=True, help="Levels of the encoder.")] = None,
    batch: Annotated[int | None, typer.Option(hidden=True, help="Patches a step.")] = None,
    patch: Annotated[int | None, typer.Option(hidden=True, help="Side of a training patch, pixels.")] = None,
    workers: Annotated[
        int, typer.Option(hidden=True, help="Threads that make batches; 0 makes them in the loop itself.")
    ] = 1,
    shard: Annotated[
        bool,
        typer.Option("--shard", hidden=True, help="Divide the network over the processes of a launcher."),
    ] = False,
    optimiser: Annotated[str | None, typer.Option(hidden=True, help="adamw or sgd.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--lr", hidden=True, help="Highest learning rate.")
    ] = None,
    ram: Annotated[
        str | None,
        typer.Option(hidden=True, help="Memory to keep to, such as 4G.  [default: 80 % of what is free]"),
    ] = None,
    vram: Annotated[
        str | None, typer.Option(hidden=True, help="The same of the GPU.  [default: 80 % of what is free]")
    ] = None,
    self_test: Annotated[
        bool,
        typer.Option("--self-test/--no-self-test", hidden=True, help="Test a new training before it starts."),
    ] = True,
    ignore: options.Ignore = None,
    layout: options.LayoutName = None,
    pairs: options.PairsTable = None,
    suffix: options.Suffix = None,
    colours: options.Colours = None,
    colour: options.Colour = None,
    groups: options.GroupsTable = None,
    fold: options.FoldOf = None,
    keep_heap: KeepHeap = False,
    folds: options.Folds = None,
) -> None:
    """Train a network on images and their masks, or go on where the same command stopped."""
    began = perf_counter()  # a budget counts from here: what is imported next takes seconds
    from skipway import api
    from skipway.data.layouts import Reading
    from skipway.memory import amount
    from skipway.request import Request

    if keep_heap:
        devices.keep_heap()
    request = Request(
        preset=preset,
        model=model,
        width=width,
        depth=depth,
        loss=loss,
        optimiser=optimiser,
        learning_rate=learning_rate,
        batch=batch,
        patch=patch,
        steps=steps,
        seconds=None if time is None else api.seconds(time),
        backbone=backbone,
        pretrained=pretrained,
        supervised=supervised,
        supervision=supervision,
        options=parsed(settings or ()),
        seed=seed,
        plan=None if plan is None else str(plan.resolve()),
        ram=None if ram is None else amount(ram, "--ram"),
        vram=None if vram is None else amount(vram, "--vram"),
        start=None if start is None else str(start.resolve()),
    )
    order = api.Order(
        images,
        masks,
        output,
        request,
        task=task,
        val=val,
        reading=Reading(layout, suffix, pairs, colours, colour=colour),
        ignore=ignore,
        groups=groups,
        fold=fold,
        folds=folds,
        device=device,
        workers=workers,
        self_test=self_test,
    )
    with api.joined(shard) as ranks:
        told = _events(as_json) if ranks.first else lambda _: None
        trained = api.train_run(order, told, began, ranks)
    if ranks.first and not as_json:
        typer.echo(trained.summary)


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
    help_all: HelpAll = False,
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
        _print_json(found.to_json())
    else:
        typer.echo(str(found))
    if not found.ok:
        raise typer.Exit(found.error.exit_code)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Run folder that `skipway train` wrote.")],
    images: Annotated[Path, typer.Argument(help="Folder of images, or one image.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the masks.")],
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write the probability of each class too.")
    ] = False,
    objects: Annotated[
        bool, typer.Option("--objects", help="Write object ids (connected components).")
    ] = False,
    tile: Annotated[
        int | None, typer.Option(help="Side of a tile in pixels; the result does not depend on it.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    ram: Annotated[
        str | None, typer.Option(help="Memory to keep to, such as 2G; images of any size, resumable.")
    ] = None,
    device: Device = None,
    as_json: Json = False,
    help_all: HelpAll = False,
    vram: Annotated[str | None, typer.Option(hidden=True, help="The same of the GPU.")] = None,
    form: Annotated[
        Literal["zarr"] | None, typer.Option("--format", hidden=True, help="Write OME-Zarr labels.")
    ] = None,
    quantised: Annotated[
        Literal["uint8", "uint16", "float32"] | None,
        typer.Option(hidden=True, help="Probabilities in this type, tiled and compressed."),
    ] = None,
    logits: Annotated[
        bool, typer.Option("--logits", hidden=True, help="Write the logits too, as float32.")
    ] = False,
    skip_empty: Annotated[
        bool, typer.Option("--skip-empty", hidden=True, help="Regions with nothing in them are background.")
    ] = False,
    only: Annotated[
        Path | None, typer.Option(hidden=True, help="Mask, or folder of masks: 0 where not to look.")
    ] = None,
    outputs: Annotated[
        Literal["last", "mean"],
        typer.Option(
            hidden=True, help="last (fast mode), or the mean of all supervised outputs (accurate mode)."
        ),
    ] = "last",
    level: Annotated[
        int | None, typer.Option(hidden=True, help="The output of this level alone, as `prune` numbers them.")
    ] = None,
    whole_norms: Annotated[
        bool,
        typer.Option(
            "--whole-norms", hidden=True, help="Instance and group norm as in one pass over the image."
        ),
    ] = False,
    part: Annotated[
        str | None, typer.Option(hidden=True, help="Make this part of the regions alone, such as 3/16.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(hidden=True, help="Dask: address of a scheduler, or a number of processes here."),
    ] = None,
    member: Annotated[
        int | None, typer.Option(hidden=True, help="Of a run of folds, the network of this one alone.")
    ] = None,
    calibrated: Annotated[
        bool,
        typer.Option("--calibration/--no-calibration", hidden=True, help="Probabilities of logits / T."),
    ] = True,
    tta: Annotated[
        str | None,
        typer.Option(
            hidden=True,
            help="Average over views: mirror, rotations (right angles), all (both), seven (of 360°/7).",
        ),
    ] = None,
    unseen: Annotated[
        bool,
        typer.Option("--tta-unseen", hidden=True, help="Also views that training never showed the network."),
    ] = False,
    planes: Annotated[
        int,
        typer.Option(hidden=True, help="3: volumes slice by slice along all three axes, averaged."),
    ] = 1,
    review: Annotated[
        bool,
        typer.Option("--review/--no-review", hidden=True, help="Write review.csv: what to look at first."),
    ] = True,
    backend: Annotated[
        str,
        typer.Option(
            hidden=True,
            help="torch, packed, onnxruntime, openvino, compile, or auto: the fastest that agrees.",
        ),
    ] = "torch",
    precision: Annotated[
        str, typer.Option(hidden=True, help="fp32; bf16 or int8, which may change labels, where asked for.")
    ] = "fp32",
    engine: Annotated[
        Literal["tiles", "strips"] | None,
        typer.Option(hidden=True, help="strips compute every pixel once, for networks that are local."),
    ] = None,
    layout: options.LayoutName = None,
    keep_heap: KeepHeap = False,
) -> None:
    """Predict masks for new images; needs nothing but the run folder."""
    from skipway import api
    from skipway.memory import amount
    from skipway.predict.cluster import require_workers
    from skipway.predict.files import FileOptions
    from skipway.predict.parts import Part
    from skipway.predict.streaming import StreamOptions

    if keep_heap:
        devices.keep_heap()
    if logits and (probabilities or quantised):
        raise UsageError(Problem("both --logits and probabilities are asked for", "predict", "one of them"))
    stream = StreamOptions(
        ram=None if ram is None else amount(ram, "--ram"),
        vram=None if vram is None else amount(vram, "--vram"),
        format=form or "",
        quantity="logits" if logits else quantised or "",
        part=None if part is None else Part.parse(part),
        cluster="" if cluster is None else require_workers(cluster),
        skip_empty=skip_empty,
        only=only,
    )
    options = FileOptions(
        stream=stream,
        whole_norms=whole_norms,
        probabilities=probabilities,
        objects=objects,
        tile=tile,
        overwrite=overwrite,
        outputs=outputs,
        level=level,
        layout=layout,
        tta=tta,
        unseen=unseen,
        planes=planes,
        review=review,
        backend=backend,
        precision=precision,
        engine=engine,
    )
    predictor = api.load(run, device=device, member=member, calibrated=calibrated)
    summary = api.predict_files(predictor, images, output, options, _events(as_json))
    if not as_json:
        typer.echo(str(summary))
    if summary.failed:  # each has been named as it happened
        total = len(summary.written) + len(summary.failed)
        raise type(summary.error)(
            Problem(
                f"{len(summary.failed)} of {total} images could not be predicted",
                fix="see the warnings above",
            )
        )


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
    help_all: HelpAll = False,
    layout: options.LayoutName = None,
) -> None:
    """Score predicted masks against true ones, and say by which convention."""
    from skipway.data.layouts import Reading
    from skipway.evaluation import evaluate as evaluate_folders

    kinds = None if not score else frozenset(score)
    found = evaluate_folders(pred, truth, kinds=kinds, reading=Reading(layout=layout), partly=partly)
    if str(json_file) == "-":
        _print_json(found.to_json())
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
    device: Device = None,
    as_json: Json = False,
    help_all: HelpAll = False,
) -> None:
    """Measure what each level of a supervised network is worth and costs, and keep the smallest that will do."""
    from skipway.pruning import prune as prune_run

    found = prune_run(run, output, level=level, within=within, device=device, event=_events(as_json))
    if not as_json:
        typer.echo(str(found))


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="All about this one, node by node.")] = None,
    size: Size = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    help_all: HelpAll = False,
) -> None:
    """List every network: parameters, operations, receptive field, halo, source; of one, its nodes and options."""
    from skipway.cli.models import card, cards, page, table

    if name is None:
        if settings:
            raise UsageError(
                Problem("options of no network", "--set", fix="name it: skipway models NAME --set …")
            )
        if as_json:
            _print_json(cards(size))
        else:
            typer.echo(table(size))
        return
    found = card(name, size, settings or ())
    if as_json:
        _print_json(found.to_json())
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
    help_all: HelpAll = False,
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
    device: Device = None,
    as_json: Json = False,
    help_all: HelpAll = False,
) -> None:
    """Draw touching cells, train on them, predict a larger image, score it, report. Needs no data."""
    from skipway.demo import run_demo

    text = run_demo(output, seed=seed, steps=steps, device=device, event=_events(as_json))
    if not as_json:
        typer.echo(text)


def _events(as_json: bool) -> Any:
    return JsonLines() if as_json else Console()


def _print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    print()


__all__ = ["Event", "app"]
