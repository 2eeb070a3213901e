"""Every member of the family as small as it can be built, for tests that hold for all of them."""

import torch

from skipway.models import BUILDERS, arguments, build
from skipway.nn.norms import RepeatedBatchNorm

SMALL = {
    "fcn_32s": {"width": 2, "hidden": 4},
    "fcn_16s": {"width": 2, "hidden": 4},
    "fcn_8s": {"width": 2, "hidden": 4},
    "unet_two_level": {"width": 2},
    "trans_unet": None,  # published sizes only; its small sister stands for it
    "trans_unet_small": {},
}
"""Arguments of the members that have no `depth`; None leaves one out."""

FLAT = tuple(name for name in BUILDERS if SMALL.get(name, {}) is not None)


def small(name, **config):
    """Arguments of the smallest network of a member with three levels (or as many as it has)."""
    known = arguments(name)
    if name in SMALL:
        return {**SMALL[name], **config}
    found = {"width": 2, "depth": 3} if "depth" in known else {"width": 2}
    return {**{key: value for key, value in found.items() if key in known}, **config}


def volumes():
    """Members that can be built with three axes."""
    return tuple(name for name in FLAT if "ndim" in arguments(name))


MEMBERS = tuple((name, 2) for name in FLAT if arguments(name).get("ndim") != 3)
MEMBERS += tuple((name, 3) for name in volumes())
"""Every member with the number of its axes, twice where it can have either."""


def axes(name, ndim):
    """The argument that gives a member its axes, where it takes one."""
    return {"ndim": ndim} if "ndim" in arguments(name) else {}


def made(name, ndim, dtype=torch.float32, **config):
    """A small network with numbers in every parameter, biases too, and in the statistics of norms used again.

    Norms scale by about 1: where they scale by little, a ReLU may pass nothing and the network answers with a constant.
    """
    torch.manual_seed(0)
    model = build(name, in_channels=1, classes=2, **small(name, **axes(name, ndim), **config))
    model = model.to(dtype).eval()
    for key, parameter in model.named_parameters():
        if parameter.ndim == 1 and key.endswith("weight"):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        elif parameter.ndim == 1 or not bool(parameter.any()):  # FCN's scores start at zero
            torch.nn.init.normal_(parameter, std=0.2)
    for module in model.modules():
        if isinstance(module, RepeatedBatchNorm):
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model
