"""Tiled = whole: equality in float64 on networks that amplify, and planted faults that must break it."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from skipway import models, tiles
from skipway.errors import ShapeError

EXACT = 1e-12


def amplifying(model, seed=0, dtype=torch.float64):
    """He initialisation, biases that are not zero, batch norms that are not the identity."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias, std=0.5, generator=generator)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean, std=0.5, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
    return model.to(dtype).eval()


def fold(x, n):
    """Pixel at place x of an axis of n pixels with a mirror at either end, one reflection at a time."""
    if n == 1:
        return 0
    while not 0 <= x < n:
        x = -x if x < 0 else 2 * (n - 1) - x
    return x


def whole(model, image):
    """The definition of the result, without skipway.tiles: one pass over the mirrored image, cropped."""
    geometry = model.geometry
    for axis, margin in enumerate(geometry.margin):
        side = image.shape[axis + 1]
        length = geometry.smallest[axis]
        while length < side + 2 * margin:
            length += geometry.stride[axis]
        image = image.take([fold(x, side) for x in range(-margin, length - margin)], axis=axis + 1)
    with torch.inference_mode():
        return model(torch.from_numpy(image)[None])[-1][0].numpy()


def stitched(model, image, tile, planner=tiles):
    """Logits put together from tiles, NaN where no tile has written."""
    size = image.shape[1:]
    logits = np.full((model.classes, *size), np.nan)
    for one in planner.plan_tiles(size, tile, model.geometry):
        read = one.take(image[:, *one.read])
        with torch.inference_mode():
            here = model(torch.from_numpy(np.ascontiguousarray(read))[None])[-1][0]
        logits[:, *one.write] = here[:, *one.crop].numpy()
    return logits


def picture(channels, *size, seed=1):
    return np.random.default_rng(seed).normal(size=(channels, *size))


def relative_error(model, image, tile, planner=tiles):
    expected = whole(model, image)[:, *(slice(0, side) for side in image.shape[1:])]
    got = stitched(model, image, tile, planner)
    assert not np.isnan(got).any()
    return np.abs(got - expected).max() / expected.std(), int((got.argmax(0) != expected.argmax(0)).sum())


def small(name, seed=0, dtype=torch.float64, **config):
    torch.manual_seed(seed)
    return amplifying(
        models.build(name, **{"in_channels": 1, "classes": 3, "width": 4} | config), seed, dtype
    )


PLAIN = [
    ("unet", {"depth": 2}),
    ("unet", {"depth": 3}),
    ("unet", {"depth": 4}),
    ("unet", {"depth": 3, "up": "bilinear"}),
    ("unet", {"depth": 3, "up": "nearest", "block": "residual"}),
    ("unet", {"depth": 3, "norm": "channel_layer", "merge": "sum"}),
    ("unet", {"depth": 3, "norm": "none", "pools": [(1, 2), (2, 4)]}),
    ("unet_plus", {"depth": 3}),
    ("unet_plus_plus", {"depth": 4, "supervised": True}),
    ("unet_3_plus", {"depth": 3}),
    ("unet_2015", {"depth": 2}),
    ("unet_2015", {"depth": 3}),
    ("unet_2015", {"depth": 4, "released": True}),
    ("unet", {"depth": 3, "padding": "valid", "up": "bilinear"}),
    ("unet", {"depth": 3, "padding": "valid", "up": "nearest", "block": "residual"}),
    ("unet_plus_plus", {"depth": 3, "padding": "valid", "supervised": True}),
    ("unet", {"depth": 3, "ndim": 3, "pools": [(1, 2, 2), (2, 2, 2)]}),
    ("unet", {"depth": 2, "ndim": 3, "padding": "valid"}),
]
IDS = [f"{name}-{'-'.join(map(str, config.values()))}" for name, config in PLAIN]


@pytest.mark.parametrize(("name", "config"), PLAIN, ids=IDS)
@pytest.mark.parametrize("tile", [1, 20])
def test_tiles_equal_the_whole_image_in_float64(name, config, tile):
    model = small(name, **config)
    size = (13, 31, 41) if model.ndim == 3 else (97, 131)
    if model.ndim == 3 and tile == 1:
        size = (5, 11, 15)
    error, changed = relative_error(model, picture(1, *size), tile)
    assert error <= EXACT
    assert changed == 0


@pytest.mark.parametrize("name", ["unet", "unet_2015"])
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_sixty_sizes_with_tiles_that_are_as_small_as_can_be_and_larger(name, depth):
    model = small(name, depth=depth, width=2)
    step = model.geometry.stride[0]
    for side in range(1, 91, 3):
        for tile, size in ((step, (side, 5)), (3 * step + 1, (91 - side, side))):
            error, changed = relative_error(model, picture(1, *size), tile)
            assert (error <= EXACT, changed) == (True, 0), (size, tile, error)


CASES = [
    ("unet", {"depth": 3}, (61, 83), 8),
    ("unet", {"depth": 4, "up": "bilinear"}, (131, 97), 16),
    ("unet_2015", {"depth": 4}, (59, 83), 24),
    ("unet_2015", {"depth": 4}, (1, 83), 20),
]
MUTANTS = {
    "half the halo": ("else _up(halo - margin, stride)", "else _up((halo - margin) // 2, stride)"),
    "one stride less": ("else _up(halo - margin, stride)", "else _up(halo - margin, stride) - stride"),
    "step of a legal output": (
        ("side // s * s", "side"),
        ("step = _up(-(-inner // tiles), self.stride)", "step = -(-inner // tiles)"),
        ("start // self.stride * self.stride - self.margin", "start - self.margin"),
    ),
    "zeros instead of the mirror": (
        "pixels = pixels.take(index - index.min(), axis=axis)",
        "pixels = np.moveaxis(np.moveaxis(pixels.take(index - index.min(), axis=axis), axis, -1)"
        " * [0 <= x < side for x in r], -1, axis)",
    ),
    "mirror with the edge pixel": (
        "np.minimum(index, period - index)",
        "np.minimum(*[np.arange(region.start, region.stop) % (2 * side) * s + (2 * side - 1) * o"
        " for s, o in ((1, 0), (-1, 1))])",
    ),
    "edge pixel repeated": (
        "np.minimum(index, period - index)",
        "np.arange(region.start, region.stop).clip(0, side - 1)",
    ),
    "last row dropped": ("- self.context, step), self.side]", "- self.context, step), self.side - 1]"),
    "last tile dropped": ("pairwise([0, *stops])", "list(pairwise([0, *stops]))[: len(stops) - 1 or 1]"),
    "crop off by one": ("crop = start - self.margin - first", "crop = start - self.margin - first + 1"),
    "reading beyond the whole pass": ("min(self.end, reach + context)", "reach + context"),
    "reading before the whole pass": ("max(-self.margin, origin - context)", "origin - context"),
}


@pytest.fixture
def mutated(tmp_path):
    def load(*edits):
        source = Path(tiles.__file__).read_text(encoding="utf-8")
        for old, new in edits:
            assert source.count(old) == 1, f"the planted fault has lost its place: {old}"
            source = source.replace(old, new)
        path = tmp_path / "mutant_tiles.py"
        path.write_text(source, encoding="utf-8")
        spec = spec_from_file_location("skipway._mutant_tiles", path)
        module = module_from_spec(spec)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(__import__("sys").modules, spec.name, module)
            spec.loader.exec_module(module)
        return module

    return load


def survives(planner):
    for name, config, size, tile in CASES:
        try:
            error, changed = relative_error(small(name, **config), picture(1, *size), tile, planner)
        except (AssertionError, ShapeError, ValueError, RuntimeError):
            return False
        if error > 1e-3 and changed:
            return False
    return True


def test_the_unharmed_planner_survives(mutated):
    assert survives(mutated())


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_fault_is_seen(name, mutated):
    edits = MUTANTS[name] if isinstance(MUTANTS[name][0], tuple) else (MUTANTS[name],)
    assert not survives(mutated(*edits))
