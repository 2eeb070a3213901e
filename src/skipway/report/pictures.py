"""Arrays to pictures a person can judge: contrast, label colours, overlays, errors, contact sheets.

Images come in as (H, W) or channel-first (C, H, W), labels as (H, W); pictures go out as RGB uint8 (h, w, 3).
Colours are those of Okabe and Ito (2008), which stay apart for colour-blind readers.
"""

import base64
import io
from collections.abc import Sequence
from math import ceil

import numpy as np
from PIL import Image, ImageDraw, ImageFont

HIT, MISS, FALSE_ALARM, MIXED = (230, 230, 230), (230, 159, 0), (86, 180, 233), (204, 121, 167)
KINDS = (HIT, MISS, FALSE_ALARM, MIXED)  # colour of each value of `errors`, from 1 on
OUTLINE = (255, 196, 61)
PAPER, INK = (255, 255, 255), (32, 38, 46)


def stretch(image: np.ndarray, low: float = 1.0, high: float = 99.8) -> np.ndarray:
    """Map the percentiles `low`…`high` of each channel to black…white.

    One channel gives grey, two give green and magenta, of three or more the first three are red, green, blue.
    Pixels that are not finite come out black.

    Args:
        image: (H, W) or (C, H, W), any real type.
        low: Percentile shown as black, in %.
        high: Percentile shown as white, in %.

    Returns:
        RGB uint8 (H, W, 3).

    >>> stretch(np.array([[0, 5], [10, 10]]), 0, 100)[..., 0].tolist()
    [[0, 128], [255, 255]]
    """
    channels = np.asarray(image, np.float32)
    if channels.ndim not in (2, 3):
        raise ValueError(f"an image has axes (H, W) or (C, H, W), got shape {channels.shape}")
    grey = [
        _stretch_channel(channel, low, high) for channel in channels.reshape(-1, *channels.shape[-2:])[:3]
    ]
    if len(grey) == 2:
        grey = [grey[1], grey[0], grey[1]]
    return np.stack(grey * 3 if len(grey) == 1 else grey, axis=-1)


def _stretch_channel(channel: np.ndarray, low: float, high: float) -> np.ndarray:
    finite = np.isfinite(channel)
    if not finite.any():
        return np.zeros(channel.shape, np.uint8)
    black, white = np.percentile(channel[finite], (low, high))
    scaled = (np.where(finite, channel, black) - black) / max(white - black, np.finfo(np.float32).tiny)
    return np.rint(255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def label_colour(value: int) -> tuple[int, int, int]:
    """The colour that a label has in every picture and every run; 0 is black."""
    red, green, blue = colour_labels(np.array([[value]]))[0, 0].tolist()
    return red, green, blue


def colour_labels(labels: np.ndarray) -> np.ndarray:
    """Give every label its own colour, a function of its value alone; 0 is black.

    Hues follow the golden ratio, so that neighbouring numbers lie far apart; lightness alternates.

    Args:
        labels: Integers (H, W).

    Returns:
        RGB uint8 (H, W, 3).
    """
    labels = np.asarray(labels)
    values, index = np.unique(labels, return_inverse=True)
    number = np.abs(values.astype(np.float64))
    hue = np.mod(0.09 + (number - 1) * 0.618033988749895, 1.0)
    saturation, lightness = 0.55 + 0.25 * (number % 2), 1.0 - 0.13 * (number % 3)
    # HSV to RGB: each primary is a trapezoid over the hue, a third of a turn from the next.
    turn = np.mod(hue[:, None] * 6 + np.array([5, 3, 1]), 6)
    rgb = lightness[:, None] * (1 - saturation[:, None] * np.clip(np.minimum(turn, 4 - turn), 0, 1))
    rgb[values == 0] = 0
    return np.rint(255 * rgb).astype(np.uint8)[index.reshape(labels.shape)]


def edges(labels: np.ndarray) -> np.ndarray:
    """Label pixels whose right, lower, left or upper neighbour has another label, bool (H, W)."""
    found = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        before, after = (np.take(labels, span, axis) for span in _neighbours(labels.shape[axis]))
        differs = before != after
        for span in _neighbours(labels.shape[axis]):
            where = (span, slice(None)) if axis == 0 else (slice(None), span)
            found[where] |= differs
    return found & (labels != 0)


def _neighbours(side: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(side - 1), np.arange(1, side)


def overlay(image: np.ndarray, labels: np.ndarray, *, outline: bool = True) -> np.ndarray:
    """The image with the labels on it: as yellow outlines, or as a coloured veil.

    Returns:
        RGB uint8 (H, W, 3).
    """
    picture = stretch(image)
    _same_size(picture, labels)
    if outline:
        picture[edges(labels)] = OUTLINE
        return picture
    return np.where((labels != 0)[..., None], _blend(picture, colour_labels(labels), 0.5), picture)


def overlay_sets(image: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """The image, darkened, with a veil in the colour of each overlapping class, mixed where they overlap.

    Args:
        image: (H, W) or (C, H, W).
        sets: Σ 2^k over the classes k of each pixel (H, W), below 0 where nothing is known; class k has the
            colour of label k + 1.

    Returns:
        RGB uint8 (H, W, 3).
    """
    picture = (stretch(image) * 0.7).astype(np.uint8)
    _same_size(picture, sets)
    known = np.where(sets < 0, 0, sets).astype(np.int64)
    total, count = np.zeros(picture.shape), np.zeros(sets.shape)
    outlines = []
    for k in range(int(known.max(initial=0)).bit_length()):
        inside = (known >> k) & 1
        colour = np.array(label_colour(k + 1))
        total += inside[..., None] * colour
        count += inside
        outlines.append((edges(inside), colour))
    mixed = total / np.maximum(count, 1)[..., None]
    picture = np.where((count > 0)[..., None], _blend(picture, mixed, 0.35), picture)
    for where, colour in outlines:
        picture[where] = colour
    return picture


def errors(
    truth: np.ndarray, prediction: np.ndarray, *, objects: bool = False, ignore: int | None = None
) -> np.ndarray:
    """What each pixel came to: 0 background in both, 1 right, 2 missed, 3 false alarm, 4 mixed up.

    For objects a pixel is right when its two objects match, that is when they overlap with IoU > 0.5; where
    both hold an object and the two do not match, something was merged, split or badly outlined.

    Args:
        truth: Class indices or object ids (H, W), 0 is background.
        prediction: The same.
        objects: Whether the values are object ids, to be matched rather than compared.
        ignore: Value in `truth` to leave out, or None.

    Returns:
        uint8 (H, W), named by `legend`.

    >>> errors(np.array([[0, 7, 7, 0]]), np.array([[0, 0, 3, 3]]), objects=True).tolist()
    [[0, 2, 4, 3]]
    """
    _same_size(prediction, truth)
    same = _matched(truth, prediction) if objects else truth == prediction
    real, claimed = truth != 0, prediction != 0
    kind = np.select([real & claimed & same, real & claimed, real, claimed], [1, 4, 2, 3], 0).astype(np.uint8)
    if ignore is not None:
        kind[truth == ignore] = 0
    return kind


def _matched(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Pixels whose two objects overlap with IoU > 0.5, bool (H, W); such pairs are unique."""
    _, t = np.unique(truth, return_inverse=True)
    _, p = np.unique(prediction, return_inverse=True)
    pair = t.reshape(-1).astype(np.int64) * (int(p.max(initial=0)) + 1) + p.reshape(-1)
    _, of_pixel, both = np.unique(pair, return_inverse=True, return_counts=True)
    inter = both[of_pixel.reshape(-1)]
    union = np.bincount(t.reshape(-1))[t.reshape(-1)] + np.bincount(p.reshape(-1))[p.reshape(-1)] - inter
    return (2 * inter > union).reshape(truth.shape)


def error_overlay(
    image: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    objects: bool = False,
    ignore: int | None = None,
) -> np.ndarray:
    """The image, darkened, under the colours of `legend`: see `errors` for what counts as which.

    Returns:
        RGB uint8 (H, W, 3).
    """
    kind = errors(truth, prediction, objects=objects, ignore=ignore)
    picture = stretch(image)
    _same_size(picture, truth)
    # What is right stays calm: a white outline. What is wrong is filled.
    calm = (picture * 0.55).astype(np.uint8)
    calm[(kind == 1) & edges(truth)] = HIT
    for index, colour in enumerate(KINDS[1:], start=2):
        calm[kind == index] = _blend(calm[kind == index], np.array(colour), 0.75)
    return calm


def legend(objects: bool, sets: bool = False) -> tuple[tuple[str, tuple[int, int, int]], ...]:
    """What each colour of `error_overlay` says, in the order of the values of `errors` from 1 on."""
    mixed = "merged, split or misshapen" if objects else "wrong class"
    words = ("right (outline)", "missed", "false alarm", mixed)
    if sets:  # a pixel may be right in one of its classes and wrong in another
        words = (
            "all classes right (outline)",
            "no class found",
            "a class where none is",
            "not all classes right",
        )
    return tuple(zip(words, KINDS, strict=True))


def follow(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Renumber predicted objects: each takes the id, and so the colour, of the true object it covers most.

    Where several cover the same one, the largest overlap takes its id; the rest get ids not used in `truth`.

    >>> follow(np.array([4, 4, 4, 9, 9]), np.array([0, 2, 2, 2, 0])).tolist()
    [2, 2, 2, 3, 3]
    """
    values, p = np.unique(prediction, return_inverse=True)
    ids, t = np.unique(truth, return_inverse=True)
    pair, both = np.unique(p.reshape(-1) * ids.size + t.reshape(-1), return_counts=True)
    new: dict[int, int] = {}
    taken: set[int] = {0}
    for k in np.argsort(-both, kind="stable"):
        value, of_truth = int(values[pair[k] // ids.size]), int(ids[pair[k] % ids.size])
        if value != 0 and value not in new and of_truth not in taken:
            new[value] = of_truth
            taken.add(of_truth)
    rest = (int(value) for value in values if value != 0 and int(value) not in new)
    new |= {value: int(ids.max(initial=0)) + 1 + n for n, value in enumerate(rest)}
    return np.array([new.get(int(value), 0) for value in values], np.int64)[p.reshape(prediction.shape)]


def _blend(below: np.ndarray, above: np.ndarray, share: float) -> np.ndarray:
    return np.rint((1 - share) * below + share * above).astype(np.uint8)


def _same_size(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape[:2] != second.shape[:2]:
        raise ValueError(
            f"image and labels must have the same size, got {first.shape[:2]} and {second.shape[:2]}"
        )


def thin_out(array: np.ndarray, side: int) -> np.ndarray:
    """Every k-th pixel of (…, H, W), with the smallest k that leaves at most `side` of them along each axis.

    Sampling keeps labels labels, and an image and its labels stay aligned when both are thinned out.
    """
    step = max(1, ceil(max(array.shape[-2:]) / side))
    return array[..., ::step, ::step]


def window_of_most_errors(kind: np.ndarray, side: int) -> tuple[slice, slice]:
    """The window of at most `side` × `side` pixels in which `errors` found the most; the first of equals."""
    # Sums over windows by differences of the running sum, which costs the same whatever the side.
    total = np.pad(np.cumsum(np.cumsum(kind > 1, axis=0, dtype=np.int64), axis=1), ((1, 0), (1, 0)))
    height, width = min(side, kind.shape[0]), min(side, kind.shape[1])
    sums = (
        total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    )
    y, x = (int(n) for n in np.unravel_index(np.argmax(sums), sums.shape))
    return slice(y, y + height), slice(x, x + width)


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str] = (), *, side: int = 320
) -> np.ndarray:
    """Pictures in a grid on white, with a title over each column.

    Args:
        rows: RGB pictures (h, w, 3); each is brought to fit a square of `side` pixels.
        titles: One for each column, or none.
        side: Side of a cell of the grid, in pixels.

    Returns:
        RGB uint8 (H, W, 3).
    """
    if not rows or not rows[0]:
        raise ValueError("a contact sheet needs at least one picture")
    fitted = [[_fit(picture, side) for picture in row] for row in rows]
    columns = max(len(row) for row in fitted)
    widths = [max((row[c].width for row in fitted if c < len(row)), default=1) for c in range(columns)]
    heights = [max(picture.height for picture in row) for row in fitted]
    gap, head = 8, 30 if titles else 0
    sheet = Image.new(
        "RGB", (sum(widths) + gap * (columns + 1), head + sum(heights) + gap * (len(rows) + 1)), PAPER
    )
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(17)
    for c, title in enumerate(titles[:columns]):
        pen.text((gap + sum(widths[:c]) + gap * c, 10), title, INK, font)
    for r, row in enumerate(fitted):
        for c, picture in enumerate(row):
            sheet.paste(picture, (gap + sum(widths[:c]) + gap * c, head + gap + sum(heights[:r]) + gap * r))
    return np.asarray(sheet)


def _fit(picture: np.ndarray, side: int) -> Image.Image:
    """Scale to a longest side of `side`: up in whole steps so that pixels stay pixels, down smoothly."""
    found = Image.fromarray(np.ascontiguousarray(picture))
    longest = max(found.size)
    if longest * 2 <= side:
        return found.resize(
            (found.width * (side // longest), found.height * (side // longest)), Image.Resampling.NEAREST
        )
    if longest > side:
        size = (max(1, round(n * side / longest)) for n in found.size)
        return found.resize((next(size), next(size)), Image.Resampling.LANCZOS)
    return found


def result_strip(
    image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, *, objects: bool = True, side: int = 400
) -> np.ndarray:
    """Input, truth, prediction and errors side by side, with the legend of the errors beneath.

    Args:
        image: (H, W) or (C, H, W).
        truth: Object ids or class indices (H, W), 0 is background.
        prediction: The same.
        objects: Whether the labels are object ids.
        side: Longest side of each of the four pictures, in pixels.

    Returns:
        RGB uint8, about 4 · `side` wide.
    """
    image, truth, prediction = (thin_out(array, 4 * side) for array in (image, truth, prediction))
    panels = (
        stretch(image),
        colour_labels(truth),
        colour_labels(follow(prediction, truth) if objects else prediction),
        error_overlay(image, truth, prediction, objects=objects),
    )
    sheet = Image.fromarray(contact_sheet([panels], ("input", "truth", "prediction", "errors"), side=side))
    strip = Image.new("RGB", (sheet.width, sheet.height + 26), PAPER)
    strip.paste(sheet)
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(15)
    x = float(sheet.width - 8)
    for name, colour in reversed(legend(objects)):
        x -= pen.textlength(name, font)
        pen.text((x, sheet.height), name, INK, font)
        x -= 20
        pen.rectangle((x, sheet.height + 2, x + 13, sheet.height + 15), colour, INK)
        x -= 18
    return np.asarray(strip)


def png(picture: np.ndarray) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def data_uri(picture: np.ndarray, *, photo: bool = False) -> str:
    """The picture as a `data:` address, so that a page needs no second file; a photo as JPEG, else as PNG."""
    if not photo:
        return "data:image/png;base64," + base64.b64encode(png(picture)).decode("ascii")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "JPEG", quality=90, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
