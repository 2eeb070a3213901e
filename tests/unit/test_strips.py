"""Strips: every row of every layer once, equal to one pass over the whole image, in memory that no length changes."""

from collections import Counter, deque
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from members import MEMBERS, made
from skipway import models
from skipway.errors import UsageError
from skipway.nn import strips as engine
from skipway.nn import tape as tape_of
from skipway.nn.operations import peak_bytes
from skipway.nn.rows import NotInRows, origin
from skipway.nn.strips import Kept, stream
from skipway.nn.tape import record
from skipway.predict import ArrayPixels, predict_array
from skipway.predict import strips as reading
from skipway.predict.ensemble import Ensemble
from skipway.predict.strips import plan_strips
from skipway.shapes import Spread, Window, measure
from skipway.tiles import mirror_index, tile_around

LOCAL = [
    (name, ndim, {}) for name, ndim in MEMBERS if name != "trans_unet_small" and not name.startswith("nnunet")
]
LOCAL += [(name, 3, {"norm": "batch"}) for name in ("nnunet", "nnunet_residual")]
LOCAL += [
    ("unet", 2, {"up": "bilinear", "block": "residual"}),
    ("unet", 2, {"up": "nearest", "block": "preactivation", "norm": "channel_layer"}),
    ("unet", 2, {"pools": [(3, 1), (2, 4)], "merge": "sum"}),
    ("unet_plus_plus", 2, {"supervised": True, "padding": "valid"}),
    ("unet_3_plus", 2, {"supervised": True, "depth": 4}),
]


def alive(name, ndim, **config):
    """A small network wide enough that no map is constant, in double precision."""
    width = {} if name.startswith("fcn_") else {"width": 5}
    return made(name, ndim, torch.float64, **width | config)


def whole_pass(model, pixels):
    """All outputs for an image (1, *S) of any size by one pass, cropped to the last one and to the image."""
    tile = tile_around(pixels.shape[1:], [slice(0, n) for n in pixels.shape[1:]], model.geometry)
    with torch.inference_mode():
        found = model(torch.from_numpy(tile.take(pixels[:, *tile.read]))[None])
    side = [n - 2 * m for n, m in zip(map(len, tile.region), model.geometry.margin, strict=True)]
    middle = [
        [
            slice((have - want) // 2, (have - want) // 2 + want)
            for have, want in zip(one.shape[2:], side, strict=True)
        ]
        for one in found
    ]
    return [one[:, :, *mid][0, :, *tile.crop] for one, mid in zip(found, middle, strict=True)]


def streamed(model, pixels, rows, axis, outputs="mean", stretch=None):
    """The same strip by strip, of all rows or of a stretch of them."""
    plan = plan_strips(model, pixels.shape[1:], outputs=outputs, rows=rows, axis=axis, stretch=stretch)
    pieces = []
    with torch.inference_mode():
        for write, crop, found in plan.run(ArrayPixels(pixels), lambda part: torch.from_numpy(part)[None]):
            shape = found[-1].shape[2:]
            cut = [
                [slice((h - w) // 2, (h - w) // 2 + w) for h, w in zip(f.shape[2:], shape, strict=True)]
                for f in found
            ]
            pieces.append((write, [f[:, :, *c][0, :, *crop] for f, c in zip(found, cut, strict=True)]))
    starts = [write[axis] for write, _ in pieces]
    first, last = (0, pixels.shape[1 + axis]) if stretch is None else (stretch.start, stretch.stop)
    assert [s.start for s in starts] == [first, *[s.stop for s in starts[:-1]]]
    assert starts[-1].stop == last
    return [torch.cat(parts, 1 + axis) for parts in zip(*(parts for _, parts in pieces), strict=True)]


def picture(ndim, length, axis, seed=0):
    size = [5, 7, 6][:ndim]
    size[axis] = length
    return np.random.default_rng(seed).normal(size=(1, *size))


def error(found, wanted):
    return max(float((a - b).abs().max() / b.std()) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize(("name", "ndim", "config"), LOCAL, ids=lambda value: str(value))
def test_strips_are_the_whole_pass(name, ndim, config):
    model = alive(name, ndim, **config)
    for axis, length, rows in ((0, 75, 1), (0, 61, 6), (ndim - 1, 70, 64)):
        pixels = picture(ndim, length, axis)
        found, wanted = streamed(model, pixels, rows, axis), whole_pass(model, pixels)
        assert len(found) == len(wanted)
        assert min(float(one.std()) for one in wanted) > 1e-3
        assert error(found, wanted) <= 1e-12, (axis, length, rows)
        assert all(torch.equal(a.argmax(0), b.argmax(0)) for a, b in zip(found, wanted, strict=True))
        assert error([found[-1]], streamed(model, pixels, rows, axis, "last")) == 0


@pytest.mark.parametrize(("name", "ndim", "config"), LOCAL, ids=lambda value: str(value))
def test_a_stretch_of_rows_is_that_of_the_whole_pass(name, ndim, config):
    model = alive(name, ndim, **config)
    halo = model.geometry.halo[0]
    length = 2 * halo + 40
    pixels = picture(ndim, length, 0)
    wanted = whole_pass(model, pixels)
    for start, stop in ((halo + 3, halo + 25), (0, 9), (halo + 20, length)):
        found = streamed(model, pixels, 4, 0, stretch=slice(start, stop))
        assert error(found, [one[:, start:stop] for one in wanted]) <= 1e-11, (start, stop)


@pytest.mark.parametrize(("name", "config"), [("unet", {}), ("unet_2015", {}), ("fcn", {"depth": 4})])
def test_every_length_from_1_to_40(name, config):
    model = alive(name, 2, **config)
    for length in range(1, 41):
        pixels = picture(2, length, 0, seed=length)
        assert error(streamed(model, pixels, 5, 0), whole_pass(model, pixels)) <= 1e-12, length


@pytest.mark.parametrize("backbone", ["resnet18", "convnext_atto"])
def test_a_backbone_needs_to_say_nothing(backbone):
    torch.manual_seed(0)
    model = models.build("unet", in_channels=1, classes=2, backbone=backbone, depth=4).double().eval()
    pixels = picture(2, 61, 0)
    assert error(streamed(model, pixels, 6, 0), whole_pass(model, pixels)) <= 1e-12


def keep_one_row_less(patch):
    drop = Kept.drop
    patch.setattr(
        Kept, "drop", lambda self, before: drop(self, before + 1 if 0 < before < self.done else before)
    )


def zero_the_first_kept_row(patch):
    take = Kept.take

    def zeroed(self, first, stop, fill):
        rows = take(self, first, stop, fill).clone()
        if 0 < first < self.parts[-1][0]:  # a row of an earlier strip
            rows.narrow(self.dim, 0, 1).zero_()
        return rows

    patch.setattr(Kept, "take", zeroed)


def pad_at_every_strip(patch):
    take = Kept.take

    def padded(self, first, stop, fill):
        rows = take(self, first, stop, fill).clone()
        start = self.parts[-1][0] if self.parts else 0
        if fill is not None and first < start < stop:
            rows.narrow(self.dim, 0, start - first).fill_(fill)
        return rows

    patch.setattr(Kept, "take", padded)


def no_padding_value(patch):
    take = Kept.take
    patch.setattr(Kept, "take", lambda self, a, b, fill: take(self, a, b, None if fill is None else 1.0))


def stand_one_row_back(patch):
    found = engine.lines
    patch.setattr(
        engine,
        "lines",
        lambda *a: {slot: replace(line, lead=line.lead - (slot == 0)) for slot, line in found(*a).items()},
    )


def lose_the_phase(patch):
    patch.setattr(engine, "origin", lambda step, first: origin(step, first) + isinstance(step, Spread))


def mirror_from_the_wrong_row(patch):
    patch.setattr(
        reading, "mirror_index", lambda region, side: np.clip(mirror_index(region, side) + 1, 0, side - 1)
    )


FAULTS = [
    keep_one_row_less,
    zero_the_first_kept_row,
    pad_at_every_strip,
    no_padding_value,
    stand_one_row_back,
    lose_the_phase,
    mirror_from_the_wrong_row,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("name", ["attention_unet", "residual_unet", "unet"])
def test_planted_faults_are_seen(fault, name, monkeypatch):
    up = {"up": "bilinear"} if name == "unet" else {}
    model, pixels = alive(name, 2, **up), picture(2, 61, 0)
    wanted = whole_pass(model, pixels)
    assert error(streamed(model, pixels, 6, 0), wanted) <= 1e-12
    fault(monkeypatch)
    try:
        found = error(streamed(model, pixels, 6, 0), wanted)
    except (RuntimeError, IndexError):  # rows that are not there are not made up
        return
    assert found > 1e-6


def test_every_row_is_read_once_and_every_row_of_every_map_is_computed_once(monkeypatch):
    model, pixels = alive("unet_2015", 2), picture(2, 90, 0)
    read, made_rows = Counter(), Counter()

    class Recording(ArrayPixels):
        def read(self, window):
            read.update(range(window[0].start, window[0].stop))
            return super().read(window)

    put = Kept.put

    def counted(self, rows):
        made_rows[id(self)] += rows.shape[self.dim]
        kept.append(self)
        put(self, rows)

    kept = []
    monkeypatch.setattr(Kept, "put", counted)
    plan = plan_strips(model, (90, 7), rows=7, axis=0)
    with torch.inference_mode():
        deque(plan.run(Recording(pixels), lambda part: torch.from_numpy(part)[None]), maxlen=0)
    assert read == Counter(range(90))
    assert len(made_rows) == len(plan.tape.calls) + 1
    assert all(made_rows[id(one)] <= one.length for one in kept)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("unet", {}),
        ("unet_plus_plus", {"supervised": True}),
        ("unet_3_plus", {}),
        ("unet", {"ndim": 3}),
    ],
)
@pytest.mark.parametrize("rows", [5, 16])
def test_memory_is_as_foretold_and_does_not_grow_with_the_length(name, config, rows):
    model = models.build(name, in_channels=1, classes=4, **{"width": 4, "depth": 3} | config).eval()
    wide = (16,) * (model.ndim - 1)
    tape = record(model, model.geometry, 0, size=(16, *wide))

    def peak(height):
        def run(_):
            read = stream(
                tape, lambda a, b: torch.zeros(1, 1, b - a, *wide), rows, length_in=height, length_out=height
            )
            deque(read, maxlen=0)

        return peak_bytes(run, torch.zeros(1))

    once, four, sixteen = (peak(64 * times) for times in (1, 4, 16))
    assert abs(four - once) <= 0.05 * once
    assert abs(sixteen - once) <= 0.05 * once
    assert 0.85 <= engine.most_bytes(tape, rows) / once <= 1.4
    assert sixteen < 0.4 * peak_bytes(
        model.frugal, torch.zeros(1, 1, 1024 // (4 if model.ndim == 3 else 1), *wide)
    )


class Wired(nn.Module):
    """One 3-wide convolution, then whatever is done with its map."""

    def __init__(self, then):
        super().__init__()
        self.conv, self.then, self.in_channels = nn.Conv2d(1, 2, 3, padding=1).double(), then, 1
        self.geometry = measure(
            "wired", {"x0_0": (("image", ((Window(3, 1, 1),) * 2,) * 2),)}, {"out": "x0_0"}, ["x0_0"], 2
        )

    def forward(self, x):
        return (self.then(self.conv(x)),)


def in_place_after_another_reader(y):
    z = F.max_pool2d(y, 3, 1, 1)
    r = F.leaky_relu(y, 0.1, True)
    r += 1
    return z + F.avg_pool2d(r, 3, 1, 1)  # both read a row ahead


def test_a_map_that_is_written_over_is_not_yet_written_over_for_those_who_read_it_before(monkeypatch):
    torch.manual_seed(0)
    model, pixels = Wired(in_place_after_another_reader).eval(), picture(2, 30, 0)
    assert error(streamed(model, pixels, 4, 0), whole_pass(model, pixels)) <= 1e-12
    monkeypatch.setattr(tape_of, "_in_place_where_safe", lambda calls, _: tuple(calls))
    assert error(streamed(model, pixels, 4, 0), whole_pass(model, pixels)) > 1e-6


@pytest.mark.parametrize(
    ("then", "why"),
    [
        (lambda y: y - y.mean((2, 3), keepdim=True), "`mean` is not known"),
        (lambda y: F.interpolate(y, size=(y.shape[2], y.shape[3])), "to a size, not by a factor"),
        (
            lambda y: F.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=True),
            "depend on the size",
        ),
        (lambda y: y.softmax(2), "over all rows of a map"),
        (lambda y: torch.cat([y, y], 2), "over all rows of a map"),
        (lambda y: y[:, :, : y.shape[2]], "counted from its other end"),
        (lambda y: y.flip(2), "`flip` is not known"),
        (lambda y: y * y[0, 0].sum(), "cannot be watched"),
        (lambda y: y + torch.zeros(8, 8, dtype=y.dtype), "cannot be watched"),
        (lambda y: F.batch_norm(y, None, None, training=True), "statistics of the batch"),
        (lambda y: F.pad(y, (1, 1, 1, 1), mode="reflect")[:, :, 1:-1, 1:-1], "padding by 'reflect'"),
        (lambda y: F.avg_pool2d(y, 3, 1, 1, count_include_pad=False), "leaves out the padding"),
        (lambda y: F.max_pool2d(y, 2, 1, 0, 1, True), "may be cut off"),
        (lambda y: y * (1 if y.shape[2] < 14 else 2), "depend on the size"),
    ],
)
def test_what_looks_further_or_is_not_known_is_refused(then, why):
    model = Wired(then).eval()
    with pytest.raises(NotInRows, match=why):
        record(model, replace(model.geometry, smallest=(8, 8), stride=(4, 4)))


@pytest.mark.parametrize("config", [{"norm": "instance"}, {"norm": "group"}, {"up": "bilinear_aligned"}])
def test_networks_that_look_at_the_whole_image_are_refused(config):
    with pytest.raises(
        UsageError, match=r"cannot predict in strips: a layer looks at the whole image.*--engine"
    ):
        predict_array(made("unet", 2, **config), picture(2, 30, 0), engine="strips")


@pytest.mark.parametrize("outputs", ["last", "mean"])
def test_prediction_in_strips_is_prediction_in_tiles(outputs):
    model = alive("unet_plus_plus", 2, supervised=True, padding="valid", norm="batch")
    pixels = np.random.default_rng(1).integers(0, 255, (1, 61, 150), dtype=np.uint8)
    constants = (np.array([100.0]), np.array([50.0]))
    for head, output in zip(model.heads.values(), whole_pass(model, (pixels - 100.0) / 50.0), strict=True):
        with torch.no_grad():
            head.layers.conv.bias[0] -= (output[0] - output[1]).median()  # as many pixels of either class
    shares, seen = np.full((2, 2, 61, 150), np.nan, np.float32), []
    tiled, strips = (
        predict_array(
            model,
            pixels,
            constants,
            tile=16,
            outputs=outputs,
            engine=name,
            on_probabilities=lambda region, p, i=i: shares[i].__setitem__((slice(None), *region), p),
            on_progress=lambda done, count: seen.append((done, count)),
        )
        for i, name in enumerate(("tiles", "strips"))
    )
    assert np.array_equal(tiled.labels, strips.labels)
    assert 0 < tiled.labels.mean() < 1
    assert np.allclose(shares[0], shares[1], atol=1e-7)
    assert strips.tile == (61, 16)  # along the longer axis
    assert seen[-strips.tiles :] == [(i, 10) for i in range(1, 11)]
    assert strips.redundancy < 0.8 * tiled.redundancy  # the margin of a valid network, and no context
    assert strips.certificate.holds
    assert strips.certificate.tiles == 10


def test_the_certificate_sees_a_fault_in_the_strips(monkeypatch):
    model, pixels = made("unet", 2, width=8), picture(2, 300, 0).astype(np.float32)
    zero_the_first_kept_row(monkeypatch)
    certificate = predict_array(model, pixels, engine="strips", tile=8).certificate
    assert not certificate.holds


def test_several_networks_are_one():
    members = [alive("unet", 2), alive("unet", 2)]
    for parameter in members[1].parameters():
        nn.init.normal_(parameter, std=0.3)
    model, pixels = Ensemble(members), picture(2, 61, 0)
    found = [predict_array(model, pixels, engine=name, tile=8).labels for name in ("tiles", "strips")]
    assert np.array_equal(*found)
