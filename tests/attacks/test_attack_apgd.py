"""Auto-PGD: a slow reference, closed forms, what it returns, random models, targets and classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from attack_cases import seeded
from torch import Tensor, nn

from robustsearch.attacks.apgd import apgd, apgd_targeted, checkpoints
from robustsearch.attacks.objectives import Objective, cross_entropy, dlr, margin, targeted_dlr
from robustsearch.attacks.starts import uniform_in_ball
from robustsearch.recipe import Norm

NORMS: tuple[Norm, ...] = ("linf", "l2")


@pytest.mark.parametrize("steps", [1, 2, 7, 40, 100, 1000])
def test_checkpoints_are_those_of_the_recursion_in_fractions(steps: int) -> None:
    before, share, expected = Fraction(0), Fraction(22, 100), set()
    while share < 1:
        expected.add(math.ceil(share * steps))
        before, share = share, share + max(share - before - Fraction(3, 100), Fraction(6, 100))
    assert checkpoints(steps) == sorted(expected)


# A slow reference


def project(x: np.ndarray, image: np.ndarray, norm: Norm, epsilon: float) -> np.ndarray:
    """Into the ball, then into [0, 1], pixel by pixel."""
    offset = x - image
    if norm == "linf":
        offset = np.array([min(max(value, -epsilon), epsilon) for value in offset])
    elif math.sqrt(sum(offset**2)) > epsilon:
        offset = offset * epsilon / math.sqrt(sum(offset**2))
    return np.array([min(max(value, 0.0), 1.0) for value in image + offset])


def slow_apgd(
    at: Callable[[np.ndarray, int], tuple[float, np.ndarray]],
    image: np.ndarray,
    start: np.ndarray,
    *,
    norm: Norm,
    epsilon: float,
    steps: int,
) -> tuple[list[np.ndarray], list[str]]:
    """Algorithm 1 on one image `[d]`: all iterates, and what each checkpoint decided.

    `at` gives the objective and its gradient at a point, which is iterate k.
    """
    x = [project(start, image, norm, epsilon)]
    points = [(*at(x[0], 0), x[0])]  # as seen: value, gradient, iterate
    values, eta, decided, w = [points[0][0]], [2 * epsilon], [], 0
    for k in range(steps):
        gradient = points[k][1]
        eta.append(eta[k])
        if k in checkpoints(steps):
            few_rises = sum(values[i + 1] > values[i] for i in range(w, k)) < 0.75 * (k - w)
            highest = max(points, key=lambda point: point[0])
            stalled = eta[w] == eta[k] and highest[0] == max(value for value, _, _ in points[: w + 1])
            decided.append("few rises" if few_rises else "stalled" if stalled else "neither")
            if few_rises or stalled:
                eta[k + 1] = eta[k] / 2
                values[k], gradient, x[k] = highest
            w = k
        direction = np.sign(gradient) if norm == "linf" else gradient / math.sqrt(sum(gradient**2))
        z = project(x[k] + eta[k + 1] * direction, image, norm, epsilon)
        if k:
            z = project(x[k] + 0.75 * (z - x[k]) + 0.25 * (x[k] - x[k - 1]), image, norm, epsilon)
        x.append(z)
        points.append((*at(z, k + 1), z))
        values.append(points[-1][0])
    return [iterate for _, _, iterate in points], decided


class Recorder:
    """The model, with every batch and its logits."""

    def __init__(self, model: Callable[[Tensor], Tensor]) -> None:
        self._model = model
        self.images: list[Tensor] = []
        self.logits: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        logits = self._model(images)
        self.images.append(images.detach().clone())
        self.logits.append(logits.detach())
        return logits


@pytest.mark.parametrize("norm", NORMS)
def test_all_iterates_on_a_network_are_those_of_a_slow_reference(norm: Norm) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(5, 8)), rng.normal(size=(3, 5))
    images, labels = rng.uniform(size=(6, 8)).round(1), rng.integers(3, size=6)  # some pixels near 0 and 1
    layers, batch = (torch.from_numpy(first), torch.from_numpy(second)), torch.from_numpy(images).view(6, 2, 2, 2)
    model = Recorder(lambda x: torch.tanh(x.flatten(1) @ layers[0].T) @ layers[1].T)
    options: dict[str, Any] = {"norm": norm, "epsilon": 0.3, "steps": 20}
    apgd(model, batch, torch.from_numpy(labels), generator=seeded(1), **options)
    starts = uniform_in_ball(norm, epsilon=0.3, generator=seeded(1))(batch).flatten(1).numpy()
    for n, (image, label) in enumerate(zip(images, labels, strict=True)):

        def cross_entropy_at(x: np.ndarray, k: int, label: int = label) -> tuple[float, np.ndarray]:
            hidden = np.tanh(first @ x)
            p = np.exp(second @ hidden)
            p = p / p.sum()
            slope = second.T @ (p - np.eye(3)[label])
            return -math.log(p[label]), first.T @ (slope * (1 - hidden**2))

        expected, _ = slow_apgd(cross_entropy_at, image, starts[n], **options)
        np.testing.assert_allclose([x[n].flatten() for x in model.images], expected, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_all_iterates_on_scripted_values_are_those_of_a_slow_reference(norm: Norm) -> None:
    """Values and gradients by the number of the iterate: many small rises and rare deep falls meet every case."""
    n, steps, rng = 40, 60, np.random.default_rng(0)
    values = np.where(rng.uniform(size=(steps + 1, n)) < 0.9, 1.0, -8.0).cumsum(0)
    gradients = rng.normal(size=(steps + 1, n, 4))
    images = torch.from_numpy(rng.uniform(size=(n, 1, 2, 2)))
    model = Recorder(lambda x: x.flatten(1))

    def scripted(logits: Tensor, labels: Tensor) -> Tensor:
        k = len(model.images) - 1
        slope = (logits - logits.detach()) * torch.from_numpy(gradients[k])
        return torch.from_numpy(values[k]) + slope.sum(1)

    options: dict[str, Any] = {"norm": norm, "epsilon": 0.2, "steps": steps}
    apgd(model, images, torch.zeros(n, dtype=torch.int64), objective=scripted, generator=seeded(1), **options)
    starts = uniform_in_ball(norm, epsilon=0.2, generator=seeded(1))(images).flatten(1).numpy()
    cases = set()
    for i in range(n):

        def script_at(x: np.ndarray, k: int, i: int = i) -> tuple[float, np.ndarray]:
            return values[k, i], gradients[k, i]

        expected, decided = slow_apgd(script_at, images[i].flatten().numpy(), starts[i], **options)
        np.testing.assert_allclose([x[i].flatten() for x in model.images], expected, atol=1e-9)
        cases |= set(decided)
    assert cases == {"few rises", "stalled", "neither"}


# Closed forms


class Linear(nn.Module):
    """Two logits, 0 and w.x + b."""

    def __init__(self, pixels: int = 12) -> None:
        super().__init__()
        self.w = torch.linspace(-1, 1.2, pixels, dtype=torch.float64)

    def forward(self, images: Tensor) -> Tensor:
        logit = images.flatten(1).double() @ self.w - 0.3
        return torch.stack([torch.zeros_like(logit), logit], 1)


IMAGES = 0.3 + 0.4 * torch.rand((4, 3, 2, 2), generator=seeded(), dtype=torch.float64)
LABELS = torch.tensor([0, 1, 0, 1])
SIGN = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64).view(4, 1, 1, 1)


def farthest(norm: Norm, epsilon: float) -> Tensor:
    """The point of the ball where the margin of `Linear` is highest."""
    w = Linear().w
    along = w.sign() if norm == "linf" else w / w.norm()
    return IMAGES + epsilon * SIGN * along.view(1, 3, 2, 2)


@pytest.mark.parametrize("objective", [cross_entropy, margin])
@pytest.mark.parametrize("norm", NORMS)
def test_on_a_linear_model_of_two_classes_it_reaches_the_farthest_point(norm: Norm, objective: Objective) -> None:
    ours = apgd(Linear(), IMAGES, LABELS, epsilon=0.2, norm=norm, steps=30, objective=objective, generator=seeded())
    torch.testing.assert_close(ours, farthest(norm, 0.2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("expand", [True, False])
def test_a_random_model_is_attacked_through_the_mean_of_its_draws(expand: bool) -> None:
    """Weights w + v in one draw and w - v in the other, and v is the larger: only their mean shows w."""
    v = 3 * torch.randn(12, generator=seeded(1), dtype=torch.float64)
    rows, passes = [], [0]

    def model(images: Tensor) -> Tensor:
        passes[0] += 1
        rows.append(len(images))
        half = torch.arange(len(images)) < len(images) // 2 if expand else torch.tensor([passes[0] % 2 == 1])
        noise = torch.where(half, 1.0, -1.0) * (images.flatten(1) @ v)
        return Linear()(images) + torch.stack([torch.zeros_like(noise), noise], 1)

    options: dict[str, Any] = {"epsilon": 0.2, "steps": 20, "objective": margin, "expand": expand}
    two = apgd(model, IMAGES, LABELS, draws=2, generator=seeded(), **options)
    torch.testing.assert_close(two, farthest("linf", 0.2), rtol=0, atol=1e-6)
    assert rows == ([8] * 21 if expand else [4] * 42), "20 steps and the last point, two predictions each"
    one = apgd(model, IMAGES, LABELS, draws=1, generator=seeded(), **options)
    assert (one - two).abs().amax() > 0.1


# What it returns


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("objective", [cross_entropy, dlr])
def test_it_returns_the_point_with_the_highest_margin_of_all_runs(
    norm: Norm, objective: Objective, digits: Any
) -> None:
    images, labels = digits.images[:50], digits.labels[:50]
    model = Recorder(digits.model)
    epsilon = {"linf": 0.08, "l2": 0.5}[norm]
    ours = apgd(
        model, images, labels, epsilon=epsilon, norm=norm, steps=12, objective=objective, restarts=2, generator=seeded()
    )
    assert len(model.images) == 2 * 13
    margins = torch.stack([margin(logits, labels) for logits in model.logits])
    chosen = torch.stack(model.images)[margins.argmax(0), torch.arange(50)]
    assert torch.equal(ours, chosen)
    wrong = torch.stack([logits.argmax(1) != labels for logits in model.logits]).any(0)
    assert torch.equal(digits.model(ours).argmax(1) != labels, wrong)
    assert 0.1 < wrong.double().mean() < 0.9


def test_restarts_never_lower_the_margin_and_raise_it_for_some(digits: Any) -> None:
    images, labels = digits.images[:100], digits.labels[:100]
    options: dict[str, Any] = {"epsilon": 0.1, "steps": 5}
    margins = [
        margin(digits.model(apgd(digits.model, images, labels, restarts=n, generator=seeded(), **options)), labels)
        for n in (1, 2, 4)
    ]
    assert (margins[1] >= margins[0]).all()
    assert (margins[2] >= margins[1]).all()
    assert (margins[2] > margins[0] + 0.01).any()


def test_an_image_has_no_influence_on_another(make_net: Callable[..., nn.Module]) -> None:
    """The generator draws for the whole batch, so the other images are exchanged rather than left out."""
    net = make_net().eval()
    images = torch.rand((6, 3, 6, 6), generator=seeded(), dtype=torch.float64)
    labels = torch.arange(6) % 4
    others = torch.cat([images[:3], images[3:].flip(2)])
    for norm in NORMS:
        options: dict[str, Any] = {"epsilon": 0.3, "norm": norm, "steps": 20}
        results = [apgd(net, batch, labels, generator=seeded(), **options)[:3] for batch in (images, others)]
        torch.testing.assert_close(*results, rtol=0, atol=1e-9)


def test_a_generator_decides_the_start() -> None:
    results = [apgd(Linear(), IMAGES, LABELS, epsilon=0.2, steps=1, norm="l2", generator=seeded(n)) for n in (0, 0, 1)]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


# Logits of any kind


@pytest.mark.parametrize("norm", NORMS)
def test_with_logit_ratios_neither_shift_nor_scale_change_anything(
    norm: Norm, make_net: Callable[..., nn.Module]
) -> None:
    """A factor that is a power of two is exact; a shift is not, so that only a few steps can be compared."""
    net = make_net().eval()
    images = torch.rand((6, 3, 6, 6), generator=seeded(), dtype=torch.float64)
    labels = net(images).argmax(1)
    options: dict[str, Any] = {"epsilon": 0.1, "norm": norm, "steps": 6}
    attacks: list[Callable[[Callable[[Tensor], Tensor]], Tensor]] = [
        lambda model: apgd(model, images, labels, objective=dlr, generator=seeded(), **options),
        lambda model: apgd_targeted(model, images, labels, classes=4, generator=seeded(), **options),
    ]
    for attack in attacks:
        expected = attack(net)
        torch.testing.assert_close(attack(lambda x: 2.0**20 * net(x)), expected)
        torch.testing.assert_close(attack(lambda x: net(x) + 100), expected)
        torch.testing.assert_close(attack(lambda x: net(x).log_softmax(1)), expected)
    saturated = apgd(lambda x: 2.0**20 * net(x), images, labels, generator=seeded(), **options)
    assert (margin(net(saturated), labels) < margin(net(attacks[0](net)), labels)).any()


# Targets


def test_one_target_is_the_likeliest_wrong_class(digits: Any) -> None:
    """Also where the prediction is wrong already: then the target is what is predicted."""
    images, labels = digits.images[:40], digits.labels[:40].clone()
    labels[:5] = (labels[:5] + 1) % 10
    second = digits.model(images).scatter(1, labels.unsqueeze(1), -torch.inf).argmax(1)
    options: dict[str, Any] = {"epsilon": 0.1, "steps": 6}
    ours = apgd_targeted(digits.model, images, labels, classes=10, targets=1, generator=seeded(), **options)
    towards = apgd(digits.model, images, labels, objective=targeted_dlr(second), generator=seeded(), **options)
    assert torch.equal(ours, towards)


def test_each_wrong_class_is_a_target_once(make_net: Callable[..., nn.Module]) -> None:
    """Four classes: with three targets or more, every image is driven towards each wrong class."""
    net = make_net().eval()
    images = torch.rand((8, 3, 6, 6), generator=seeded(), dtype=torch.float64)
    labels = torch.arange(8) % 4
    order = net(images).scatter(1, labels.unsqueeze(1), -torch.inf).argsort(1, descending=True)
    assert (order[:, 3] == labels).all()
    options: dict[str, Any] = {"epsilon": 0.2, "steps": 6}
    generator = seeded()
    each = [
        apgd(net, images, labels, objective=targeted_dlr(order[:, rank]), generator=generator, **options)
        for rank in range(3)
    ]
    best = torch.stack([margin(net(adversarial), labels) for adversarial in each]).argmax(0)
    assert len(best.unique()) > 1, "the best target must differ between images for this to mean something"
    expected = torch.stack(each)[best, torch.arange(8)]
    for targets in (3, 9):
        ours = apgd_targeted(net, images, labels, classes=4, targets=targets, generator=seeded(), **options)
        assert torch.equal(ours, expected)


def test_targets_are_chosen_by_the_mean_log_probability_of_a_random_model() -> None:
    """Class 2 is second in two draws of three, class 1 in the mean."""
    draws = torch.tensor([[9.0, 3.0, 4.0, 0.0], [9.0, 3.0, 4.0, 0.0], [9.0, 8.0, 0.0, 0.0]], dtype=torch.float64)
    calls = [0]
    pull = torch.zeros(4, 4, dtype=torch.float64)
    pull[1, 0], pull[2, 1] = 9.0, 9.0  # the first pixel raises class 1, the second class 2

    def model(images: Tensor) -> Tensor:
        calls[0] += 1
        return draws[calls[0] % 3] + images.flatten(1) @ pull.T

    image = torch.zeros((1, 1, 2, 2), dtype=torch.float64)
    options: dict[str, Any] = {"epsilon": 0.5, "steps": 10, "draws": 3, "expand": False}
    ours = apgd_targeted(model, image, torch.tensor([0]), classes=4, targets=1, generator=seeded(), **options)
    assert ours[0, 0, 0, 0] == 0.5
    assert ours[0, 0, 0, 1] < 0.5


def test_too_few_classes_for_the_logit_ratios_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^dlr needs at least 3 classes, but got 2$"):
        apgd(Linear(), IMAGES, LABELS, epsilon=0.2, objective=dlr, generator=seeded())
    for classes in (2, 3):
        with pytest.raises(ValueError, match=f"`classes >= 4` must hold for the targeted DLR, but got {classes}$"):
            apgd_targeted(Linear(), IMAGES, LABELS, classes=classes, epsilon=0.2, generator=seeded())
