"""FILE.npz, and the rules that the arrays of every dataset keep.

Whatever its format on disk, a dataset is read as four arrays: x_train and x_test, images uint8 `[N, H, W, C]`
(or `[N, H, W]`, one channel), and y_train and y_test, labels integer `[N]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError
from .dataset import Split

NAMES = ("x_train", "y_train", "x_test", "y_test")
MIN_PIXELS = 8
"""Smallest height and width: a WideResNet halves the image twice."""

Arrays = Mapping[str, NDArray[Any]]
T = TypeVar("T")


def guarded(path: Path, what: str, read: Callable[[Path], T]) -> T:
    """What `read` makes of the file; whatever goes wrong becomes a `DatasetError` that names the file."""
    try:
        return read(path)
    except Exception as error:  # parsers of damaged bytes raise anything: zlib.error, KeyError, MemoryError
        reason = f"{type(error).__name__}: {error}"
        raise DatasetError(f"{path} must be {what}, but it cannot be read ({reason}); is it whole?") from error


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The four arrays of a FILE.npz. Pickled objects are refused, for reading one could run code."""
    if not path.is_file():
        raise DatasetError(f"a FILE.npz dataset must be an existing file, but got {str(path)!r}")
    present = guarded(path, "an npz file (numpy.savez)", _members)
    if missing := [name for name in NAMES if name not in present]:
        raise DatasetError(
            f"{path} must hold the arrays {', '.join(NAMES)}, but lacks {', '.join(missing)}; "
            f"it holds {', '.join(present) or 'nothing'}"
        )
    return {name: guarded(path, f"readable in `{name}`", partial(_member, name=name)) for name in NAMES}


def _members(path: Path) -> list[str]:
    with path.open("rb") as stream:  # numpy would leave a damaged file open
        file = np.load(stream, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise TypeError("it is a single .npy array")
        return list(file.files)


def _member(path: Path, name: str) -> NDArray[Any]:
    with path.open("rb") as stream:
        array = np.load(stream, allow_pickle=False)[name]
        if not isinstance(array, np.ndarray):
            raise TypeError("it is no .npy array")
        return array


def checked(arrays: Arrays, source: str) -> tuple[Split, Split]:
    """The training and test images of a source, with every rule of a dataset held.

    Raises:
        DatasetError: an array breaks a rule; the message names the source, the array, the rule and the value.
    """
    x_train, x_test = (_images(arrays[name], f"{source}: `{name}`") for name in ("x_train", "x_test"))
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DatasetError(
            f"{source}: images of `x_train` and `x_test` must have one shape [H, W, C], but got "
            f"{list(x_train.shape[1:])} and {list(x_test.shape[1:])}"
        )
    for part, images in (("train", x_train), ("test", x_test)):
        _check_labels(arrays[f"y_{part}"], len(images), part, source)
    y_train, y_test = arrays["y_train"], arrays["y_test"]
    _check_classes(y_train, y_test, source)
    return Split(x_train, y_train.astype(np.int64)), Split(x_test, y_test.astype(np.int64))


def _images(x: NDArray[Any], where: str) -> NDArray[np.uint8]:
    """`x` as C-contiguous uint8 `[N, H, W, C]`."""
    if x.dtype != np.uint8:
        numeric = x.size > 0 and x.dtype.kind in "fiu"
        values = f" in [{x.min():g}, {x.max():g}]" if numeric else ""
        unit = numeric and x.dtype.kind == "f" and x.max() <= 1
        hint = "; multiply by 255, round, and convert" if unit else ""
        raise DatasetError(f"{where} must be uint8, 0 to 255, but got {x.dtype}{values}{hint}")
    if x.ndim not in (3, 4):
        raise DatasetError(f"{where} must be [N, H, W, C] or [N, H, W], but got shape {list(x.shape)}")
    images = x if x.ndim == 4 else x[..., None]
    _, height, width, channels = images.shape
    if channels not in (1, 3):
        hint = "; transpose(0, 2, 3, 1) puts the channels last" if images.shape[1] in (1, 3) else ""
        raise DatasetError(f"{where} must have 1 or 3 channels on its last axis, but got shape {list(x.shape)}{hint}")
    if min(height, width) < MIN_PIXELS:
        raise DatasetError(f"{where} must be at least {MIN_PIXELS} pixels high and wide, but got {height} x {width}")
    if not len(images):
        raise DatasetError(f"{where} must hold at least one image, but got shape {list(x.shape)}")
    return np.ascontiguousarray(images)


def _check_labels(y: NDArray[Any], images: int, part: str, source: str) -> None:
    if y.dtype.kind not in "iu":
        raise DatasetError(f"{source}: `y_{part}` must be of an integer type, but got {y.dtype}")
    if y.ndim != 1:
        raise DatasetError(f"{source}: `y_{part}` must be [N], but got shape {list(y.shape)}")
    if len(y) != images:
        raise DatasetError(
            f"{source}: `x_{part}` and `y_{part}` must have one length, but got {images} images and {len(y)} labels"
        )


def _check_classes(y_train: NDArray[Any], y_test: NDArray[Any], source: str) -> None:
    """Labels are 0 to C - 1, C >= 2: two or more of each in training (one is held out), no other in test."""
    found, counts = np.unique(y_train, return_counts=True)
    classes = len(found)
    if found[0] != 0 or found[-1] != classes - 1:
        raise DatasetError(f"{source}: `y_train` must hold all labels from 0 to C - 1, but got {_listing(found)}")
    if classes < 2:
        raise DatasetError(f"{source}: `y_train` must hold at least 2 classes, but got 1")
    if counts.min() < 2:
        single = _listing(found[counts < 2])
        raise DatasetError(f"{source}: `x_train` must hold at least 2 images of each class, but got 1 of {single}")
    unknown = [label for label in np.unique(y_test).tolist() if not 0 <= label < classes]
    if unknown:
        raise DatasetError(
            f"{source}: the labels of `y_test` must be among those of `y_train`, 0 to {classes - 1}, "
            f"but got {_listing(unknown)}"
        )


def _listing(values: NDArray[Any] | list[int]) -> str:
    """The first few values, and how many there are."""
    shown = ", ".join(str(value) for value in values[:8])
    return shown if len(values) <= 8 else f"{shown}, ... ({len(values)} values)"
