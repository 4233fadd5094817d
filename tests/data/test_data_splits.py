"""Which images are chosen: by exact arithmetic, stratified, nested, fixed."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import scipy.io
import scipy.stats
from data_cases import examples, make_arrays
from hypothesis import given, settings
from hypothesis import strategies as st

from robustsearch.data import Split
from robustsearch.data.stratify import KEY_SEED, divide, stratified_order, validation_size


def slow_order(labels: list[int]) -> list[int]:
    """`stratified_order` in exact arithmetic, one image at a time."""
    keys = [int(key) for key in np.random.PCG64(KEY_SEED).random_raw(len(labels))]
    turns = []
    for index, label in enumerate(labels):
        members = [other for other, its in enumerate(labels) if its == label]
        rank = sum(keys[other] < keys[index] for other in members)
        turn = Fraction(0) if rank == 0 else (rank + Fraction(1, 2)) / len(members)
        turns.append((turn, keys[index], index))
    return [index for *_, index in sorted(turns)]


labels_of_any_shares = st.lists(st.integers(1, 25), min_size=2, max_size=6).flatmap(
    lambda counts: st.permutations([label for label, n in enumerate(counts) for _ in range(n)])
)


@given(labels=labels_of_any_shares)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_stratified_order_is_that_of_exact_arithmetic(labels: list[int]) -> None:
    assert stratified_order(np.array(labels)).tolist() == slow_order(labels)


@given(labels=labels_of_any_shares, share=st.floats(0, 1))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_choice_is_a_webster_apportionment_with_one_image_of_each_class(labels: list[int], share: float) -> None:
    """Webster's rule by its defining inequality: no class is due for another image before one that has it."""
    whole = Split(np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1), np.array(labels))
    size = round(share * len(labels))
    chosen, rest = divide(whole, size)
    counts, seats = np.bincount(labels), np.bincount(chosen.labels)
    assert len(chosen) == max(size, len(counts))
    assert examples(chosen, rest) == examples(whole)
    assert seats.min() >= 1
    last_given = [Fraction(2 * int(s) - 1, int(n)) for s, n in zip(seats, counts, strict=True) if s > 1]
    next_due = [Fraction(2 * int(s) + 1, int(n)) for s, n in zip(seats, counts, strict=True) if s < n]
    assert not last_given or not next_due or max(last_given) <= min(next_due)


def test_a_choice_keeps_the_order_of_the_file() -> None:
    whole = Split(np.arange(200, dtype=np.uint8).reshape(-1, 1, 1, 1), np.arange(200) % 2)
    for part in divide(whole, 60):
        assert (np.diff(part.images.ravel().astype(int)) > 0).all()


def test_a_choice_is_random_within_a_class() -> None:
    """A tenth of 20,000 images is chosen uniformly over the file: chi-square, 20 stretches, level 0.001."""
    chosen = stratified_order(np.zeros(20_000, dtype=np.int64))[:2000]
    assert scipy.stats.chisquare(np.bincount(chosen // 1000, minlength=20)).pvalue > 1e-3


@pytest.mark.parametrize(
    ("images", "held_out"),
    [
        (73_257, 5000),  # svhn
        (60_000, 5000),  # fashion-mnist
        (50_000, 5000),  # cifar
        (10_000, 1000),  # a tenth
        (2_000, 300),  # 300 is more than a tenth and less than a fifth
        (1_497, 300),  # digits
        (1_000, 200),  # a fifth is less than 300
        (4, 1),
    ],
)
def test_validation_size(images: int, held_out: int) -> None:
    assert validation_size(images) == held_out


def test_read_only_images_can_be_chosen() -> None:
    """As a node's shared memory gives them."""
    arrays = make_arrays()
    whole = Split(arrays["x_train"], arrays["y_train"])
    whole.images.flags.writeable = whole.labels.flags.writeable = False
    assert examples(*divide(whole, 30)) == examples(whole)
    np.testing.assert_array_equal(whole.take(np.array([3, 1])).images, whole.images[[3, 1]])
