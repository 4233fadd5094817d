"""Fashion-MNIST, CIFAR-10, CIFAR-100 and SVHN: their files, their download, their formats.

Files that are present are used as they are; where one differs from the published file (by the MD5 that
torchvision records), a warning names it. Files that are absent are downloaded from where torchvision says
they are, into a temporary folder, and moved into place only when all of them have arrived whole.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import socket
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError
from .arrays import guarded

logger = logging.getLogger(__name__)

TIMEOUT_S = 10
"""Longest silence of a server, in seconds, before a download is given up."""

Contents = tuple[dict[str, NDArray[Any]], tuple[str, ...]]
"""The four arrays x_train, y_train, x_test, y_test, and the names of the classes."""


@dataclass(frozen=True)
class Files:
    """Where a dataset lies below the data directory, and where it comes from."""

    md5: dict[str, str | None]
    """Path of each file to its published MD5; None where torchvision records none."""
    archives: dict[str, str]
    """URL of each download to its MD5."""
    folder: str = ""
    """Where the archives are unpacked."""


def read(name: str, data_dir: Path) -> Contents:
    """The arrays and class names of a published dataset, from its files below `data_dir`.

    Raises:
        DatasetError: files are absent and cannot be downloaded, or cannot be read; the message names them.
    """
    files = _files(name)
    if any(not (data_dir / path).is_file() for path in files.md5):
        _download(name, files, data_dir)
    paths = [data_dir / path for path in files.md5]
    contents = {"fashion-mnist": _read_fashion_mnist, "svhn": _read_svhn}.get(name, _read_cifar)(paths)
    _warn_of_changes(files, data_dir)
    return contents


def _files(name: str) -> Files:
    """The files of a dataset, in the order in which its reader takes them."""
    from torchvision import datasets

    if name == "fashion-mnist":
        kind, folder = datasets.FashionMNIST, "FashionMNIST/raw"
        return Files(
            md5={f"{folder}/{archive.removesuffix('.gz')}": None for archive, _ in kind.resources},
            archives={kind.mirrors[0] + archive: md5 for archive, md5 in kind.resources},
            folder=folder,
        )
    if name == "svhn":
        parts = [datasets.SVHN.split_list[part] for part in ("train", "test")]
        return Files(md5={path: md5 for _, path, md5 in parts}, archives={url: md5 for url, _, md5 in parts})
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    batches = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    return Files(md5={f"{kind.base_folder}/{path}": md5 for path, md5 in batches}, archives={kind.url: kind.tgz_md5})


def _download(name: str, files: Files, data_dir: Path) -> None:
    """Fetch what is missing, all of it or nothing.

    Raises:
        DatasetError: it cannot be fetched; the message says which files to put where.
    """
    from torchvision.datasets.utils import download_url, extract_archive

    missing = [path for path in files.md5 if not (data_dir / path).is_file()]
    logger.info("downloading %s into %s", name, data_dir)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=data_dir, prefix=".download-") as scratch, _quick_and_quiet():
            root = Path(scratch)
            for url, md5 in files.archives.items():
                download_url(url, root / files.folder, md5=md5)
                archive = root / files.folder / os.path.basename(url)
                if archive.suffix == ".gz":
                    extract_archive(archive, root / files.folder)
            for path in missing:
                (data_dir / path).parent.mkdir(parents=True, exist_ok=True)
                os.replace(root / path, data_dir / path)
    except (OSError, RuntimeError, HTTPException) as error:
        archives = ", ".join(os.path.basename(url) for url in files.archives)
        raise DatasetError(
            f"the files of {name} must lie below the data directory, but {data_dir} lacks "
            f"{', '.join(missing)}, and the download failed ({error}); put these files there by hand "
            f"(from {archives}), or name another --data-dir"
        ) from error


@contextlib.contextmanager
def _quick_and_quiet() -> Iterator[None]:
    """Sockets that give up after `TIMEOUT_S`, and no progress bars."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _warn_of_changes(files: Files, data_dir: Path) -> None:
    from torchvision.datasets.utils import check_integrity

    for path, md5 in files.md5.items():
        if not check_integrity(data_dir / path, md5):
            warnings.warn(f"{data_dir / path} is not the published file (MD5 {md5}), but is used as it is")


def _read_fashion_mnist(paths: list[Path]) -> Contents:
    from torchvision.datasets import FashionMNIST

    names = ("x_train", "y_train", "x_test", "y_test")
    arrays = {name: guarded(path, "an idx file of bytes", _idx) for name, path in zip(names, paths, strict=True)}
    return arrays, tuple(FashionMNIST.classes)


def _idx(path: Path) -> NDArray[np.uint8]:
    """An idx file: bytes 0, 0, type (8 is uint8), axes; the lengths, big-endian uint32; the values."""
    content = path.read_bytes()
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"it must begin with bytes 0, 0, 8, but begins with {list(content[:3])}")
    start = 4 + 4 * content[3]
    shape = [int(length) for length in np.frombuffer(content[4:start], dtype=">u4")]
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _read_svhn(paths: list[Path]) -> Contents:
    (x_train, y_train), (x_test, y_test) = (guarded(path, "a MATLAB file with X and y", _mat) for path in paths)
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    return arrays, tuple("0123456789")


def _mat(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Images `[N, H, W, C]` and labels `[N]`; the file has X `[H, W, C, N]` and y `[N, 1]`, with 10 for 0."""
    from scipy.io import loadmat

    content = loadmat(path, variable_names=["X", "y"])
    return content["X"].transpose(3, 0, 1, 2), content["y"].reshape(-1) % 10


def _read_cifar(paths: list[Path]) -> Contents:
    *batches, test, meta = paths
    what = "a pickled batch of CIFAR images"
    parts = [guarded(path, what, _batch) for path in batches]
    x_test, y_test = guarded(test, what, _batch)
    arrays = {
        "x_train": np.concatenate([images for images, _ in parts]),
        "y_train": np.concatenate([labels for _, labels in parts]),
        "x_test": x_test,
        "y_test": y_test,
    }
    return arrays, guarded(meta, "the pickled class names of CIFAR", _class_names)


def _batch(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Images `[N, 32, 32, 3]` and labels `[N]`; the batch holds red, green and blue planes."""
    content = _unpickle(path)
    labels = content["labels"] if "labels" in content else content["fine_labels"]
    return content["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels).reshape(-1)


def _class_names(path: Path) -> tuple[str, ...]:
    content = _unpickle(path)
    return tuple(content["label_names"] if "label_names" in content else content["fine_label_names"])


def _unpickle(path: Path) -> Any:
    with path.open("rb") as file:
        return _ArrayUnpickler(file, encoding="latin1").load()  # Python 2 wrote them


class _ArrayUnpickler(pickle.Unpickler):
    """Reads plain values and numpy arrays; refuses a pickle that asks for more, for it could run code."""

    ALLOWED = frozenset(
        {
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy._core.numeric", "_frombuffer"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it must hold plain values and arrays only, but asks for {module}.{name}")
        return super().find_class(module, name)
