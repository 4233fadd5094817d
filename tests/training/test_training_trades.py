"""TRADES against its published training step, written out with loops over steps and images."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from robustsearch.attacks.gradient import crafting
from robustsearch.attacks.mixing import Mixer
from robustsearch.attacks.named import TRADES_START
from robustsearch.models.build import Network, build_network
from robustsearch.models.stochastic import surrogate
from robustsearch.recipe import LWTA, PNI, Attack, Mix, Model, Recipe
from robustsearch.training.loss import objective_terms

ATTACK = Attack(epsilon=0.1, step=0.03, steps=4)
PGD = Mix(clean=0, noise=0, fgsm=0, pgd=1, cw=0)
BETA = 6.0


def network(recipe: Recipe | None = None) -> Network:
    recipe = recipe or Recipe(model=Model(depth=10))
    return build_network(recipe, shape=(1, 8, 8), classes=10, mean=(0.3,), std=(0.4,), seed=0).train()


def batch(size: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand((size, 1, 8, 8), generator=generator), torch.randint(10, (size,), generator=generator)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """sum_j p_j log(p_j / q_j), one class after the other."""
    return sum((p[j] * (p[j] / q[j]).log() for j in range(len(p))), start=torch.zeros(()))


def published_attack(net: nn.Module, images: Tensor, generator: torch.Generator) -> Tensor:
    """`trades_loss` of the published code, its inner loop: model.eval(), x + 0.001 N(0, 1), sign steps on KL."""
    net.eval()
    moved = images + 0.001 * torch.randn(images.shape, generator=generator)
    for _ in range(4):
        moved = moved.detach().requires_grad_()
        p, q = net(images).softmax(1).detach(), net(moved).softmax(1)
        (gradient,) = torch.autograd.grad(sum(kl(a, b) for a, b in zip(p, q, strict=True)), moved)
        moved = moved.detach() + 0.03 * gradient.sign()
        moved = torch.min(torch.max(moved, images - 0.1), images + 0.1).clamp(0, 1)
    net.train()
    return moved


def crafted(net: Network, images: Tensor, labels: Tensor, mixer: Mixer) -> Tensor:
    with crafting(net), surrogate(net):
        return mixer.perturb("pgd", net, images, labels)


def test_the_step_is_the_published_one() -> None:
    """Perturbed images, loss terms and every gradient; batch norm in training mode, a pass for each term."""
    images, labels = batch()
    net = network()
    reference = copy.deepcopy(net)
    mixer = Mixer(PGD, ATTACK, seed=0, trades=True)
    generator = torch.Generator()
    generator.set_state(mixer.state()["starts"])

    perturbed = crafted(net, images, labels, mixer)
    moved = published_attack(reference, images, generator)
    torch.testing.assert_close(perturbed, moved, atol=1e-6, rtol=0)
    assert (perturbed - images).abs().max() > 0.09

    terms = objective_terms(net, images, perturbed, labels, clean_weight=0.0, kl_weight=0.0, n_train=1, trades=BETA)
    assert set(terms) == {"clean_ce", "trades"}
    natural, robust = reference(images).softmax(1), reference(moved).softmax(1)
    clean_ce = -sum(math.log(natural[i, labels[i]].item()) for i in range(6)) / 6
    divergence = sum(kl(p, q) for p, q in zip(natural, robust, strict=True)) / 6
    assert terms["clean_ce"].item() == pytest.approx(clean_ce, abs=1e-5)
    assert terms["trades"].item() == pytest.approx(BETA * divergence.item(), abs=1e-5)
    assert terms["trades"].item() > 0

    (terms["clean_ce"] + terms["trades"]).backward()
    logits = torch.log(natural)
    loss = -logits[torch.arange(6), labels].mean() + BETA * divergence
    loss.backward()
    for (name, ours), theirs in zip(net.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4, msg=name)
    for (name, ours), theirs in zip(net.named_buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6, msg=name)


def test_the_start_is_small_and_gaussian() -> None:
    """Where no step moves it: standard deviation 0.001, to 5 standard errors of 12,800 pixels."""
    images = torch.full((200, 1, 8, 8), 0.5)
    mixer = Mixer(PGD, ATTACK, seed=1, trades=True)
    offsets = (
        mixer.perturb("pgd", lambda x: x.flatten(1)[:, :10] * 0, images, torch.zeros(200, dtype=torch.int64)) - 0.5
    )
    assert abs(offsets.std().item() / TRADES_START - 1) < 5 / math.sqrt(2 * 12_800)
    assert abs(offsets.mean().item()) < 5 * TRADES_START / math.sqrt(12_800)


def test_a_clean_batch_of_the_mix_is_plain_cross_entropy() -> None:
    images, labels = batch()
    terms = objective_terms(network(), images, None, labels, clean_weight=0.0, kl_weight=0.0, n_train=1, trades=BETA)
    assert set(terms) == {"ce"}


@pytest.mark.parametrize(
    "recipe",
    [Recipe(model=Model(depth=10), lwta=LWTA()), Recipe(model=Model(depth=10), pni=PNI())],
    ids=["lwta", "pni"],
)
def test_a_random_network_makes_one_draw_for_each_term(recipe: Recipe) -> None:
    """On unchanged images KL is 0 for a network without noise, and above it for two draws of one with."""
    images, labels = batch()
    settings = {"clean_weight": 0.0, "kl_weight": 1.0, "n_train": 10, "trades": BETA}
    net = network(recipe)
    passes: list[int] = []
    net.register_forward_hook(lambda *_: passes.append(1))
    perturbed = crafted(net, images, labels, Mixer(PGD, ATTACK, seed=0, trades=True))
    assert len(passes) == 1 + ATTACK.steps
    assert torch.isfinite(perturbed).all()
    terms = objective_terms(net, images, images, labels, **settings)  # type: ignore[arg-type]
    assert len(passes) == 1 + ATTACK.steps + 2
    assert terms["trades"] > 0
    still = objective_terms(network(), images, images, labels, **settings)  # type: ignore[arg-type]
    assert still["trades"].item() == pytest.approx(0, abs=1e-5)
