"""The deployed form of a network: removed blocks gone, constants folded, all draws averaged in one module.

Same law of the output as the network's own `predict`. What is done, and where it is exact:

* A block below the IBP cut-off leaves: its channels are cut from the batch norm and the convolution that make
  them (the first activation of a residual block reads the residual stream, from which only the kept channels
  are selected), and the matching input channels from each layer that reads the activation. Where nothing is
  left, zeros take its place.
* The weights z of the kept blocks are folded into the layers that read them; not into weights with parametric
  noise, which would be scaled with them: there the prior stays, cut to the kept blocks.
* The second batch norm of a residual block is folded into the plain convolution before it. Normalisation is
  not folded: the stem pads with zeros after it, and the mean folded into the stem would not be zero there.
* Parametric noise on weights keeps the sigma of the whole tensor. Noise on inputs or activations enters
  removed channels too and its sigma counts them, so such a network stays as it is, masked.
* K draws share everything before the first random layer: the batch is repeated there. Noise drawn once per
  forward pass (on weights) needs K passes instead.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .build import Network
from .lwta import LWTA
from .pni import PNIConv2d, PNILayer, PNILinear
from .stochastic import Stochastic, average_draws, expandable, is_random, repeat_batch
from .wrn import Block


class Deployed(nn.Module):
    """Images `[N, C, H, W]` in [0, 1] to probabilities `[N, classes]`, averaged over K draws."""

    def __init__(self, layers: nn.Sequential, draws: int) -> None:
        """Deployed layers with `draws` predictions per image; one where nothing in them is random."""
        super().__init__()
        self.layers = layers
        draws = draws if is_random(layers) else 1
        self.passes, self.repeats = (1, draws) if expandable(layers) else (draws, 1)
        if self.repeats > 1:
            _repeat_before_first_draw(layers, self.repeats)

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities `[N, classes]`."""
        draws = [average_draws(self.layers(images), self.repeats) for _ in range(self.passes)]
        return draws[0] if len(draws) == 1 else torch.stack(draws).mean(dim=0)


def deploy(network: Network, draws: int) -> nn.Module:
    """An independent copy of a network as the module `images -> probabilities` to ship and time.

    Args:
        network: A trained network; its gate and its mode are those that the copy keeps. It is not changed.
        draws: K >= 1, predictions averaged per image.
    """
    if draws < 1:
        raise ValueError(f"`draws` must be at least 1, but got {draws}")
    network = copy.deepcopy(network).eval().requires_grad_(False)
    body = network.body
    for layer in network.modules():
        if isinstance(layer, PNIConv2d | PNILinear) and layer.where == "weights":
            layer.sigma = layer.weight.std()
    layers = nn.Sequential(network.smoothing, network.normalise, body.stem)
    for block in body.blocks:
        assert isinstance(block, Block)
        layers.append(_deployed_block(block))
    if (kept := _cut(body.activation, [body.linear])) is not None:
        layers.append(Select(kept))
        _cut_batch_norm(body.bn, kept)
        if not len(kept):  # the classifier reads nothing: its bias is all that counts
            return Deployed(nn.Sequential(Select(kept), body.pool, body.linear), draws).eval()
    layers.extend([body.bn, body.activation, body.pool, body.linear])
    return Deployed(layers, draws).eval()


class Residual(nn.Module):
    """A residual block of three parts; a `shortcut` of None is the identity, a `branch` of None is zero."""

    def __init__(self, enter: nn.Sequential, branch: nn.Sequential | None, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.enter, self.branch, self.shortcut = enter, branch, shortcut  # in the order in which they run

    def forward(self, x: Tensor) -> Tensor:
        activated = self.enter(x)
        branch: Tensor | None = None if self.branch is None else self.branch(activated)
        skip: Tensor = x if self.shortcut is None else self.shortcut(activated)
        if branch is None:
            return skip
        if len(skip) != len(branch):  # the draws begin inside this block
            skip = repeat_batch(skip, len(branch) // len(skip))
        return skip + branch


class Select(nn.Module):
    """The given channels of `[N, C, H, W]`."""

    channels: Tensor

    def __init__(self, channels: Tensor) -> None:
        super().__init__()
        self.register_buffer("channels", channels)

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(1, self.channels)


class Zeros(nn.Module):
    """Output `[N, channels, H', W']` of a convolution none of whose inputs is left."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.channels, self.stride = convolution.out_channels, convolution.stride

    def forward(self, x: Tensor) -> Tensor:
        shape = x[:, :1, :: self.stride[0], :: self.stride[1]].shape
        return x.new_zeros(()).expand(shape[0], self.channels, *shape[2:])


class Repeat(nn.Module):
    """The batch `[N, ...]`, `draws` times."""

    def __init__(self, draws: int) -> None:
        super().__init__()
        self.draws = draws

    def forward(self, x: Tensor) -> Tensor:
        return repeat_batch(x, self.draws)


def _repeat_before_first_draw(layers: nn.Module, draws: int) -> None:
    """Repeat the batch right before the first random layer; modules are registered in the order they run."""
    name, layer = next(
        (name, layer) for name, layer in layers.named_modules() if isinstance(layer, Stochastic) and layer.random
    )
    parent, _, child = name.rpartition(".")
    setattr(layers.get_submodule(parent), child, nn.Sequential(Repeat(draws), layer))


def _deployed_block(block: Block) -> nn.Module:
    """A residual block without its removed channels."""
    shortcut: nn.Module | None = block.shortcut
    readers = [block.conv1] if block.shortcut is None else [block.conv1, block.shortcut]
    kept1, kept2 = _cut(block.activation1, readers), _cut(block.activation2, [block.conv2])
    enter = nn.Sequential(block.bn1, block.activation1)
    branch = nn.Sequential(block.conv1, block.bn2, block.activation2, block.conv2)
    if kept2 is not None:
        _cut_outputs(block.conv1, kept2)
        _cut_batch_norm(block.bn2, kept2)
    if kept1 is not None:
        _cut_batch_norm(block.bn1, kept1)
        enter.insert(0, Select(kept1))
    if kept1 is not None and not len(kept1):
        enter, branch[0] = nn.Sequential(), Zeros(block.conv1)
        if block.shortcut is not None:
            shortcut = Zeros(block.shortcut)
    elif not isinstance(block.conv1, PNILayer):
        branch[0], branch[1] = fuse_conv_bn_eval(block.conv1, block.bn2), nn.Identity()
    if kept2 is not None and not len(kept2):
        return nn.Identity() if shortcut is None else Residual(enter, None, shortcut)
    return Residual(enter, branch, shortcut)


def _cut(activation: nn.Module, readers: Sequence[nn.Conv2d | nn.Linear]) -> Tensor | None:
    """Take the removed blocks from an activation and from the layers that read it; fold z into plain readers.

    Returns the channels that are kept, `[C']`, or None where all are.
    """
    if not isinstance(activation, LWTA) or activation.ibp is None:
        return None
    if any(isinstance(reader, PNILayer) and reader.where != "weights" for reader in readers):
        return None
    prior, units = activation.ibp, activation.units
    blocks = prior.kept()
    channels = blocks.repeat_interleave(units).nonzero().flatten()
    plain = not any(isinstance(reader, PNILayer) for reader in readers)
    z = prior()[blocks].repeat_interleave(units)
    for reader in readers:
        _cut_inputs(reader, channels)
        if plain:
            reader.weight *= z.view(1, -1, *[1] * (reader.weight.dim() - 2))
    activation.blocks = int(blocks.sum())
    if plain:
        activation.ibp = None
    else:
        for raw in (prior.raw_a, prior.raw_c, prior.t):
            raw.data = raw.data[blocks]
    return None if blocks.all() else channels


def _cut_inputs(layer: nn.Conv2d | nn.Linear, channels: Tensor) -> None:
    """Keep these input channels of a plain layer, or of one with noise on its weights."""
    _cut_weight(layer, 1, channels)
    if isinstance(layer, nn.Linear):
        layer.in_features = len(channels)
    else:
        layer.in_channels = len(channels)


def _cut_outputs(layer: nn.Conv2d, channels: Tensor) -> None:
    """Keep these output channels of a convolution without bias."""
    _cut_weight(layer, 0, channels)
    layer.out_channels = len(channels)


def _cut_weight(layer: nn.Conv2d | nn.Linear, axis: int, channels: Tensor) -> None:
    """Keep these channels of a weight, and of alpha where it has them."""
    if isinstance(layer, PNILayer):
        alpha = layer.alpha
        if alpha.dim() > axis and alpha.shape[axis] == layer.weight.shape[axis]:
            alpha.data = alpha.data.index_select(axis, channels)
    layer.weight.data = layer.weight.data.index_select(axis, channels)


def _cut_batch_norm(bn: nn.BatchNorm2d, channels: Tensor) -> None:
    """Keep these channels of a batch norm."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    bn.weight.data, bn.bias.data = bn.weight.data[channels], bn.bias.data[channels]
    bn.running_mean, bn.running_var = bn.running_mean[channels], bn.running_var[channels]
    bn.num_features = len(channels)
