"""Agreement with code that shares nothing with ours: scikit-learn, scikit-image, and plain loops."""

import itertools
import math

import numpy as np
import pytest
from scipy import ndimage
from skimage import filters
from sklearn import metrics as reference

from skipway.metrics import (
    confusion,
    det,
    match,
    object_scores,
    otsu_threshold,
    overlap_table,
    pixel_error,
    scores,
    seg,
    segments,
    thin,
    v_info,
    v_rand,
)
from skipway.metrics.objects import AP_THRESHOLDS


def class_map(rng, size, classes):
    return rng.integers(0, classes, size).astype(np.uint8)


def instance_map(rng, size, cells):
    """Rectangles over each other with gaps in the ids: touching, cut, empty, whatever comes."""
    out = np.zeros((size, size), np.int32)
    ids = rng.permutation(5 * cells + 1)[:cells]
    for cell in ids:
        top, left = rng.integers(0, size, 2)
        height, width = rng.integers(1, max(2, size // 3), 2)
        out[top : top + height, left : left + width] = cell
    return out


def shaken(rng, instances):
    """A plausible prediction: shifted, some objects lost, some merged, ids renumbered, specks added."""
    moved = np.roll(instances, rng.integers(-1, 2, 2), (0, 1))
    ids = np.unique(moved)
    renumbered = rng.permutation(ids.size) + 1
    renumbered[rng.random(ids.size) < 0.2] = 0
    if ids.size > 2:
        renumbered[rng.integers(ids.size)] = renumbered[rng.integers(ids.size)]
    renumbered[ids == 0] = 0
    out = renumbered[np.searchsorted(ids, moved)]
    out[rng.random(out.shape) < 0.02] = ids.size + 5
    return out


def pairs(count, size=14, cells=6):
    for seed in range(count):
        rng = np.random.default_rng(seed)
        truth = instance_map(rng, size, int(rng.integers(0, cells + 1)))
        prediction = (
            shaken(rng, truth) if seed % 3 else instance_map(rng, size, int(rng.integers(0, cells + 1)))
        )
        yield truth, prediction


# ---- pixels


@pytest.mark.parametrize("classes", [2, 3, 5, 17, 300])
def test_confusion_equals_scikit_learn(classes):
    rng = np.random.default_rng(classes)
    dtype = np.uint8 if classes <= 256 else np.int32
    truth, prediction = rng.integers(0, classes, (2, 40, 41)).astype(dtype)
    expected = reference.confusion_matrix(truth.ravel(), prediction.ravel(), labels=range(classes))
    assert np.array_equal(confusion(truth, prediction, classes), expected)


def test_scores_equal_scikit_learn_on_many_random_maps():
    compared = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        classes = int(rng.integers(2, 5))
        truth, prediction = class_map(rng, 60, classes), class_map(rng, 60, classes)
        for index, one in enumerate(scores(confusion(truth, prediction, classes))):
            t, p = truth == index, prediction == index
            expected = {
                "dice": reference.f1_score(t, p, zero_division=np.nan),
                "iou": reference.jaccard_score(t, p, zero_division=0) if (t | p).any() else math.nan,
                "sensitivity": reference.recall_score(t, p, zero_division=np.nan),
                "specificity": reference.recall_score(~t, ~p, zero_division=np.nan),
                "precision": reference.precision_score(t, p, zero_division=np.nan),
                "f2": reference.fbeta_score(t, p, beta=2, zero_division=np.nan),
            }
            for name, value in expected.items():
                ours = getattr(one, name)
                assert (math.isnan(value) and ours is None) or ours == pytest.approx(value, abs=1e-12), name
                compared += 1
        assert pixel_error(confusion(truth, prediction, classes)) == pytest.approx(
            1 - reference.accuracy_score(truth, prediction), abs=1e-12
        )
    assert compared > 800


# ---- objects


def brute_iou(truth, prediction):
    """IoU of all pairs from boolean masks, one pair at a time."""
    t = [truth == i for i in np.unique(truth) if i]
    p = [prediction == i for i in np.unique(prediction) if i]
    return np.array([[(a & b).sum() / (a | b).sum() for b in p] for a in t]).reshape(len(t), len(p))


def brute_match(iou, threshold):
    """Most pairs, then the largest sum, over every one-to-one assignment: recursion without pruning."""

    def best(row, free):
        if row == iou.shape[0]:
            return 0, 0.0
        options = [best(row + 1, free)]
        for column in free:
            if iou[row, column] >= threshold:
                count, total = best(row + 1, free - {column})
                options.append((count + 1, total + iou[row, column]))
        return max(options)

    return best(0, frozenset(range(iou.shape[1])))


@pytest.mark.parametrize("threshold", [0.1, 0.34, *AP_THRESHOLDS])
def test_matching_equals_every_assignment_tried(threshold):
    contested = 0
    for truth, prediction in pairs(60):
        iou = brute_iou(truth, prediction)
        count, total = brute_match(iou, threshold)
        found = match(overlap_table(truth, prediction), threshold)
        assert (found.tp, found.fp, found.fn) == (count, iou.shape[1] - count, iou.shape[0] - count)
        assert found.iou_sum == pytest.approx(total, abs=1e-12)
        assert len({t for t, _ in found.pairs}) == len({p for _, p in found.pairs}) == count
        hits = iou >= threshold
        contested += int((hits.sum(0) > 1).any() or (hits.sum(1) > 1).any())
    if threshold < 0.2:
        assert contested > 5  # the assignment problem was met, not only unique pairs


def test_matching_breaks_exact_halves_one_to_one():
    truth = np.array([1, 1, 2, 2])
    prediction = np.array([5, 6, 7, 7])
    found = match(overlap_table(truth, prediction), 0.5)
    assert (found.tp, found.fp, found.fn, found.iou_sum) == (2, 1, 0, 1.5)


def test_object_scores_equal_plain_loops():
    for truth, prediction in pairs(80):
        iou = brute_iou(truth, prediction)
        found = object_scores(truth, prediction)
        if not sum(iou.shape):
            assert (found.ap50, found.mean_ap, found.pq, found.seg) == (None, None, None, None)
            continue
        aps = [brute_match(iou, t)[0] for t in AP_THRESHOLDS]
        aps = [tp / (sum(iou.shape) - tp) for tp in aps]
        total = brute_match(iou, 0.5)[1]
        assert found.ap50 == pytest.approx(aps[0], abs=1e-12)
        assert found.ap75 == pytest.approx(aps[5], abs=1e-12)
        assert found.mean_ap == pytest.approx(np.mean(aps), abs=1e-12)
        assert found.pq == pytest.approx(total / (sum(iou.shape) / 2), abs=1e-12)


def test_seg_and_det_equal_plain_loops():
    split_nodes = 0
    for truth, prediction in pairs(80):
        table = overlap_table(truth, prediction)
        ids = [i for i in np.unique(truth) if i]
        if not ids:
            assert seg(table) is None
            assert det(table) is None
            continue
        jaccard, owners = [], []
        for i in ids:
            region = truth == i
            covering = [
                j
                for j in np.unique(prediction[region])
                if j and 2 * (prediction[region] == j).sum() > region.sum()
            ]
            owners += covering
            jaccard += [
                ((prediction == j) & region).sum() / ((prediction == j) | region).sum() for j in covering
            ] or [0]
        false = len([j for j in np.unique(prediction) if j]) - len(set(owners))
        splits = len(owners) - len(set(owners))
        split_nodes += splits
        cost = 5 * splits + 10 * (len(ids) - len(owners)) + false
        assert seg(table) == pytest.approx(np.mean(jaccard), abs=1e-12)
        assert det(table) == pytest.approx(1 - min(cost, 10 * len(ids)) / (10 * len(ids)), abs=1e-12)
    assert split_nodes


# ---- membranes


def brute_clusters(truth, prediction):
    """(true, predicted) label of every interior pixel of the truth; walled pixels get labels of their own."""
    fresh = itertools.count(10**6)
    return [(t, p if p else next(fresh)) for t, p in zip(truth.ravel(), prediction.ravel(), strict=True) if t]


def test_v_rand_equals_counting_pairs():
    """Fiji's N² sums are numbers of ordered pixel pairs (a pixel with itself included)."""
    for truth, prediction in pairs(40, size=9):
        pixels = brute_clusters(truth, prediction)
        found = v_rand(overlap_table(truth, prediction))
        if not pixels:
            assert found.score is None
            continue
        pairs_of = list(itertools.product(pixels, pixels))
        both = sum(a == b for a, b in pairs_of)
        true = sum(a[0] == b[0] for a, b in pairs_of)
        predicted = sum(a[1] == b[1] for a, b in pairs_of)
        assert found.precision == pytest.approx(both / predicted, abs=1e-12)
        assert found.recall == pytest.approx(both / true, abs=1e-12)
        assert found.score == pytest.approx(2 * both / (true + predicted), abs=1e-12)


def test_v_info_equals_scikit_learn_homogeneity():
    """With walled pixels as singletons, V_info is the V-measure over the interior pixels."""
    compared = 0
    for truth, prediction in pairs(80):
        pixels = brute_clusters(truth, prediction)
        found = v_info(overlap_table(truth, prediction))
        if not pixels:
            assert found.score is None
            continue
        t, p = zip(*pixels, strict=True)
        homogeneity, completeness, measure = reference.homogeneity_completeness_v_measure(t, p)
        if len(set(t)) > 1:
            assert found.precision == pytest.approx(homogeneity, abs=1e-9)
        if len(set(p)) > 1:
            assert found.recall == pytest.approx(completeness, abs=1e-9)
        if len(set(t)) > 1 and len(set(p)) > 1:
            assert found.score == pytest.approx(measure, abs=1e-9)
            compared += 1
    assert compared > 40


def slow_watershed(interior):  # noqa: C901 - the pseudocode's own shape
    """Vincent and Soille's flooding of the inverted map with all its states, after their pseudocode."""
    width, height = interior.shape[1], interior.shape[0]
    level = {(x, y): 0 if interior[y, x] else 255 for x in range(width) for y in range(height)}
    init, mask, inqueue, wshed, label = -1, -2, -3, 0, 0
    out = dict.fromkeys(level, init)

    def near(pixel):
        x, y = pixel
        return [q for q in ((x - 1, y), (x, y - 1), (x + 1, y), (x, y + 1)) if q in out]

    for h in sorted(set(level.values())):
        now = [p for p in level if level[p] == h]
        fifo = []
        for p in now:
            out[p] = mask
            if any(out[q] >= wshed for q in near(p)):
                out[p] = inqueue
                fifo.append(p)
        while fifo:
            p, flag = fifo.pop(0), False
            for q in near(p):
                if out[q] > 0:
                    if out[p] == inqueue or (out[p] == wshed and flag):
                        out[p] = out[q]
                    elif out[p] > 0 and out[p] != out[q]:
                        out[p], flag = wshed, False
                elif out[q] == wshed:
                    if out[p] == inqueue:
                        out[p], flag = wshed, True
                elif out[q] == mask:
                    out[q] = inqueue
                    fifo.append(q)
        for p in now:
            if out[p] == mask:
                label += 1
                out[p], fifo = label, [p]
                while fifo:
                    for q in near(fifo.pop(0)):
                        if out[q] == mask:
                            out[q] = label
                            fifo.append(q)
    return np.array([[out[x, y] for x in range(width)] for y in range(height)])


@pytest.mark.parametrize("share", [0.0, 0.15, 0.5, 0.8, 1.0])
def test_thin_equals_the_watershed_of_the_paper(share):
    for seed in range(25):
        rng = np.random.default_rng(seed)
        interior = rng.random(rng.integers(1, 14, 2)) < share
        if seed % 2:
            interior = ndimage.binary_dilation(interior)
        ours, slow = thin(interior), slow_watershed(interior)
        assert np.array_equal(ours == 0, slow == 0)
        table = overlap_table(ours, slow)  # the same regions under other numbers
        assert table.rows.size == table.truth_ids.size == table.prediction_ids.size


def test_segments_are_4_connected():
    assert segments(np.array([[1, 0], [0, 1]], bool)).tolist() == [[1, 0], [0, 2]]


# ---- baseline


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_otsu_equals_scikit_image(dtype):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        image = np.concatenate([rng.normal(60, 12, 900), rng.normal(160, 25, 300)]).clip(0, 255).astype(dtype)
        ours, theirs = otsu_threshold(image), filters.threshold_otsu(image)
        assert np.array_equal(image > ours, image > theirs)
