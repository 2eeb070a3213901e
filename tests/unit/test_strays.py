"""Values that damage made, and true classes that are rare, thin or small."""

import numpy as np
from PIL import Image

from skipway.data import strays
from skipway.data.labels import infer_labels
from skipway.data.records import FileRecord
from skipway.data.values import seams, summarise


def record(name, mask):
    values = summarise(mask)
    empty = (mask.shape, 1, "uint8", "8-bit grey", name, name, 0.0, 255.0, 9.0, 0)
    return FileRecord(name, *empty, values, rings=seams(mask, values.values))


def said(masks, names=None):
    records = [record(f"m{k}", mask) for k, mask in enumerate(masks)]
    labels = infer_labels({r.name: r.values for r in records}, "classes", names=names)
    lines = [*strays.seams(records, labels), *strays.specks({r.name: [r] for r in records}, labels)]
    return [(code, text, [r.name for r in of]) for code, text, of in lines]


def areas(*values, side=48):
    """Rectangles of these values on 0, apart from each other."""
    mask = np.zeros((side, side), np.uint8)
    for k, value in enumerate(values):
        mask[4 : side - 4, 4 + 14 * k : 14 + 14 * k] = value
    return mask


def test_a_value_of_three_pixels_in_one_mask_is_named():
    masks = [areas(1, 2) for _ in range(6)]
    masks[4] = masks[4].copy()
    masks[4][1, 1:3] = masks[4][46, 40] = 3
    assert said(masks) == [("E12", "value 3 is in 1 of 6 masks, 3 pixels: a stray value?", ["m4"])]


def test_a_jpeg_of_small_class_numbers_is_named(tmp_path):
    masks = [areas(1, 2) for _ in range(6)]
    blocks = np.kron(np.random.default_rng(1).integers(0, 3, (24, 24)), np.ones((2, 2))).astype(np.uint8)
    Image.fromarray(blocks).save(tmp_path / "a.jpg", quality=95)
    masks[2] = np.asarray(Image.open(tmp_path / "a.jpg"))
    assert masks[2].max() == 3
    assert [(code, names) for code, _, names in said(masks)] == [("E12", ["m2"])]


def test_rare_true_classes_are_no_strays():
    masks = [areas(1, 2) for _ in range(6)]
    one = masks[0].copy()
    one[20:24, 40:44] = 3  # an area of 16 pixels, in one mask
    assert said([one, *masks[1:]]) == []
    dots = [mask.copy() for mask in masks]
    dots[0][1, 1] = dots[5][2, 2] = 3  # single pixels, in two masks
    assert said(dots) == []
    dots[5] = masks[5]
    assert [code for code, *_ in said(dots)] == ["E12"]
    assert said(dots, {3: "tip"}) == []  # the data set knows it
    assert said(dots[:4]) == []  # nothing is usual among four


def test_a_seam_in_one_mask_is_named_where_others_hold_the_class():
    masks = [areas(1, 2) for _ in range(6)]
    smooth = Image.fromarray(areas(2)).resize((24, 24), Image.Resampling.BILINEAR)
    masks[3] = np.asarray(smooth.resize((48, 48), Image.Resampling.BILINEAR))
    found = said(masks)
    assert [(code, names) for code, _, names in found] == [("E13", ["m3"])]
    assert "in 1 of 6 masks only a seam" in found[0][1]
    assert said([*masks[:3], areas(2), *masks[4:]]) == []
    sliver = areas(2)
    sliver[10:20, 3] = 1  # ten pixels of a rim
    assert said([*masks[:3], sliver, *masks[4:]]) == []
