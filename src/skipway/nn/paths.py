"""Read the size arithmetic of a module off the module itself, so that the two cannot disagree."""

from typing import Any

from torch import nn

from skipway.nn.style import per_axis
from skipway.shapes import Layer, Path, Spread, Transposed, Window

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_STATISTICS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm)
_POINTWISE = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, *_STATISTICS),
    *(nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Dropout, nn.Identity),
)


def path_of(module: nn.Module, ndim: int) -> Path:
    """The layers of a module as steps of size arithmetic.

    Norms count as pointwise; whether they look at the whole tile is `tile_exact`. A module of another
    kind says its own path in an attribute `path`, () when it is pointwise.

    Raises:
        TypeError: The module's arithmetic is not known.
    """
    if isinstance(module, nn.Sequential):
        return tuple(layer for child in module for layer in path_of(child, ndim))
    if isinstance(module, (*_CONVOLUTIONS, *_MAX_POOLS, *_AVERAGES)):
        return (_window(module, ndim),)
    if isinstance(module, _TRANSPOSED) and module.kernel_size == module.stride and not any(module.padding):
        return (tuple(Spread(factor) for factor in module.stride),)
    if isinstance(module, _TRANSPOSED) and not any(module.output_padding) and set(module.dilation) == {1}:
        return (_transposed(module),)
    if isinstance(module, nn.Upsample):
        factors = (int(f) for f in per_axis(module.scale_factor, ndim))
        return (tuple(Spread(factor, linear=module.mode != "nearest") for factor in factors),)
    if isinstance(module, _POINTWISE):
        return ()
    path: Path | None = getattr(module, "path", None)
    if path is None:
        raise TypeError(
            f"the size arithmetic of {type(module).__name__} is not known; give it an attribute `path`"
        )
    return path


def tile_exact(model: nn.Module) -> bool:
    """Whether no module looks at the whole map when it predicts.

    Instance and group norm take statistics over it; up-sampling with aligned corners has a step that depends
    on its size. A module of another kind, such as one with attention, says so by an attribute `tile_exact`.
    """
    return not any(
        isinstance(module, _STATISTICS)
        or (isinstance(module, nn.Upsample) and module.align_corners)
        or getattr(module, "tile_exact", True) is False
        for module in model.modules()
    )


def _window(module: Any, ndim: int) -> Layer:
    names = ("kernel_size", "stride", "padding")
    parts = [per_axis(getattr(module, name), ndim) for name in names]
    dilations = per_axis(getattr(module, "dilation", 1), ndim)  # averages have none
    sides = zip(*parts, dilations, strict=True)
    return tuple(Window(1 + dilation * (kernel - 1), stride, pad) for kernel, stride, pad, dilation in sides)


def _transposed(module: Any) -> Layer:
    sides = zip(module.kernel_size, module.stride, module.padding, strict=True)
    return tuple(Transposed(kernel, stride, pad) for kernel, stride, pad in sides)
