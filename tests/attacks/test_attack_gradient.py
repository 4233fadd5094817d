"""The averaged gradient: closed form, law, and that nothing outside is touched."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor, nn

from robustsearch.attacks.apgd import apgd, apgd_targeted
from robustsearch.attacks.carlini_wagner import cw, cw_search
from robustsearch.attacks.gradient import crafting, input_gradient, objective_values
from robustsearch.attacks.named import fgsm, noise, pgd
from robustsearch.attacks.objectives import cross_entropy, margin
from robustsearch.attacks.square import square

MakeNet = Callable[..., nn.Module]


def a_batch(n: int = 5, channels: int = 3, size: int = 6, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    images = torch.rand((n, channels, size, size), generator=generator, dtype=torch.float64)
    return images, torch.randint(classes, (n,), generator=generator)


class Noisy:
    """Logits `W (r * x)`; r is Gaussian around 1, drawn and recorded for each image or each pass."""

    def __init__(self, *, per_image: bool = True, seed: int = 0) -> None:
        self.weight = torch.tensor([[1.0, -2.0], [0.5, 1.0], [-1.0, 0.3]], dtype=torch.float64)
        self.per_image = per_image
        self.generator = torch.Generator().manual_seed(seed)
        self.draws: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        rows = len(images) if self.per_image else 1
        r = 1 + torch.randn((rows, 2), generator=self.generator, dtype=torch.float64)
        self.draws.append(r.expand(len(images), 2))
        return (r * images.flatten(1)) @ self.weight.T


@pytest.mark.parametrize("expand", [True, False])
@pytest.mark.parametrize("per_image", [True, False])
def test_gradient_is_the_mean_of_the_gradients_of_separate_draws(expand: bool, per_image: bool) -> None:
    """By hand: the gradient of cross-entropy is r * W^T (softmax(W (r * x)) - onehot(y)) for each draw r."""
    images = torch.tensor([[[[0.2, 0.9]]], [[[0.7, 0.1]]], [[[0.0, 1.0]]]], dtype=torch.float64)
    labels = torch.tensor([0, 2, 1])
    model = Noisy(per_image=per_image)
    gradient, values = input_gradient(model, images, labels, cross_entropy, draws=4, expand=expand)
    assert len(model.draws) == (1 if expand else 4)
    draws = torch.cat(model.draws).view(4, 3, 2)
    expected, losses = torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for r in draws:
        for n in range(3):
            p = torch.softmax(model.weight @ (r[n] * images[n].flatten()), 0)
            losses[n] -= p[labels[n]].log() / 4
            p[labels[n]] -= 1
            expected[n] += r[n] * (model.weight.T @ p) / 4
    torch.testing.assert_close(gradient.flatten(1), expected)
    torch.testing.assert_close(values, losses)


def test_expanding_and_looping_have_one_law() -> None:
    """Kolmogorov-Smirnov on 2 x 1000 averaged gradients of one pixel, level 0.001."""
    images, labels = (
        torch.full((1000, 1, 1, 2), 0.6, dtype=torch.float64),
        torch.zeros(1000, dtype=torch.int64),
    )
    samples = [
        input_gradient(Noisy(seed=seed), images, labels, cross_entropy, draws=3, expand=expand)[0][:, 0, 0, 0]
        for seed, expand in ((1, True), (2, False))
    ]
    assert ks_2samp(*samples).pvalue > 1e-3
    single = input_gradient(Noisy(seed=3), images, labels, cross_entropy)[0][:, 0, 0, 0]
    assert ks_2samp(single, samples[0]).pvalue < 1e-3, "three draws must differ in law from one"


def test_signs_agree_with_the_mean_gradient_s_as_often_as_the_normal_law_says() -> None:
    """Slopes g + s N(0, 1): K draws have the sign of g with probability Phi(sqrt(K) |g| / s); 20,000 pixels each."""
    g, generator = torch.tensor([0.4, -0.2], dtype=torch.float64), torch.Generator().manual_seed(0)

    def noisy(images: Tensor) -> Tensor:
        slopes = g + torch.randn((len(images), 2), generator=generator, dtype=torch.float64)
        logit = (images.flatten(1) * slopes).sum(1)
        return torch.stack([torch.zeros_like(logit), logit], 1)

    images = torch.full((10_000, 1, 1, 2), 0.5, dtype=torch.float64)
    labels = torch.zeros(len(images), dtype=torch.int64)
    for draws in (1, 4, 8, 20):
        gradient, _ = input_gradient(noisy, images, labels, margin, draws=draws)
        agreement = float((gradient.flatten(1).sign() == g.sign()).double().mean())
        expected = float(torch.special.ndtr(draws**0.5 * g.abs()).mean())
        assert agreement == pytest.approx(expected, abs=0.012)  # four standard errors


@pytest.mark.slow
def test_a_draw_that_a_pass_shares_is_averaged_by_the_loop_only() -> None:
    images, labels = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64), torch.tensor([0])

    def variance(expand: bool) -> float:
        model = Noisy(per_image=False)
        gradients = [input_gradient(model, images, labels, margin, draws=16, expand=expand)[0] for _ in range(100)]
        return float(torch.stack(gradients).var(0).sum())

    # Sixteen independent draws divide the variance by sixteen; F(99, 99) exceeds 3 with a chance below 1e-6.
    assert variance(expand=True) > 16 / 3 * variance(expand=False)


def test_values_without_a_gradient_are_the_same_values() -> None:
    images, labels = torch.full((4, 1, 1, 2), 0.3, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    for expand in (True, False):
        _, values = input_gradient(Noisy(), images, labels, margin, draws=5, expand=expand)
        alone = objective_values(Noisy(), images, labels, margin, draws=5, expand=expand)
        torch.testing.assert_close(alone, values)


def test_an_image_has_no_influence_on_the_gradient_of_another(make_net: MakeNet) -> None:
    net = make_net().eval()
    images, labels = a_batch()
    together, _ = input_gradient(net, images, labels, cross_entropy)
    alone = [input_gradient(net, images[n : n + 1], labels[n : n + 1], cross_entropy)[0] for n in range(len(images))]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda x: torch.ones(len(x), 3), id="constant"),
        pytest.param(lambda x: x.detach().flatten(1)[:, :3], id="stopped gradient"),
        pytest.param(lambda x: nn.Parameter(torch.ones(3)).expand(len(x), 3), id="unused pixels"),
        pytest.param(lambda x: (x > 0.5).double().flatten(1)[:, :3], id="quantised"),
    ],
)
def test_where_no_gradient_comes_through_it_is_zero(model: Callable[[Tensor], Tensor]) -> None:
    images, labels = a_batch(classes=3)
    gradient, values = input_gradient(model, images, labels, cross_entropy, draws=2)
    assert not gradient.any()
    assert values.isfinite().all()


def test_no_images_have_no_gradient_even_where_the_model_cannot_take_none() -> None:
    def model(images: Tensor) -> Tensor:
        return images.reshape(len(images), -1)

    images, labels = a_batch()
    with pytest.raises(RuntimeError, match="reshape"):
        model(images[:0])
    gradient, values = input_gradient(model, images[:0], labels[:0], cross_entropy, draws=2)
    assert gradient.shape == (0, 3, 6, 6)
    assert values.shape == objective_values(model, images[:0], labels[:0], margin).shape == (0,)


def test_channels_last_images_stay_so() -> None:
    seen = []

    def model(images: Tensor) -> Tensor:
        seen.append(images.is_contiguous(memory_format=torch.channels_last))
        return images.mean((2, 3))

    images, labels = a_batch(classes=3)
    images = images.to(memory_format=torch.channels_last)
    pgd(model, images, labels, epsilon=0.1, step=0.1, steps=2, random_start=False, draws=2)
    assert seen == [True, True]


ATTACKS: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    "noise": lambda model, x, y: noise(x, epsilon=0.2, norm="l2", generator=torch.Generator().manual_seed(3)),
    "fgsm": lambda model, x, y: fgsm(model, x, y, epsilon=0.2, draws=2),
    "pgd": lambda model, x, y: pgd(
        model, x, y, epsilon=0.2, step=0.1, steps=3, keep="best", generator=torch.Generator().manual_seed(3)
    ),
    "cw": lambda model, x, y: cw(model, x, y, c=1.0, steps=5),
    "cw_search": lambda model, x, y: cw_search(model, x, y, searches=2, steps=5),
    "apgd": lambda model, x, y: apgd(
        model, x, y, epsilon=0.2, steps=6, restarts=2, draws=2, generator=torch.Generator().manual_seed(3)
    ),
    "apgd_targeted": lambda model, x, y: apgd_targeted(
        model, x, y, classes=4, epsilon=0.2, norm="l2", steps=3, generator=torch.Generator().manual_seed(3)
    ),
    "square linf": lambda model, x, y: square(
        model, x, y, epsilon=0.2, queries=5, generator=torch.Generator().manual_seed(3)
    ),
    "square l2": lambda model, x, y: square(
        model, x, y, epsilon=0.2, norm="l2", queries=5, generator=torch.Generator().manual_seed(3)
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_run_where_the_images_are_and_never_wait_for_a_value(name: str, make_net: MakeNet) -> None:
    """Torch's meta device mixes with no other, and has no values for the program to wait for."""
    net = make_net().eval().to("meta")
    images, labels = (tensor.to("meta") for tensor in a_batch())
    adversarial = ATTACKS[name](net, images, labels)
    assert adversarial.device.type == "meta"
    assert adversarial.shape == images.shape


@contextmanager
def nothing_changes(model: nn.Module, *inputs: Tensor) -> Iterator[None]:
    """Random state, flags, gradients, parameters, buffers, grad mode, tracing and inputs stay the same."""

    def facts() -> list[object]:
        return [
            torch.is_grad_enabled(), torch.is_inference_mode_enabled(), sys.gettrace(),
            [module.training for module in model.modules()],
            [(p.requires_grad, p.grad) for p in model.parameters()],
            [(x.requires_grad, x.grad) for x in inputs],
        ]  # fmt: skip

    def tensors() -> list[Tensor]:
        return [torch.get_rng_state(), *(t.clone() for t in (*model.state_dict().values(), *inputs))]

    facts_before, tensors_before = facts(), tensors()
    yield
    assert facts() == facts_before
    for now, before in zip(tensors(), tensors_before, strict=True):
        assert torch.equal(now, before)


@pytest.mark.parametrize("mode", [nullcontext, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_outside_changes_and_the_mode_of_the_caller_does_not_matter(
    name: str, mode: Callable[[], AbstractContextManager[None]], make_net: MakeNet
) -> None:
    net = make_net()
    images, labels = a_batch()
    with crafting(net):
        expected = ATTACKS[name](net, images, labels)
    with mode():
        images = images.clone().requires_grad_(mode is nullcontext)
        with nothing_changes(net, images, labels), crafting(net):
            adversarial = ATTACKS[name](net, images, labels)
    assert torch.equal(adversarial, expected)
    assert not torch.equal(adversarial, images)
    assert not adversarial.requires_grad


def test_crafting_is_in_eval_mode_and_restores_each_flag(make_net: MakeNet) -> None:
    net = make_net()
    before = [module.training for module in net.modules()]
    assert set(before) == {True, False}
    with crafting(net):
        assert not any(module.training for module in net.modules())
    assert [module.training for module in net.modules()] == before


def test_crafting_restores_the_flags_after_an_exception(make_net: MakeNet) -> None:
    net = make_net()
    before = [module.training for module in net.modules()]
    with pytest.raises(ZeroDivisionError), crafting(net):
        raise ZeroDivisionError
    assert [module.training for module in net.modules()] == before


def test_crafting_asks_for_no_gradient_of_parameters_and_puts_all_back() -> None:
    """The gradient in the pixels is the same; a parameter that was frozen before stays so, also after an error."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 7), nn.BatchNorm1d(7), nn.Dropout(0.5), nn.Linear(7, 4)).double()
    model[0].eval()
    model[4].bias.requires_grad_(False)
    images, labels = a_batch()
    found: list[Tensor] = []

    def craft_and_fail() -> None:
        with crafting(model):
            assert not any(parameter.requires_grad for parameter in model.parameters())
            assert not any(module.training for module in model.modules())
            found.append(input_gradient(model, images, labels, cross_entropy)[0])
            raise KeyError

    with pytest.raises(KeyError):
        craft_and_fail()
    assert [parameter.requires_grad for parameter in model.parameters()] == [True] * 5 + [False]
    assert [module.training for module in model.children()] == [False, True, True, True, True]
    outside, _ = input_gradient(model.eval(), images, labels, cross_entropy)
    torch.testing.assert_close(found, [outside])
    assert outside.any()
