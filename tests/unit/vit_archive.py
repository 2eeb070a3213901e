"""A small archive in the layout of the published vision transformers, with arrays of noise."""

import numpy as np


def archive(width=4, units=(1, 2, 1), layers=2, heads=2, grid=2, token=True, resnet=True, channels=3):
    """Arrays named and shaped as in the archives of google-research/vision_transformer."""
    rng = np.random.default_rng(0)
    hidden = heads * width
    shapes = {}
    source = channels
    if resnet:
        shapes |= {"conv_root/kernel": (7, 7, channels, width), **gn("gn_root", width)}
        source = width
        for block, count in enumerate(units, start=1):
            inner = width * 2 ** (block - 1)
            for unit in range(1, count + 1):
                name = f"block{block}/unit{unit}"
                sizes = {"1": (1, 1, source, inner), "2": (3, 3, inner, inner), "3": (1, 1, inner, 4 * inner)}
                for layer, shape in sizes.items():
                    shapes |= {f"{name}/conv{layer}/kernel": shape, **gn(f"{name}/gn{layer}", shape[-1])}
                if unit == 1:
                    shapes |= {
                        f"{name}/conv_proj/kernel": (1, 1, source, 4 * inner),
                        **gn(f"{name}/gn_proj", 4 * inner),
                    }
                source = 4 * inner
    patch = 1 if resnet else 16
    shapes |= {"embedding/kernel": (patch, patch, source, hidden), "embedding/bias": (hidden,)}
    shapes["Transformer/posembed_input/pos_embedding"] = (1, grid * grid + token, hidden)
    for n in range(layers):
        name = f"Transformer/encoderblock_{n}"
        look = f"{name}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            shapes[f"{look}/{part}/kernel"] = (hidden, heads, width)
            shapes[f"{look}/{part}/bias"] = (heads, width)
        shapes |= {f"{look}/out/kernel": (heads, width, hidden), f"{look}/out/bias": (hidden,)}
        for layer, (a, b) in {"Dense_0": (hidden, 4 * hidden), "Dense_1": (4 * hidden, hidden)}.items():
            shapes |= {f"{name}/MlpBlock_3/{layer}/kernel": (a, b), f"{name}/MlpBlock_3/{layer}/bias": (b,)}
        for layer in ("LayerNorm_0", "LayerNorm_2"):
            shapes |= {f"{name}/{layer}/scale": (hidden,), f"{name}/{layer}/bias": (hidden,)}
    shapes |= {"Transformer/encoder_norm/scale": (hidden,), "Transformer/encoder_norm/bias": (hidden,)}
    if token:
        shapes["cls"] = (1, 1, hidden)
    shapes |= {"head/kernel": (hidden, 7), "head/bias": (7,)}
    return {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}


def gn(name, width):
    return {f"{name}/scale": (1, 1, 1, width), f"{name}/bias": (1, 1, 1, width)}
