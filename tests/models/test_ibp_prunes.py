"""The prior pays for itself, end to end: trained on digits, it removes blocks, and what is left is as robust."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import nn

from robustsearch import data
from robustsearch.engines.prepare import prepare
from robustsearch.evaluation.protocols import Adversary, Protocol
from robustsearch.evaluation.robust import evaluate
from robustsearch.latency import Latency, measure
from robustsearch.models.build import Network, network_for
from robustsearch.models.deploy import deploy
from robustsearch.models.ibp import BlockPrior
from robustsearch.recipe import IBP, LWTA, Attack, Mix, Model, Recipe, Training
from robustsearch.training.loop import Trainer

CPU = torch.device("cpu")
DIGITS = data.load("digits")
PROTOCOL = Protocol("pgd", 300, 1, 1, 1, (Adversary("pgd", "pgd", steps=10),))


@dataclass
class Trained:
    network: Network
    robust: float
    low: float
    high: float


@cache
def trained(ibp: IBP | None, epochs: int = 10) -> Trained:
    """WRN-10-4 with LWTA-2 on FGSM examples of digits; robust accuracy under PGD-10 with its 95% interval, n = 300."""
    recipe = Recipe(
        model=Model(depth=10, widen_factor=4),
        lwta=LWTA(gate="mean", ibp=ibp),
        mix=Mix(clean=0.0, noise=0.0, fgsm=1.0, pgd=0.0, cw=0.0),
        attack=Attack(epsilon=DIGITS.epsilon, step=DIGITS.epsilon, steps=1, warmup=0.25),
        training=Training(epochs=epochs),
    )
    network = network_for(recipe, DIGITS, seed=0)
    trainer = Trainer(network, recipe, DIGITS, 0, CPU)
    for _ in range(epochs):
        trainer.run_epoch()
    network.eval()
    images, labels = data.to_tensor(DIGITS.validation.images, CPU), torch.from_numpy(DIGITS.validation.labels)
    row = evaluate(network, images, labels, protocol=PROTOCOL, epsilon=DIGITS.epsilon, epsilon_l2=0.5, draws=1, seed=0)
    return Trained(network, *(float(row[name] or 0) for name in ("robust", "robust_low", "robust_high")))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_fifths_of_the_blocks_go_at_equal_robust_accuracy() -> None:
    pruned, plain = trained(IBP()), trained(None)
    kept = pruned.network.blocks_kept()
    assert kept is not None
    assert 0.05 < kept <= 0.6
    assert plain.network.blocks_kept() is None
    assert kernels(deploy(plain.network, 1)) == kernels(plain.network), "without the prior, none may go"
    assert kernels(deploy(pruned.network, 1)) != kernels(pruned.network)
    assert pruned.robust >= plain.low
    assert plain.low > 0.6, "no robustness to keep"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("real_timing")
def test_what_is_left_is_smaller_and_faster_with_the_same_logits() -> None:
    """Beside the network deployed without the prior, which has every block; p50 at batch 1, the better of two."""
    pruned, plain = trained(IBP()).network, trained(None).network
    small, large = deploy(pruned, 1), deploy(plain, 1)
    images = data.to_tensor(DIGITS.test.images, CPU)
    with torch.inference_mode():
        torch.testing.assert_close(small.layers(images), pruned(images), rtol=0, atol=1e-5)
    assert count(small) < 0.6 * count(large)
    engines = [prepare(form, DIGITS.shape, CPU, "onnxruntime") for form in (small, large)]
    times = [[measure(engine, DIGITS.shape, CPU) for engine in engines] for _ in range(2)]
    assert times[0][0].macs < times[0][1].macs
    fast, slow = (min(one, other, key=p50) for one, other in zip(*times, strict=True))
    assert p50(fast) < p50(slow)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_logits_need_their_own_learning_rate() -> None:
    """At a hundredth of it nothing is removed."""
    assert trained(IBP(lr=0.003), epochs=2).network.blocks_kept() == 1


def test_logits_start_alike_and_move_at_their_rate() -> None:
    """One step of Adam moves each by its learning rate, which one-cycle starts at 1/25 of the peak."""
    recipe = Recipe(model=Model(depth=10), lwta=LWTA(ibp=IBP(lr=0.5)), training=Training(batch_size=2000))
    network = network_for(recipe, DIGITS, seed=0)
    before = [t.detach().clone() for t in network.block_logits()]
    assert len(before) == len([layer for layer in network.modules() if isinstance(layer, BlockPrior)]) == 7
    Trainer(network, recipe, DIGITS, 0, CPU).run_epoch()
    for old, new in zip(before, network.block_logits(), strict=True):
        torch.testing.assert_close((new - old).abs(), torch.full_like(old, 0.5 / 25), rtol=0.05, atol=0)


def kernels(network: nn.Module) -> list[torch.Size]:
    """Shapes of all convolutions, in their order."""
    return [layer.weight.shape for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def p50(latency: Latency) -> float:
    return latency.latency_p50
