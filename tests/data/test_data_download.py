"""Downloads: whole or not at all, quick to fail, silent; from servers on this machine only."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import socket
import tarfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pytest
from data_cases import PUBLISHED, declare_published, examples, make_arrays, published_case

from robustsearch.data import Split, load, published
from robustsearch.errors import DatasetError


@pytest.fixture
def through_proxy(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Send all web traffic of this process to a port of this machine."""

    def use(port: int) -> None:
        for variable in ("no_proxy", "NO_PROXY", "REQUEST_METHOD"):
            monkeypatch.delenv(variable, raising=False)
        for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{port}")
        monkeypatch.setattr(urllib.request, "_opener", None)  # else it may hold the proxies of before

    return use


class Web:
    """A proxy that answers with `files` by base name, the first `share` of each, and then hangs up."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.share = 1.0
        self.asked: list[str] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = os.path.basename(urlparse(self.path).path)
                web.asked.append(name)
                content = web.files.get(name)
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: round(web.share * len(content))])

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def web(through_proxy: Callable[[int], None]) -> Iterator[Web]:
    web = Web()
    through_proxy(web.server.server_port)
    yield web
    web.close()


def below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "files", "archives"),
    [
        (
            "cifar10",
            ", ".join(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6))
            + ", cifar-10-batches-py/test_batch, cifar-10-batches-py/batches.meta",
            "cifar-10-python.tar.gz",
        ),
        (
            "cifar100",
            "cifar-100-python/train, cifar-100-python/test, cifar-100-python/meta",
            "cifar-100-python.tar.gz",
        ),
        ("svhn", "train_32x32.mat, test_32x32.mat", "train_32x32.mat, test_32x32.mat"),
        (
            "fashion-mnist",
            "FashionMNIST/raw/train-images-idx3-ubyte, FashionMNIST/raw/train-labels-idx1-ubyte, "
            "FashionMNIST/raw/t10k-images-idx3-ubyte, FashionMNIST/raw/t10k-labels-idx1-ubyte",
            "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, "
            "t10k-labels-idx1-ubyte.gz",
        ),
    ],
)
def test_without_files_and_network_the_error_says_what_to_put_where(
    tmp_path: Path,
    through_proxy: Callable[[int], None],
    capfd: pytest.CaptureFixture[str],
    name: str,
    files: str,
    archives: str,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed_port = taken.getsockname()[1]
    through_proxy(closed_port)
    start = time.monotonic()
    with pytest.raises(DatasetError) as caught:
        load(name, data_dir=tmp_path)
    assert time.monotonic() - start < 5
    message = str(caught.value)
    rule = f"the files of {name} must lie below the data directory"
    assert message.startswith(f"{rule}, but {tmp_path} lacks {files}, and the download failed (")
    assert "refused" in message
    assert message.endswith(f"put these files there by hand (from {archives}), or name another --data-dir")
    assert "".join(capfd.readouterr()) == ""
    assert below(tmp_path) == set()


def test_a_silent_server_is_given_up(
    tmp_path: Path, through_proxy: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "TIMEOUT_S", 0.3)
    before = socket.getdefaulttimeout()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        through_proxy(silent.getsockname()[1])
        start = time.monotonic()
        with pytest.raises(DatasetError, match=r"the download failed .*timed out"):
            load("svhn", data_dir=tmp_path)
    assert time.monotonic() - start < 5
    assert socket.getdefaulttimeout() == before


def test_the_default_data_directory_is_below_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, arrays, _ = published_case("fashion-mnist")
    write(tmp_path / "data", arrays)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(load("fashion-mnist").test.images, arrays["x_test"])


def offer(monkeypatch: pytest.MonkeyPatch, web: Web, name: str, source: Path) -> None:
    """Put the files below `source` on the web as their publisher does, with checksums to match."""
    kind = declare_published(monkeypatch, source, name)
    if name == "svhn":
        web.files = {path.name: path.read_bytes() for path in source.iterdir()}
    elif name == "fashion-mnist":
        web.files = {
            f"{path.name}.gz": gzip.compress(path.read_bytes()) for path in (source / "FashionMNIST/raw").iterdir()
        }
        resources = [(file, hashlib.md5(web.files[file]).hexdigest()) for file, _ in kind.resources]
        monkeypatch.setattr(kind, "resources", resources)
        monkeypatch.setattr(kind, "mirrors", ["http://fashion.example/"])
    else:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            archive.add(source / kind.base_folder, kind.base_folder)
        web.files = {kind.filename: stream.getvalue()}
        monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(stream.getvalue()).hexdigest())
        monkeypatch.setattr(kind, "url", f"http://cifar.example/{kind.filename}")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_download_arrives_whole_or_not_at_all(
    tmp_path: Path,
    web: Web,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
) -> None:
    write, arrays, _ = published_case(name)
    source, target = tmp_path / "source", tmp_path / "target"
    write(source, arrays)
    offer(monkeypatch, web, name, source)

    web.share = 0.5
    with pytest.raises(DatasetError, match="the download failed"):
        load(name, data_dir=target)
    assert below(target) == set()

    web.share = 1.0
    np.testing.assert_array_equal(load(name, data_dir=target).test.images, arrays["x_test"])
    assert below(target) == below(source)

    web.asked.clear()
    load(name, data_dir=target)
    assert web.asked == []
    assert "".join(capfd.readouterr()) == ""


def test_a_download_leaves_present_files_as_they_are(tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    write, arrays, _ = published_case("svhn")
    source, target = tmp_path / "source", tmp_path / "target"
    write(source, arrays)
    own = make_arrays(10, 6, (32, 32, 3), seed=1)
    write(target, own)
    (target / "test_32x32.mat").unlink()
    offer(monkeypatch, web, "svhn", source)
    with pytest.warns(UserWarning, match=r"train_32x32\.mat is not the published file"):
        dataset = load("svhn", data_dir=target)
    assert examples(dataset.train, dataset.validation) == examples(Split(own["x_train"], own["y_train"]))
    np.testing.assert_array_equal(dataset.test.images, arrays["x_test"])
