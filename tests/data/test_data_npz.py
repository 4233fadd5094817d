"""FILE.npz: what it becomes, and every way to refuse one."""

from __future__ import annotations

import io
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_cases import Arrays, assert_well_formed, examples, make_arrays
from numpy.typing import NDArray

from robustsearch.data import Split, load
from robustsearch.errors import DatasetError

CIFAR_NPZ = Path(
    os.environ.get("ROBUSTSEARCH_TEST_NPZ") or Path(__file__).resolve().parents[3] / "shared/data/cifar10-12k.npz"
)


def write_npz(folder: Path, arrays: Arrays) -> str:
    path = folder / "set.npz"
    np.savez(path, **arrays)
    return str(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64, ">i8"])
def test_npz_round_trip(tmp_path: Path, dtype: Any) -> None:
    arrays = make_arrays(classes=4, each=25, shape=(9, 11, 3))
    arrays |= {name: arrays[name].astype(dtype) for name in ("y_train", "y_test")}
    dataset = load(write_npz(tmp_path, arrays))
    assert_well_formed(dataset)
    whole = Split(arrays["x_train"], arrays["y_train"])
    assert max(examples(whole).values()) == 1
    assert examples(dataset.train, dataset.validation) == examples(whole)
    assert np.bincount(dataset.validation.labels).tolist() == [5] * 4  # a fifth of 100 images
    np.testing.assert_array_equal(dataset.test.images, arrays["x_test"])
    np.testing.assert_array_equal(dataset.test.labels, arrays["y_test"])
    assert dataset.name == "set.npz"
    assert dataset.class_names == ("0", "1", "2", "3")
    assert dataset.shape == (3, 9, 11)


def test_npz_without_a_channel_axis_and_in_fortran_order(tmp_path: Path) -> None:
    arrays = make_arrays(shape=(8, 10))
    arrays["x_test"] = np.asfortranarray(arrays["x_test"])
    dataset = load(write_npz(tmp_path, arrays))
    assert_well_formed(dataset)
    assert dataset.shape == (1, 8, 10)
    np.testing.assert_array_equal(dataset.test.images[..., 0], arrays["x_test"])


@pytest.mark.parametrize(
    ("shape", "like"),
    [
        ((32, 32, 3), (8 / 255, 0.5, 4, True)),
        ((40, 33, 3), (8 / 255, 0.5, 4, True)),
        ((32, 31, 3), (0.1, 1.5, 2, False)),
        ((32, 32, 1), (0.1, 1.5, 2, False)),
        ((28, 28), (0.1, 1.5, 2, False)),
        ((27, 28, 3), (0.1, 0.5, 0, False)),
        ((8, 8, 1), (0.1, 0.5, 0, False)),
    ],
)
def test_npz_takes_the_conventions_of_the_dataset_it_resembles(
    tmp_path: Path, shape: tuple[int, ...], like: tuple[float, float, int, bool]
) -> None:
    dataset = load(write_npz(tmp_path, make_arrays(each=4, shape=shape)))
    assert (dataset.epsilon, dataset.epsilon_l2, dataset.crop_padding, dataset.flip) == like


def changed(name: str, change: Callable[[NDArray[Any]], Any]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | {name: change(arrays[name])}


def with_value(value: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """The labels with the first one replaced."""
    return lambda y: np.concatenate([[value], y[1:]])


BROKEN: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "missing arrays": (
        lambda arrays: {"x_train": arrays["x_train"], "y_train": arrays["y_train"], "z": arrays["y_test"]},
        "must hold the arrays x_train, y_train, x_test, y_test, but lacks x_test, y_test; it holds x_train, y_train, z",
    ),
    "unit floats": (
        changed("x_train", lambda x: (x / 255).astype(np.float32)),
        "`x_train` must be uint8, 0 to 255, but got float32 in [0, 1]; multiply by 255, round, and convert",
    ),
    "other floats": (
        changed("x_test", lambda x: (x > 0) * 255.0),
        "`x_test` must be uint8, 0 to 255, but got float64 in [0, 255]",
    ),
    "wide integers": (
        changed("x_test", lambda x: (x > 0) * np.int32(7)),
        "`x_test` must be uint8, 0 to 255, but got int32 in [0, 7]",
    ),
    "booleans": (changed("x_train", lambda x: x > 9), "`x_train` must be uint8, 0 to 255, but got bool"),
    "flat images": (
        changed("x_train", lambda x: x.reshape(len(x), -1)),
        "`x_train` must be [N, H, W, C] or [N, H, W], but got shape [60, 64]",
    ),
    "too many axes": (
        changed("x_test", lambda x: x[..., None]),
        "`x_test` must be [N, H, W, C] or [N, H, W], but got shape [60, 8, 8, 1, 1]",
    ),
    "two channels": (
        changed("x_train", lambda x: np.repeat(x, 2, axis=3)),
        "`x_train` must have 1 or 3 channels on its last axis, but got shape [60, 8, 8, 2]",
    ),
    "channels first": (
        changed("x_train", lambda x: x.transpose(0, 3, 1, 2)),
        "`x_train` must have 1 or 3 channels on its last axis, but got shape [60, 1, 8, 8]; "
        "transpose(0, 2, 3, 1) puts the channels last",
    ),
    "tiny images": (
        changed("x_train", lambda x: x[:, :, 1:]),
        "`x_train` must be at least 8 pixels high and wide, but got 8 x 7",
    ),
    "no images": (
        lambda arrays: arrays | {"x_test": arrays["x_test"][:0], "y_test": arrays["y_test"][:0]},
        "`x_test` must hold at least one image, but got shape [0, 8, 8, 1]",
    ),
    "sizes differ": (
        changed("x_test", lambda x: np.repeat(x, 2, axis=1)),
        "images of `x_train` and `x_test` must have one shape [H, W, C], but got [8, 8, 1] and [16, 8, 1]",
    ),
    "lengths differ": (
        changed("y_test", lambda y: y[:-1]),
        "`x_test` and `y_test` must have one length, but got 60 images and 59 labels",
    ),
    "float labels": (
        changed("y_train", lambda y: y.astype(float)),
        "`y_train` must be of an integer type, but got float64",
    ),
    "one-hot labels": (
        changed("y_train", lambda y: np.eye(3, dtype=int)[y]),
        "`y_train` must be [N], but got shape [60, 3]",
    ),
    "negative label": (
        changed("y_train", with_value(-1)),
        "`y_train` must hold all labels from 0 to C - 1, but got -1, 0, 1, 2",
    ),
    "labels from 1": (
        changed("y_train", lambda y: y + 1),
        "`y_train` must hold all labels from 0 to C - 1, but got 1, 2, 3",
    ),
    "left-out label": (
        changed("y_train", with_value(2**40)),
        "`y_train` must hold all labels from 0 to C - 1, but got 0, 1, 2, 1099511627776",
    ),
    "many labels": (
        changed("y_train", lambda y: 2 * np.arange(len(y))),
        "`y_train` must hold all labels from 0 to C - 1, but got 0, 2, 4, 6, 8, 10, 12, 14, ... (60 values)",
    ),
    "one class": (
        lambda arrays: arrays | {"y_train": 0 * arrays["y_train"], "y_test": 0 * arrays["y_test"]},
        "`y_train` must hold at least 2 classes, but got 1",
    ),
    "single images": (
        changed("y_train", with_value(3)),
        "`x_train` must hold at least 2 images of each class, but got 1 of 3",
    ),
    "unknown test class": (
        changed("y_test", with_value(3)),
        "the labels of `y_test` must be among those of `y_train`, 0 to 2, but got 3",
    ),
    "negative test class": (
        changed("y_test", with_value(-1)),
        "the labels of `y_test` must be among those of `y_train`, 0 to 2, but got -1",
    ),
    "huge unsigned test class": (
        changed("y_test", lambda y: np.r_[np.uint64(2**64 - 1), y[1:].astype(np.uint64)]),
        "the labels of `y_test` must be among those of `y_train`, 0 to 2, but got 18446744073709551615",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_malformed_npz_is_refused_with_the_rule_and_the_value(tmp_path: Path, case: str) -> None:
    change, message = BROKEN[case]
    path = write_npz(tmp_path, change(make_arrays()))
    with pytest.raises(DatasetError) as caught:
        load(path)
    assert str(caught.value).startswith(path)
    assert str(caught.value).endswith(message)


def test_pickled_objects_in_an_npz_are_refused(tmp_path: Path) -> None:
    arrays = make_arrays()
    arrays["y_train"] = arrays["y_train"].astype(object)
    with pytest.raises(DatasetError, match=r"readable in `y_train`.*allow_pickle=False"):
        load(write_npz(tmp_path, arrays))


@pytest.mark.parametrize("name", ["absent.npz", "folder.npz"])
def test_an_absent_npz_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.npz").mkdir()
    path = str(tmp_path / name)
    with pytest.raises(DatasetError, match=re.escape(f"must be an existing file, but got {path!r}")):
        load(path)


def test_what_is_no_npz_is_named(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    single = io.BytesIO()
    np.save(single, np.zeros(3))
    for content in (b"", b"x_train, y_train\n", single.getvalue(), pickle.dumps({"x_train": [1]}), b"PK\3\4"):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=re.escape(f"{path} must be an npz file (numpy.savez), but it cannot")):
            load(str(path))


def test_a_member_that_is_no_array_is_named(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, **{name: array for name, array in make_arrays().items() if name != "y_test"})
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("y_test", b"0, 1, 2")
    with pytest.raises(DatasetError, match=r"must be readable in `y_test`.*it is no \.npy array"):
        load(str(path))


def test_a_damaged_npz_raises_nothing_else(tmp_path: Path) -> None:
    """120 files, a byte changed or the end cut off: each is refused in our words or loads what was saved."""
    rng = np.random.default_rng(0)
    path = tmp_path / "set.npz"
    arrays = make_arrays(classes=2, each=4)
    np.savez_compressed(path, **arrays)
    whole = path.read_bytes()
    refused = 0
    for trial in range(120):
        damaged = bytearray(whole)
        position = int(rng.integers(len(whole)))
        if trial % 2:
            damaged[position] ^= int(rng.integers(1, 256))
        else:
            del damaged[position:]
        path.write_bytes(damaged)
        try:
            dataset = load(str(path))
        except DatasetError:
            refused += 1
        else:
            np.testing.assert_array_equal(dataset.test.images, arrays["x_test"])
    assert refused > 90


@pytest.mark.parametrize("name", ["mnist", "CIFAR10", "", "set.npy"])
def test_an_unknown_name_is_refused(name: str) -> None:
    rule = "the dataset must be one of digits, fashion-mnist, cifar10, cifar100, svhn or a FILE.npz"
    with pytest.raises(DatasetError, match=re.escape(f"{rule}, but got {name!r}")):
        load(name)


@pytest.mark.skipif(not CIFAR_NPZ.is_file(), reason=f"no genuine CIFAR-10 images at {CIFAR_NPZ}")
def test_genuine_cifar10_from_npz() -> None:
    dataset = load(str(CIFAR_NPZ))
    assert_well_formed(dataset)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (9000, 1000, 2000)
    assert (dataset.epsilon, dataset.crop_padding, dataset.flip) == (8 / 255, 4, True)
    with np.load(CIFAR_NPZ) as file:
        shares = np.bincount(file["y_train"]) / 10
        assert np.abs(np.bincount(dataset.validation.labels) - shares).max() < 1
    # The moments of all 50,000 training images, as published everywhere.
    assert dataset.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.01)
    assert dataset.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=0.01)
