"""Noise, FGSM and PGD with their parts: closed forms, a slow reference, foolbox, laws and properties."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from attack_cases import NORMS, lengths, seeded
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor, nn

from robustsearch.attacks.apgd import apgd, apgd_targeted
from robustsearch.attacks.carlini_wagner import cw, cw_search
from robustsearch.attacks.named import fgsm, noise, pgd
from robustsearch.attacks.objectives import Objective, cross_entropy, dlr, margin
from robustsearch.attacks.square import square
from robustsearch.recipe import Norm

with warnings.catch_warnings():
    # foolbox 3.3.4 (dormant) imports scipy.ndimage.filters, which scipy deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    import foolbox

# Attacks of a given epsilon


class Linear(nn.Module):
    """Two logits, 0 and w.x + b: cross-entropy at label 0 grows along w, at label 1 along -w."""

    def __init__(self, pixels: int = 12, *, bias: float = 0.0) -> None:
        super().__init__()
        self.w = torch.linspace(-1, 1.2, pixels, dtype=torch.float64)
        self.bias = bias

    def forward(self, images: Tensor) -> Tensor:
        logit = images.flatten(1).double() @ self.w + self.bias
        return torch.stack([torch.zeros_like(logit), logit], 1)


@pytest.mark.parametrize("objective", [cross_entropy, margin])
def test_on_a_linear_model_fgsm_and_pgd_reach_the_farthest_point_of_the_ball(objective: Objective) -> None:
    model = Linear()
    images = 0.3 + 0.4 * torch.rand((4, 3, 2, 2), generator=seeded(), dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1])
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64).view(4, 1, 1, 1)
    along = {"linf": model.w.sign(), "l2": model.w / model.w.square().sum().sqrt()}
    for norm in NORMS:
        expected = images + 0.2 * sign * along[norm].view(1, 3, 2, 2)
        common: dict[str, Any] = {"epsilon": 0.2, "norm": norm, "objective": objective}
        torch.testing.assert_close(fgsm(model, images, labels, **common), expected)
        at_rest = pgd(model, images, labels, step=0.05, steps=4, random_start=False, **common)
        torch.testing.assert_close(at_rest, expected)
    # From anywhere in the cube every pixel reaches its corner in 2 * epsilon / step steps.
    random = pgd(model, images, labels, epsilon=0.2, step=0.05, steps=8, generator=seeded(), objective=objective)
    torch.testing.assert_close(random, images + 0.2 * sign * along["linf"].view(1, 3, 2, 2))


def test_pixels_at_the_ends_of_the_range_move_inwards_only() -> None:
    model = Linear(pixels=4)  # w = -1, -0.27, 0.47, 1.2
    images = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]], dtype=torch.float64)
    expected = torch.tensor([[[[0.0, 0.7], [0.3, 1.0]]]], dtype=torch.float64)
    torch.testing.assert_close(fgsm(model, images, torch.tensor([0]), epsilon=0.3), expected)


def slow_pgd(
    image: np.ndarray,
    label: int,
    first: np.ndarray,
    second: np.ndarray,
    *,
    norm: Norm,
    epsilon: float,
    step: float,
) -> np.ndarray:
    """Three PGD steps on logits = second @ tanh(first @ x), pixel by pixel, the gradient by hand."""
    x = image.copy()
    for _ in range(3):
        hidden = np.tanh(first @ x)
        logits = second @ hidden
        p = np.exp(logits) / np.exp(logits).sum()
        p[label] -= 1
        gradient = np.zeros_like(x)
        for i in range(len(x)):
            for j in range(len(hidden)):
                for k in range(len(p)):
                    gradient[i] += p[k] * second[k, j] * (1 - hidden[j] ** 2) * first[j, i]
        if norm == "linf":
            for i in range(len(x)):
                x[i] += step if gradient[i] > 0 else -step
                x[i] = min(max(x[i], image[i] - epsilon), image[i] + epsilon)
        else:
            x = x + step * gradient / np.sqrt((gradient**2).sum())
            offset = x - image
            length = np.sqrt((offset**2).sum())
            x = image + offset * min(1.0, epsilon / length)
        for i in range(len(x)):
            x[i] = min(max(x[i], 0.0), 1.0)
    return x


@pytest.mark.parametrize("norm", NORMS)
def test_three_steps_of_pgd_are_those_of_a_slow_reference(norm: Norm) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(5, 8)), rng.normal(size=(3, 5))
    images, labels = rng.uniform(size=(4, 8)).round(1), np.array([0, 1, 2, 0])  # some pixels near 0 and 1
    layers = torch.from_numpy(first), torch.from_numpy(second)

    def model(x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1) @ layers[0].T) @ layers[1].T

    ours = pgd(
        model,
        torch.from_numpy(images).view(4, 2, 2, 2),
        torch.from_numpy(labels),
        epsilon=0.25,
        step=0.11,
        steps=3,
        norm=norm,
        random_start=False,
    )
    for n in range(4):
        slow = slow_pgd(images[n], labels[n], first, second, norm=norm, epsilon=0.25, step=0.11)
        np.testing.assert_allclose(ours[n].flatten(), slow, atol=1e-12)


def test_fgsm_and_pgd_are_those_of_foolbox(digits: Any) -> None:
    peer = foolbox.PyTorchModel(digits.model, bounds=(0, 1), device="cpu")
    images, labels = digits.images[:100], digits.labels[:100]
    ours = {
        "fgsm": fgsm(digits.model, images, labels, epsilon=0.1),
        "linf": pgd(digits.model, images, labels, epsilon=0.1, step=0.03, steps=7, random_start=False),
        "l2": pgd(digits.model, images, labels, epsilon=0.7, step=0.2, steps=7, norm="l2", random_start=False),
    }
    pgd_options = {"steps": 7, "random_start": False}
    theirs = {
        "fgsm": (foolbox.attacks.LinfFastGradientAttack(random_start=False), 0.1),
        "linf": (foolbox.attacks.LinfProjectedGradientDescentAttack(abs_stepsize=0.03, **pgd_options), 0.1),
        "l2": (foolbox.attacks.L2ProjectedGradientDescentAttack(abs_stepsize=0.2, **pgd_options), 0.7),
    }
    for name, (attack, epsilon) in theirs.items():
        expected = attack.run(peer, images, labels, epsilon=epsilon)
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=1e-5, msg=f"{name} differs from foolbox")
        accuracy = float((digits.model(ours[name]).argmax(1) == labels).double().mean())
        assert accuracy < 0.9, f"{name} must do something for its equality to mean something"


@pytest.mark.parametrize("norm", NORMS)
def test_best_is_never_below_any_iterate(norm: Norm, digits: Any) -> None:
    """Steps longer than the ball overshoot, so that for some image the last iterate is not the best."""
    images, labels = digits.images[:60], digits.labels[:60]

    def attack(steps: int, **keep: Any) -> Tensor:
        adversarial = pgd(
            digits.model,
            images,
            labels,
            epsilon=0.3,
            step=0.6,
            steps=steps,
            norm=norm,
            generator=seeded(),
            **keep,
        )
        return cross_entropy(digits.model(adversarial), labels)

    best = attack(5, keep="best")
    iterates = torch.stack([attack(steps) for steps in range(1, 6)])
    torch.testing.assert_close(torch.maximum(best, iterates.amax(0)), best)
    assert (best > iterates[-1] + 1e-3).any()


def test_a_generator_decides_the_random_start() -> None:
    model, images, labels = Linear(), torch.full((2, 3, 2, 2), 0.5), torch.tensor([0, 1])
    results = [pgd(model, images, labels, epsilon=0.3, step=0.1, steps=3, generator=seeded(seed)) for seed in (0, 0, 1)]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_pgd_needs_a_generator_for_a_random_start() -> None:
    with pytest.raises(ValueError, match="`generator` must be given"):
        pgd(Linear(), torch.zeros(1, 3, 2, 2), torch.tensor([0]), epsilon=0.3, step=0.1, steps=3)


def test_pgd_refuses_a_ball_that_it_cannot_reach() -> None:
    """The report's own settings."""
    images, labels = torch.full((1, 3, 2, 2), 0.5), torch.tensor([0])
    report: dict[str, Any] = {"epsilon": 0.3, "step": 0.01, "steps": 3, "random_start": False}
    with pytest.raises(ValueError, match=r"`steps \* step >= epsilon` must hold.*3 \* 0.01 < 0.3"):
        pgd(Linear(), images, labels, **report)
    moved = pgd(Linear(), images, labels, **report, allow_unreachable=True) - images
    torch.testing.assert_close(moved.abs().amax(), torch.tensor(0.03))
    rounded: dict[str, Any] = {"epsilon": 0.1, "step": 0.1 / 19, "steps": 19, "random_start": False}
    assert rounded["steps"] * rounded["step"] < rounded["epsilon"], "only by rounding: that is no reason to refuse"
    pgd(Linear(), images, labels, **rounded)


@pytest.mark.parametrize("norm", NORMS)
def test_noise_is_uniform_in_the_ball(norm: Norm) -> None:
    images = torch.full((3000, 1, 1, 2), 0.5, dtype=torch.float64)
    offsets = noise(images, epsilon=0.3, norm=norm, generator=seeded()) - images
    assert kstest((lengths(offsets, norm) / 0.3) ** 2, "uniform").pvalue > 1e-3


# Properties of every attack

ATTACKS: dict[str, Callable[..., Tensor]] = {
    "noise": lambda model, x, y, epsilon, norm: noise(x, epsilon=epsilon, norm=norm, generator=seeded()),
    "fgsm": lambda model, x, y, epsilon, norm: fgsm(model, x, y, epsilon=epsilon, norm=norm),
    "pgd": lambda model, x, y, epsilon, norm: pgd(
        model, x, y, epsilon=epsilon, step=epsilon, steps=2, norm=norm, generator=seeded(), keep="best"
    ),
    "margin pgd": lambda model, x, y, epsilon, norm: pgd(
        model, x, y, epsilon=epsilon, step=epsilon, steps=2, norm=norm, objective=margin, random_start=False
    ),
    "cw": lambda model, x, y, epsilon, norm: cw(model, x, y, c=1.0, steps=3),
    "cw last": lambda model, x, y, epsilon, norm: cw(model, x, y, c=1.0, kappa=0.01, steps=3, keep="last"),
    "cw_search": lambda model, x, y, epsilon, norm: cw_search(model, x, y, searches=2, steps=2),
    "apgd": lambda model, x, y, epsilon, norm: apgd(
        model, x, y, epsilon=epsilon, norm=norm, steps=5, generator=seeded()
    ),
    "dlr apgd": lambda model, x, y, epsilon, norm: apgd(
        model, x, y, epsilon=epsilon, norm=norm, steps=5, objective=dlr, restarts=2, generator=seeded()
    ),
    "apgd_targeted": lambda model, x, y, epsilon, norm: apgd_targeted(
        model, x, y, classes=10, targets=2, epsilon=epsilon, norm=norm, steps=3, generator=seeded()
    ),
    "square": lambda model, x, y, epsilon, norm: square(
        model, x, y, epsilon=epsilon, norm=norm, queries=8, generator=seeded()
    ),
}
LEAST_CLASSES = {"dlr apgd": 3, "apgd_targeted": 10}
OUTPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "logits": lambda z: z,
    "shifted": lambda z: z + 1000,
    "times 1000": lambda z: 1000 * z,
    "log-probabilities": lambda z: z.log_softmax(1),
    "constant": lambda z: 0 * z,
    "probabilities": lambda z: (1000 * z).softmax(1),
    "no gradient": lambda z: z.detach(),
    "infinite": lambda z: z.log_softmax(1) - torch.inf * (z.detach() > 0),
    "NaN gradient": lambda z: (z - z.detach()).abs().sqrt() + z,
}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(ATTACKS)),
    output=st.sampled_from(sorted(OUTPUTS)),
    norm=st.sampled_from(NORMS),
    epsilon=st.sampled_from([0.0, 1e-3, 8 / 255, 0.3, 1.0, 5.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    shape=st.tuples(st.integers(0, 3), st.sampled_from([1, 3]), st.integers(1, 3), st.integers(1, 3)),
    classes=st.sampled_from([2, 3, 10]),
    seed=st.integers(0, 1000),
)
def test_a_result_is_an_image_in_the_ball(
    name: str,
    output: str,
    norm: Norm,
    epsilon: float,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    classes: int,
    seed: int,
) -> None:
    assume(classes >= LEAST_CLASSES.get(name, 2))
    generator = seeded(seed)
    images = torch.rand(shape, generator=generator, dtype=dtype).mul(1.6).sub(0.3).clamp(0, 1)  # many at 0 and 1
    labels = torch.randint(classes, shape[:1], generator=generator)
    weight = torch.randn((classes, images.shape[1:].numel()), generator=generator, dtype=dtype)
    before, state = images.clone(), torch.get_rng_state()
    adversarial = ATTACKS[name](lambda x: OUTPUTS[output](x.flatten(1) @ weight.T), images, labels, epsilon, norm)
    assert adversarial.shape == images.shape
    assert adversarial.dtype == dtype
    assert not adversarial.requires_grad
    assert adversarial.isfinite().all()
    assert ((adversarial >= 0) & (adversarial <= 1)).all()
    if not name.startswith("cw"):
        assert (lengths(adversarial - images, norm) <= epsilon + 1e-6).all()
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("norm", NORMS)
def test_shifted_logits_and_log_probabilities_change_nothing(norm: Norm, make_net: Callable[..., nn.Module]) -> None:
    net = make_net().eval()
    images = torch.rand((6, 3, 6, 6), generator=seeded(), dtype=torch.float64)
    labels = torch.arange(6) % 4
    for objective in (cross_entropy, margin):
        options: dict[str, Any] = {
            "epsilon": 0.1,
            "step": 0.05,
            "steps": 4,
            "norm": norm,
            "objective": objective,
        }
        expected = pgd(net, images, labels, random_start=False, **options)
        for output in ("shifted", "log-probabilities"):
            model = lambda x, change=OUTPUTS[output]: change(net(x))  # noqa: E731
            torch.testing.assert_close(pgd(model, images, labels, random_start=False, **options), expected)


@pytest.mark.parametrize("norm", NORMS)
def test_the_margin_does_not_see_the_scale_of_the_logits(norm: Norm, make_net: Callable[..., nn.Module]) -> None:
    """Large logits saturate cross-entropy, which masks a network, but not the margin."""
    net = make_net().eval()
    images = torch.rand((6, 3, 6, 6), generator=seeded(), dtype=torch.float64)
    labels = net(images).argmax(1)
    options: dict[str, Any] = {"epsilon": 0.1, "step": 0.05, "steps": 4, "norm": norm, "random_start": False}
    scaled = lambda x: 1e5 * net(x)  # noqa: E731
    expected = pgd(net, images, labels, objective=margin, **options)
    torch.testing.assert_close(pgd(scaled, images, labels, objective=margin, **options), expected)
    saturated = pgd(scaled, images, labels, **options)
    assert (saturated == images).flatten(1).all(1).any(), "saturated cross-entropy has no gradient left"
