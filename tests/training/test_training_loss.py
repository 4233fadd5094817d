"""The training objective: each KL term is in the loss, once, with its weight and gradient."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from robustsearch.models.build import Network, build_network
from robustsearch.recipe import IBP, LWTA, Model, Recipe
from robustsearch.training.loss import objective_terms


def network(recipe: Recipe) -> Network:
    return build_network(recipe, shape=(1, 8, 8), classes=10, mean=(0.3,), std=(0.4,), seed=0).train()


def batch(size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand((size, 1, 8, 8), generator=generator), torch.randint(10, (size,), generator=generator)


SMALL = Model(depth=10)


def test_every_kl_term_is_in_the_loss_positive_and_with_a_gradient() -> None:
    net = network(Recipe(model=SMALL, lwta=LWTA(ibp=IBP())))
    images, labels = batch()
    terms = objective_terms(net, images, None, labels, clean_weight=0.0, kl_weight=1.0, n_train=100)
    assert set(terms) == {"ce", "kl_gate", "kl_sticks", "kl_z"}
    for name in ("kl_gate", "kl_sticks", "kl_z"):
        assert terms[name] > 0
        gradients = torch.autograd.grad(terms[name], list(net.parameters()), retain_graph=True, allow_unused=True)
        assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients), name


def test_kl_counts_once_over_the_number_of_training_images() -> None:
    net = network(Recipe(model=SMALL, lwta=LWTA(ibp=IBP())))
    images, labels = batch()
    terms = objective_terms(net, images, None, labels, clean_weight=0.0, kl_weight=0.5, n_train=100)
    for name, value in net.kl().items():
        assert terms[f"kl_{name}"].item() == pytest.approx(0.5 * value.item() / 100)


def test_relu_has_cross_entropy_alone() -> None:
    net = network(Recipe(model=SMALL))
    images, labels = batch()
    terms = objective_terms(net, images, None, labels, clean_weight=0.5, kl_weight=0.0, n_train=100)
    assert set(terms) == {"ce"}
    assert terms["ce"].item() == pytest.approx(F.cross_entropy(net(images), labels).item(), rel=1e-5)


def test_clean_weight_mixes_both_cross_entropies() -> None:
    """In evaluation mode, where images do not meet in the batch norms, the two terms are two separate passes."""
    net = network(Recipe(model=SMALL)).eval()
    images, labels = batch()
    perturbed = (images + 0.1).clamp(0, 1)
    terms = objective_terms(net, images, perturbed, labels, clean_weight=0.3, kl_weight=0.0, n_train=100)
    assert terms["ce"].item() == pytest.approx(0.7 * F.cross_entropy(net(perturbed), labels).item(), rel=1e-5)
    assert terms["clean_ce"].item() == pytest.approx(0.3 * F.cross_entropy(net(images), labels).item(), rel=1e-5)
    only = objective_terms(net, images, perturbed, labels, clean_weight=0.0, kl_weight=0.0, n_train=100)
    assert set(only) == {"ce"}
    assert only["ce"].item() == pytest.approx(F.cross_entropy(net(perturbed), labels).item(), rel=1e-5)
