"""Trained weights for the encoder of TransUNet: from the names and layouts of others to ours."""

from collections.abc import Callable, Iterator, Mapping
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipway.nn.hybrid import RGB, BottleneckUnit, HybridEncoder
from skipway.nn.transformer import GridTransformer
from skipway.topology import Node

Array = NDArray[Any]
Entry = tuple[str, tuple[str, ...], Callable[..., Array]]
"""Our key, the foreign keys it is made of, and how."""

GOOGLE_IGNORED = ("cls", "head/", "pre_logits/")
TIMM_IGNORED = ("cls_token", "head.", "head_dist.", "fc_norm.", "pre_logits.", "patch_embed.backbone.norm.")
"""Parts of a classifier, which a segmentation network has no place for."""


class Misfit(ValueError):
    """Weights that do not fit the encoder; the message says which."""


def from_google(encoder: HybridEncoder, given: Mapping[str, Array]) -> dict[str, Array]:
    """Our state dict of the encoder (without `more`) from the arrays of a published npz archive.

    Kernels there are (rows, columns, in, out), those of linear layers (in, out), split into heads.

    Source: the layout of google-research/vision_transformer, as read by the code of Chen et al. 2021.
    """
    return _converted(encoder, given, list(_google(encoder)), GOOGLE_IGNORED)


def from_timm(encoder: HybridEncoder, given: Mapping[str, Array]) -> dict[str, Array]:
    """Our state dict of the encoder (without `more`) from that of a hybrid or plain vision transformer of timm."""
    return _converted(encoder, given, list(_timm(encoder)), TIMM_IGNORED)


def fit_positions(given: Array, grid: tuple[int, int]) -> Array:
    """Positions (1, N, C) of any square grid, with or without a class token before them, to (1, C, *grid).

    Another grid is interpolated linearly with the corners in place, as `scipy.ndimage.zoom` does with order 1.

    Raises:
        Misfit: N is neither a square nor one more.
    """
    from scipy.ndimage import zoom

    count = given.shape[1]
    if given.ndim != 3 or isqrt(count) ** 2 not in (count, count - 1):
        raise Misfit(f"positions of shape {list(given.shape)} are no square grid")
    side = isqrt(count)
    table = given[0, count - side * side :].reshape(side, side, -1)
    if grid != (side, side):
        table = zoom(table, (grid[0] / side, grid[1] / side, 1), order=1)
    return np.ascontiguousarray(table.transpose(2, 0, 1))[None]


def _converted(
    encoder: HybridEncoder, given: Mapping[str, Array], entries: list[Entry], ignored: tuple[str, ...]
) -> dict[str, Array]:
    """Apply all entries; every foreign array must be used once, and give an array of our shape."""
    named = {key for _, sources, _ in entries for key in sources}
    if missing := sorted(named - given.keys()):
        raise Misfit(f"missing: {_some(missing)}")
    if unknown := sorted(key for key in given.keys() - named if not key.startswith(ignored)):
        raise Misfit(f"unexpected: {_some(unknown)}")
    wanted = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    made: dict[str, Array] = {}
    for key, sources, convert in entries:
        try:
            made[key] = np.ascontiguousarray(convert(*(given[source] for source in sources)))
        except (ValueError, IndexError) as error:
            raise Misfit(f"{_some(list(sources))} cannot become {key} ({error})") from error
        if made[key].shape != wanted[key]:
            shapes = f"{list(made[key].shape)}→{list(wanted[key])}"
            raise Misfit(f"shape differs: {_some(list(sources))} as {key} ({shapes})")
    return made


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _parts(encoder: HybridEncoder) -> tuple[GridTransformer, str, list[tuple[int, int, str, BottleneckUnit]]]:
    """The transformer, its prefix in our keys, and (stage, unit, prefix, module) of every bottleneck unit."""
    last = Node(len(encoder.widths) - 1, 0).key
    units = []
    for name, module in encoder.named_modules():
        if isinstance(module, BottleneckUnit):
            stage = int(name.split(".")[1][1])
            units.append((stage - 1, int(name.rsplit("unit", 1)[1]), f"{name}.", module))
    found: Any = encoder.get_submodule(f"stages.{last}.tokens")
    return found, f"stages.{last}.tokens.", units


def _channels(channels: int) -> Callable[[Array], Array]:
    """Fit a first kernel (out, in, …) to an image of other than three channels: repeated, the sum kept."""

    def convert(kernel: Array) -> Array:
        if channels == kernel.shape[1]:
            return kernel
        return kernel[:, np.arange(channels) % kernel.shape[1]] * (kernel.shape[1] / channels)

    return convert


def _google(encoder: HybridEncoder) -> Iterator[Entry]:
    tokens, prefix, units = _parts(encoder)
    width = tokens.norm.weight.numel()
    first = _channels(RGB if encoder.in_channels == 1 else encoder.in_channels)

    def kernel(x: Array) -> Array:
        return x.transpose(3, 2, 0, 1)

    def flat(x: Array) -> Array:
        return x.reshape(-1)

    def norm(ours: str, theirs: str) -> Iterator[Entry]:
        yield f"{ours}.weight", (f"{theirs}/scale",), flat
        yield f"{ours}.bias", (f"{theirs}/bias",), flat

    if units:
        yield "stages.x1_0.conv.conv.weight", ("conv_root/kernel",), lambda x: first(kernel(x))
        yield from norm("stages.x1_0.norm", "gn_root")
    for stage, unit, ours, module in units:
        theirs = f"block{stage}/unit{unit}"
        for layer in "123":
            yield f"{ours}body.conv{layer}.conv.weight", (f"{theirs}/conv{layer}/kernel",), kernel
            yield from norm(f"{ours}body.norm{layer}", f"{theirs}/gn{layer}")
        if len(module.shortcut):
            yield f"{ours}shortcut.conv.conv.weight", (f"{theirs}/conv_proj/kernel",), kernel
            yield from norm(f"{ours}shortcut.norm", f"{theirs}/gn_proj")
    yield (
        f"{prefix}embed.weight",
        ("embedding/kernel",),
        kernel if units else lambda x: first(kernel(x)),
    )
    yield f"{prefix}embed.bias", ("embedding/bias",), flat
    grid = (tokens.positions.table.shape[2], tokens.positions.table.shape[3])
    yield (
        f"{prefix}positions.table",
        ("Transformer/posembed_input/pos_embedding",),
        lambda x: fit_positions(x, grid),
    )
    for n in range(len(tokens.layers)):
        ours, theirs = f"{prefix}layers.{n}.", f"Transformer/encoderblock_{n}"
        heads = f"{theirs}/MultiHeadDotProductAttention_1"
        yield from norm(f"{ours}norm1", f"{theirs}/LayerNorm_0")
        yield from norm(f"{ours}norm2", f"{theirs}/LayerNorm_2")
        yield (
            f"{ours}attention.qkv.weight",
            tuple(f"{heads}/{part}/kernel" for part in ("query", "key", "value")),
            lambda *parts: np.concatenate([part.reshape(width, width).T for part in parts]),
        )
        yield (
            f"{ours}attention.qkv.bias",
            tuple(f"{heads}/{part}/bias" for part in ("query", "key", "value")),
            lambda *parts: np.concatenate([part.reshape(-1) for part in parts]),
        )
        yield f"{ours}attention.out.weight", (f"{heads}/out/kernel",), lambda x: x.reshape(width, width).T
        yield f"{ours}attention.out.bias", (f"{heads}/out/bias",), flat
        for mine, layer in (("fc1", "Dense_0"), ("fc2", "Dense_1")):
            yield f"{ours}mlp.{mine}.weight", (f"{theirs}/MlpBlock_3/{layer}/kernel",), lambda x: x.T
            yield f"{ours}mlp.{mine}.bias", (f"{theirs}/MlpBlock_3/{layer}/bias",), flat
    yield from norm(f"{prefix}norm", "Transformer/encoder_norm")


def _timm(encoder: HybridEncoder) -> Iterator[Entry]:
    tokens, prefix, units = _parts(encoder)
    first = _channels(RGB if encoder.in_channels == 1 else encoder.in_channels)

    def same(x: Array) -> Array:
        return x

    def pair(ours: str, theirs: str) -> Iterator[Entry]:
        yield f"{ours}.weight", (f"{theirs}.weight",), same
        yield f"{ours}.bias", (f"{theirs}.bias",), same

    trunk = "patch_embed.backbone."
    if units:
        yield "stages.x1_0.conv.conv.weight", (f"{trunk}stem.conv.weight",), first
        yield from pair("stages.x1_0.norm", f"{trunk}stem.norm")
    for stage, unit, ours, module in units:
        theirs = f"{trunk}stages.{stage - 1}.blocks.{unit - 1}."
        for layer in "123":
            yield f"{ours}body.conv{layer}.conv.weight", (f"{theirs}conv{layer}.weight",), same
            yield from pair(f"{ours}body.norm{layer}", f"{theirs}norm{layer}")
        if len(module.shortcut):
            yield f"{ours}shortcut.conv.conv.weight", (f"{theirs}downsample.conv.weight",), same
            yield from pair(f"{ours}shortcut.norm", f"{theirs}downsample.norm")
    yield f"{prefix}embed.weight", ("patch_embed.proj.weight",), same if units else first
    yield f"{prefix}embed.bias", ("patch_embed.proj.bias",), same
    grid = (tokens.positions.table.shape[2], tokens.positions.table.shape[3])
    yield f"{prefix}positions.table", ("pos_embed",), lambda x: fit_positions(x, grid)
    for n in range(len(tokens.layers)):
        ours, theirs = f"{prefix}layers.{n}.", f"blocks.{n}."
        yield from pair(f"{ours}norm1", f"{theirs}norm1")
        yield from pair(f"{ours}norm2", f"{theirs}norm2")
        yield from pair(f"{ours}attention.qkv", f"{theirs}attn.qkv")
        yield from pair(f"{ours}attention.out", f"{theirs}attn.proj")
        yield from pair(f"{ours}mlp.fc1", f"{theirs}mlp.fc1")
        yield from pair(f"{ours}mlp.fc2", f"{theirs}mlp.fc2")
    yield from pair(f"{prefix}norm", "norm")
