"""Weights that somebody else trained, for the encoders of our networks.

A builder only builds. Weights come afterwards, by one call, from a file or from a cache; a run folder then keeps all
of them, so that nothing here is needed to load it. Files are safetensors or arrays of NumPy: nothing that could run.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skipway.errors import CheckpointError, EnvironmentFault, Problem, SecurityError, UsageError
from skipway.nn.backbones import WEIGHTS, BackboneEncoder, find_weights, hub_repository, load_weights
from skipway.nn.graph import SkipGraph
from skipway.nn.hybrid import HybridEncoder
from skipway.nn.vit_weights import Misfit, from_google, from_timm
from skipway.runs import refuse_code

CACHE, DOWNLOAD = "cache", "download"
HYBRID, PLAIN = "vit_base_r50_s16_224.orig_in21k", "vit_base_patch16_224.augreg_in21k"
"""What timm calls the transformers that TransUNet starts from, with and without a ResNet."""


@dataclass(frozen=True)
class Source:
    """Where the weights of an encoder came from.

    Attributes:
        encoder: What timm calls the encoder.
        file: The file that was read.
        licence: Licence of the published weights as timm states it; `unknown` for a file of the user.
    """

    encoder: str
    file: Path
    licence: str


def load_pretrained(model: SkipGraph, source: str | Path) -> Source:
    """Fill the encoder of a network with trained weights; stem, decoder and heads stay as they are.

    Args:
        model: Network built with `backbone=…`, or a TransUNet; it is changed in place.
        source: A safetensors file in timm's layout, or for a TransUNet an npz archive in Google's; or `cache`, the
            published weights in the hub cache of this machine, which asks no server; or `download`, which fetches
            them when the cache has none.

    Raises:
        UsageError: The network has no encoder that somebody could have trained.
        SecurityError: The file is not safetensors.
        CheckpointError: The file is missing, damaged, or of another network.
        EnvironmentFault: timm is not installed, there is nothing in the cache, or the download failed.
    """
    encoder = model.encoder
    if isinstance(encoder, BackboneEncoder):
        name = encoder.name
    elif isinstance(encoder, HybridEncoder):
        name = HYBRID if encoder.widths[1] else PLAIN
    else:
        raise UsageError(
            Problem(
                f"{model.name} was built without a backbone",
                "--pretrained",
                "a network with an encoder from timm",
                "name one with `--backbone`, such as resnet34",
            )
        )
    if source in (CACHE, DOWNLOAD):
        file, licence = _published(name, download=source == DOWNLOAD)
    else:
        file, licence = Path(source), "unknown"
    if isinstance(encoder, HybridEncoder) and file.suffix == ".npz":
        load_vit_npz(model, file)
        return Source(name, file, licence)
    _must_be_safetensors(file)
    if isinstance(encoder, BackboneEncoder):
        load_weights(encoder, file)
    else:
        load_vit(model, _tensors(file), str(file))
    return Source(name, file, licence)


def load_vit_npz(model: SkipGraph, path: Path) -> None:
    """Fill the encoder of a TransUNet from an archive as Google published it, such as `R50+ViT-B_16.npz`.

    Positions of another grid are interpolated; a class token's, and the classifier, are left out.

    Raises:
        CheckpointError: The file is missing, damaged, or of another network.
        SecurityError: The archive holds pickled objects.
    """
    encoder = _hybrid(model)
    _must_exist(path)
    if not zipfile.is_zipfile(path):
        raise CheckpointError(Problem("not an archive of arrays", str(path), "an .npz file", "copy it again"))
    try:
        with np.load(path, allow_pickle=False) as archive:
            given = {key: archive[key] for key in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        if "allow_pickle" in str(error):
            raise SecurityError(
                Problem("found pickled objects", str(path), "plain arrays", "use the archive as published")
            ) from error
        raise CheckpointError(Problem(f"damaged ({error})", str(path), fix="copy it again")) from error
    _fill(encoder, str(path), lambda: from_google(encoder, given))


def load_vit(model: SkipGraph, state: Mapping[str, torch.Tensor], where: str = "weights") -> None:
    """Fill the encoder of a TransUNet from the state dict of a vision transformer of timm.

    Args:
        model: A TransUNet; it is changed in place.
        state: Such as that of `vit_base_r50_s16_224`.
        where: What to call the weights in messages.

    Raises:
        CheckpointError: They are of another network.
    """
    given = {key: value.detach().cpu().numpy() for key, value in state.items()}
    encoder = _hybrid(model)
    _fill(encoder, where, lambda: from_timm(encoder, given))


def _hybrid(model: SkipGraph) -> HybridEncoder:
    if not isinstance(model.encoder, HybridEncoder):
        raise UsageError(Problem(f"{model.name} has no transformer", "--pretrained", "a TransUNet"))
    return model.encoder


def _fill(encoder: HybridEncoder, where: str, convert: Any) -> None:
    try:
        made = convert()
    except Misfit as error:
        raise CheckpointError(
            Problem(
                f"does not fit the encoder: {error}",
                where,
                "weights of the same width, units, layers and heads",
                "build the network as the weights are, or take others",
            )
        ) from error
    state = encoder.state_dict()
    state |= {key: torch.from_numpy(value) for key, value in made.items()}
    encoder.load_state_dict(state)


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(Problem(f"damaged ({error})", str(file), fix="copy it again")) from error


def _published(name: str, *, download: bool) -> tuple[Path, str]:
    repository, licence = hub_repository(name)
    found = find_weights(name, download=download)
    if found is None:
        raise EnvironmentFault(
            Problem(
                f"no trained weights of {name}",
                "the hub cache of this machine",
                f"{repository}/{WEIGHTS}" if repository else "published weights, which timm knows none of",
                "give a file with `--pretrained FILE`, or `--pretrained download` to fetch it"
                if repository
                else "give a file with `--pretrained FILE`, or train without",
            )
        )
    return found, licence


def _must_exist(file: Path) -> None:
    if not file.is_file():
        raise CheckpointError(
            Problem(
                "file is missing", str(file), "trained weights", "check the path, or leave `--pretrained` out"
            )
        )


def _must_be_safetensors(file: Path) -> None:
    _must_exist(file)
    try:
        refuse_code(file)
    except SecurityError as refusal:
        found = refusal.problems[0].found
        raise SecurityError(
            Problem(found, str(file), "safetensors, which cannot hold code", "convert it where that is safe")
        ) from refusal
    if file.suffix != ".safetensors":  # timm goes by the name, and would unpickle any other
        raise UsageError(
            Problem(f"named *{file.suffix}", str(file), "a name that ends in .safetensors", "rename the file")
        )
