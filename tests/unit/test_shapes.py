"""Size arithmetic against the numbers of the 2015 paper."""

from fractions import Fraction

import pytest

from skipway.errors import ShapeError
from skipway.models import unet, unet_2015, unet_plus_plus
from skipway.shapes import IMAGE, Grid, Spread, Window, align, measure


@pytest.fixture(scope="module")
def paper():
    return unet_2015(width=1).geometry


@pytest.mark.parametrize(
    ("side", "out"), [(188, 4), (204, 20), (220, 36), (252, 68), (380, 196), (572, 388), (700, 516)]
)
def test_output_sides_of_the_paper(paper, side, out):
    assert paper.output_size((side, side)) == (out, out)


def test_geometry_of_the_paper(paper):
    assert paper.stride == (16, 16)
    assert paper.smallest == (188, 188)
    assert paper.margin == (92, 92)
    assert paper.halo == (96, 96)
    assert paper.receptive_field == (204, 204)
    assert paper.tile_exact


def test_crops_of_the_paper():
    crops = {key: [inside for _, inside in node._reads] for key, node in unet_2015(width=1).nodes.items()}
    sides = {key: inside[0][1].start for key, inside in crops.items()}
    assert sides == {"x3_1": 4, "x2_2": 16, "x1_3": 40, "x0_4": 88}
    assert all(inside[1] == (..., slice(0, None), slice(0, None)) for inside in crops.values())


@pytest.mark.parametrize(
    ("side", "message"),
    [
        (
            580,
            r"unet_2015 cannot take a side of 580: level 3 is 65 pixels, which stride 2 does not divide\. "
            r"Nearest sides: 572, 588\.",
        ),
        (573, r"level 0 is 569 pixels, which stride 2 does not divide\. Nearest sides: 572, 588\."),
        (570, r"level 1 is 279 pixels, which stride 2 does not divide\. Nearest sides: 556, 572\."),
        (100, r"unet_2015 cannot take a side of 100: the smallest side is 188\."),
    ],
)
def test_an_illegal_side_is_refused_with_the_reason_and_the_remedy(paper, side, message):
    with pytest.raises(ShapeError, match=message) as refusal:
        paper.check((side, side))
    assert str(refusal.value).count("cannot take") == 1  # one sentence for one mistake on two axes


def test_both_axes_are_named_when_both_are_wrong_differently(paper):
    with pytest.raises(ShapeError, match=r"580.*588\. .*573.*588\."):
        paper.check((580, 573))


def test_next_legal_is_the_smallest_that_holds_the_size(paper):
    assert paper.next_legal((1, 188)) == (188, 188)
    assert paper.next_legal((189, 573)) == (204, 588)
    assert unet(width=1).geometry.next_legal((1, 97)) == (16, 112)


def test_dense_skips_of_a_valid_net_need_a_crop_each():
    net = unet_plus_plus(width=1, padding="valid", supervised=True)
    assert [inside[1].start for _, inside in net.nodes["x0_4"]._reads] == [88, 82, 70, 46, 0]
    assert net.geometry.margins == {"x0_1": (8, 8), "x0_2": (20, 20), "x0_3": (44, 44), "x0_4": (92, 92)}
    assert [net.geometry.output_size((572, 572), key)[0] for key in net.geometry.margins] == [
        556,
        532,
        484,
        388,
    ]


def test_strides_per_axis():
    geometry = unet(width=1, ndim=3, depth=3, pools=[(1, 2, 2), (2, 2, 2)]).geometry
    assert geometry.stride == (2, 4, 4)
    assert geometry.receptive_field[0] < geometry.receptive_field[1] == geometry.receptive_field[2]


def test_the_number_of_axes_must_match(paper):
    with pytest.raises(ShapeError, match="takes 2 spatial axes, not 3"):
        paper.next_legal((188, 188, 188))


def test_an_odd_difference_would_shift_by_half_a_pixel_and_is_refused():
    one = Fraction(1)
    with pytest.raises(ShapeError, match="x0_1 cannot read x0_0: 3 pixels"):
        align("x0_1", {"x0_0": (Grid(one, Fraction(1)),), "x1_0": (Grid(2 * one, Fraction(2)),)}, [1])


@pytest.mark.parametrize(
    ("step", "pixel", "reads"),
    [
        (Window(3, 1, 1), 5, (4, 6)),
        (Window(3), 5, (5, 7)),
        (Window(2, 2), 5, (10, 11)),
        (Window(1, padding=-4), 5, (9, 9)),
        (Spread(2), 5, (2, 2)),
        (Spread(2, linear=True), 4, (1, 2)),
        (Spread(2, linear=True), 5, (2, 3)),
        (Spread(3, linear=True), 4, (1, 1)),  # the middle of an odd factor falls on a pixel
        (Spread(1, linear=True), 4, (4, 4)),
    ],
)
def test_steps_know_what_they_read(step, pixel, reads):
    assert step.reads(pixel, pixel) == reads


def straight(*steps):
    return tuple((step,) for step in steps)


def test_halo_covers_the_further_side_of_a_lopsided_window():
    """A strided 3-wide convolution reaches one pixel before its block of two and none after it."""
    edges = {"a": ((IMAGE, straight(Window(3, 2, 1), Spread(2))),)}
    geometry = measure("lopsided", edges, {"a": "a"}, ["a"], 1)
    assert (geometry.halo, geometry.receptive_field, geometry.margin) == ((2,), (3,), (0,))


def test_a_map_read_twice_is_needed_as_far_as_the_wider_reader_reaches():
    edges = {
        "a": ((IMAGE, ()),),
        "b": (("a", straight(Window(3, 1, 1))),),
        "c": (("a", straight(Window(9, 1, 4))), ("b", ())),
    }
    geometry = measure("twice", edges, {"c": "c"}, ["a"], 1)
    assert (geometry.halo, geometry.receptive_field) == ((4,), (9,))


def test_reads_that_differ_in_size_are_refused():
    edges = {"a": ((IMAGE, ()),), "b": (("a", straight(Window(3))), ("a", ()))}
    with pytest.raises(ShapeError, match="odd: the reads of b differ in size"):
        measure("odd", edges, {"b": "b"}, ["a"], 1)


def test_an_output_off_the_grid_of_the_image_is_refused():
    with pytest.raises(ShapeError, match="coarse: the output a is not on the grid of the input"):
        measure("coarse", {"a": ((IMAGE, straight(Window(2, 2))),)}, {"a": "a"}, ["a"], 1)
