"""A ResNet as somebody writes it: groups fixed in its code, names nested."""

import flax.linen as nn

import eqjax as eq

D4 = eq.dihedral(4)


class Block(nn.Module):
    features: int
    strides: int = 1
    taps: int = 3  # of the convolution with strides

    @nn.compact
    def __call__(self, x, train=False):
        y = x
        for n, (taps, strides) in enumerate([(self.taps, self.strides), (3, 1)]):
            y = eq.GroupConv(
                self.features, taps, strides, 1, group=D4, name=f"conv{n + 1}"
            )(y)
            y = eq.BatchNorm(group=D4, name=f"norm{n + 1}")(y, not train)
            y = nn.relu(y) if n == 0 else y
        if self.strides > 1:
            x = eq.GroupConv(
                self.features, 2, self.strides, "VALID", group=D4, name="short"
            )(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """With 3x3 windows of stride 2 and padding 1, which break the symmetry."""

    features: int = 2
    blocks: int = 1
    taps: int = 3

    @nn.compact
    def __call__(self, x, train=False):
        x = eq.LiftingConv(self.features, 3, group=D4, name="stem")(x)
        for stage in (1, 2):
            for block in range(self.blocks):
                strides = 2 if block == 0 else 1
                taps = self.taps if block == 0 else 3
                suffix = f"_{block}" if block else ""
                make = Block(self.features, strides, taps, name=f"stage{stage}{suffix}")
                x = make(x, train)
        return eq.InvariantHead(3, group=D4, name="head")(x)
