"""The networks of the papers wired by hand, as anyone would write them: to read, and to compare with.

Nothing of skipway is used here. Modules are declared in the order in which skipway's state dict lists them.
"""

import torch
import torch.nn.functional as F
from torch import nn


def convs(width_in, *widths, padding=1, norm=False, bias=True):
    layers = []
    for width in widths:
        layers += [nn.Conv2d(width_in, width, 3, padding=padding, bias=bias)]
        layers += [nn.BatchNorm2d(width)] if norm else []
        layers += [nn.ReLU()]
        width_in = width
    return nn.Sequential(*layers)


def crop_to(skip, up):
    h, w = up.shape[2:]
    top, left = (skip.shape[2] - h) // 2, (skip.shape[3] - w) // 2
    return skip[:, :, top : top + h, left : left + w]


class UNet2015(nn.Module):
    """Ronneberger et al. 2015, figure 1; `released` is the Caffe network the authors published."""

    def __init__(self, w=64, released=False):
        super().__init__()
        self.released = released
        self.down0 = convs(1, w, w, padding=0)
        self.down1 = convs(w, 2 * w, 2 * w, padding=0)
        self.down2 = convs(2 * w, 4 * w, 4 * w, padding=0)
        self.down3 = convs(4 * w, 8 * w, 8 * w, padding=0)
        self.bottom = convs(8 * w, 16 * w, 16 * w, padding=0)
        self.up3 = nn.ConvTranspose2d(16 * w, 8 * w, 2, stride=2)
        self.right3 = convs(16 * w, 8 * w, 8 * w, padding=0)
        self.up2 = nn.ConvTranspose2d(8 * w, 4 * w, 2, stride=2)
        self.right2 = convs(8 * w, 4 * w, 4 * w, padding=0)
        self.up1 = nn.ConvTranspose2d(4 * w, 2 * w, 2, stride=2)
        self.right1 = convs(4 * w, 2 * w, 2 * w, padding=0)
        last = 2 * w if released else w
        self.up0 = nn.ConvTranspose2d(2 * w, last, 2, stride=2)
        self.right0 = convs(w + last, w, w, padding=0)
        self.head = nn.Conv2d(w, 2, 1)

    def join(self, skip, up):
        if self.released:
            up = F.relu(up)
            return torch.cat([up, crop_to(skip, up)], dim=1)
        return torch.cat([crop_to(skip, up), up], dim=1)

    def forward(self, x):
        a = self.down0(x)
        b = self.down1(F.max_pool2d(a, 2))
        c = self.down2(F.max_pool2d(b, 2))
        d = self.down3(F.max_pool2d(c, 2))
        e = self.bottom(F.max_pool2d(d, 2))
        y = self.right3(self.join(d, self.up3(e)))
        y = self.right2(self.join(c, self.up2(y)))
        y = self.right1(self.join(b, self.up1(y)))
        y = self.right0(self.join(a, self.up0(y)))
        return self.head(y)


class UNetPlusPlus(nn.Module):
    """Zhou et al. 2018, equation 1, with four heads: node by node, column by column."""

    def __init__(self, w=32):
        super().__init__()
        f = [w, 2 * w, 4 * w, 8 * w, 16 * w]
        for i in range(5):
            self.add_module(f"x{i}_0", convs(f[i - 1] if i else 1, f[i], f[i]))
        for j in range(1, 5):
            for i in range(5 - j):
                self.add_module(f"up{i}_{j}", nn.ConvTranspose2d(f[i + 1], f[i], 2, stride=2))
                self.add_module(f"x{i}_{j}", convs((j + 1) * f[i], f[i], f[i]))
        for j in range(1, 5):
            self.add_module(f"head{j}", nn.Conv2d(f[0], 1, 1))

    def node(self, i, j, *row, below):
        up = getattr(self, f"up{i}_{j}")(below)
        return getattr(self, f"x{i}_{j}")(torch.cat([*row, up], dim=1))

    def forward(self, x):
        x00 = self.x0_0(x)
        x10 = self.x1_0(F.max_pool2d(x00, 2))
        x20 = self.x2_0(F.max_pool2d(x10, 2))
        x30 = self.x3_0(F.max_pool2d(x20, 2))
        x40 = self.x4_0(F.max_pool2d(x30, 2))
        x01 = self.node(0, 1, x00, below=x10)
        x11 = self.node(1, 1, x10, below=x20)
        x21 = self.node(2, 1, x20, below=x30)
        x31 = self.node(3, 1, x30, below=x40)
        x02 = self.node(0, 2, x00, x01, below=x11)
        x12 = self.node(1, 2, x10, x11, below=x21)
        x22 = self.node(2, 2, x20, x21, below=x31)
        x03 = self.node(0, 3, x00, x01, x02, below=x12)
        x13 = self.node(1, 3, x10, x11, x12, below=x22)
        x04 = self.node(0, 4, x00, x01, x02, x03, below=x13)
        return self.head1(x01), self.head2(x02), self.head3(x03), self.head4(x04)


class UNet3Plus(nn.Module):
    """Huang et al. 2020, equation 1, with its five heads, coarsest first."""

    def __init__(self, w=64):
        super().__init__()
        f, fused = [w, 2 * w, 4 * w, 8 * w, 16 * w], 5 * w
        self.encoder = nn.ModuleList(
            convs(3 if i == 0 else f[i - 1], f[i], f[i], norm=True) for i in range(5)
        )
        self.branches, self.fusions = nn.ModuleDict(), nn.ModuleDict()
        for level in (3, 2, 1, 0):
            sources = [f[k] if k <= level or k == 4 else fused for k in range(5)]
            self.branches[str(level)] = nn.ModuleList(convs(source, w, norm=True) for source in sources)
            self.fusions[str(level)] = convs(fused, fused, norm=True)
        self.heads = nn.ModuleDict({"4": nn.Conv2d(f[4], 1, 3, padding=1)})
        self.heads.update({str(level): nn.Conv2d(fused, 1, 3, padding=1) for level in (3, 2, 1, 0)})

    def bring(self, x, source, level):
        if source < level:
            return F.max_pool2d(x, 2 ** (level - source))
        if source > level:
            return F.interpolate(x, scale_factor=2 ** (source - level), mode="bilinear")
        return x

    def forward(self, x):
        encoded = []
        for stage in self.encoder:
            x = stage(F.max_pool2d(x, 2) if encoded else x)
            encoded.append(x)
        decoded = {4: encoded[4]}
        for level in (3, 2, 1, 0):
            maps = [encoded[k] if k <= level else decoded[k] for k in range(5)]
            parts = [
                branch(self.bring(maps[k], k, level)) for k, branch in enumerate(self.branches[str(level)])
            ]
            decoded[level] = self.fusions[str(level)](torch.cat(parts, dim=1))
        return tuple(self.bring(self.heads[str(k)](decoded[k]), k, 0) for k in (4, 3, 2, 1, 0))
