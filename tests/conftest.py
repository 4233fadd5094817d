"""What several test files share."""

from __future__ import annotations

import os

# Two one-thread processes (pytest -n 2) are twice as fast as two that fight for both cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import atexit
import dataclasses
import gc
import logging
import shutil
import tempfile
from collections.abc import Iterator

import pytest
import torch

from robustsearch import data, latency
from robustsearch.data import Dataset
from robustsearch.evaluation.protocols import PROTOCOLS, Protocol
from robustsearch.trial import Plan

gc.disable()  # until the tests are imported: what is looked at again and again meanwhile stays anyway
torch.set_num_threads(1)
tempfile.tempdir = tempfile.mkdtemp(prefix="robustsearch-tests-")  # locks of their own, beside a search that is running
atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)

REAL_TIMING = {name: getattr(latency, name) for name in ("WARM_UP", "BLOCKS", "RUNS", "THROUGHPUT_RUNS")}
vars(latency).update({"WARM_UP": 1, "BLOCKS": 2, "RUNS": 3, "THROUGHPUT_RUNS": 1})  # it only has to happen

QUICK: Protocol = dataclasses.replace(
    PROTOCOLS["quick"],
    images=40,
    adversaries=tuple(dataclasses.replace(each, steps=min(each.steps, 2)) for each in PROTOCOLS["quick"].adversaries),
)
"""For tests that only need an evaluation to happen."""


def pytest_collection_finish() -> None:
    """What was imported stays: no collection of garbage looks at it again."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """A tenth of digits, read-only: 120 training images."""
    return data.load("digits", fraction=0.1)


@pytest.fixture(scope="session")
def plan(digits: Dataset) -> Plan:
    """Measured after epochs 1 and 2."""
    return Plan(rungs=(1, 2), protocol=QUICK, epsilon=digits.epsilon, epsilon_l2=digits.epsilon_l2)


@pytest.fixture
def real_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as a search repeats what it times."""
    for name, value in REAL_TIMING.items():
        monkeypatch.setattr(latency, name, value)


@pytest.fixture(autouse=True)
def no_logged_error(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A logged ERROR fails the test."""
    yield
    errors = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert not errors, errors
