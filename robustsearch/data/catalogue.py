"""The datasets by name, with their conventions, and the one way from a name to a `Dataset`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError
from .arrays import checked, read_npz
from .dataset import Dataset, Split, channel_moments
from .published import Contents, read
from .stratify import divide, validation_size

DIGITS_TEST_SIZE = 300
"""Test images of digits, which comes without a test set of its own."""


@dataclass(frozen=True)
class Source:
    """A dataset by name: how its arrays are had, and what is usual for it; lengths in pixel units of [0, 1]."""

    read: Callable[[Path], Contents]
    """From the data directory to the four arrays of a FILE.npz and the names of the classes."""
    epsilon: float
    epsilon_l2: float
    crop_padding: int = 0
    """Pixels around an image from which training crops; 0 is no crop."""
    flip: bool = False
    """Whether training mirrors images."""


def _digits(data_dir: Path) -> Contents:
    """The 1,797 images 8 x 8 that scikit-learn carries; their grey levels 0 to 16 become 0 to 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)
    test, train = divide(Split(images[..., None], digits.target.astype(np.int64)), DIGITS_TEST_SIZE)
    arrays: dict[str, NDArray[Any]] = {"x_train": train.images, "y_train": train.labels}
    return arrays | {"x_test": test.images, "y_test": test.labels}, tuple("0123456789")


SOURCES = {
    # Our choice: 0.1 separates adversarial from plain training, 8/255 separates nothing.
    "digits": Source(_digits, epsilon=0.1, epsilon_l2=0.5),
    # Our choice: 0.1 as for digits, and about its l_2 budget per pixel (1.5 / 28, 0.5 / 8).
    "fashion-mnist": Source(partial(read, "fashion-mnist"), epsilon=0.1, epsilon_l2=1.5, crop_padding=2),
    # RobustBench's threat models (Croce et al. 2021, 2010.09670); many papers write 128/255 for 0.5.
    "cifar10": Source(partial(read, "cifar10"), epsilon=8 / 255, epsilon_l2=0.5, crop_padding=4, flip=True),
    "cifar100": Source(partial(read, "cifar100"), epsilon=8 / 255, epsilon_l2=0.5, crop_padding=4, flip=True),
    # As CIFAR (so do Rice et al. 2020, 2002.11569), but a mirrored digit is no digit.
    "svhn": Source(partial(read, "svhn"), epsilon=8 / 255, epsilon_l2=0.5, crop_padding=4),
}
"""A dataset more is an entry more."""

DATASETS = tuple(SOURCES)


def load(name: str, *, data_dir: Path | None = None, fraction: float = 1.0) -> Dataset:
    """The dataset of that name, split and ready to train on.

    `name` is one of `DATASETS` or a path ending in `.npz`. The published datasets lie below `data_dir`
    (default: `data` in the current directory) and are downloaded if absent; digits comes with scikit-learn.
    `fraction` in (0, 1] keeps that share of each split, stratified, and one image of each class at least;
    smaller shares are part of larger ones.

    A FILE.npz has the conventions of the named dataset that it resembles: of cifar10 if its images are in
    colour and at least 32 x 32, else of fashion-mnist from 28 x 28, else of digits.

    Raises:
        DatasetError: the name or the fraction breaks its rule, or the dataset is absent or malformed.
    """
    if not 0 < fraction <= 1:
        raise DatasetError(f"`fraction` must be in (0, 1], but got {fraction:g}")
    train, test, class_names = _read(name, data_dir or Path("data"))
    validation, train = divide(train, validation_size(len(train)))
    if fraction < 1:
        train, validation, test = (divide(part, round(fraction * len(part)))[0] for part in (train, validation, test))
    mean, std = channel_moments(train.images)
    usual = SOURCES[name if name in SOURCES else _resembled(train)]
    return Dataset(
        name=Path(name).name,
        train=train,
        validation=validation,
        test=test,
        classes=len(class_names),
        class_names=class_names,
        mean=mean,
        std=std,
        epsilon=usual.epsilon,
        epsilon_l2=usual.epsilon_l2,
        crop_padding=usual.crop_padding,
        flip=usual.flip,
    )


def of_settings(settings: Mapping[str, Any]) -> Dataset:
    """The dataset that the settings of a run name, `search.settings.Settings` or what `run.json` has of them.

    Raises:
        DatasetError: as for `load`.
    """
    directory = settings.get("data_dir")
    return load(
        settings.get("dataset", ""),
        data_dir=Path(directory) if directory else None,
        fraction=settings.get("fraction", 1.0),
    )


def _read(name: str, data_dir: Path) -> tuple[Split, Split, tuple[str, ...]]:
    """All training images, the test images, and the names of the classes."""
    if name in SOURCES:
        arrays, class_names = SOURCES[name].read(data_dir)
        train, test = checked(arrays, f"{name} in {data_dir}")
        if (found := int(train.labels.max()) + 1) != len(class_names):
            raise DatasetError(f"{name} in {data_dir} must have {len(class_names)} classes, but has {found}")
        return train, test, class_names
    if name.endswith(".npz"):
        path = Path(name).expanduser()
        train, test = checked(read_npz(path), str(path))
        return train, test, tuple(str(label) for label in range(int(train.labels.max()) + 1))
    raise DatasetError(f"the dataset must be one of {', '.join(DATASETS)} or a FILE.npz, but got {name!r}")


def _resembled(split: Split) -> str:
    """The named dataset whose images a FILE.npz resembles."""
    height, width, channels = split.images.shape[1:]
    if channels == 3 and min(height, width) >= 32:
        return "cifar10"
    return "fashion-mnist" if min(height, width) >= 28 else "digits"
