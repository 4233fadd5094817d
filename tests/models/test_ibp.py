"""The Indian buffet process prior against its laws and against numerical integration."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import Tensor

from robustsearch.models.ibp import (
    BlockPrior,
    bernoulli_kl,
    kumaraswamy_kl,
    kumaraswamy_log_sample,
    log_probabilities,
)
from robustsearch.models.stochastic import Noise, mean_network, surrogate

LEVEL = 1e-4
STICKS = [(1.0, 1.0), (2.0, 1.5), (0.5, 3.0), (6.0, 0.4)]


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def density(u: float, a: float, c: float) -> float:
    return a * c * u ** (a - 1) * (1 - u**a) ** (c - 1)


@pytest.mark.parametrize(("a", "c"), STICKS)
def test_kumaraswamy_sampler_has_the_cdf(a: float, c: float) -> None:
    x = Noise(0).uniform((20_000,), double(0.0))
    u = kumaraswamy_log_sample(double(a), double(c), x).exp().numpy()
    assert stats.kstest(u, lambda u: 1 - (1 - u**a) ** c).pvalue > LEVEL


def test_kumaraswamy_sampler_is_finite_at_the_ends_of_float32() -> None:
    x = torch.tensor([2.0**-25, 1 - 2.0**-24], requires_grad=True)
    for a, c in (*STICKS, (20.0, 1e-2), (1e-2, 20.0)):
        log_u = kumaraswamy_log_sample(torch.tensor(a), torch.tensor(c), x)
        assert log_u.isfinite().all()
        assert bernoulli_kl(torch.zeros(2), log_probabilities(log_u)).isfinite().all()


@pytest.mark.parametrize(("a", "c"), STICKS)
@pytest.mark.parametrize("alpha", [0.7, 1.0, 4.0])
def test_sticks_kl_against_quadrature(a: float, c: float, alpha: float) -> None:
    def integrand(x: float) -> float:  # over x uniform, u the inverse CDF
        u = (1 - (1 - x) ** (1 / c)) ** (1 / a)
        return math.log(density(u, a, c) / (alpha * u ** (alpha - 1)))

    expected, error = integrate.quad(integrand, 0, 1, limit=400)
    kl = kumaraswamy_kl(double(a), double(c), alpha).item()
    assert kl == pytest.approx(expected, abs=1e-6 + 10 * error)
    assert kl >= -1e-12


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_sticks_kl_is_zero_at_the_prior_only(alpha: float) -> None:
    assert kumaraswamy_kl(double(alpha), double(1.0), alpha).item() == pytest.approx(0, abs=1e-12)
    around = kumaraswamy_kl(alpha * double(0.9, 1.0, 1.1), double(1.0, 1.2, 1.0), alpha)
    assert (around > 1e-4).all()


def test_bernoulli_kl_is_whole() -> None:
    rng = np.random.default_rng(0)
    q, pi = rng.uniform(0.001, 0.999, (2, 200))
    kl = bernoulli_kl(torch.from_numpy(special.logit(q)), torch.from_numpy(np.log(pi)))
    np.testing.assert_allclose(kl, stats.entropy([q, 1 - q], [pi, 1 - pi]), rtol=1e-9)
    same = bernoulli_kl(torch.from_numpy(special.logit(pi)), torch.from_numpy(np.log(pi)))
    np.testing.assert_allclose(same, 0, atol=1e-12)


def test_bernoulli_kl_of_a_late_block() -> None:
    """Pi far below the smallest float32: q (log q - log pi) - H, finite."""
    kl = bernoulli_kl(torch.tensor([0.0, 40.0, -40.0]), torch.tensor(-300.0))
    np.testing.assert_allclose(kl, [150 - math.log(2), 300, 0], rtol=1e-6, atol=1e-6)


def test_probabilities_are_the_cumulative_product_over_the_blocks() -> None:
    u = np.random.default_rng(0).uniform(0.1, 0.99, 12)
    np.testing.assert_allclose(log_probabilities(torch.from_numpy(np.log(u))).exp(), np.cumprod(u))


def test_initial_values() -> None:
    def softplus(x: float) -> float:
        return math.log1p(math.exp(x))

    for dense, (a, c) in {False: (2.0, 0.5453), True: (500.0, 2.0)}.items():
        prior = BlockPrior(500, alpha=1.0, cutoff=0.01, noise=Noise(0), dense=dense)
        assert torch.nn.functional.softplus(prior.raw_a).tolist() == pytest.approx([softplus(a)] * 500)
        assert torch.nn.functional.softplus(prior.raw_c).tolist() == pytest.approx([softplus(c)] * 500)
        t = prior.t.detach().numpy()
        assert 0.1 <= t.min() < 0.2
        assert 4.9 < t.max() <= 5


def prior(t: Tensor, cutoff: float = 0.01) -> BlockPrior:
    prior = BlockPrior(len(t), alpha=1.5, cutoff=cutoff, noise=Noise(0))
    prior.t.data = t
    return prior


@pytest.mark.parametrize("t", [-1.0, 0.5])
def test_training_z_is_binary_concrete(t: float) -> None:
    """P(z <= x) = sigmoid(0.67 logit(x) - t): Maddison et al. 2017, appendix B."""
    z = prior(torch.full((20_000,), t, dtype=torch.float64))().detach().numpy()
    assert stats.kstest(z, lambda x: special.expit(0.67 * special.logit(x) - t)).pvalue > LEVEL


def test_one_z_per_training_pass() -> None:
    layer = prior(torch.zeros(5))
    assert layer().shape == (5,)
    assert not torch.equal(layer(), layer())


@pytest.mark.parametrize("mode", ["eval", "surrogate", "mean"])
def test_posterior_mean_without_the_blocks_below_the_cutoff(mode: str) -> None:
    layer = prior(torch.tensor([-3.0, -1.0, 0.0, 2.0]), cutoff=0.2)
    with {"eval": lambda x: torch.no_grad(), "surrogate": surrogate, "mean": mean_network}[mode](layer):
        z = layer.train(mode != "eval")()
    np.testing.assert_allclose(z.detach(), [0, special.expit(-1), 0.5, special.expit(2)], rtol=1e-6)
    assert layer.kept().tolist() == [False, True, True, True]


@pytest.mark.slow
def test_z_kl_is_the_mean_over_the_posterior_of_the_sticks() -> None:
    """z-test, level 1e-4, of the Monte Carlo term against quadrature over u for the first of two blocks."""
    layer = prior(torch.tensor([0.7]))
    layer.raw_a.data.fill_(1.0)
    terms = []
    for _ in range(4000):
        layer()
        terms.append(layer.kl()["z"].item())
    a, c, q = math.log1p(math.e), math.log1p(math.exp(0.5453)), special.expit(0.7)

    def integrand(u: float) -> float:
        return density(u, a, c) * float(stats.entropy([q, 1 - q], [u, 1 - u]))

    expected, _ = integrate.quad(integrand, 0, 1)
    assert abs(np.mean(terms) - expected) < 3.9 * np.std(terms) / math.sqrt(len(terms))


def test_kl_terms_sum_over_blocks_and_teach_every_parameter() -> None:
    layer = prior(torch.linspace(-1, 3, 7))
    layer()
    kl = layer.kl()
    a, c = (torch.nn.functional.softplus(raw[0].detach()) for raw in (layer.raw_a, layer.raw_c))
    assert kl["sticks"].item() == pytest.approx(7 * kumaraswamy_kl(a, c, 1.5).item(), rel=1e-5)
    sum(kl.values()).backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None
        assert (parameter.grad != 0).all()
    (with_z,) = (layer.raw_a.grad.clone(),)
    layer.zero_grad()
    layer()
    layer.kl()["sticks"].backward()
    assert not torch.equal(with_z, layer.raw_a.grad), "z must teach the sticks"
