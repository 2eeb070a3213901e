"""Weights that somebody else trained, for the encoders of our networks.

A builder only builds. Weights come afterwards, by one call, from a file or from a cache; a run folder then keeps all
of them, so that nothing here is needed to load it. Files are safetensors or arrays of NumPy: nothing that could run.
"""

from dataclasses import dataclass
from pathlib import Path

from skipway.errors import CheckpointError, EnvironmentFault, Problem, SecurityError, UsageError
from skipway.nn.backbones import WEIGHTS, BackboneEncoder, find_weights, hub_repository, load_weights
from skipway.nn.graph import SkipGraph
from skipway.runs import refuse_code

CACHE, DOWNLOAD = "cache", "download"


@dataclass(frozen=True)
class Source:
    """Where the weights of an encoder came from.

    Attributes:
        backbone: What timm calls the encoder.
        file: The file that was read.
        licence: Licence of the published weights as timm states it; `unknown` for a file of the user.
    """

    backbone: str
    file: Path
    licence: str


def load_pretrained(model: SkipGraph, source: str | Path) -> Source:
    """Fill the backbone of a network with trained weights; stem, decoder and heads stay as they are.

    Args:
        model: Network built with `backbone=…`; it is changed in place.
        source: A safetensors file in timm's layout; or `cache`, the published weights in the hub cache of this
            machine, which asks no server; or `download`, which fetches them when the cache has none.

    Raises:
        UsageError: The network has no backbone.
        SecurityError: The file is not safetensors.
        CheckpointError: The file is missing, damaged, or of another network.
        EnvironmentFault: timm is not installed, there is nothing in the cache, or the download failed.
    """
    encoder = model.encoder
    if not isinstance(encoder, BackboneEncoder):
        raise UsageError(
            Problem(
                f"{model.name} was built without a backbone",
                "--pretrained",
                "a network with an encoder from timm",
                "name one with `--backbone`, such as resnet34",
            )
        )
    licence = "unknown"
    if source in (CACHE, DOWNLOAD):
        file, licence = _published(encoder.name, download=source == DOWNLOAD)
    else:
        file = Path(source)
    _must_be_safetensors(file)
    load_weights(encoder, file)
    return Source(encoder.name, file, licence)


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


def _must_be_safetensors(file: Path) -> None:
    if not file.is_file():
        raise CheckpointError(
            Problem(
                "file is missing", str(file), "trained weights", "check the path, or leave `--pretrained` out"
            )
        )
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
