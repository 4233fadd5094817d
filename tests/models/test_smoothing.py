"""Gaussian noise on the input."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from robustsearch.models.smoothing import GaussianNoise
from robustsearch.models.stochastic import Noise, mean_network, surrogate

ZEROS = torch.zeros(8, 3, 16, 16)


@pytest.mark.parametrize("training", [True, False])
def test_noise_is_gaussian_and_not_clipped(training: bool) -> None:
    """Kolmogorov-Smirnov, level 1e-4: black pixels get negative values too."""
    layer = GaussianNoise(0.2, True, Noise(0)).train(training)
    assert stats.kstest(layer(ZEROS).numpy().ravel() / 0.2, "norm").pvalue > 1e-4
    with surrogate(layer):
        assert layer.random
        assert not torch.equal(layer(ZEROS), layer(ZEROS))


def test_noise_in_training_only() -> None:
    layer = GaussianNoise(0.2, False, Noise(0))
    assert layer(ZEROS).std() > 0.1
    assert not layer.random
    assert torch.equal(layer.eval()(ZEROS), ZEROS)


@pytest.mark.parametrize("training", [True, False])
def test_mean_network_has_no_noise(training: bool) -> None:
    layer = GaussianNoise(0.2, True, Noise(0)).train(training)
    with mean_network(layer):
        assert not layer.random
        assert torch.equal(layer(ZEROS), ZEROS)
