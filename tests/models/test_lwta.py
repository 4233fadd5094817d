"""What is LWTA's own, beside `test_conformance.py`: independent draws, switched gates, its rules. Level 1e-4."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from robustsearch.models.lwta import LWTA
from robustsearch.models.stochastic import Noise

LEVEL = 1e-4


def layer(channels: int, units: int, **settings: Any) -> LWTA:
    defaults: dict[str, Any] = {"temperature": 0.67, "gate": "sample", "gate_noise": None, "ibp": None}
    return LWTA(channels, units, noise=Noise(0), **defaults | settings)


def features(shape: tuple[int, ...]) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_each_image_block_and_pixel_draws_alone() -> None:
    h = torch.full((3000, 4, 1, 2), 1.0)
    y = layer(4, 2).eval()(h)
    first = y[:, ::2].flatten(1).numpy()  # whether unit 0 wins: [N, block x pixel]
    for i in range(4):
        for j in range(i):
            table = np.histogram2d(first[:, i], first[:, j], bins=2)[0]
            assert stats.chi2_contingency(table).pvalue > LEVEL / 6
    assert stats.binomtest(int((first[1:] == first[:-1]).sum()), first[1:].size).pvalue > LEVEL


def test_gate_may_change_after_construction() -> None:
    lwta, h = layer(4, 2).eval(), features((50, 4, 3, 3))
    lwta.gate = "argmax"
    assert torch.equal(lwta(h), lwta(h))
    lwta.gate, lwta.gate_noise = "noisy", 2.0
    assert lwta.random
    assert not torch.equal(lwta(h), lwta(h))


@pytest.mark.parametrize("units", [2, 4])
def test_kl_is_log_u_for_a_sure_winner(units: int) -> None:
    lwta = layer(2 * units, units)
    sure = torch.zeros(3, 2, units)
    sure[:, :, -1] = 1e4
    lwta(sure.flatten(1))
    assert lwta.kl()["gate"].item() == pytest.approx(2 * np.log(units), rel=1e-6)


@pytest.mark.parametrize("units", [2, 4])
@pytest.mark.parametrize("training", [True, False])
def test_memory_format_is_kept(units: int, training: bool) -> None:
    lwta = layer(8, units).train(training)
    h = features((3, 8, 5, 4)).to(memory_format=torch.channels_last)
    assert lwta(h).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("gate", "noise"), [("noisy", None), ("sample", 1.0), ("noisy", -1.0)])
def test_gate_noise_goes_with_gate_noisy(gate: str, noise: float | None) -> None:
    with pytest.raises(ValueError, match="`gate_noise` must"):
        layer(4, 2, gate=gate, gate_noise=noise)


def test_units_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="`units` must divide"):
        layer(7, 2)
