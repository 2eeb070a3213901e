"""A network that is divided over the processes instead of repeated in each: FSDP, for nets of TransUNet's size.

Each process keeps its share of every weight, gradient, average and optimiser state; whole weights exist for the
length of a pass only, those of a transformer layer for that of the layer. The state on the disk is the same file.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from skipway.nn.graph import SkipGraph
from skipway.nn.transformer import TransformerLayer
from skipway.plan import Plan
from skipway.training.ranks import Ranks
from skipway.training.state import Parts, numbers_of
from skipway.training.step import optimiser_of
from skipway.training.together import whole


@dataclass(frozen=True)
class Shards:
    """What must be known of a divided training besides its parts.

    Attributes:
        blank: The network on the CPU, not divided: room to read a state into.
        readable: Room for the averaged network, whole, on the device of the first process, which alone predicts.
    """

    blank: SkipGraph
    readable: SkipGraph

    def plain(self, plan: Plan) -> Parts:
        """Parts of the same training that are not divided, on the CPU."""
        model = copy.deepcopy(self.blank)
        return Parts(model, copy.deepcopy(self.blank).eval(), optimiser_of(plan, model))

    def gathered(self, plan: Plan, parts: Parts) -> Parts:
        """Divided parts as they are now, whole, on the CPU; every process must ask."""
        plain = self.plain(plan)
        _gather(parts.model, plain.model)
        _gather(parts.average, plain.average)
        found = parts.optimiser.state_dict()
        state = {
            index: {key: whole(value).cpu() for key, value in values.items()}
            for index, values in found["state"].items()
        }
        plain.optimiser.load_state_dict({"state": state, "param_groups": found["param_groups"]})
        return plain

    def read(self, average: nn.Module) -> SkipGraph:
        """The averaged network as it is now, whole, to predict with; every process must ask."""
        _gather(average, self.readable)
        return self.readable


def divided(ranks: Ranks, plan: Plan, model: SkipGraph, average: SkipGraph) -> tuple[Parts, Shards]:
    """Divide a network and its average, in place, and make the optimiser of its shares."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    blank = copy.deepcopy(model).cpu()
    readable = copy.deepcopy(average if ranks.first else blank)
    device = next(model.parameters()).device.type
    mesh = init_device_mesh(device, (ranks.world,))
    for network in (model, average):
        network.to(memory_format=torch.contiguous_format)
        for layer in [part for part in network.modules() if isinstance(part, TransformerLayer)]:
            fully_shard(layer, mesh=mesh)
        fully_shard(network, mesh=mesh)
        for module in network.modules():
            if isinstance(
                module, FSDPModule
            ):  # each gradient is a share of the whole: their sum, not their mean
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
    return Parts(model, average, optimiser_of(plan, model)), Shards(blank, readable)


@torch.no_grad()
def _gather(divided: nn.Module, kept: nn.Module) -> None:
    for room, value in zip(kept.state_dict().values(), divided.state_dict().values(), strict=True):
        room.copy_(whole(value))


@torch.no_grad()
def take(parts: Parts, plain: Parts) -> None:
    """Set divided parts to what the plain ones hold; every process holds the same ones."""
    for ours, theirs in ((parts.model, plain.model), (parts.average, plain.average)):
        for kept, new in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
            kept.copy_(_share(new, kept))
    found = plain.optimiser.state_dict()
    weights = [weight for group in parts.optimiser.param_groups for weight in group["params"]]
    state = {
        index: {key: _share(value, weights[index]) for key, value in values.items()}
        for index, values in found["state"].items()
    }
    groups = [
        {**ours, **numbers_of(theirs)}
        for ours, theirs in zip(
            parts.optimiser.state_dict()["param_groups"], found["param_groups"], strict=True
        )
    ]
    parts.optimiser.load_state_dict({"state": state, "param_groups": groups})


def _share(value: Any, like: Tensor) -> Any:
    """This process's share of a tensor, as `like` is shared out; all of what has another shape, as a count of steps."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(
        value.to(like.device).contiguous(), like.device_mesh, like.placements, src_data_rank=None
    )
