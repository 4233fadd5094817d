"""LWTA gates against their laws (level 1e-4 each, fixed seeds), numpy, and finite differences."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor

from robustsearch.models.ibp import BlockPrior
from robustsearch.models.lwta import LWTA
from robustsearch.models.stochastic import Noise, mean_network, surrogate

LEVEL = 1e-4
DRAWS = 20_000
LOGITS = {2: [0.3, -0.9], 3: [0.0, 1.2, -1.0], 4: [0.5, -0.5, 1.5, 0.0]}


def layer(channels: int, units: int, **settings: Any) -> LWTA:
    defaults: dict[str, Any] = {"temperature": 0.67, "gate": "sample", "gate_noise": None, "ibp": None}
    return LWTA(channels, units, noise=Noise(0), **defaults | settings)


def repeated(units: int) -> Tensor:
    """The same logits for every image: two blocks, the second reversed, `[DRAWS, 2 * units]`."""
    block = LOGITS[units]
    return torch.tensor(block + block[::-1]).expand(DRAWS, -1)


def winners(lwta: LWTA, h: Tensor) -> np.ndarray:
    """Index of the winner in each block, `[N, B]`; asserts that there is one and that it passes its h unchanged."""
    y = lwta(h)
    ratio = (y / h).view(len(h), -1, lwta.units)
    assert torch.isin(ratio, torch.tensor([0.0, 1.0])).all()
    assert (ratio.sum(dim=2) == 1).all()
    return ratio.argmax(dim=2).numpy()


def features(shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("units", [2, 3, 4])
@pytest.mark.parametrize(
    ("gate", "scale"), [("sample", 1.0), ("noisy", 1.0), ("noisy", 0.4), ("noisy", 3.0), ("noisy", 1e6)]
)
def test_winner_law(units: int, gate: str, scale: float) -> None:
    """argmax(h + s G) is u with probability softmax(h / s)_u: q for `sample`, uniform for large s."""
    lwta = layer(2 * units, units, gate=gate, gate_noise=scale if gate == "noisy" else None).eval()
    won = winners(lwta, repeated(units) + 5)
    for block, logits in enumerate((LOGITS[units], LOGITS[units][::-1])):
        expected = DRAWS * special.softmax(np.array(logits) / scale)
        observed = np.bincount(won[:, block], minlength=units)
        assert stats.chisquare(observed, expected).pvalue > LEVEL


def test_each_image_block_and_pixel_draws_alone() -> None:
    h = torch.full((3000, 4, 1, 2), 1.0)
    y = layer(4, 2).eval()(h)
    first = y[:, ::2].flatten(1).numpy()  # whether unit 0 wins: [N, block x pixel]
    for i in range(4):
        for j in range(i):
            table = np.histogram2d(first[:, i], first[:, j], bins=2)[0]
            assert stats.chi2_contingency(table).pvalue > LEVEL / 6
    assert stats.binomtest(int((first[1:] == first[:-1]).sum()), first[1:].size).pvalue > LEVEL


@pytest.mark.parametrize("units", [2, 4])
@pytest.mark.parametrize(("gate", "noise"), [("argmax", None), ("noisy", 0.0)])
def test_argmax_is_the_largest_unit_and_needs_no_noise(units: int, gate: str, noise: float | None) -> None:
    h = features((5, 2 * units, 3, 3))
    lwta = layer(2 * units, units, gate=gate, gate_noise=noise).eval()
    before = lwta.noise.state()
    y = lwta(h).numpy()
    blocks = h.numpy().reshape(5, 2, units, 3, 3)
    expected = np.where(blocks == blocks.max(axis=2, keepdims=True), blocks, 0).reshape(h.shape)
    np.testing.assert_array_equal(y, expected)
    assert before.keys() == lwta.noise.state().keys() == {"seed"}
    assert not lwta.random


@pytest.mark.parametrize("temperature", [0.4, 0.67, 2.0])
def test_relaxed_gate_of_two_units_is_binary_concrete(temperature: float) -> None:
    """P(xi_0 <= x) = sigmoid(tau logit(x) - (h_0 - h_1)): Maddison et al. 2017, appendix B."""
    h = repeated(2).double()  # in float32 many gates would round to 1
    xi = (layer(4, 2, temperature=temperature)(h) / h)[:, 0].numpy()
    margin = LOGITS[2][0] - LOGITS[2][1]
    assert stats.kstest(xi, lambda x: special.expit(temperature * special.logit(x) - margin)).pvalue > LEVEL


@pytest.mark.parametrize("units", [2, 4])
def test_relaxed_gate_is_gumbel_softmax(units: int) -> None:
    """Both forms against numpy's own Gumbel softmax, by a two-sample Kolmogorov-Smirnov test on each unit."""
    h = repeated(units) + 5
    xi = (layer(2 * units, units)(h) / h)[:, :units].numpy()
    gumbel = np.random.default_rng(0).gumbel(size=(DRAWS, units))
    reference = special.softmax((np.array(LOGITS[units]) + gumbel) / 0.67, axis=1)
    np.testing.assert_allclose(xi.sum(axis=1), 1, atol=1e-5)
    for unit in range(units):
        assert stats.ks_2samp(xi[:, unit], reference[:, unit]).pvalue > LEVEL


@pytest.mark.parametrize("units", [2, 4])
@pytest.mark.parametrize("shape", [(3, 8), (3, 8, 5, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_mean_gate_is_softmax_in_every_mode_that_asks_for_it(
    units: int, shape: tuple[int, ...], training: bool
) -> None:
    h = features(shape)
    blocks = h.numpy().reshape(3, 8 // units, units, *shape[2:])
    expected = (special.softmax(blocks, axis=2) * blocks).reshape(shape)
    for gate in ("sample", "argmax"):
        lwta = layer(8, units, gate=gate).train(training)
        for context in (surrogate, mean_network):
            with context(lwta):
                np.testing.assert_allclose(lwta(h), expected, atol=1e-6)
                assert not lwta.random
    np.testing.assert_allclose(layer(8, units, gate="mean").eval()(h), expected, atol=1e-6)


@pytest.mark.parametrize("units", [2, 4])
def test_gradient_of_the_surrogate_is_exact(units: int) -> None:
    lwta = layer(8, units).eval()
    h = features((2, 8, 2, 1), dtype=torch.float64).requires_grad_()
    with surrogate(lwta):
        assert torch.autograd.gradcheck(lwta, (h,))


@pytest.mark.parametrize("units", [2, 4])
def test_gradient_of_a_hard_gate_reaches_the_winner_only(units: int) -> None:
    h = features((6, 8, 3, 3)).requires_grad_()
    y = layer(8, units).eval()(h)
    (gradient,) = torch.autograd.grad(y.sum(), h)
    assert torch.equal(gradient, (y != 0).float())


def test_gate_may_change_after_construction() -> None:
    lwta, h = layer(4, 2).eval(), features((50, 4, 3, 3))
    lwta.gate = "argmax"
    assert torch.equal(lwta(h), lwta(h))
    lwta.gate, lwta.gate_noise = "noisy", 2.0
    assert lwta.random
    assert not torch.equal(lwta(h), lwta(h))


@pytest.mark.parametrize("units", [2, 4])
def test_kl_against_numpy(units: int) -> None:
    """sum_u q_u (log q_u + log U): summed over blocks, mean over images and pixels; it is > 0."""
    h = features((3, 8, 5, 4)).requires_grad_()
    lwta = layer(8, units)
    lwta(h)
    q = special.softmax(h.detach().double().numpy().reshape(3, 8 // units, units, 5, 4), axis=2)
    expected = (q * (np.log(q) + np.log(units))).sum(axis=(1, 2)).mean()
    kl = lwta.kl()["gate"]
    assert kl.item() == pytest.approx(expected, rel=1e-5)
    assert kl.item() > 0
    (gradient,) = torch.autograd.grad(kl, h)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("units", [2, 4])
def test_kl_is_zero_for_equal_logits_and_log_u_for_a_sure_winner(units: int) -> None:
    lwta = layer(2 * units, units)
    lwta(torch.full((3, 2 * units), 7.0))
    assert lwta.kl()["gate"].item() == pytest.approx(0, abs=1e-6)
    sure = torch.zeros(3, 2, units)
    sure[:, :, -1] = 1e4
    lwta(sure.flatten(1))
    assert lwta.kl()["gate"].item() == pytest.approx(2 * np.log(units), rel=1e-6)


@pytest.mark.parametrize("units", [2, 4])
def test_gradient_of_the_kl_is_exact(units: int) -> None:
    lwta = layer(8, units)

    def kl(h: Tensor) -> Tensor:
        lwta(h)
        return lwta.kl()["gate"]

    assert torch.autograd.gradcheck(kl, (features((2, 8, 2, 1), dtype=torch.float64).requires_grad_(),))


def test_kl_needs_a_training_pass_and_is_not_copied() -> None:
    lwta, h = layer(4, 2), features((3, 4)).requires_grad_()
    lwta.eval()(h)
    with pytest.raises(RuntimeError, match="forward pass in training mode"):
        lwta.kl()
    lwta.train()(h)
    lwta.kl()
    with pytest.raises(RuntimeError, match="forward pass in training mode"):
        copy.deepcopy(lwta).kl()


@pytest.mark.parametrize("units", [2, 4])
@pytest.mark.parametrize("shape", [(3, 8), (3, 8, 5, 4)])
def test_prior_weighs_whole_blocks(units: int, shape: tuple[int, ...]) -> None:
    prior = BlockPrior(8 // units, alpha=1.0, cutoff=0.3, noise=Noise(0))
    prior.t.data = torch.linspace(-2, 2, 8 // units)
    h = features(shape)
    plain, weighed = (layer(8, units, gate="mean", ibp=ibp).eval()(h) for ibp in (None, prior))
    z = special.expit(np.linspace(-2, 2, 8 // units))
    expected = np.where(z >= 0.3, z, 0).repeat(units).reshape(-1, *[1] * (len(shape) - 2)) * plain.numpy()
    np.testing.assert_allclose(weighed.detach(), expected, rtol=1e-5)


@pytest.mark.parametrize("units", [2, 4])
@pytest.mark.parametrize("training", [True, False])
def test_dtype_and_memory_format_are_kept(units: int, training: bool) -> None:
    lwta = layer(8, units).train(training)
    h = features((3, 8, 5, 4)).to(memory_format=torch.channels_last)
    assert lwta(h).is_contiguous(memory_format=torch.channels_last)
    assert lwta(h.bfloat16()).dtype == torch.bfloat16
    assert lwta(h.double()).dtype == torch.float64


@pytest.mark.parametrize(("gate", "noise"), [("noisy", None), ("sample", 1.0), ("noisy", -1.0)])
def test_gate_noise_goes_with_gate_noisy(gate: str, noise: float | None) -> None:
    with pytest.raises(ValueError, match="`gate_noise` must"):
        layer(4, 2, gate=gate, gate_noise=noise)


def test_units_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="`units` must divide"):
        layer(7, 2)
