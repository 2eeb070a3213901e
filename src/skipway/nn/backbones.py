"""Encoders by name from timm; the only file that knows timm, which is an optional package."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path as File
from typing import Any

import torch
from torch import Tensor, nn

from skipway.errors import CheckpointError, EnvironmentFault, Problem, UsageError, extra
from skipway.nn.encoders import PlainEncoder, plain_encoder
from skipway.nn.reach import AXES, Reach, Watch, window
from skipway.nn.style import Style
from skipway.shapes import Path, Window

WEIGHTS = "model.safetensors"
"""Name of the weights in a repository of the hub."""


@dataclass(frozen=True)
class _Facts:
    """What one run on the meta device tells about a network of timm.

    Attributes:
        widths: Channels of each level's map, finest first; 0 where it has none.
        reaches: Reach of each level's map; None where the level has none.
        local: Whether no function looks at a whole map.
        dead: Modules whose weights no map depends on.
        multiplications: In convolutions, linear layers and attention, at the size of the run.
    """

    widths: tuple[int, ...]
    reaches: tuple[Reach | None, ...]
    local: bool
    dead: tuple[str, ...]
    multiplications: int


class BackboneEncoder(nn.Module):
    """A network of timm as an encoder: level i is its map of stride 2^i, where it has one.

    Build it by `backbone_encoder`.

    Args:
        name: What timm calls it.
        in_channels: Channels of the image.
        depth: Number of levels.
        stem: Plain encoder for the levels that the network has no map of, if wanted.

    Attributes:
        net: The network of timm, without the modules whose weights no map depends on.
        stem: As given.
        tile_exact: Whether no function of the network looks at a whole map; squeeze-and-excitation and attention
            do.
    """

    def __init__(self, name: str, in_channels: int, depth: int, stem: PlainEncoder | None = None) -> None:
        super().__init__()
        self.name = name
        self.in_channels = in_channels
        facts = _facts(name, in_channels, depth)
        self.net = _create(name, in_channels, depth)
        for path in facts.dead:
            self.net.set_submodule(path, nn.Identity())
        self._channels_last = _channels_last(self.net)
        self.stem = stem
        self.tile_exact = facts.local
        self.strides = tuple((2**level,) * AXES for level in range(depth))
        widths, paths, reaches = ((), (), []) if stem is None else (stem.widths, stem.paths, _reaches(stem))
        self.widths: tuple[int, ...] = (*widths, *facts.widths[len(widths) :])
        self.paths: tuple[Path, ...] = _paths((*reaches, *facts.reaches[len(widths) :]), paths)

    def truncated(self, depth: int) -> "BackboneEncoder":
        """The same encoder, sharing its weights, with only the first `depth` levels."""
        if depth == len(self.widths):
            return self
        stem = self.stem and self.stem.truncated(min(depth, len(self.stem.widths)))
        with torch.device("meta"):
            short = BackboneEncoder(self.name, self.in_channels, depth, stem)
        ours = {**dict(self.net.named_parameters()), **dict(self.net.named_buffers())}
        for key in (*dict(short.net.named_parameters()), *dict(short.net.named_buffers())):
            owner, _, last = key.rpartition(".")
            setattr(short.net.get_submodule(owner), last, ours[key])
        return short.train(self.training)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps (B, widths[i], *S / strides[i]) of the levels that have one, finest first."""
        maps: list[Tensor] = self.net(x)
        if self._channels_last:
            maps = [found.permute(0, 3, 1, 2) for found in maps]
        return list(maps) if self.stem is None else [*self.stem(x), *maps]

    def macs(self, size: tuple[int, ...]) -> int:
        """Multiplications in convolutions, linear layers and attention for one image of `size`."""
        inside = _facts(self.name, self.in_channels, len(self.widths), size).multiplications
        if self.stem is None:
            return inside
        with torch.no_grad(), Watch(torch.zeros(1, self.in_channels, *size, device="meta")) as watch:
            deepcopy(self.stem).to("meta")(watch.image)
        return inside + watch.multiplications


def backbone_encoder(
    name: str,
    in_channels: int,
    depth: int | None = None,
    *,
    stem: Sequence[int] | None = None,
    style: Style | None = None,
) -> BackboneEncoder:
    """Encoder by the name that timm gives it, with weights drawn as timm draws them.

    Args:
        name: Such as `resnet34`; `timm.list_models()` lists them.
        in_channels: Channels of the image.
        depth: Number of levels, the one of stride 1 included; all that the network has unless given.
        stem: Channels, finest first, of two convolutions a level for the levels that the network has no map of,
            so that the decoder sees the image at its own resolution. As many are used as levels are missing.
        style: Norm of the stem.

    Raises:
        EnvironmentFault: timm is not installed.
        UsageError: timm has no network of that name.
        ValueError: Its maps cannot serve as the levels of a U-Net.
    """
    _check_name(name)
    strides = _strides(name)
    deepest = strides[-1].bit_length()
    depth = deepest if depth is None else depth
    if not strides[0].bit_length() <= depth <= deepest:
        raise ValueError(
            f"{name} has maps of stride {', '.join(map(str, strides))}: depth can be {strides[0].bit_length()} to "
            f"{deepest}, not {depth}"
        )
    missing = strides[0].bit_length() - 1
    if stem is not None and not missing:
        raise ValueError(f"{name} has a map of every level, so there is nothing for a stem to stand in for")
    if stem is None:
        return BackboneEncoder(name, in_channels, depth)
    widths = list(stem)[:missing]
    made = plain_encoder(in_channels, widths, [(2,) * AXES] * (len(widths) - 1), style or Style())
    return BackboneEncoder(name, in_channels, depth, made)


def hub_repository(name: str) -> tuple[str, str]:
    """Repository of a network's published weights on the hub (empty where it has none), and their licence."""
    config = _timm().get_pretrained_cfg(name)
    return (config.hf_hub_id or "", config.license or "unknown") if config is not None else ("", "unknown")


def find_weights(name: str, *, download: bool = False) -> File | None:
    """The published weights of a network in the user's hub cache; asks no server unless told to download.

    Raises:
        EnvironmentFault: The download failed.
    """
    import huggingface_hub as hub

    repository, _ = hub_repository(name)
    if not repository:
        return None
    found = hub.try_to_load_from_cache(repository, WEIGHTS)
    if isinstance(found, str):
        return File(found)
    if not download:
        return None
    try:
        # Asked once without retries: on a machine without a network, the download alone tries for half a minute
        # and then does not say why it failed.
        hub.get_hf_file_metadata(hub.hf_hub_url(repository, WEIGHTS))
        return File(hub.hf_hub_download(repository, WEIGHTS))
    except Exception as error:  # the client raises whatever its transport does
        said = next((f": {line}" for line in str(error).splitlines() if line.strip()), "")
        raise EnvironmentFault(
            Problem(
                f"the download failed ({type(error).__name__}{said})",
                f"{repository}/{WEIGHTS}",
                fix="check the network, or copy the file here and name it with `--pretrained FILE`",
            )
        ) from error


def load_weights(encoder: BackboneEncoder, file: File) -> None:
    """Fill a backbone from a safetensors file in timm's own layout; the caller has refused anything else.

    A first convolution for another number of channels is adapted as timm does it: summed for one channel,
    repeated and rescaled for more.

    Raises:
        CheckpointError: The file does not fit the network.
    """
    depth = len(encoder.widths)
    try:
        with torch.random.fork_rng(devices=[]):  # what is drawn here is thrown away
            filled = _create(encoder.name, encoder.in_channels, depth, pretrained=str(file))
    except (RuntimeError, KeyError, ValueError) as error:
        raise CheckpointError(
            Problem(
                f"does not fit {encoder.name} ({' '.join(str(error).split())[:200]})",
                str(file),
                f"the weights of {encoder.name} as timm names them",
            )
        ) from error
    state = filled.state_dict()
    encoder.net.load_state_dict({key: state[key] for key in encoder.net.state_dict()})


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise EnvironmentFault(
            Problem(
                "timm is not installed",
                "backbone",
                "the package that encoders by name come from",
                extra("backbones"),
            )
        ) from error
    return timm


def _check_name(name: str) -> None:
    """Refuse what is no plain name: timm would also take addresses, and go and fetch what is there."""
    timm = _timm()
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=1)
        raise UsageError(
            Problem(
                f"timm has no network called {name!r}",
                "backbone",
                "a name of timm, such as resnet34",
                f"use {near[0]}"
                if near
                else "list them with `python -c 'import timm; print(timm.list_models())'`",
            )
        )


def _create(name: str, in_channels: int, depth: int | None = None, *, pretrained: str | None = None) -> Any:
    """The feature network of timm that gives the maps of the first `depth` levels."""
    timm = _timm()
    options: dict[str, Any] = {}
    if depth is not None:
        options["out_indices"] = [i for i, s in enumerate(_strides(name)) if s.bit_length() <= depth]
        config = timm.get_pretrained_cfg(name)
        if (
            config is not None and config.fixed_input_size
        ):  # window attention, which can take any size if asked
            options["strict_img_size"] = False
    if pretrained is not None:
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": pretrained}}
    return timm.create_model(name, features_only=True, in_chans=in_channels, **options)


@cache  # a fact about a release of timm
def _strides(name: str) -> tuple[int, ...]:
    """Strides of all maps of a network.

    Raises:
        ValueError: They do not grow, or not by powers of two.
    """
    try:
        with torch.device("meta"):
            found = tuple(_create(name, 3).feature_info.reduction())
    except (RuntimeError, AttributeError, TypeError) as error:
        raise ValueError(f"{name} cannot be a backbone: timm gives no maps of it ({error})") from error
    if any(s & (s - 1) for s in found) or tuple(sorted(set(found))) != found:
        raise ValueError(
            f"{name} cannot be a backbone: its maps have the strides {', '.join(map(str, found))}; each level needs "
            "a stride of its own, a power of two. Use a network whose maps get coarser, such as resnet34"
        )
    return found


def _channels_last(net: Any) -> bool:
    layout = getattr(net, "output_fmt", None)
    return getattr(layout, "value", layout) == "NHWC"


def _facts(name: str, in_channels: int, depth: int, size: tuple[int, ...] | None = None) -> _Facts:
    """Run the network once without numbers, at sides that are an odd and an even multiple of its stride.

    Raises:
        ValueError: A map is not the size of the image divided by its stride.
    """
    used = [s for s in _strides(name) if s.bit_length() <= depth]
    period = used[-1]
    sides = size or (3 * period, 4 * period)
    with torch.device("meta"), torch.enable_grad():
        image = torch.zeros(1, in_channels, *sides)
        try:
            net = _create(name, in_channels, depth).eval()
            with Watch(image) as watch:
                maps = net(image)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise ValueError(
                f"{name} cannot be a backbone: it takes no image of {sides[0]} x {sides[1]} ({error})"
            ) from error
        reaches = [watch.reach(found) for found in maps]
        if _channels_last(net):
            maps = [found.permute(0, 3, 1, 2) for found in maps]
        sum(found.sum() for found in maps).backward()
    for found, stride in zip(maps, used, strict=True):
        if tuple(found.shape[2:]) != tuple(n // stride for n in sides):
            raise ValueError(
                f"{name} cannot be a backbone: its map of stride {stride} has a side of {found.shape[2]} for an image "
                f"of {sides[0]}, not {sides[0] // stride}. Use a network with same padding, such as resnet34"
            )
    local = watch.local and all(reach is not None for reach in reaches)
    by_stride = {s: (found.shape[1], reach) for s, found, reach in zip(used, maps, reaches, strict=True)}
    levels = [2**level for level in range(depth)]
    return _Facts(
        widths=tuple(by_stride[s][0] if s in by_stride else 0 for s in levels),
        reaches=tuple((by_stride[s][1] or _unknown(s, period)) if s in by_stride else None for s in levels),
        local=local,
        dead=tuple(_dead(net)),
        multiplications=watch.multiplications,
    )


def _unknown(stride: int, period: int) -> Reach:
    """Reach that is assumed of a map which looks everywhere: one pixel of the coarsest grid on each side."""
    return Reach((stride,) * AXES, (period,) * AXES, (period + stride - 1,) * AXES)


def _dead(net: nn.Module, prefix: str = "") -> list[str]:
    """Largest modules with weights of which none has got a gradient."""
    found: list[str] = []
    for name, child in net.named_children():
        weights = list(child.parameters())
        if weights and all(weight.grad is None for weight in weights):
            found.append(prefix + name)
        elif weights:
            found += _dead(child, f"{prefix}{name}.")
    return found


def _reaches(stem: PlainEncoder) -> list[Reach]:
    found, reach = [], Reach()
    for path in stem.paths:
        for layer in path:
            for axis, step in enumerate(layer):
                if isinstance(step, Window):  # convolutions and pooling are nothing else
                    reach = reach.through(step.kernel, step.stride, step.padding, axis)
        found.append(reach)
    return found


def _paths(reaches: Sequence[Reach | None], known: Sequence[Path]) -> tuple[Path, ...]:
    """Step to each level from the next finer one that has a map; `known` for the first ones."""
    paths: list[Path] = []
    above: Reach | None = None
    for level, reach in enumerate(reaches):
        if level < len(known):
            paths.append(known[level])
        else:
            here = reach or Reach((2**level,) * AXES, (0,) * AXES, (2**level - 1,) * AXES)
            paths.append((tuple(window(above, here, axis) for axis in range(AXES)),))
        above = reach or above
    return tuple(paths)
