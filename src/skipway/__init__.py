"""skipway: the whole U-Net family on your own images."""

__version__ = "0.1.0"
