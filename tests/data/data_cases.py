"""Small datasets for the tests: arrays, the published formats on disk, and what every dataset must hold."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.stats
from numpy.typing import NDArray

from robustsearch.data import DATASETS, Dataset, Split, load

Arrays = dict[str, NDArray[Any]]


def make_arrays(classes: int = 3, each: int = 20, shape: tuple[int, ...] = (8, 8, 1), seed: int = 0) -> Arrays:
    """Four arrays of random images, no two alike; `each` images a class in each part, in mixed order."""
    rng = np.random.default_rng(seed)
    arrays: Arrays = {}
    for part in ("train", "test"):
        arrays[f"x_{part}"] = rng.integers(0, 256, (classes * each, *shape), dtype=np.uint8)
        arrays[f"y_{part}"] = rng.permutation(np.repeat(np.arange(classes), each))
    return arrays


def examples(*splits: Split) -> Counter[tuple[bytes, int]]:
    """The multiset of (image, label) pairs: equal multisets of a whole and its parts prove a partition."""
    return Counter(
        (image.tobytes(), int(label))
        for split in splits
        for image, label in zip(split.images, split.labels, strict=True)
    )


def assert_well_formed(dataset: Dataset) -> None:
    channels, height, width = dataset.shape
    for split in (dataset.train, dataset.validation, dataset.test):
        assert split.images.dtype == np.uint8
        assert split.images.shape == (len(split), height, width, channels)
        assert split.images.flags.c_contiguous
        assert split.labels.dtype == np.int64
        assert split.labels.shape == (len(split),)
        assert set(split.labels.tolist()) <= set(range(dataset.classes))
    assert len(dataset.class_names) == dataset.classes
    assert len(dataset.mean) == len(dataset.std) == channels


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Pickles as Python 2 pickled the genuine CIFAR batches: byte strings, and integers for flags."""

    dispatch = pickle._Pickler.dispatch.copy()  # type: ignore[attr-defined]

    def save_string(self, value: bytes | str) -> None:
        content = value.encode("latin1") if isinstance(value, str) else value
        short = len(content) < 256
        self.write((b"U" + bytes([len(content)]) if short else b"T" + struct.pack("<i", len(content))) + content)
        self.memoize(value)

    def save_flag(self, value: bool) -> None:
        self.write(b"K" + bytes([value]))

    dispatch[bytes] = dispatch[str] = save_string
    dispatch[bool] = save_flag


def python2_pickle(value: Any) -> bytes:
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(value)
    content = stream.getvalue()
    assert b"numpy._core" in content or not isinstance(value.get("data"), np.ndarray)
    return content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def planes(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images `[N, 32, 32, 3]` as rows of 3,072: all red, then all green, then all blue values."""
    return np.stack([np.concatenate([image[..., c].ravel() for c in range(3)]) for image in images])


def write_cifar10(root: Path, arrays: Arrays, dump: Callable[[Any], bytes] = python2_pickle) -> tuple[str, ...]:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    batches = np.array_split(np.arange(len(arrays["y_train"])), 5)
    for number, rows in enumerate(batches, start=1):
        batch = {"data": planes(arrays["x_train"][rows]), "labels": arrays["y_train"][rows].tolist()}
        (folder / f"data_batch_{number}").write_bytes(dump(batch))
    test = {"data": planes(arrays["x_test"]), "labels": arrays["y_test"].tolist()}
    (folder / "test_batch").write_bytes(dump(test))
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    (folder / "batches.meta").write_bytes(dump({"num_vis": 3072, "label_names": list(names)}))
    return names


def write_cifar100(root: Path, arrays: Arrays) -> tuple[str, ...]:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for part in ("train", "test"):
        fine = arrays[f"y_{part}"].tolist()
        coarse = [label // 5 for label in fine]
        batch = {"data": planes(arrays[f"x_{part}"]), "fine_labels": fine, "coarse_labels": coarse}
        (folder / part).write_bytes(python2_pickle(batch))
    names = tuple(f"class{number:02}" for number in range(100))
    (folder / "meta").write_bytes(python2_pickle({"fine_label_names": list(names), "coarse_label_names": ["a"]}))
    return names


def write_svhn(root: Path, arrays: Arrays) -> tuple[str, ...]:
    root.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        y = arrays[f"y_{part}"]
        content = {
            "X": arrays[f"x_{part}"].transpose(1, 2, 3, 0),
            "y": np.where(y == 0, 10, y).astype(np.uint8)[:, None],
        }
        scipy.io.savemat(root / f"{part}_32x32.mat", content, do_compression=True)
    return tuple("0123456789")


def write_fashion_mnist(root: Path, arrays: Arrays) -> tuple[str, ...]:
    folder = root / "FashionMNIST/raw"
    folder.mkdir(parents=True)
    for part, prefix in (("train", "train"), ("test", "t10k")):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"].astype(np.uint8)
        images = struct.pack(">BBBBIII", 0, 0, 8, 3, *x.shape[:3]) + x.tobytes()
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(images)
        labels = struct.pack(">BBBBI", 0, 0, 8, 1, len(y)) + y.tobytes()
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(labels)
    names = "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"
    return tuple(names.split(", "))


Published = tuple[Callable[[Path, Arrays], tuple[str, ...]], Arrays, tuple[float, float, int, bool]]


def published_case(name: str) -> Published:
    """Writer of the genuine format, random content, and the conventions: l_inf, l_2, crop padding, flip."""
    colour = make_arrays(10, 6, (32, 32, 3))
    return {
        "cifar10": (write_cifar10, colour, (8 / 255, 0.5, 4, True)),
        "cifar100": (write_cifar100, make_arrays(100, 2, (32, 32, 3)), (8 / 255, 0.5, 4, True)),
        "svhn": (write_svhn, colour, (8 / 255, 0.5, 4, False)),
        "fashion-mnist": (write_fashion_mnist, make_arrays(10, 6, (28, 28, 1)), (0.1, 1.5, 2, False)),
    }[name]


PUBLISHED = [name for name in DATASETS if name != "digits"]


def load_changed(name: str, root: Path) -> Dataset:
    """`load` where a warning that the files are not the published ones is as it should be."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is not the published file")
        return load(name, data_dir=root)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def declare_published(monkeypatch: pytest.MonkeyPatch, root: Path, name: str) -> Any:
    """Write torchvision's table of checksums anew, as if the files below `root` were the published ones."""
    import torchvision  # with its compiler of networks: seconds, for the few tests that need them

    if name == "svhn":
        table = {
            part: [
                f"http://ufldl.stanford.edu/{part}_32x32.mat",
                f"{part}_32x32.mat",
                md5(root / f"{part}_32x32.mat"),
            ]
            for part in ("train", "test")
        }
        monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", table)
        return torchvision.datasets.SVHN
    if name == "fashion-mnist":
        return torchvision.datasets.FashionMNIST
    kind = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[name]
    folder = root / kind.base_folder
    for table in ("train_list", "test_list"):
        monkeypatch.setattr(kind, table, [[file, md5(folder / file)] for file, _ in getattr(kind, table)])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5(folder / kind.meta["filename"])})
    return kind
