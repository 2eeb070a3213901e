"""The vision transformer on a grid of features: one token a pixel, every token looks at every other."""

from collections import OrderedDict
from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipway.nn.paths import path_of
from skipway.shapes import Path

EPS = 1e-6


class Attention(nn.Module):
    """Self-attention with several heads: out(softmax(q kᵀ / sqrt(C / heads)) v). Shape (B, N, C) in and out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Let each of the N tokens look at all."""
        batch, count, width = x.shape
        query, key, value = (
            self.qkv(x).view(batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        )
        seen = F.scaled_dot_product_attention(query, key, value)
        return self.out(seen.transpose(1, 2).reshape(batch, count, width))


class TransformerLayer(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x)). Shape (B, N, C) in and out.

    Source: Dosovitskiy et al. 2021, fig. 1 and eq. 2-3.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["fc1"], layers["gelu"], layers["drop1"] = (
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
        )
        layers["fc2"], layers["drop2"] = nn.Linear(hidden, width), nn.Dropout(dropout)
        self.mlp = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Attend, then work on each token alone."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Positions(nn.Module):
    """Add what was learned for each place of a grid, interpolated linearly to grids of other sizes.

    On the grid that it was made for the interpolation is the identity, to the bit.

    Args:
        width: Channels.
        grid: Sides of the grid.
    """

    def __init__(self, width: int, grid: Sequence[int]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, width, *grid))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) in and out."""
        return x + F.interpolate(self.table, size=x.shape[2:], mode="bilinear", align_corners=False)


class GridTransformer(nn.Module):
    """Patches of a map to tokens, transformer layers, and back to a map.

    Args:
        width_in: Channels of the map.
        width: Channels of a token.
        patch: Side of a patch, which becomes one token.
        grid: Sides of the grid of tokens that positions are learned for.
        layers: Number of layers.
        heads: Heads of each attention.
        dropout: Rate after the positions and twice in each MLP, which is four times as wide as a token.

    Attributes:
        tile_exact: False: every token looks at the whole map.

    Raises:
        ValueError: The heads do not divide the width.

    Source: Dosovitskiy et al. 2021, eq. 1-3, without class token.
    """

    tile_exact = False

    def __init__(
        self,
        width_in: int,
        width: int,
        patch: int,
        grid: Sequence[int],
        *,
        layers: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads cannot share {width} channels evenly")
        self.embed = nn.Conv2d(width_in, width, patch, stride=patch)
        self.positions = Positions(width, grid)
        self.drop = nn.Dropout(dropout)
        self.layers = nn.ModuleList(TransformerLayer(width, heads, 4 * width, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.path: Path = path_of(self.embed, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width_in, h, w) to (B, width, h / patch, w / patch)."""
        x = self.drop(self.positions(self.embed(x)))
        tokens = x.flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens).transpose(1, 2).reshape(x.shape)

    def multiplications(self, before: Sequence[int], after: Sequence[int]) -> int:
        """Multiplications from a map of sides `before` to one of `after`: linear layers and attention."""
        tokens, width = prod(after), self.norm.weight.numel()
        layer = tokens * (4 + 8) * width**2 + 2 * tokens**2 * width
        return tokens * self.embed.weight.numel() + len(self.layers) * layer
