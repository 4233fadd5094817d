"""A run in an object store: `--storage s3://BUCKET/PATH`.

A driver works in a folder of its own machine, below `~/.cache/robustsearch`; the store holds what a driver on another
machine needs to go on:

- `events/`: the event log in segments of `SEGMENT` lines. Each event is in the store before it takes effect, so the
  store is the truth, and a folder that is there already is brought to it;
- `trials/ID/`: pushed by the workers after each epoch, the checkpoint last;
- `run.json`, `results/`, `study/`, `evaluations/`, `figures/`: pushed every few seconds. Results and study can be made
  again from the log.

An object is replaced as a whole or not at all. A store has no locks, and its filesystem here no conditional put, so the
one driver of a run holds a lease (`Lease`).
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from .errors import RunError, StorageError
from .patience import patiently

SEGMENT = 64
"""Events in an object."""
BEAT, SILENCE = 3.0, 15.0
"""A lease is renewed every so many seconds; after so many without a renewal another driver may take it."""
PUSH_EVERY = 5.0
"""Seconds between two pushes of what has changed in the folder, at least."""
OPTIONS = ("endpoint_override", "region", "scheme")
"""Of a URL; what may be a secret is none, since a URL ends up in logs."""
PUSHED = ("run.json", "results", "study", "evaluations", "figures", "trials/search")


def is_url(place: str | Path) -> bool:
    """Whether this names a run in an object store; a `Path` of a URL does too, with one slash instead of two."""
    return str(place).startswith("s3:/")


class Store:
    """The objects of one run.

    Attributes:
        url: `s3://BUCKET/PATH/NAME`, with the options of the filesystem after a `?`.
        parent: where the run is, as `--storage` takes it.
        root: the folder on this machine.
        lease: of this driver, while it holds one.
    """

    def __init__(self, place: str | Path) -> None:
        """The run at a URL.

        Raises:
            RunError: it is no URL of a run, or has credentials in it, which would end up in logs.
        """
        self.url = re.sub(r"(?<=:)/+", "//", str(place))
        bare, question, options = self.url.partition("?")
        if "@" in self.url or any(option.partition("=")[0] not in OPTIONS for option in options.split("&") if option):
            raise RunError(
                f"a URL of a store may have the options {', '.join(OPTIONS)} and must hold no credentials: "
                "give those as AWS_ACCESS_KEY_ID and the like"
            )
        parts = bare.removeprefix("s3://").strip("/").split("/")
        if len(parts) < 2 or any(not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=-]*", part) for part in parts):
            raise RunError(
                f"a run in a store must be s3://BUCKET/.../NAME of letters, digits, '.', '_', '-', but got {bare}"
            )
        self.url = f"s3://{'/'.join(parts)}{question}{options}"
        self.parent = f"s3://{'/'.join(parts[:-1])}{question}{options}"
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.root = cache.joinpath("robustsearch", *parts)
        from pyarrow import fs

        try:
            self._files, self._base = fs.FileSystem.from_uri(self.url)
        except (OSError, ValueError) as error:
            raise RunError(f"the store must be reachable, but {bare} is not: {_first_line(error)}") from error
        self._pushed: dict[str, tuple[tuple[int, int], bytes]] = {}
        """By name: what the folder's file looked like when it was that of the store, and a digest of it."""
        self.lease: Lease | None = None

    def put(self, name: str, content: bytes) -> None:
        """Write an object, as soon as that is possible.

        Raises:
            StorageError: it was not for long.
        """

        def write() -> None:
            with _network(), self._files.open_output_stream(f"{self._base}/{name}") as stream:
                stream.write(content)

        patiently(write, f"{self.url}: {name}")

    def get(self, name: str) -> bytes | None:
        """What an object holds; None where there is none."""

        def read() -> bytes | None:
            with _network():
                try:
                    with self._files.open_input_stream(f"{self._base}/{name}") as stream:
                        return bytes(stream.read())
                except FileNotFoundError:
                    return None

        return patiently(read, f"{self.url}: {name}")

    def names(self, folder: str) -> list[str]:
        """The objects below a folder, sorted."""
        from pyarrow import fs

        def listing() -> list[str]:
            with _network():
                selector = fs.FileSelector(f"{self._base}/{folder}", recursive=True, allow_not_found=True)
                found = [info.path for info in self._files.get_file_info(selector) if info.type == fs.FileType.File]
            return sorted(path.removeprefix(f"{self._base}/") for path in found)

        return patiently(listing, f"{self.url}: {folder}")

    def pull(self, names: Iterable[str]) -> None:
        """Bring objects to the folder, those that there are.

        Raises:
            RunError: the name of one leads out of the folder.
        """
        for name in names:
            path = self.root / name
            if ".." in path.parts:
                raise RunError(f"an object of a run must lie in its folder, but got {name!r}")
            if (content := self.get(name)) is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")  # others may bring it too
                part.write_bytes(content)
                os.replace(part, path)
                self._pushed[name] = _stamp(path), blake2b(content).digest()

    def take_over(self, folder: str, names: Iterable[str]) -> None:
        """Bring these objects to a folder, and leave nothing else in it: it may be that of another run of this name."""
        shutil.rmtree(self.root / folder, ignore_errors=True)
        self.pull(f"{folder}/{name}" for name in names)

    def push(self, *folders: str) -> None:
        """Write what has changed in these folders, or files, of the run folder; a checkpoint after all else."""
        for name in sorted(self._present(folders), key=lambda name: (name.endswith("checkpoint.pt"), name)):
            path = self.root / name
            try:
                stamp, (before, known) = _stamp(path), self._pushed.get(name, (None, None))
                if before == stamp:
                    continue
                content = path.read_bytes()
            except FileNotFoundError:
                continue  # replaced by another process meanwhile
            if (digest := blake2b(content).digest()) != known:  # a driver that resumes writes all results anew
                self.put(name, content)
            self._pushed[name] = stamp, digest

    def _present(self, folders: Iterable[str]) -> Iterator[str]:
        for folder in folders:
            top = self.root / folder
            for path in [top] if top.is_file() else top.rglob("*"):
                if path.is_file() and path.name[0] != "." and not path.name.endswith((".previous", ".lock")):
                    yield path.relative_to(self.root).as_posix()

    def put_events(self, segment: int, lines: bytes) -> None:
        """Write the lines of the log from event `segment * SEGMENT` on.

        Raises:
            StorageError: the store could not be written for long, or the lease is lost.
        """
        if self.lease:
            self.lease.check()
        self.put(f"events/{segment:08d}.jsonl", lines)

    def fetch(self) -> None:
        """Bring the folder to what the store has, but for the trials, which are fetched one by one.

        Nothing of another run stays, one that had this name before and is no longer in the store.
        """
        log = b"".join(self.get(name) or b"" for name in self.names("events"))
        before = self.root / "events.jsonl"
        if before.exists() and before.read_bytes().partition(b"\n")[0] != log.partition(b"\n")[0]:
            for path in self.root.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != ".lock":
                    path.unlink()
        for folder in ("study", "results", "evaluations"):
            self.pull(self.names(folder))
        self.pull(["run.json"])
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "events.jsonl").write_bytes(log)

    def exists(self) -> bool:
        """Whether there is a run."""
        return bool(self.names("events")) or self.get("run.json") is not None

    def reach(self) -> None:
        """Find out early whether the store is there for these credentials: later, its errors are waited for.

        Raises:
            RunError: it is not.
        """
        from pyarrow import fs

        bucket = self._base.partition("/")[0]
        try:
            found = self._files.get_file_info(bucket)
        except OSError as error:
            raise RunError(f"the store must be reachable, but {self.url} is not: {_first_line(error)}") from error
        if found.type == fs.FileType.NotFound:
            raise RunError(f"the bucket of a store must exist, but {bucket!r} does not")


class Lease:
    """The right to drive a run, kept by a thread that renews it; another one pushes the folder meanwhile.

    Who wants it and finds it held waits for `SILENCE` without a renewal, on its own clock: no two clocks are compared.
    It then writes its name, waits, and looks whether that is still there. A holder that has not renewed it for half of
    `SILENCE` writes no more (`check`) until it has done so in that way, and one that finds another's name has lost it.
    """

    def __init__(self, store: Store) -> None:
        """Take the lease.

        Raises:
            RunError: another driver holds it.
        """
        self._store, self._name = store, f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._beats = 0
        if (before := store.get("lease.json")) and before != b"{}":
            deadline = _now() + SILENCE
            while _now() < deadline:
                time.sleep(1)
                if store.get("lease.json") != before:
                    raise RunError(f"only one driver may work in a run, but another one works in {store.url}")
        self._write()
        time.sleep(1)
        if not self._mine():
            raise RunError(f"only one driver may work in a run, but another one took {store.url}")
        self._renewed = _now()
        self._lost = False
        self._stop, self._renewing = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._keep, self._push)]
        for thread in self._threads:
            thread.start()
        store.lease = self

    def check(self) -> None:
        """Make sure that the lease is still held; where that is uncertain, as after an outage, find out.

        Raises:
            StorageError: it is not, or the store could not be reached for long.
        """
        if self._is_stale:
            self._renew()
        if self._lost:
            raise StorageError(f"the driver of a run must hold its lease, but that of {self._store.url} is lost")

    @property
    def _is_stale(self) -> bool:
        return _now() - self._renewed > SILENCE / 2

    def _renew(self) -> None:
        with self._renewing:
            stale = self._is_stale
            self._lost = self._lost or not self._mine()
            if not self._lost:
                self._write()
                if stale:  # another driver may have written at the same time
                    time.sleep(1)
                    self._lost = not self._mine()
                self._renewed = _now()

    def _keep(self) -> None:
        while not self._lost and not self._stop.wait(BEAT):
            with suppress(StorageError):  # it was waited for long, and `check` tells the driver
                self._renew()

    def _push(self) -> None:
        pause = PUSH_EVERY
        while not self._stop.wait(pause) and not self._lost:
            start = _now()
            with suppress(StorageError):
                self._store.push(*PUSHED)
            pause = max(PUSH_EVERY, 10 * (_now() - start))  # a long journal is not pushed all the time

    def _write(self) -> None:
        self._beats += 1
        self._store.put("lease.json", json.dumps({"driver": self._name, "beats": self._beats}).encode())

    def _mine(self) -> bool:
        return bool(json.loads(self._store.get("lease.json") or b"{}").get("driver") == self._name)

    def give_back(self) -> None:
        """Push the folder a last time, and let others drive."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._store.lease = None
        if not self._lost and self._mine():
            self._store.push(*PUSHED)
            self._store.put("lease.json", b"{}")


def _now() -> float:
    """Seconds that have passed, those in which the machine was suspended too, where the system counts them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@contextmanager
def _network() -> Iterator[None]:
    """An error of the store, as one that may pass."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise OSError(errno.EIO, _first_line(error)) from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size
