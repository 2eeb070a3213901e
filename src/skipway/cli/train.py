"""The verb `train`."""

from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from skipway import devices
from skipway.cli import options
from skipway.cli.console import events
from skipway.cli.settings import parsed


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
    time: Annotated[str | None, typer.Option(help="Wall-clock budget instead: 90s, 20m or 2h.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    device: options.Device = None,
    preset: Annotated[
        str, typer.Option(help="default, or 2015 for the recipe of the first U-Net.")
    ] = "default",
    as_json: options.Json = False,
    help_all: options.HelpAll = False,
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
    keep_heap: options.KeepHeap = False,
    folds: options.Folds = None,
) -> None:
    """Train a network on images and their masks, or go on where the same command stopped."""
    began = perf_counter()  # a budget counts from here: what is imported next takes seconds
    from skipway import api
    from skipway.data.layouts import Reading
    from skipway.memory import amount
    from skipway.request import Request

    devices.use_granted_cores()
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
        told = events(as_json) if ranks.first else lambda _: None
        trained = api.train_run(order, told, began, ranks)
    if ranks.first and not as_json:
        typer.echo(trained.summary)
