"""The U-Net with attention gates, with recurrent convolutions, and with both."""

from typing import Unpack

from skipway import topology
from skipway.models.assemble import Options, plain_network
from skipway.nn.graph import SkipGraph
from skipway.nn.style import RECURRENT


def attention_unet(in_channels: int = 3, classes: int = 1, **options: Unpack[Options]) -> SkipGraph:
    """Attention U-Net: what is up-sampled decides, pixel by pixel, how much of each skip comes in.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        **options: See `Options`; the defaults are width 64, depth 5, batch norm with biases in all
            convolutions, and up-sampling by `nearest_conv`. `gate=False` is the U-Net it is compared with
            (34,527,041 parameters).

    Source: Oktay et al. 2018, eq. 1 and fig. 2; gates at full resolution on 64 to 1024 channels as in
        LeeJunHyun/Image_Segmentation (34,878,573 parameters for 3 -> 1).
    """
    published: Options = {"up": "nearest_conv", "bias": True, "gate": True}
    return plain_network("attention_unet", topology.unet, in_channels, classes, **(published | options))


def r2_unet(
    in_channels: int = 3, classes: int = 1, *, recurrences: int = 2, **options: Unpack[Options]
) -> SkipGraph:
    """R2U-Net: recurrent residual blocks, which use each convolution several times.

    Batch norms keep running statistics of each use, where the code of the count keeps one for all: in training
    the two are the same, in prediction this one agrees with its training.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        recurrences: How often each convolution is used again; the number of parameters does not depend on it.
        **options: See `Options`; the defaults are those of `attention_unet` without its gates.

    Source: Alom et al. 2018, fig. 1 and 4d; as in LeeJunHyun/Image_Segmentation (39,091,393 parameters for 3
        -> 1).
    """
    return _recurrent("r2_unet", in_channels, classes, recurrences, options)


def r2_attention_unet(
    in_channels: int = 3, classes: int = 1, *, recurrences: int = 2, **options: Unpack[Options]
) -> SkipGraph:
    """R2U-Net with the gates of the Attention U-Net.

    Args:
        in_channels: Channels of the image.
        classes: Number of output channels.
        recurrences: How often each convolution is used again.
        **options: See `Options`; the defaults are those of `attention_unet`.

    Source: Oktay et al. 2018 and Alom et al. 2018, combined as in LeeJunHyun/Image_Segmentation (39,442,925
        parameters for 3 -> 1).
    """
    return _recurrent("r2_attention_unet", in_channels, classes, recurrences, {"gate": True, **options})


def _recurrent(name: str, in_channels: int, classes: int, recurrences: int, options: Options) -> SkipGraph:
    published: Options = {"up": "nearest_conv", "bias": True, "block": "recurrent_residual"}
    config = published | options
    if config["block"] not in RECURRENT:
        raise ValueError(
            f"the blocks of {name} are recurrent: {' or '.join(RECURRENT)}, not {config['block']}"
        )
    return plain_network(name, topology.unet, in_channels, classes, recurrences=recurrences, **config)
