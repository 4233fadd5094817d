"""Joined optimisers against the same ones, each by itself."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from robustsearch.training.joined import Joined


def parts(model: nn.Sequential) -> list[Optimizer]:
    first, second = (layer.parameters() for layer in model)
    return [torch.optim.SGD(first, lr=0.1, momentum=0.9), Adam(second, lr=0.02)]


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()


def steps(model: nn.Sequential, optimizers: list[Optimizer], count: int, start: int = 0) -> None:
    """Steps on a fixed stream of inputs under a learning rate that halves each time."""
    schedules = [LambdaLR(optimizer, lambda step: 0.5**step) for optimizer in optimizers]
    for schedule in schedules:
        schedule.last_epoch = start
        for group, base in zip(schedule.optimizer.param_groups, schedule.base_lrs, strict=True):
            group["lr"] = base * 0.5**start
    for index in range(start, start + count):
        inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(index), dtype=torch.float64)
        model(inputs).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        for schedule in schedules:
            schedule.step()


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_one_step_is_a_step_of_each_part_under_one_schedule() -> None:
    joined, apart, start = model(), model(), model()
    steps(joined, [Joined(*parts(joined))], 5)
    steps(apart, parts(apart), 5)
    assert same(joined, apart)
    assert not any(torch.equal(a, b) for a, b in zip(joined.parameters(), start.parameters(), strict=True))


def test_a_saved_state_continues() -> None:
    through, stopped = model(), model()
    steps(through, [Joined(*parts(through))], 6)
    optimizer = Joined(*parts(stopped))
    steps(stopped, [optimizer], 3)
    resumed, fresh = copy.deepcopy(stopped), None
    fresh = Joined(*parts(resumed))
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(resumed, [fresh], 3, start=3)
    assert same(resumed, through)
