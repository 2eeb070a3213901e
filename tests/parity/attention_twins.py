"""Gated, recurrent and residual U-Nets wired by hand: to read, and to compare with. Nothing of skipway here.

Modules are declared in the order in which skipway's state dict lists them, so weights go over in order.
"""

import torch
import torch.nn.functional as F
from torch import nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class Pair(nn.Module):
    """Two 3-wide convolutions with batch norm."""

    def __init__(self, width_in, width, ndim):
        super().__init__()
        self.a, self.na = CONV[ndim](width_in, width, 3, padding=1), NORM[ndim](width)
        self.b, self.nb = CONV[ndim](width, width, 3, padding=1), NORM[ndim](width)

    def forward(self, x):
        x = F.relu(self.na(self.a(x)))
        return F.relu(self.nb(self.b(x)))


class RecurrentPair(nn.Module):
    """Alom et al. 2018, figure 4d: each 3-wide convolution runs three times, the block adds what it enters."""

    def __init__(self, width_in, width, ndim):
        super().__init__()
        self.enter = CONV[ndim](width_in, width, 1)
        self.a, self.na = CONV[ndim](width, width, 3, padding=1), NORM[ndim](width)
        self.b, self.nb = CONV[ndim](width, width, 3, padding=1), NORM[ndim](width)

    def forward(self, x):
        x = self.enter(x)
        y1 = F.relu(self.na(self.a(x)))
        y2 = F.relu(self.na(self.a(x + y1)))
        y3 = F.relu(self.na(self.a(x + y2)))
        z1 = F.relu(self.nb(self.b(y3)))
        z2 = F.relu(self.nb(self.b(y3 + z1)))
        z3 = F.relu(self.nb(self.b(y3 + z2)))
        return z3 + x


class Gate(nn.Module):
    """Oktay et al. 2018, equation 1, on the grid of the skip."""

    def __init__(self, width, ndim):
        super().__init__()
        half = width // 2
        self.x, self.nx = CONV[ndim](width, half, 1), NORM[ndim](half)
        self.g, self.ng = CONV[ndim](width, half, 1), NORM[ndim](half)
        self.psi, self.npsi = CONV[ndim](half, 1, 1), NORM[ndim](1)

    def forward(self, x, g):
        q = F.relu(self.nx(self.x(x)) + self.ng(self.g(g)))
        return x * torch.sigmoid(self.npsi(self.psi(q)))


class Up(nn.Module):
    """Decoder level: nearest up-sampling, convolution, gate, block."""

    def __init__(self, width, block, gated, ndim):
        super().__init__()
        self.up, self.nup = CONV[ndim](2 * width, width, 3, padding=1), NORM[ndim](width)
        self.gate = Gate(width, ndim) if gated else None
        self.block = block(2 * width, width, ndim)

    def forward(self, skip, below):
        up = F.relu(self.nup(self.up(F.interpolate(below, scale_factor=2, mode="nearest"))))
        if self.gate is not None:
            skip = self.gate(skip, up)
        return self.block(torch.cat([skip, up], dim=1))


class AttentionUNet(nn.Module):
    """Attention U-Net; with `block=RecurrentPair` R2 Attention U-Net, with `gated=False` R2U-Net."""

    def __init__(self, w=64, block=Pair, gated=True, ndim=2):
        super().__init__()
        f = [w, 2 * w, 4 * w, 8 * w, 16 * w]
        self.down = nn.ModuleList(block(f[i - 1] if i else 3, f[i], ndim) for i in range(5))
        self.ups = nn.ModuleList(Up(f[i], block, gated, ndim) for i in (3, 2, 1, 0))
        self.head = CONV[ndim](w, 1, 1)
        self.pool = F.max_pool2d if ndim == 2 else F.max_pool3d

    def forward(self, x):
        skips = []
        for stage in self.down:
            x = stage(self.pool(x, 2) if skips else x)
            skips.append(x)
        y = skips.pop()
        for up in self.ups:
            y = up(skips.pop(), y)
        return self.head(y)


class PreUnit(nn.Module):
    """Zhang et al. 2018, figure 1b; the first unit of the network starts with its convolution."""

    def __init__(self, width_in, width, stride, first=False):
        super().__init__()
        self.na = nn.Identity() if first else nn.BatchNorm2d(width_in)
        self.a = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.nb = nn.BatchNorm2d(width)
        self.b = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.way = nn.Conv2d(width_in, width, 1, stride, bias=False)
        self.first = first

    def forward(self, x):
        y = x if self.first else F.relu(self.na(x))
        return self.b(F.relu(self.nb(self.a(y)))) + self.way(x)


class ResidualUNet(nn.Module):
    """Zhang et al. 2018, figure 2."""

    def __init__(self, w=64):
        super().__init__()
        self.e1 = PreUnit(3, w, 1, first=True)
        self.e2 = PreUnit(w, 2 * w, 2)
        self.e3 = PreUnit(2 * w, 4 * w, 2)
        self.bridge = PreUnit(4 * w, 8 * w, 2)
        self.d3 = PreUnit(4 * w + 8 * w, 4 * w, 1)
        self.d2 = PreUnit(2 * w + 4 * w, 2 * w, 1)
        self.d1 = PreUnit(w + 2 * w, w, 1)
        self.head = nn.Conv2d(w, 1, 1)

    def forward(self, x):
        a = self.e1(x)
        b = self.e2(a)
        c = self.e3(b)
        y = self.bridge(c)
        for unit, skip in ((self.d3, c), (self.d2, b), (self.d1, a)):
            y = unit(torch.cat([skip, F.interpolate(y, scale_factor=2, mode="nearest")], dim=1))
        return self.head(y)
