"""Engines that draw by themselves have the law of the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from robustsearch.engines.prepare import prepare
from robustsearch.models.build import Network
from robustsearch.models.deploy import Deployed, deploy
from robustsearch.models.ibp import BlockPrior
from robustsearch.models.lwta import LWTA
from robustsearch.models.stochastic import Noise
from robustsearch.models.wrn import GlobalAverage
from robustsearch.recipe import GateMode

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
IMAGES = 20_000
LEVEL = 1e-3
"""Of each test as a whole."""
CHANNELS = 16

Make = Callable[..., Network]


def gated(lwta: nn.Module, logits: Tensor) -> Deployed:
    """A network that gives these logits to a gate whatever its images, and shows what comes out.

    The class of a channel has the mean of its gated logit over the pixels, and one class more has 0, so that the log
    ratio to it is that mean.
    """
    convolution = nn.Conv2d(1, CHANNELS, 1)
    linear = nn.Linear(CHANNELS, CHANNELS + 1)
    with torch.no_grad():
        convolution.weight.zero_()
        convolution.bias.copy_(logits)
        linear.weight.copy_(torch.eye(CHANNELS + 1, CHANNELS))
        linear.bias.zero_()
    layers = nn.Sequential(convolution, lwta, GlobalAverage(), linear)
    return Deployed(layers, 1).eval().requires_grad_(False)


def winners(units: int, gate: GateMode, scale: float | None, logits: Tensor, engine: str) -> NDArray[np.int64]:
    """How often each channel wins in the two pixels of an image, `[IMAGES, CHANNELS]`, 0 to 2."""
    lwta = LWTA(CHANNELS, units, temperature=0.67, gate=gate, gate_noise=scale, noise=Noise(0), ibp=None)
    network = gated(lwta, logits)
    prepared = prepare(network, (1, 1, 2), CPU, engine, seed=5)
    assert (prepared.engine, prepared.reason) == (engine, None)
    found = prepared.predict(torch.zeros(IMAGES, 1, 1, 2)).double().log()
    counts = 2 * (found[:, :-1] - found[:, -1:]) / logits
    whole = counts.round()
    assert (counts - whole).abs().max() < 1e-3
    return whole.long().numpy()


@pytest.mark.parametrize(("gate", "scale"), [("sample", None), ("noisy", 0.4), ("noisy", 3.0)])
@pytest.mark.parametrize("units", [2, 4, 8])
def test_winners_have_the_probabilities_of_the_softmax(
    units: int, gate: GateMode, scale: float | None, engine: str
) -> None:
    """Chi-squared of both pixels' winners against softmax(h / s); pixels, images and blocks are independent."""
    magnitude = torch.rand(CHANNELS, generator=torch.Generator().manual_seed(units)) + 0.5
    logits = magnitude * torch.tensor([1.0, -1.0, -1.0, 1.0] * (CHANNELS // 4))
    counts = winners(units, gate, scale, logits, engine)
    blocks = counts.reshape(IMAGES, -1, units)
    assert (blocks.sum(axis=2) == 2).all(), "one winner in each block and pixel"
    chances = torch.softmax(logits.double().view(-1, units) / (scale or 1.0), dim=1).numpy()
    tests = []
    for block, chance in enumerate(chances):
        for unit, p in enumerate(chance):
            expected = IMAGES * np.array([(1 - p) ** 2, 2 * p * (1 - p), p**2])
            if expected.min() >= 5:
                tests.append(stats.chisquare(np.bincount(blocks[:, block, unit], minlength=3), expected).pvalue)
    for other in range(1, len(chances)):  # the first block with each other one
        table = np.zeros((3, 3))
        np.add.at(table, (blocks[:, 0, 0], blocks[:, other, 0]), 1)
        table = table[table.sum(axis=1) > 50][:, table.sum(axis=0) > 50]
        if min(table.shape) > 1:
            tests.append(stats.chi2_contingency(table).pvalue)
    series = blocks[:, 0, 0].astype(float)
    tests.append(stats.pearsonr(series[1:], series[:-1]).pvalue)
    assert len(tests) > 5
    assert min(tests) > LEVEL / len(tests)


@pytest.mark.parametrize("units", [2, 4, 8])
def test_of_equal_units_the_first_wins(units: int, engine: str) -> None:
    counts = winners(units, "argmax", None, torch.full((CHANNELS,), 1.5), engine)
    assert (counts == 2 * (np.arange(CHANNELS) % units == 0)).all()


LAWS: dict[str, dict[str, Any]] = {
    "sample": {"lwta": {}},
    "sample-4": {"lwta": {"units": 4}},
    "sample-16": {"lwta": {"units": 16}},
    "ibp": {"lwta": {"ibp": {}}},
    "noisy": {"lwta": {"gate": "noisy", "gate_noise": 0.3}},
    "smoothing": {"lwta": {"gate": "mean"}, "smoothing": {"sigma": 0.3}},
    "pni-weights": {"pni": {"alpha": 1.0, "granularity": "channel"}},
    "pni-inputs": {"lwta": {"gate": "mean", "ibp": {}}, "pni": {"where": "inputs"}},
    "pni-activations": {"lwta": {}, "pni": {"where": "activations", "granularity": "element"}},
}


def network(case: str, make: Make) -> Network:
    """A network whose probabilities differ between draws, and of whose IBP blocks half are removed."""
    made = make(LAWS[case]).eval()
    for prior in made.modules():
        if isinstance(prior, BlockPrior):
            prior.t.data = torch.linspace(-1, 3, len(prior.t))
            prior.t.data[::2] = -8
    with torch.no_grad():
        logits = made(torch.rand(256, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
        made.body.linear.weight /= logits.std()
        made.body.linear.bias.sub_(logits.mean(dim=0)).div_(logits.std())
    return made


def sample(predict: Callable[[Tensor], Tensor], images: Tensor, case: str) -> NDArray[np.float32]:
    """Probabilities `[draws, N * classes]`: draws are passes where weights are drawn, else images of one batch."""
    if case == "pni-weights":
        return torch.stack([predict(images) for _ in range(250)]).flatten(1).numpy()
    return predict(images.repeat(1500, 1, 1, 1)).view(1500, -1).numpy()


@pytest.mark.parametrize("case", LAWS)
def test_law_of_the_output(case: str, engine: str, make: Make, images: Tensor) -> None:
    """Kolmogorov-Smirnov between torch and the engine for each image and class."""
    deployed, images = deploy(network(case, make), 1), images[:2]
    prepared = prepare(deployed, (3, 8, 8), CPU, engine)
    if prepared.engine == "eager" and engine == "onnxruntime-kernel":
        assert prepared.reason
        pytest.skip(prepared.reason)
    assert (prepared.engine, prepared.reason) == (engine, None)
    with torch.inference_mode():
        expected = sample(deployed, images, case)
    found = sample(prepared.predict, images, case)
    assert np.median(expected.std(axis=0)) > 0.01, "nothing random to compare"
    for column in range(expected.shape[1]):
        assert stats.ks_2samp(found[:, column], expected[:, column]).pvalue > LEVEL / expected.shape[1]


@pytest.mark.parametrize("case", ["sample", "smoothing", "pni-weights"])
def test_draws_are_averaged(case: str, engine: str, make: Make, images: Tensor) -> None:
    """Mean and variance of K = 3 draws: those of one, and a third of it; within 5 standard errors."""
    made, images = network(case, make), images[:2]
    prepared = prepare(deploy(made, 3), (3, 8, 8), CPU, engine)
    if prepared.engine != engine:
        pytest.skip(str(prepared.reason))
    with torch.inference_mode():
        ones = sample(deploy(made, 1), images, case)
    threes = sample(prepared.predict, images, case)
    error = (ones.var(axis=0) * (1 / len(ones) + 1 / (3 * len(threes)))) ** 0.5
    assert (np.abs(ones.mean(axis=0) - threes.mean(axis=0)) <= 5 * error + 1e-6).all()
    ratio = np.median(threes.var(axis=0) / ones.var(axis=0))
    assert ratio == pytest.approx(1 / 3, rel=0.25)


@pytest.mark.parametrize(("scale", "temperature"), [(0.0, 0.5), (1.0, 0.67), (0.4, 2.0)])
@pytest.mark.parametrize("units", [2, 4])
def test_relaxed_gates(units: int, scale: float, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kolmogorov-Smirnov of softmax((h + s G) / tau), from numpy; the kernel leaves such gates to ONNX's operators."""
    logits = torch.linspace(0.5, 1.5, CHANNELS)
    lwta = LWTA(CHANNELS, units, temperature=0.67, gate="sample", gate_noise=None, noise=Noise(0), ibp=None)
    rule = (scale, temperature)
    monkeypatch.setattr(LWTA, "rule", lambda layer, training: (0.0, 1.0) if layer.mode == "mean" else rule)
    network = gated(lwta, logits)
    prepared = prepare(network, (1, 1, 1), CPU, "onnxruntime")
    assert prepared.reason is None
    found = prepared.predict(torch.zeros(5000, 1, 1, 1)).double().log()
    shares = ((found[:, :-1] - found[:, -1:]) / logits).numpy()
    noise = scale * np.random.default_rng(0).gumbel(size=(5000, CHANNELS // units, units))
    weights = np.exp((logits.numpy().reshape(-1, units) + noise) / temperature)
    expected = (weights / weights.sum(axis=2, keepdims=True)).reshape(5000, CHANNELS)
    if not scale:
        np.testing.assert_allclose(shares, expected, atol=1e-5)
        return
    for channel in range(CHANNELS):
        assert stats.ks_2samp(shares[:, channel], expected[:, channel]).pvalue > LEVEL / CHANNELS
