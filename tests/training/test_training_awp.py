"""Adversarial weight perturbation against its published code, with the proxy network and optimiser that it uses."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustsearch.models.build import Network, build_network
from robustsearch.recipe import IBP, LWTA, PNI, Model, Recipe
from robustsearch.training.awp import perturbed_weights

SMALL = Model(depth=10)
RECIPES = {
    "relu": Recipe(model=SMALL),
    "lwta": Recipe(model=SMALL, lwta=LWTA(ibp=IBP())),
    "pni": Recipe(model=SMALL, pni=PNI(granularity="element")),
}


def network(recipe: Recipe) -> Network:
    """A network in training mode, none of whose weights is 0, as some of an untrained one may be."""
    net = build_network(recipe, shape=(1, 8, 8), classes=10, mean=(0.3,), std=(0.4,), seed=0).train()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight += 0.05 * torch.randn(layer.weight.shape, generator=generator)
    return net


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((6, 1, 8, 8), generator=generator), torch.randint(10, (6,), generator=generator)


def published_step(net: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    """`AdvWeightPerturb` of the published code (calc_awp, perturb, restore) around one step, gamma 0.01."""
    proxy = copy.deepcopy(net).train()
    proxy_optimizer = torch.optim.SGD(proxy.parameters(), lr=0.01)
    loss = -F.cross_entropy(proxy(images), labels)
    proxy_optimizer.zero_grad()
    loss.backward()
    proxy_optimizer.step()
    difference: dict[str, Tensor] = {}
    for (name, old), new in zip(net.state_dict().items(), proxy.state_dict().values(), strict=True):
        if old.dim() <= 1 or "weight" not in name:
            continue
        change = new - old
        difference[name] = old.norm() / (change.norm() + 1e-20) * change
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name in difference:
                parameter.add_(0.01 * difference[name])
    optimizer.zero_grad()
    F.cross_entropy(net(images), labels).backward()
    optimizer.step()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name in difference:
                parameter.add_(-0.01 * difference[name])


def test_three_steps_are_the_published_ones() -> None:
    """Without weight decay, which the published code takes at w + v: weights and running statistics."""
    ours = network(RECIPES["relu"])
    theirs = copy.deepcopy(ours)
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True) for net in (ours, theirs)]
    for seed in range(3):
        images, labels = batch(seed)
        with perturbed_weights(ours, lambda: F.cross_entropy(ours(images), labels), 0.01):  # noqa: B023
            optimizers[0].zero_grad()
            F.cross_entropy(ours(images), labels).backward()
        optimizers[0].step()
        published_step(theirs, optimizers[1], images, labels)
    for (name, one), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("kind", RECIPES)
def test_weights_come_back_bit_for_bit_and_only_weights_move_by_gamma(kind: str) -> None:
    net = network(RECIPES[kind])
    images, labels = batch()
    before = copy.deepcopy(net.state_dict())
    with perturbed_weights(net, lambda: F.cross_entropy(net(images), labels), 0.02):
        inside = copy.deepcopy(net.state_dict())
    moved = {name for name in before if not torch.equal(before[name], inside[name])}
    layers = {name for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    assert moved == {f"{name}.weight" for name in layers}
    for name in moved:
        share = (inside[name] - before[name]).norm() / before[name].norm()
        assert share.item() == pytest.approx(0.02, rel=1e-4), name
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in net.parameters())


def test_weights_come_back_after_an_error_too() -> None:
    net = network(RECIPES["relu"])
    images, labels = batch()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ZeroDivisionError), perturbed_weights(net, lambda: F.cross_entropy(net(images), labels), 0.02):
        raise ZeroDivisionError
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_perturbed_weights_are_worse() -> None:
    net = network(RECIPES["relu"])
    images, labels = batch()
    with torch.no_grad():
        before = F.cross_entropy(net(images), labels)
    with perturbed_weights(net, lambda: F.cross_entropy(net(images), labels), 0.02), torch.no_grad():
        assert F.cross_entropy(net(images), labels) > before + 0.01


def test_a_layer_without_a_gradient_stays_where_it_is() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, 2))
    with torch.no_grad():
        net[2].weight.zero_()
        before = net[1].weight.clone()
    with perturbed_weights(net, lambda: F.cross_entropy(net(batch()[0]), batch()[1] % 2), 0.5):
        assert torch.equal(net[1].weight, before)
        assert torch.isfinite(net[2].weight).all()
