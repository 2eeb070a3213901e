"""Drawings: nothing overlaps, every read has its arrow, grey is what pruning drops, sizes are what torch gives."""

import itertools
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import ImageFont

from skipway import models
from skipway.draw import Arrow, lay_out, svg
from skipway.draw.parts import text_width
from skipway.draw.words import show, times
from skipway.errors import TopologyError
from skipway.models.assemble import plain_network
from skipway.models.cards import head_cards, node_cards
from skipway.nn.operations import count_parameters
from skipway.topology import Node, Topology

SVG = "{http://www.w3.org/2000/svg}"


def fcn_8(_):
    """Merged at strides 16 and 8, then ended: no decoder node on the two finest levels."""
    return Topology(
        {Node(4, 1): (Node(4, 0), Node(5, 0)), Node(3, 2): (Node(3, 0), Node(4, 1))}, (Node(3, 2),)
    )


def fcn_32(_):
    return Topology({}, (Node(5, 0),))


def odd(_):
    """Reads in all directions, outputs in the middle of rows and on the encoder."""
    reads = {
        Node(0, 1): (Node(3, 0),),
        Node(1, 2): (Node(1, 0), Node(3, 0), Node(0, 1)),
        Node(2, 2): (Node(2, 0), Node(3, 0), Node(0, 1)),
        Node(0, 3): (Node(0, 0), Node(0, 1), Node(1, 2), Node(4, 0)),
    }
    return Topology(reads, (Node(1, 0), Node(2, 0), Node(1, 2), Node(2, 2), Node(0, 1), Node(0, 3)))


@cache
def network(name, *settings):
    """A network without numbers: a builder, or a row of this file as a tiny one."""
    rows = {"fcn_8": (fcn_8, 6), "fcn_32": (fcn_32, 6), "odd": (odd, 5)}
    with torch.device("meta"):
        if name in rows:
            row, depth = rows[name]
            return plain_network(name, row, 3, 21, width=4, depth=depth)
        return models.build(name, **dict(settings))


@cache
def drawn(case, size=None, level=None):
    return lay_out(network(*case), size, level=level, source="Somebody et al. 2015, eq. 1")


SUPERVISED = ("supervised", True)
VALID = ("padding", "valid")
VOLUME = (("ndim", 3), ("width", 4), ("pools", ((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))))
TIDY = [
    *((name,) for name in models.BUILDERS),
    *(("unet", ("depth", depth)) for depth in (2, 3, 4, 7, 8)),
    *(("unet_plus_plus", ("depth", depth), SUPERVISED, VALID) for depth in (2, 3, 5)),
    ("unet_plus_plus", ("depth", 8), VALID),
    ("unet_plus", ("depth", 7), SUPERVISED),
    *(("unet_3_plus", ("depth", depth), SUPERVISED) for depth in (2, 3, 5, 7)),
    ("unet", *VOLUME),
    ("unet_plus_plus", *VOLUME, VALID),
    ("fcn_8",),
    ("fcn_32",),
]
"""Cases without an arrow that has to pass behind a box."""
CASES = [*TIDY, ("odd",)]


def label(case):
    return "-".join(str(part if isinstance(part, str) else part[1]) for part in case)


every = pytest.mark.parametrize("case", CASES, ids=label)


@every
def test_no_text_meets_a_box_or_another_text(case):
    drawing = drawn(case)
    free = [text.rect for text in drawing.texts]
    free += [arrow.label.rect for arrow in drawing.arrows if arrow.label is not None]
    boxes = [box.rect for box in drawing.boxes]
    for a, b in itertools.combinations([*free, *boxes], 2):
        assert not a.overlaps(b)
    for box in drawing.boxes:
        inside = [text.rect for text in box.texts]
        assert all(box.rect.holds(rect) for rect in inside)
        assert not any(a.overlaps(b) for a, b in itertools.combinations(inside, 2))
        assert max(rect.bottom for rect in inside) <= box.rect.bottom - (8 if box.share else 0)


@every
def test_everything_is_on_the_page(case):
    drawing = drawn(case)
    rects = [text.rect for text in drawing.texts] + [box.rect for box in drawing.boxes]
    assert min(min(rect.x, rect.y) for rect in rects) >= 8
    assert max(rect.right for rect in rects) <= drawing.width - 8
    assert max(rect.bottom for rect in rects) <= drawing.height
    for x, y in itertools.chain(*map(trail, [*drawing.arrows, *drawing.legend])):
        assert 0 < x < drawing.width
        assert 0 < y < drawing.height


def trail(arrow, count=60):
    return [arrow.at(i / count) for i in range(count + 1)]


@pytest.mark.parametrize("case", TIDY, ids=label)
def test_no_arrow_passes_through_a_box(case):
    drawing = drawn(case)
    for arrow in drawing.arrows:
        for box in drawing.boxes:
            inside = [point for point in trail(arrow) if box.rect.has(point)]
            assert inside == [], (arrow.title, box.key)


@every
def test_every_read_has_an_arrow_from_edge_to_edge(case):
    model, drawing = network(*case), drawn(case)
    wanted = {(source.key, node.key) for node, reads in model.topology.reads.items() for source in reads}
    levels = [Node(level, 0).key for level, width in enumerate(model.encoder.widths) if width]
    wanted |= set(zip(["image", *levels], levels, strict=False))
    wanted |= {(node.key, f"heads.{node.key}") for node in model.topology.outputs}
    assert len(drawing.arrows) == len(wanted)
    assert {(arrow.source, arrow.target) for arrow in drawing.arrows} == wanted
    boxes = {box.key: box.rect for box in drawing.boxes}
    assert set(boxes) == {key for arrow in wanted for key in arrow}
    for arrow in drawing.arrows:
        assert on_edge(arrow.points[0], boxes[arrow.source])
        assert on_edge(arrow.points[-1], boxes[arrow.target])


def on_edge(point, rect):
    x, y = point
    level = rect.y - 1e-6 <= y <= rect.bottom + 1e-6 and min(abs(x - rect.x), abs(x - rect.right)) < 1e-6
    upright = rect.x - 1e-6 <= x <= rect.right + 1e-6 and min(abs(y - rect.y), abs(y - rect.bottom)) < 1e-6
    return level or upright


@every
def test_ends_of_arrows_are_told_apart(case):
    """No two arrows begin or end on one spot."""
    ends = [end for arrow in drawn(case).arrows for end in (arrow.points[0], arrow.points[-1])]
    for (ax, ay), (bx, by) in itertools.combinations(ends, 2):
        assert abs(ax - bx) + abs(ay - by) > 2.5


def test_arrows_are_named_by_what_they_do():
    ways = {arrow.way for arrow in drawn(("unet_plus_plus",)).arrows}
    assert ways == {"input", "encoder", "skip", "up", "head"}
    full = {(arrow.source, arrow.target): arrow.way for arrow in drawn(("unet_3_plus",)).arrows}
    assert full["x0_0", "x2_2"] == "down"
    assert full["x2_0", "x2_2"] == "skip"
    assert full["x4_0", "x2_2"] == "up"
    for case in (("unet_plus_plus",), ("unet_3_plus",)):
        drawing = drawn(case)
        named = {arrow.way for arrow in drawing.legend}
        assert named == {arrow.way for arrow in drawing.arrows} - {"input"}


def test_the_u_is_a_u():
    """The encoder goes down on the left, the decoder up on the right, skips are level, steps upright."""
    drawing = drawn(("unet",))
    middle = {box.key: box.rect.middle for box in drawing.boxes}
    left = [middle[f"x{level}_0"] for level in range(5)]
    right = [middle[key] for key in ("x4_0", "x3_1", "x2_2", "x1_3", "x0_4")]
    assert [y for _, y in left] == sorted(y for _, y in left)
    assert [y for _, y in right] == sorted((y for _, y in right), reverse=True)
    xs = [x for x, _ in (*left, *right[1:])]
    assert xs == sorted(xs)
    axis = middle["x4_0"][0]
    assert axis - middle["x0_0"][0] == pytest.approx(middle["x0_4"][0] - axis)
    for arrow in drawing.arrows:
        (x0, y0), (x1, y1) = arrow.points
        assert (x0 == x1) if arrow.way in ("encoder", "up") else (y0 == y1)


@pytest.mark.parametrize(
    ("case", "level"),
    [
        *((("unet_plus_plus", SUPERVISED), level) for level in (1, 2, 3, 4)),
        (("unet_plus", SUPERVISED), 2),
        (("unet_e",), 3),
        (("unet_3_plus", SUPERVISED), 2),
        (("unet_3_plus", SUPERVISED), 0),
        (("odd",), 1),
    ],
    ids=str,
)
def test_grey_is_what_pruning_drops(case, level):
    model = network(*case)
    dropped = set(model.state_dict()) - set(model.pruned(level).state_dict())
    drawing = drawn(case, level=level)
    grey = {box.key for box in drawing.boxes if not box.kept}
    assert grey == {owner(key) for key in dropped}
    assert all(arrow.kept == (arrow.target not in grey) for arrow in drawing.arrows)
    counts = f"{count_parameters(model.pruned(level)):,} of {count_parameters(model):,} parameters"
    assert any(counts in text.text for text in drawing.texts)


def owner(key):
    """Box that a name in the state dict belongs to."""
    kind, *rest = key.split(".")
    return {"encoder": rest[1], "nodes": rest[0], "heads": f"heads.{rest[0]}"}[kind]


def test_a_level_without_an_output_is_refused():
    with pytest.raises(TopologyError, match="no output L2"):
        lay_out(network("unet_plus_plus"), level=2)


REAL = [
    ("unet_2015", {"width": 2, "depth": 3}, (60, 76)),
    ("unet", {"width": 2, "depth": 3, "ndim": 3, "pools": [(1, 2, 2), (2, 2, 2)]}, (6, 12, 16)),
    ("unet_plus_plus", {"width": 2, "depth": 4, "padding": "valid", "supervised": True}, (108, 100)),
    ("unet_3_plus", {"width": 2, "depth": 3, "supervised": True}, (20, 24)),
]


@pytest.mark.parametrize(("name", "config", "size"), REAL, ids=lambda value: str(value)[:20])
def test_sizes_and_channels_are_those_that_torch_gives(name, config, size):
    model = models.build(name, **config).eval()
    assert model.geometry.legal(size)
    boxes = {box.key: [text.text for text in box.texts] for box in lay_out(model, size).boxes}
    seen = {}
    parts = {**dict(model.encoder.stages.items()), **dict(model.nodes.items())}
    parts |= {f"heads.{key}": head for key, head in model.heads.items()}
    for key, part in parts.items():
        part.register_forward_hook(lambda _, __, out, key=key: seen.update({key: tuple(out.shape[1:])}))
    model(torch.zeros(1, model.in_channels, *size))
    assert boxes.pop("image")[1:] == [
        f"{model.in_channels} channel{'s'[model.in_channels == 1 :]}",
        times(size),
    ]
    assert boxes.keys() == seen.keys()
    for key, (channels, *sides) in seen.items():
        head, width, shape = boxes[key][:3]
        assert head == ("output" if key.startswith("heads") else show(key))
        assert width.split()[0] == str(channels)
        assert shape == times(sides)


@pytest.mark.parametrize("name", models.BUILDERS)
def test_nodes_and_heads_have_all_the_parameters(name):
    model = network(name)
    size = model.geometry.next_legal((64,) * model.ndim)
    cards = [*node_cards(model, size), *head_cards(model, size)]
    assert sum(card.parameters for card in cards) == count_parameters(model)


def test_crops_are_those_of_the_paper():
    labels = {
        (arrow.source, arrow.target): arrow.label.text
        for arrow in drawn(("unet_2015",)).arrows
        if arrow.label is not None
    }
    assert labels == {
        ("x0_0", "x0_4"): "crop 88",
        ("x1_0", "x1_3"): "crop 40",
        ("x2_0", "x2_2"): "crop 16",
        ("x3_0", "x3_1"): "crop 4",
    }
    assert all(arrow.label is None for arrow in drawn(("unet",)).arrows)


def test_every_crop_of_a_valid_net_is_on_its_arrow():
    case = ("unet_plus_plus", ("depth", 8), VALID)
    drawing = drawn(case)
    assert sum(arrow.label is not None for arrow in drawing.arrows) == 84  # all skips, X[i,j] reads j of them
    assert all(arrow.label is not None for arrow in drawing.arrows if arrow.way == "skip")


def test_a_pooling_that_is_not_by_two_is_on_its_arrow():
    labels = {arrow.target: arrow.label.text for arrow in drawn(("unet", *VOLUME)).arrows if arrow.label}
    assert labels == {"x1_0": "÷1×2×2"}


def test_a_head_says_by_how_much_it_up_samples():
    boxes = {box.key: box for box in drawn(("unet_3_plus", SUPERVISED)).boxes}
    assert [text.text for text in boxes["heads.x4_0"].texts] == ["output", "1 class", "256×256", "up ×16"]
    assert [text.text for text in boxes["heads.x0_4"].texts] == ["output", "1 class", "256×256"]


def test_the_heading_says_where_tiles_are_not_exact():
    printed = {norm: drawn(("unet", ("norm", norm))).texts[1].text for norm in ("batch", "instance")}
    assert printed["batch"].endswith("halo\u00a096")
    assert printed["instance"].endswith("tiles\u00a0not\u00a0exact")


def test_levels_that_an_encoder_has_no_map_of_are_not_drawn():
    with torch.device("meta"):
        unread = Topology({Node(1, 1): (Node(1, 0), Node(2, 0)), Node(0, 2): (Node(1, 1),)}, (Node(0, 2),))
        model = plain_network("headless", lambda _: unread, 1, 2, width=4, depth=3)
    model.encoder.widths = (0, *model.encoder.widths[1:])
    drawing = lay_out(model, 64)
    assert {box.key for box in drawing.boxes} == {"image", "x1_0", "x2_0", "x1_1", "x0_2", "heads.x0_2"}
    (entry,) = [arrow for arrow in drawing.arrows if arrow.way == "input"]
    assert (entry.target, entry.label.text) == ("x1_0", "÷2")


@pytest.mark.parametrize(
    ("case", "points"),
    [
        (("unet_2015",), 7.5),
        (("unet_plus_plus", SUPERVISED), 6.5),
        (("unet_3_plus", SUPERVISED), 8),
        (("unet_plus_plus", ("depth", 8), VALID), 4.4),
    ],
    ids=str,
)
def test_the_smallest_letters_can_be_read_on_a4(case, points):
    """Landscape with margins of a centimetre is 785 by 538 points."""
    drawing = drawn(case)
    scale = min(785 / drawing.width, 538 / drawing.height)
    assert min(text.size for text in drawing.texts) * scale >= points


def test_texts_are_given_at_least_the_room_they_need():
    dejavu = [
        Path("/usr/share/fonts/truetype/dejavu") / name for name in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")
    ]
    plain = [ImageFont.load_default(100)] + [ImageFont.truetype(dejavu[0], 100)] * dejavu[0].exists()
    bold = [ImageFont.truetype(dejavu[1], 100)] * dejavu[1].exists()
    for case in CASES:
        drawing = drawn(case)
        texts = [*drawing.texts, *(text for box in drawing.boxes for text in box.texts)]
        for text in texts:
            fonts = bold if text.bold else plain
            room = text_width(text.text, 100, bold=text.bold)
            assert all(font.getlength(text.text) <= room for font in fonts), text.text


@every
def test_the_file_is_well_formed_and_says_in_words_what_it_shows(case):
    drawing = drawn(case)
    root = ET.fromstring(svg(drawing))
    assert root.tag == f"{SVG}svg"
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
    assert root.find(f"{SVG}title").text == drawing.title
    words = root.find(f"{SVG}desc").text
    for node in network(*case).topology.needed():
        assert show(node.key) in words
    groups = root.findall(f"{SVG}g")
    assert len(groups) == len(drawing.boxes) + len(drawing.arrows) + len(drawing.legend)
    assert all(group.find(f"{SVG}title").text for group in groups)
    printed = [element.text for element in root.iter(f"{SVG}text")]
    assert len(printed) == len(drawing.texts) + sum(len(box.texts) for box in drawing.boxes) + sum(
        arrow.label is not None for arrow in drawing.arrows
    )


def test_signs_of_xml_are_escaped():
    drawing = lay_out(network("unet", ("depth", 2)), title='a<b> & "c"', source="</text> & <more>")
    root = ET.fromstring(svg(drawing))
    printed = [element.text for element in root.iter(f"{SVG}text")]
    assert 'a<b> & "c"' in printed
    assert "Source: </text> & <more>" in printed


def test_the_same_network_gives_the_same_text():
    with torch.device("meta"):
        twins = [models.unet_plus_plus(supervised=True) for _ in range(2)]
    assert svg(lay_out(twins[0])) == svg(lay_out(twins[1]))


def test_a_curve_begins_and_ends_where_it_says():
    arrow = Arrow("a", "b", "up", ((0, 0), (0, 4), (4, 8), (8, 8)), None, True, "")
    assert (arrow.at(0), arrow.at(0.5), arrow.at(1)) == ((0, 0), (2.5, 5.5), (8, 8))
