"""A batch norm that one pass uses several times: what it remembers of each use, and what it predicts with that."""

import pytest
import torch
from test_resume import stop_and_go_on
from toys import digest, draw, start

from skipway import models
from skipway.nn.layers import Recurrent
from skipway.nn.norms import RepeatedBatchNorm, make_norm, norm_of
from skipway.nn.style import NORMS, Style


def first_unit(times, norm="batch"):
    """The first recurrent unit of a U-Net of one channel, in training mode."""
    torch.manual_seed(0)
    model = models.unet(width=3, depth=2, block="recurrent", recurrences=times, norm=norm).double().train()
    return next(module for module in model.modules() if isinstance(module, Recurrent))


def test_the_statistics_of_each_use_are_those_of_what_it_sees():
    unit, x = first_unit(2), torch.randn(2, 3, 8, 8).double()
    conv, norm = unit.body.conv1, unit.body.norm1
    assert norm.running_mean.tolist() == [[0.0] * 3] * 3
    assert norm.running_var.tolist() == [[1.0] * 3] * 3
    seen, y = [], torch.zeros_like(x)
    for _ in range(3):
        seen.append(conv(x + y).detach())
        mean, var = (
            seen[-1].mean((0, 2, 3), keepdim=True),
            seen[-1].var((0, 2, 3), correction=0, keepdim=True),
        )
        y = ((seen[-1] - mean) / (var + 1e-5).sqrt()).relu()  # scale 1 and shift 0, as they start
    assert torch.allclose(unit(x), y, atol=1e-12)
    means = torch.stack([0.1 * maps.mean((0, 2, 3)) for maps in seen])
    variances = torch.stack([0.9 + 0.1 * maps.var((0, 2, 3)) for maps in seen])
    assert torch.allclose(norm.running_mean, means, atol=1e-12)
    assert torch.allclose(norm.running_var, variances, atol=1e-12)
    assert float((means[0] - means[1]).abs().min()) > 1e-3  # one row for all could not be right


def test_in_evaluation_each_use_is_normalised_by_its_own_statistics():
    norm = RepeatedBatchNorm(1, 2).eval()
    with torch.no_grad():
        norm.running_mean.copy_(torch.tensor([[1.0], [5.0]]))
        norm.running_var.copy_(torch.tensor([[4.0], [0.25]]) - norm.eps)
        norm.weight.fill_(2.0)
        norm.bias.fill_(3.0)
    x = torch.tensor([[[1.0, 5.0]]])
    assert norm(x, 0).flatten().tolist() == [3.0, 7.0]
    assert norm(x, 1).flatten().tolist() == [-13.0, 3.0]
    assert norm.running_mean.flatten().tolist() == [1.0, 5.0]


RECURRENT = [
    ("r2_unet", {}),
    ("r2_attention_unet", {}),
    ("r2_attention_unet", {"ndim": 3}),
    ("unet", {"block": "recurrent"}),
]


@pytest.mark.parametrize(("name", "options"), RECURRENT)
def test_settled_statistics_predict_what_the_batch_gave(name, options):
    """They differ by .005 to .016 of the spread; with one row of statistics for all uses by .27 to .74."""
    torch.manual_seed(0)
    model = models.build(name, in_channels=1, width=4, depth=3, **options).train()
    image = torch.randn(2, 1, *((16,) * 3 if model.ndim == 3 else (32, 32)))
    with torch.no_grad():
        for _ in range(60):  # each keeps nine tenths of what was wrong
            trained = model(image)[-1]
        predicted = model.eval()(image)[-1]
    assert float((predicted - trained).abs().mean()) < 0.05 * float(trained.std())


@pytest.mark.parametrize("norm", NORMS)
def test_only_a_batch_norm_that_is_used_again_remembers_its_uses(norm):
    assert isinstance(make_norm(4, Style(norm=norm), uses=3), RepeatedBatchNorm) == (norm == "batch")
    assert not any(isinstance(module, RepeatedBatchNorm) for module in first_unit(0, norm).modules())
    assert isinstance(first_unit(0).body.norm1, torch.nn.BatchNorm2d)


def test_it_has_the_name_and_the_parameters_of_a_batch_norm():
    model = models.r2_unet(width=2, depth=2)
    assert norm_of(model) == "batch"
    norm = make_norm(4, Style(), uses=3)
    assert [(name, tuple(p.shape)) for name, p in norm.named_parameters()] == [
        ("weight", (4,)),
        ("bias", (4,)),
    ]


def test_a_recurrent_network_resumes_exactly(tmp_path):
    data, choices = draw(tmp_path / "data"), {"model": "r2_attention_unet", "steps": 6}
    start(data, tmp_path / "whole", **choices)
    stop_and_go_on(data, tmp_path / "run", 2, 5, **choices)
    assert digest(tmp_path / "run") == digest(tmp_path / "whole")
