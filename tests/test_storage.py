"""A run in an object store, on a real S3 server (moto): nothing lost between machines, one driver at a time."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from threading import Timer
from typing import NoReturn

import pytest

from robustsearch import events, patience, run, storage
from robustsearch.data import Dataset
from robustsearch.errors import RunError, StorageError
from robustsearch.events import EventLog, read
from robustsearch.recipe import Attack, Model, Recipe
from robustsearch.runfolder import RunFolder
from robustsearch.search.settings import Settings
from robustsearch.search.worker import DEATHS, Worker
from robustsearch.storage import Lease, Store
from robustsearch.trial import Plan, Trial

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks are no part of the package
from benchmarks.faults.points import SPACE, Death, drive, faults, settings

server = pytest.importorskip("moto.server", reason="needs moto[server]")
fs = pytest.importorskip("pyarrow.fs")

URL = "s3://bucket/runs/one"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def store(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty run, its working copy on a machine of its own."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "XDG_CACHE_HOME": str(tmp_path / "one"),
    }.items():
        monkeypatch.setenv(name, value)
    files = fs.S3FileSystem(endpoint_override=endpoint, allow_bucket_creation=True, allow_bucket_deletion=True)
    if files.get_file_info("bucket").type != fs.FileType.NotFound:
        files.delete_dir("bucket")
    files.create_dir("bucket")
    return Store(URL)


def elsewhere(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The same run, from another machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "two"))
    other = Store(store.url)
    assert other.root != store.root
    return other


def test_objects_come_back(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not store.exists()
    assert store.get("run.json") is None
    assert store.names("trials") == []
    for name in ("run.json", "results/0000.parquet", "trials/0000/network-0002.pt", "trials/0000/checkpoint.pt"):
        (store.root / name).parent.mkdir(parents=True, exist_ok=True)
        (store.root / name).write_text(name)
    for hidden in ("results/.0000.part", "trials/0000/checkpoint.pt.previous", "study/journal.log.lock"):
        (store.root / hidden).parent.mkdir(parents=True, exist_ok=True)
        (store.root / hidden).write_text("not for others")
    store.push("run.json", "results", "study", "trials/0000")
    assert store.exists()
    assert store.names("") == [
        "results/0000.parquet",
        "run.json",
        "trials/0000/checkpoint.pt",
        "trials/0000/network-0002.pt",
    ]
    other = elsewhere(store, tmp_path, monkeypatch)
    other.fetch()
    assert (other.root / "run.json").read_text() == "run.json"
    assert (other.root / "results" / "0000.parquet").read_text() == "results/0000.parquet"
    network = RunFolder(other.root, other).fetched_network("0000", 2)
    assert network.read_text() == "trials/0000/network-0002.pt"
    assert RunFolder.at(f"{URL}?region=us-east-1").public(network) == f"{URL}/trials/0000/network-0002.pt"
    assert RunFolder(tmp_path).public(network) == str(network)


def test_processes_of_one_machine_bring_one_object_at_a_time(store: Store) -> None:
    """As when examinations of several trials begin, each of which wants the baseline's network."""
    content = bytes(1_000_000)
    store.put("trials/baseline/network-0002.pt", content)
    stores = [Store(store.url) for _ in range(4)]

    def bring(own: Store) -> bool:
        return all(RunFolder(own.root, own).fetched_network("baseline", 2).read_bytes() == content for _ in range(3))

    with ThreadPoolExecutor(len(stores)) as pool:
        assert all(pool.map(bring, stores))
    assert [path.name for path in (store.root / "trials" / "baseline").iterdir()] == ["network-0002.pt"]


def test_nothing_of_another_run_of_this_name_stays(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was read here, and is no longer in the store."""
    other = elsewhere(store, tmp_path, monkeypatch)
    store.root.mkdir(parents=True)
    with EventLog(store.root / "events.jsonl", store) as log:
        log.append("start", info={"trials": 3})
    store.put("run.json", b"the first")
    store.put("trials/0000/network-0002.pt", b"the first")
    folder = RunFolder.fetched(other.url)
    assert folder.fetched_network("0000", 2).read_bytes() == b"the first"

    for name in store.names(""):
        store._files.delete_file(f"{store._base}/{name}")
    shutil.rmtree(store.root)
    store.root.mkdir()
    with EventLog(store.root / "events.jsonl", store) as log:
        log.append("start", info={"trials": 4})
    store.put("trials/0000/network-0002.pt", b"the second")
    other.fetch()
    assert not (other.root / "run.json").exists()
    assert folder.fetched_network("0000", 2).read_bytes() == b"the second"
    with EventLog(store.root / "events.jsonl", store) as log:
        log.append("end")
    kept = folder.fetched_network("0000", 2)
    other.fetch()
    assert kept.exists(), "the same run"


def test_a_resume_does_not_write_in_a_folder_in_which_a_driver_works(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(store.root, store)
    folder.write_info({"settings": asdict(Settings(space="lwta"))})
    store.push("run.json")
    with folder._alone(), EventLog(store.root / "events.jsonl", store) as log:
        log.append("start")
        store.put("events/00000000.jsonl", b"")  # it was read before that
        code = run.main(["--storage", store.parent, "--name", "one", "--resume", "--space", "lwta", "--trials", "99"])
        assert (code, "a run is resumed as it was set" in capsys.readouterr().err) == (2, True)
        assert read(store.root / "events.jsonl")[0] == log.events


def test_a_trial_comes_from_the_store_alone_and_its_deaths_are_counted_on_all_machines(
    store: Store, digits: Dataset, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, plan = Recipe(model=Model(depth=10), attack=Attack(step=0.1, steps=1)), replace(plan, rungs=(6,))

    def begin(machine: str) -> Worker:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        worker = Worker.__new__(Worker)
        config = {"trial": "0000", "recipe": recipe.to_json(), "seed": 0}
        worker.setup(config, place=store.url, dataset=digits, plan=plan, threads=1, driver=1)
        return worker

    for name in ("checkpoint.pt", "network-0002.pt", "events.out.tfevents.1.one.1.0"):  # of another run of this name
        (store.root / "trials" / "0000").mkdir(parents=True, exist_ok=True)
        (store.root / "trials" / "0000" / name).write_text("no longer in the store")
    worker = begin("one")
    assert worker.step()["epoch"] == 1
    worker.cleanup()
    for name in store.names("trials"):
        assert store.get(name) != b"no longer in the store", name

    def die(trial: Trial) -> NoReturn:
        raise KeyboardInterrupt  # as suddenly as a kill, for all that it leaves

    for death in range(DEATHS + 1):
        begin("spare").cleanup()  # one that Tune starts and does not use is no death, and touches nothing
        worker = begin(f"machine-{death % 2}")
        with monkeypatch.context() as patch:
            patch.setattr(Trial, "advance", die)
            with pytest.raises(KeyboardInterrupt):
                worker.step()
        assert not (tmp_path / "spare").exists()
    worker = begin("two")
    result = worker.step()
    worker.cleanup()
    assert (result["epoch"], result["ended"]) == (1, "crashed")
    assert result["reason"] == f"its worker died {DEATHS + 1} times in epoch 2"


def test_every_event_is_in_the_store_before_it_takes_effect(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "SEGMENT", 8)
    store.root.mkdir(parents=True)
    with EventLog(store.root / "events.jsonl", store) as log:
        for number in range(8 + 3):
            log.append("report", f"{number:04d}", row={"robust": 0.5})
    assert len(store.names("events")) == 2
    other = elsewhere(store, tmp_path, monkeypatch)
    other.fetch()
    assert read(other.root / "events.jsonl")[0] == log.events
    with EventLog(other.root / "events.jsonl", other) as log:
        log.append("end")
    store.fetch()
    assert [event.kind for event in read(store.root / "events.jsonl")[0]][-2:] == ["report", "end"]


@pytest.mark.slow
def test_one_driver_at_a_time(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "BEAT", 0.5)
    monkeypatch.setattr(storage, "SILENCE", 8.0)
    folder = RunFolder(store.root, store)
    other = elsewhere(store, tmp_path, monkeypatch)
    with folder.locked():
        (store.root / "run.json").write_text("{}")
        with pytest.raises(RunError, match="only one driver"), RunFolder(other.root, other).locked():
            pass
        store.put_events(0, b"")
    with pytest.raises(RunError, match="only one driver"), folder.locked(), folder.locked():
        pass
    assert other.get("run.json") == b"{}", "what is left is pushed at the end"
    with RunFolder(other.root, other).locked():  # at once: the first gave it back
        pass


def stand_still(lease: Lease) -> None:
    """As its machine does."""
    lease._stop.set()
    for thread in lease._threads:
        thread.join()


@pytest.mark.slow
def test_a_silent_driver_is_followed_and_writes_no_more(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "BEAT", 0.5)
    monkeypatch.setattr(storage, "SILENCE", 3.0)
    lease, unaware = Lease(store), Lease.__new__(Lease)
    stand_still(lease)
    vars(unaware).update(vars(lease))
    other = elsewhere(store, tmp_path, monkeypatch)
    follower = Lease(other)
    with pytest.raises(StorageError, match="must hold its lease"):
        store.put_events(0, b"late")
    (store.root / "results").mkdir(parents=True)
    (store.root / "results" / "0000.parquet").write_text("late")
    for former in (lease, unaware):
        former.give_back()
        follower.check()
    assert other.names("results") == []
    other.put_events(0, b"")
    follower.give_back()
    assert other.get("events/00000000.jsonl") == b""


@pytest.mark.slow
def test_an_outage_is_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a store whose driver could not renew its lease meanwhile, and which nobody else has taken."""
    monkeypatch.setattr(storage, "BEAT", 0.5)
    monkeypatch.setattr(storage, "SILENCE", 3.0)
    monkeypatch.setattr(patience, "PAUSE", 0.2)
    lease, reached = Lease(store), store._files
    gone = {"endpoint_override": "http://127.0.0.1:9", "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=1)}
    store._files = fs.S3FileSystem(**gone)
    time.sleep(4)
    assert lease._is_stale
    back = Timer(2, lambda: setattr(store, "_files", reached))
    back.start()
    store.put_events(0, b"after it")
    lease.check()
    lease.give_back()
    assert store.get("events/00000000.jsonl") == b"after it"
    assert "can be written again" in capsys.readouterr().err


def test_a_long_push_does_not_delay_the_beats(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of all results, which a driver that resumes writes anew."""
    for name, seconds in {"BEAT": 0.1, "SILENCE": 2.0, "PUSH_EVERY": 0.1}.items():
        monkeypatch.setattr(storage, name, seconds)
    put, pushing = store.put, threading.Event()

    def slowly(name: str, content: bytes) -> None:
        if name == "run.json":
            pushing.set()
            time.sleep(3)
        put(name, content)

    monkeypatch.setattr(store, "put", slowly)
    store.root.mkdir(parents=True)
    (store.root / "run.json").write_text("{}")
    lease = Lease(store)
    assert pushing.wait(10)
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        assert not lease._is_stale
        time.sleep(0.05)
    lease.give_back()
    assert store.get("run.json") == b"{}"


def test_what_is_written_anew_and_equal_is_not_pushed_again(store: Store) -> None:
    file = store.root / "results" / "0000.parquet"
    file.parent.mkdir(parents=True)
    file.write_text("rows")
    store.push("results")
    store._files.delete_file(f"{store._base}/results/0000.parquet")
    os.utime(file, (1, 1))
    store.push("results")
    assert store.names("results") == []
    file.write_text("more")
    store.push("results")
    assert store.get("results/0000.parquet") == b"more"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("s3://no-such-bucket/runs", "the bucket of a store must exist, but 'no-such-bucket' does not"),
        ("s3://bucket/runs?endpoint_override=http://127.0.0.1:9", "the store must be reachable"),
    ],
)
@pytest.mark.parametrize("how", [["--trials", "1"], ["--resume"]])
def test_a_store_that_is_not_there_is_found_before_work_starts(
    store: Store, place: str, words: str, how: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--space", "lwta", "--storage", place, "--name", "one", *how]) == 2
    assert words in capsys.readouterr().err


def test_a_driver_whose_lease_was_taken_notices(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "BEAT", 0.2)
    lease = Lease(store)
    store.put("lease.json", b'{"driver": "somebody else"}')
    deadline = time.monotonic() + 20
    while not lease._lost and time.monotonic() < deadline:
        time.sleep(0.05)
        store.put("lease.json", b'{"driver": "somebody else"}')
    with pytest.raises(StorageError, match="must hold its lease"):
        lease.check()
    lease.give_back()
    assert store.get("lease.json") == b'{"driver": "somebody else"}'


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://key:secret@bucket/x/run", "must hold no credentials"),
        ("s3://bucket/x/run?secret_key=secret", "must hold no credentials"),
        ("s3://bucket/x/run?endpoint_override=http://a:secret@host", "must hold no credentials"),
        ("s3://bucket", "s3://BUCKET/"),
        ("s3://bucket/../run", "s3://BUCKET/"),
        ("s3://bucket/x/.hidden", "s3://BUCKET/"),
        ("s3://bucket/x y/run", "s3://BUCKET/"),
    ],
)
def test_a_url_that_is_none_of_a_run(url: str, words: str) -> None:
    with pytest.raises(RunError, match=words) as caught:
        Store(url)
    assert "secret" not in str(caught.value)


def test_a_path_of_a_url_is_that_url(store: Store) -> None:
    assert Store(Path(URL)).url == URL
    assert RunFolder.at(Path(URL)).place == RunFolder.at(Path(URL)).place_anywhere == URL
    assert RunFolder.at("runs/x").place == "runs/x"
    assert RunFolder.at("runs/x").place_anywhere == os.path.abspath("runs/x")


def test_no_object_leads_out_of_the_folder(store: Store) -> None:
    store.put("results/../../../evil", b"")
    with pytest.raises(RunError, match="must lie in its folder"):
        store.pull(["results/../../../evil"])


@pytest.mark.slow
def test_a_search_whose_driver_and_machine_are_lost_goes_on_elsewhere(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real searcher, scheduler and files, in simulated time; the study was never pushed, and is made again."""
    monkeypatch.setattr("robustsearch.search.spaces.PROBES", 3)
    (tmp_path / "two.py").write_text(SPACE)
    chosen = settings(tmp_path / "two.py")
    folder = RunFolder(store.root, store)
    folder.write_info({})
    assert not drive(folder, chosen, Death(40))
    before = store.get("events/00000000.jsonl")
    shutil.rmtree(store.root)
    other = elsewhere(store, tmp_path, monkeypatch)
    other.fetch()
    again = RunFolder(other.root, other)
    again.write_info({})
    assert drive(again, chosen, Death())
    assert faults(again, chosen) == []
    after = other.get("events/00000000.jsonl")
    assert before is not None
    assert after is not None
    assert after.startswith(before)
    assert len(before.splitlines()) > 5
