"""The verb `predict`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from skipway import devices
from skipway.cli import options
from skipway.cli.console import events
from skipway.errors import Problem, UsageError


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
    device: options.Device = None,
    as_json: options.Json = False,
    help_all: options.HelpAll = False,
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
    keep_heap: options.KeepHeap = False,
) -> None:
    """Predict masks for new images; needs nothing but the run folder."""
    from skipway import api
    from skipway.memory import amount
    from skipway.parts import Part
    from skipway.predict.cluster import require_workers
    from skipway.predict.options import FileOptions, StreamOptions

    devices.use_granted_cores()
    if keep_heap:
        devices.keep_heap()
    if logits and (probabilities or quantised):
        raise UsageError(Problem("both --logits and probabilities are asked for", "predict", "one of them"))
    stream = StreamOptions(
        ram=None if ram is None else amount(ram, "--ram"),
        vram=None if vram is None else amount(vram, "--vram"),
        format=form or "",
        quantity="logits" if logits else quantised or "",
        part=None if part is None else Part.parse(part, "--part"),
        cluster="" if cluster is None else require_workers(cluster),
        skip_empty=skip_empty,
        only=only,
    )
    asked = FileOptions(
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
    summary = api.predict_files(predictor, images, output, asked, events(as_json))
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
