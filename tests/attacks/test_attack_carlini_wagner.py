"""Carlini & Wagner: closed forms on a linear model, foolbox, and what c does on an undefended network."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from robustsearch.attacks.carlini_wagner import cw, cw_search
from robustsearch.attacks.objectives import margin

with warnings.catch_warnings():
    # foolbox 3.3.4 (dormant) imports scipy.ndimage.filters, which scipy deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    import foolbox

W = torch.tensor([0.5, -1.0, 2.0, 1.0], dtype=torch.float64)
IMAGES = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.45, 0.6, 0.52, 0.4], [0.5, 0.4, 0.55, 0.5]], dtype=torch.float64).view(
    3, 1, 2, 2
)
BIAS = -1.4
LABELS = (IMAGES.flatten(1) @ W + BIAS > 0).long()


def linear(images: Tensor) -> Tensor:
    """Two logits, 0 and w.x + b; the gradient of the margin is +-w."""
    logit = images.flatten(1) @ W.to(images.dtype) + BIAS
    return torch.stack([torch.zeros_like(logit), logit], 1)


def distance(adversarial: Tensor, images: Tensor = IMAGES) -> Tensor:
    return (adversarial - images).flatten(1).norm(dim=1)


def to_hyperplane(kappa: float = 0.0) -> Tensor:
    """How far each image is from where the margin is kappa."""
    return ((IMAGES.flatten(1) @ W + BIAS).abs() + kappa) / W.norm()


def test_the_images_of_these_tests_lie_on_both_sides() -> None:
    assert set(LABELS.tolist()) == {0, 1}
    assert torch.equal(linear(IMAGES).argmax(1), LABELS)


@pytest.mark.parametrize("kappa", [0.0, pytest.param(0.1, marks=pytest.mark.slow)])
def test_on_a_linear_model_the_nearest_success_is_at_the_hyperplane(kappa: float) -> None:
    adversarial = cw_search(linear, IMAGES, LABELS, kappa=kappa, searches=6, steps=150)
    assert (margin(linear(adversarial), LABELS) > kappa).all()
    ratio = distance(adversarial) / to_hyperplane(kappa)
    assert (ratio >= 1).all()
    assert (ratio <= 1.02).all()


def test_at_a_small_c_the_last_iterate_rests_at_half_c_times_the_gradient() -> None:
    """Below the hinge, ||d||^2 - c w.d is least at d = c w / 2, if that falls short of the hyperplane."""
    c = 0.5 * float((2 * to_hyperplane() / W.norm()).min())
    adversarial = cw(linear, IMAGES, LABELS, c=c, steps=600, lr=2e-4, keep="last")
    away = (1 - 2 * LABELS).view(3, 1, 1, 1)
    torch.testing.assert_close(adversarial - IMAGES, away * c / 2 * W.view(1, 1, 2, 2), rtol=0.01, atol=1e-5)


def test_at_a_large_c_the_last_iterate_rests_where_the_margin_is_kappa() -> None:
    """To within 5%, since the hinge switches on and off there and Adam goes to and fro."""
    adversarial = cw(linear, IMAGES, LABELS, c=1.0, kappa=0.2, steps=400, lr=2e-3, keep="last")
    torch.testing.assert_close(distance(adversarial), to_hyperplane(0.2), rtol=0.05, atol=0)


@pytest.mark.parametrize("kappa", [0.0, 0.3])
def test_the_descent_is_that_of_the_formula_under_the_adam_of_torch(kappa: float) -> None:
    """The objective of docs/methods.md, differentiated by autograd; pixels at 0 and 1 included."""
    images = IMAGES.clone()
    images[:, 0, 0, 0], images[:, 0, 1, 1] = 0, 1
    w = torch.atanh((2 * images - 1) * 0.999999).requires_grad_()
    adam = torch.optim.Adam([w], lr=0.05)
    for _ in range(30):
        moved = (torch.tanh(w) + 1) / 2
        logits = linear(moved)
        right, wrong = logits.gather(1, LABELS[:, None]), logits.gather(1, 1 - LABELS[:, None])
        loss = ((moved - images) ** 2).sum() + 2.0 * torch.clamp(right - wrong, min=-kappa).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    expected = ((torch.tanh(w) + 1) / 2).detach()
    ours = cw(linear, images, LABELS, c=2.0, kappa=kappa, steps=30, lr=0.05, keep="last")
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9)


def test_what_fails_comes_back_as_it_was() -> None:
    adversarial = cw(linear, IMAGES, LABELS, c=1e-4, steps=50)
    assert torch.equal(adversarial, IMAGES)
    assert not torch.equal(cw(linear, IMAGES, LABELS, c=1e-4, steps=50, keep="last"), IMAGES)


def test_a_tie_is_no_success() -> None:
    labels = torch.tensor([0, 1, 1])
    adversarial = cw_search(lambda x: torch.zeros(len(x), 2), IMAGES, labels, searches=3, steps=5)
    assert torch.equal(adversarial, IMAGES)


def test_what_is_wrong_already_hardly_moves() -> None:
    adversarial = cw(linear, IMAGES, 1 - LABELS, c=1.0, steps=20)
    assert (distance(adversarial) < 1e-5).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixels_at_zero_and_one_can_move(dtype: torch.dtype) -> None:
    images = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=dtype).view(1, 1, 2, 2)
    adversarial = cw(linear, images, torch.tensor([0]), c=1000.0, steps=200, lr=0.1)
    assert margin(linear(adversarial), torch.tensor([0])) > 0
    assert ((adversarial - images).abs() > 0.05).sum() >= 2


def test_each_search_starts_w_and_adam_afresh() -> None:
    """The first c is too small for any success, so that the second search alone must give what is found."""
    options: dict[str, Any] = {"steps": 40, "lr": 0.02}
    assert torch.equal(cw(linear, IMAGES, LABELS, c=0.003, **options), IMAGES)
    alone = cw(linear, IMAGES, LABELS, c=0.03, **options)
    assert not torch.equal(alone, IMAGES)
    assert torch.equal(cw_search(linear, IMAGES, LABELS, c_start=0.003, searches=2, **options), alone)


@pytest.mark.slow
def test_an_image_alone_fares_as_in_a_batch(digits: Any) -> None:
    """The images need different c: some break at the first, others only after it has grown."""
    model = copy.deepcopy(digits.model).double()
    images, labels = digits.images[:6].double(), digits.labels[:6]
    options: dict[str, Any] = {"searches": 4, "steps": 25, "c_start": 0.05, "lr": 0.05}
    together = cw_search(model, images, labels, **options)
    alone = [cw_search(model, images[n : n + 1], labels[n : n + 1], **options) for n in range(6)]
    assert (distance(together, images) > 0).any()
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)


def accuracy(digits: Any, images: Tensor) -> float:
    return float((digits.model(images).argmax(1) == digits.labels[: len(images)]).double().mean())


@pytest.mark.slow
def test_the_c_of_the_report_does_nothing_where_a_search_breaks_everything(digits: Any) -> None:
    """ATTACKS: at c = 1e-4, kappa = 0.01 an undefended network keeps its accuracy."""
    images, labels = digits.images[:100], digits.labels[:100]
    clean = accuracy(digits, images)
    assert clean > 0.9
    assert accuracy(digits, cw(digits.model, images, labels, c=1e-4, kappa=0.01, steps=100)) == clean
    searched = cw_search(digits.model, images, labels, kappa=0.01, searches=4, steps=100, lr=0.05)
    assert accuracy(digits, searched) <= 0.02


@pytest.mark.slow
def test_the_search_finds_norms_as_small_as_those_of_foolbox(digits: Any) -> None:
    images, labels = digits.images[:40], digits.labels[:40]
    peer = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=6, steps=100, stepsize=0.05, initial_const=0.1, abort_early=False
    )
    theirs = peer.run(foolbox.PyTorchModel(digits.model, bounds=(0, 1), device="cpu"), images, labels)
    ours = cw_search(digits.model, images, labels, searches=6, steps=100, lr=0.05, c_start=0.1)
    assert accuracy(digits, theirs) == 0
    assert accuracy(digits, ours) == 0
    assert float(distance(ours, images).median()) <= 1.02 * float(distance(theirs, images).median())


@pytest.mark.slow
def test_a_random_model_is_attacked_through_the_mean_margin_of_its_draws() -> None:
    """Logits with noise +2 in one draw and -2 in the other, so that their mean has none."""

    def noisy(images: Tensor) -> Tensor:
        logits = linear(images)
        half = len(images) // 2
        return logits + torch.stack([torch.zeros(2 * half), torch.tensor([2.0, -2.0]).repeat_interleave(half)], 1)

    adversarial = cw_search(noisy, IMAGES, LABELS, searches=6, steps=150, draws=2)
    ratio = distance(adversarial) / to_hyperplane()
    assert (ratio >= 1).all()
    assert (ratio <= 1.02).all()
