"""Options of prediction that are given together: each does what it does alone, or is refused."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from streams import images, plain, predicted, predictor
from tifffile import imread
from toys import draw, start

from skipway import api
from skipway.devices import fast_bf16
from skipway.errors import UsageError
from skipway.predict import cluster
from skipway.predict.ensemble import Ensemble
from skipway.predict.options import FileOptions, StreamOptions
from skipway.predict.runtimes import Exported

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


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder, for those who load it again."""
    folder = tmp_path_factory.mktemp("trained")
    start(draw(folder / "data", count=4), folder / "run", steps=4)
    return api.load(folder / "run", device="cpu")


@pytest.mark.parametrize(
    "options",
    [
        {"tta": "mirror", "unseen": True},
        {"planes": 3},
        {"planes": 3, "tta": "rotations", "unseen": True, "probabilities": True},
    ],
)
def test_workers_of_a_cluster_are_told_of_views_and_planes(trained, tmp_path, monkeypatch, options):
    monkeypatch.setattr(cluster, "_client", lambda _: nullcontext((None, False)))
    monkeypatch.setattr(
        cluster, "_gathered", lambda _, text, tasks: (cluster.region_of(text, *task) for task in tasks)
    )
    source = images(tmp_path / "new", (40, 33), pages=5)
    for name, stream in (("one", StreamOptions(always=True)), ("many", StreamOptions(cluster="2"))):
        summary = predicted(trained, source, tmp_path / name, tile=16, stream=stream, **options)
        assert not summary.failed
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert "i0.tif" in files
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "strips", "tta": "mirror"}, "both --engine strips and --tta"),
        ({"engine": "strips", "stream": StreamOptions(cluster="2")}, "both --engine strips and --cluster"),
        ({"backend": "packed", "stream": StreamOptions(cluster="2")}, "both --cluster and --backend"),
        (
            {"precision": "bf16", "stream": StreamOptions(cluster="2")},
            "both --cluster and --backend or --prec",
        ),
        ({"engine": "strips", "planes": 3}, "both --engine strips and --planes"),
        ({"engine": "strips", "backend": "compile"}, "both --engine strips and --backend compile"),
    ],
)
def test_what_does_not_go_together_is_said_before_anything_is_read(options, said):
    with pytest.raises(UsageError, match=said):
        FileOptions(**options)


def test_the_one_network_is_given_or_it_is_said_where_it_went():
    run = predictor()
    assert run.network is run.model
    assert run.running("packed").network.name == "unet"
    for seen in (run.viewed("mirror", unseen=True), run.in_planes()):
        with pytest.raises(UsageError, match="its network is shown several views"):
            _ = seen.network
    away = replace(run, model=Exported(run.network, lambda x: [x]))
    with pytest.raises(UsageError, match="its network was handed to a runtime"):
        _ = away.network
    several = replace(run, model=Ensemble([run.network, predictor(seed=1).network]))
    with pytest.raises(UsageError, match="a run of 2 networks"):
        _ = several.network
