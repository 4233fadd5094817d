"""Latency: what is counted and what is timed."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import nn

from robustsearch import latency
from robustsearch.engines.prepare import prepare
from robustsearch.latency import THROUGHPUT_BATCH, device_name, macs, measure
from robustsearch.models.build import build_network
from robustsearch.models.deploy import deploy
from robustsearch.recipe import LWTA, PNI, Model, Recipe

pytestmark = pytest.mark.usefixtures("real_timing")
CPU = torch.device("cpu")


def test_macs_are_those_of_the_formula() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(64, 5)
    )
    expected = 8 * 8 * 8 * 3 * 9 + 4 * 4 * 4 * 8 * 9 + 64 * 5
    assert macs(network, torch.zeros(1, 3, 8, 8)) == expected
    assert macs(network, torch.zeros(2, 3, 8, 8)) == 2 * expected


@pytest.mark.parametrize("fields", [{}, {"lwta": LWTA()}, {"pni": PNI()}], ids=["ReLU", "LWTA", "PNI"])
def test_macs_of_a_deployed_network_are_those_of_its_layers(fields: dict[str, Any]) -> None:
    """Whatever computes them: WRN-10-1 on images of 8x8."""
    recipe = Recipe(model=Model(depth=10), **fields)
    network = build_network(recipe, shape=(1, 8, 8), classes=10, mean=[0.5], std=[0.2], seed=0).eval()
    for block in network.body.blocks:
        nn.init.ones_(block.conv2.weight)  # type: ignore[union-attr]  # what is 0 would be cut off
    first = 16 * 9 * 64 + 2 * 16 * 16 * 9 * 64
    second = (16 * 32 * 10 + 32 * 32 * 9) * 16
    third = (32 * 64 * 10 + 64 * 64 * 9) * 4
    assert macs(deploy(network, 1), torch.zeros(1, 1, 8, 8)) == first + second + third + 64 * 10


class Sleeper(nn.Module):
    """Takes 3 ms for one image, and one call in ten 15 ms; 20 ms for a full batch."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(images))
        slow = len(self.calls) % 10 == 0
        time.sleep(0.02 if len(images) > 1 else 0.015 if slow else 0.003)
        return images.new_zeros(len(images), 2)


def test_median_tail_and_throughput_of_known_delays() -> None:
    """Bounds from below are exact (sleep never returns early); those from above leave room for a busy machine."""
    sleeper = Sleeper()
    found = measure(prepare(sleeper, (1, 8, 8), CPU, "eager"), (1, 8, 8), CPU)
    assert 3.0 <= found.latency_p50 < 8.0
    assert found.latency_p95 >= 15.0
    assert THROUGHPUT_BATCH / 0.2 < found.throughput <= THROUGHPUT_BATCH / 0.02
    assert sleeper.calls.count(1) > latency.BLOCKS * latency.RUNS  # warm-up is not timed
    assert found.threads == torch.get_num_threads()
    assert found.row()["engine"] == "eager"


def test_no_global_generator_is_touched() -> None:
    before = torch.get_rng_state()
    measure(prepare(nn.Flatten(), (1, 8, 8), CPU, "eager"), (1, 8, 8), CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_processor_has_a_name() -> None:
    assert len(device_name(CPU)) > 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_timing_on_a_gpu_waits_for_the_work() -> None:
    matrix = nn.Linear(4096, 4096, device="cuda")
    network = nn.Sequential(nn.Flatten(), nn.Linear(4096, 4096, device="cuda"), *[matrix] * 20)
    device = torch.device("cuda")
    found = measure(prepare(network, (1, 64, 64), device, "eager"), (1, 64, 64), device)
    floor = THROUGHPUT_BATCH * 21 * 4096**2 * 2 / 1e15  # seconds at 1,000 TFLOP/s, which no eager float32 reaches
    assert found.throughput < THROUGHPUT_BATCH / floor
