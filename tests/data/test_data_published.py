"""CIFAR, SVHN and Fashion-MNIST in the formats in which they are published."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_cases import (
    PUBLISHED,
    assert_well_formed,
    declare_published,
    examples,
    load_changed,
    make_arrays,
    published_case,
    write_cifar10,
    write_svhn,
)

from robustsearch.data import DATASETS, Split, load
from robustsearch.errors import DatasetError

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def test_the_names_of_the_datasets() -> None:
    assert DATASETS == ("digits", "fashion-mnist", "cifar10", "cifar100", "svhn")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_formats_are_read(tmp_path: Path, name: str) -> None:
    write, arrays, conventions = published_case(name)
    class_names = write(tmp_path, arrays)
    dataset = load_changed(name, tmp_path)
    assert_well_formed(dataset)
    assert examples(dataset.train, dataset.validation) == examples(Split(arrays["x_train"], arrays["y_train"]))
    np.testing.assert_array_equal(dataset.test.images, arrays["x_test"])
    np.testing.assert_array_equal(dataset.test.labels, arrays["y_test"])
    assert dataset.name == name
    assert dataset.class_names == class_names
    assert (dataset.epsilon, dataset.epsilon_l2, dataset.crop_padding, dataset.flip) == conventions


@pytest.mark.parametrize("name", PUBLISHED)
def test_torchvision_reads_the_same_and_published_files_raise_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The writers above are held to torchvision's own readers. (A warning would be an error here.)"""
    write, arrays, _ = published_case(name)
    write(tmp_path, arrays)
    kind = declare_published(monkeypatch, tmp_path, name)
    dataset = load(name, data_dir=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some versions of numpy warn of what Python 2 wrote
        theirs = kind(tmp_path, **({"split": "test"} if name == "svhn" else {"train": False}))
    images, labels = np.asarray(theirs.data), np.asarray(theirs.labels if name == "svhn" else theirs.targets)
    images = images.transpose(0, 2, 3, 1) if name == "svhn" else images
    np.testing.assert_array_equal(dataset.test.images, images.reshape(dataset.test.images.shape))
    np.testing.assert_array_equal(dataset.test.labels, labels)


def test_files_that_differ_from_the_published_ones_are_used_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, arrays, _ = published_case("svhn")
    write(tmp_path, arrays)
    declare_published(monkeypatch, tmp_path, "svhn")
    other = make_arrays(10, 6, (32, 32, 3), seed=1)
    write_svhn(tmp_path / "other", other)
    shutil.copy(tmp_path / "other/test_32x32.mat", tmp_path)
    with pytest.warns(UserWarning, match="is not the published file") as caught:
        dataset = load("svhn", data_dir=tmp_path)
    assert [str(tmp_path / "test_32x32.mat") in str(warning.message) for warning in caught] == [True]
    np.testing.assert_array_equal(dataset.test.images, other["x_test"])


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_cifar_batches_pickled_by_python_3_are_read(tmp_path: Path, protocol: int) -> None:
    arrays = make_arrays(10, 3, (32, 32, 3))
    write_cifar10(tmp_path, arrays, lambda value: pickle.dumps(value, protocol=protocol))
    np.testing.assert_array_equal(load_changed("cifar10", tmp_path).test.images, arrays["x_test"])


class Intruder:
    """Unpickled by an ordinary reader, this makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_a_cifar_batch_cannot_run_code(tmp_path: Path) -> None:
    write_cifar10(tmp_path, make_arrays(10, 2, (32, 32, 3)))
    batch = tmp_path / "cifar-10-batches-py/data_batch_3"
    batch.write_bytes(pickle.dumps({"data": Intruder(tmp_path / "ran"), "labels": [0]}))
    with pytest.raises(DatasetError, match=re.escape(str(batch)) + r".*but asks for (posix|nt)\.mkdir"):
        load("cifar10", data_dir=tmp_path)
    assert not (tmp_path / "ran").exists()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "another format": lambda content: b"<html>404 Not Found</html>",
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-batches-py/data_batch_2"),
        ("cifar10", "cifar-10-batches-py/batches.meta"),
        ("cifar100", "cifar-100-python/test"),
        ("svhn", "train_32x32.mat"),
        ("fashion-mnist", "FashionMNIST/raw/t10k-images-idx3-ubyte"),
        ("fashion-mnist", "FashionMNIST/raw/train-labels-idx1-ubyte"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, file: str, damage: str) -> None:
    write, arrays, _ = published_case(name)
    write(tmp_path, arrays)
    path = tmp_path / file
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(DatasetError, match=re.escape(str(path)) + " must be .*, but it cannot be read"):
        load(name, data_dir=tmp_path)


def test_published_files_with_other_classes_are_refused(tmp_path: Path) -> None:
    write_svhn(tmp_path, make_arrays(4, 4, (32, 32, 3)))
    with pytest.raises(DatasetError, match=f"svhn in {re.escape(str(tmp_path))} must have 10 classes, but has 4"):
        load_changed("svhn", tmp_path)


@pytest.mark.skipif(not DEBIAN_FASHION_MNIST.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_genuine_fashion_mnist(tmp_path: Path) -> None:
    from torchvision.datasets import FashionMNIST

    raw = tmp_path / "FashionMNIST/raw"
    raw.mkdir(parents=True)
    for archive in DEBIAN_FASHION_MNIST.glob("*.gz"):
        (raw / archive.stem).write_bytes(gzip.decompress(archive.read_bytes()))
    dataset = load("fashion-mnist", data_dir=tmp_path)
    assert_well_formed(dataset)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (55_000, 5_000, 10_000)
    assert np.bincount(dataset.validation.labels).tolist() == [500] * 10
    theirs = FashionMNIST(tmp_path, train=True, download=False)
    whole = Split(theirs.data.numpy()[..., None], theirs.targets.numpy())
    assert examples(dataset.train, dataset.validation) == examples(whole)
    # The moments of all 60,000 training images, as published everywhere.
    assert dataset.mean == pytest.approx((0.2860,), abs=2e-3)
    assert dataset.std == pytest.approx((0.3530,), abs=2e-3)
