"""Every member of the family as small as it can be built, for tests that hold for all of them."""

from skipway.models import BUILDERS, arguments

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
