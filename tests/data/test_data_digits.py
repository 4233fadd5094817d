"""Digits against scikit-learn; and on it what holds for every dataset: fixedness, fractions, moments."""

from __future__ import annotations

import pickle
import random
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from data_cases import assert_well_formed, examples
from sklearn.datasets import load_digits

from robustsearch.data import Dataset, load
from robustsearch.data.dataset import channel_moments
from robustsearch.errors import DatasetError


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def test_digits_are_those_of_scikit_learn(digits: Dataset) -> None:
    assert_well_formed(digits)
    source = load_digits()
    expected = Counter(
        (bytes(round(value * 255 / 16) for value in image.ravel().tolist()), int(label))
        for image, label in zip(source.images, source.target, strict=True)
    )
    assert examples(digits.train, digits.validation, digits.test) == expected
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (1197, 300, 300)
    assert digits.shape == (1, 8, 8)
    assert digits.classes == 10
    assert digits.class_names == tuple("0123456789")
    assert (digits.epsilon, digits.epsilon_l2, digits.crop_padding, digits.flip) == (0.1, 0.5, 0, False)


def test_digits_are_stratified(digits: Dataset) -> None:
    shares = np.bincount(load_digits().target) / 1797
    for split in (digits.train, digits.validation, digits.test):
        # Each split is at most two choices away from the whole; a choice rounds a class by less than one.
        assert np.abs(np.bincount(split.labels) - len(split) * shares).max() < 2


def test_loading_is_fixed_and_leaves_every_global_generator_alone(digits: Dataset) -> None:
    def states() -> tuple[Any, ...]:
        legacy = np.random.get_state()  # noqa: NPY002
        return random.getstate(), legacy[1].tolist(), legacy[2:], torch.get_rng_state().tolist()

    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = states()
    again = load("digits")
    assert states() == before
    for name in ("train", "validation", "test"):
        ours, theirs = getattr(again, name), getattr(digits, name)
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_a_dataset_survives_pickling(digits: Dataset) -> None:
    copy = pickle.loads(pickle.dumps(digits))
    np.testing.assert_array_equal(copy.train.images, digits.train.images)
    assert copy.mean == digits.mean
    assert copy.shape == digits.shape


def test_moments_are_those_of_float64(digits: Dataset) -> None:
    pixels = digits.train.images.astype(np.float64) / 255
    assert digits.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)), rel=1e-12)
    assert digits.std == pytest.approx(pixels.std(axis=(0, 1, 2)), rel=1e-12)


def test_moments_go_by_channel_and_their_deviation_stays_away_from_zero() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 9, 8, 3), dtype=np.uint8)
    images[..., 1] = 255
    mean, std = channel_moments(images)
    for channel in (0, 2):
        pixels = images[..., channel].astype(np.float64) / 255
        assert (mean[channel], std[channel]) == pytest.approx((pixels.mean(), pixels.std()), rel=1e-12)
    assert (mean[1], std[1]) == (1.0, 1 / 255)


def test_fractions_are_stratified_nested_parts_of_each_split(digits: Dataset) -> None:
    larger = digits
    for fraction in (0.5, 0.1):
        part = load("digits", fraction=fraction)
        assert_well_formed(part)
        for name in ("train", "validation", "test"):
            whole, subset = getattr(digits, name), getattr(part, name)
            assert len(subset) == round(fraction * len(whole))
            assert not examples(subset) - examples(getattr(larger, name))
            assert np.abs(np.bincount(subset.labels) - fraction * np.bincount(whole.labels)).max() < 1
        larger = part


def test_the_smallest_fraction_keeps_one_image_of_each_class() -> None:
    part = load("digits", fraction=1e-9)
    for split in (part.train, part.validation, part.test):
        assert sorted(split.labels.tolist()) == list(range(10))


@pytest.mark.parametrize(("fraction", "shown"), [(0.0, "0"), (-0.5, "-0.5"), (1.5, "1.5"), (float("nan"), "nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float, shown: str) -> None:
    with pytest.raises(DatasetError, match=re.escape(f"`fraction` must be in (0, 1], but got {shown}") + "$"):
        load("digits", fraction=fraction)
