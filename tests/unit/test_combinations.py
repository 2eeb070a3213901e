"""Options of prediction that are given together: each does what it does alone, or is refused."""

import numpy as np
import pytest
import torch
from streams import images, plain, predicted, predictor
from tifffile import imread

from skipway.devices import fast_bf16

bf16 = pytest.mark.skipif(not fast_bf16(torch.device("cpu")), reason="no bfloat16 here")


@pytest.mark.parametrize(
    "options",
    [
        {"tta": "mirror", "unseen": True},
        {"tta": "seven", "unseen": True, "probabilities": True},
        pytest.param({"precision": "bf16"}, marks=bf16),
        pytest.param({"precision": "bf16", "backend": "packed", "tta": "mirror", "unseen": True}, marks=bf16),
    ],
)
def test_views_and_few_bits_are_weighed_and_predicted_region_by_region(tmp_path, options):
    source = images(tmp_path / "new", (75, 60))
    run = predictor()
    for how, name in ((plain, "whole"), (predicted, "regions")):
        summary = how(run, source, tmp_path / name, **options)
        assert not summary.failed
    for file in sorted((tmp_path / "whole").glob("*.tif")):
        whole, regions = imread(file), imread(tmp_path / "regions" / file.name)
        assert len(np.unique(whole)) > 2
        np.testing.assert_array_equal(whole, regions)
