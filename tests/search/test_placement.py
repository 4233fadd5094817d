"""Where trials go: packing against a slow reference, and on a real cluster of logical nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustsearch.errors import UserError
from robustsearch.search.nodes import Node, room
from robustsearch.search.placement import _check_speaks, arrange, find_place
from robustsearch.search.settings import Settings


def packed(cpus: int, gpus: int, need: tuple[int, float]) -> int:
    """Trials that a node takes one after the other, each GPU's part kept by itself, in hundredths."""
    parts = [100] * gpus
    count = 0
    while cpus >= need[0]:
        wanted = round(100 * need[1])
        if wanted >= 100:
            whole = [index for index, part in enumerate(parts) if part == 100][: wanted // 100]
            if len(whole) < wanted // 100:
                break
            for index in whole:
                parts[index] = 0
        elif wanted:
            fitting = [index for index, part in enumerate(parts) if part >= wanted]
            if not fitting:
                break
            parts[fitting[0]] -= wanted
        cpus -= need[0]
        count += 1
    return count


@given(
    cpus=st.integers(0, 20),
    gpus=st.integers(0, 4),
    per_cpu=st.integers(1, 5),
    per_gpu=st.sampled_from([0, 0.1, 0.2, 0.25, 0.33, 0.5, 0.7, 1, 2, 3]),
)
def test_a_node_holds_what_can_be_packed(cpus: int, gpus: int, per_cpu: int, per_gpu: float) -> None:
    node = Node("A", float(cpus), float(gpus))
    assert node.holds(per_cpu, per_gpu) == packed(cpus, gpus, (per_cpu, per_gpu))


def test_a_machine_of_many_processors_takes_no_more_trials_than_its_memory_holds() -> None:
    many = 10**7
    nodes = [Node("A", float(many), 0.0)]
    memory = int(Path("/proc/meminfo").read_text().split()[1]) * 1024  # MemTotal
    alone, joined = (arrange(Settings("lwta"), nodes, joined=joined).concurrency for joined in (False, True))
    assert 1 <= alone <= memory / 0.5e9 < joined == many
    assert arrange(Settings("lwta", concurrency=2), nodes, joined=False).concurrency == 2


def test_room_is_by_device_type_largest_first() -> None:
    nodes = [Node("A", 2, 0), Node("B", 3, 1), Node("B", 3, 1), Node("C", 0, 0), Node("D", 4, 0)]
    assert list(room(nodes, 1, 0).items()) == [("B", 6), ("D", 4), ("A", 2)]
    assert room(nodes, 1, 0.5) == {"B": 4}
    assert room(nodes, 5, 0) == {}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a head without CPUs, and nodes of 1 CPU and 1 GPU, and of 4 CPUs and 2 GPUs; connected."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        cluster.add_node(num_cpus=1, num_gpus=1)
        cluster.add_node(num_cpus=4, num_gpus=2)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_trials_are_as_many_as_the_nodes_hold_and_keep_to_one_device(cluster: str, tmp_path: Path) -> None:
    import ray
    from ray.util.placement_group import placement_group_table

    host, _, port = cluster.rpartition(":")
    _check_speaks(host, int(port))  # it is Ray's

    def found(**more: object) -> tuple[float, int]:
        place = find_place(Settings("lwta", **more), tmp_path / "runs" / "new", address=cluster)  # type: ignore[arg-type]
        assert (place.cluster, place.nodes, place.idle) == (3, None, {})
        return place.gpus, place.concurrency

    assert found() == (0.25, 5)
    assert found(gpus_per_trial=0.5) == (0.5, 5)
    assert found(gpus_per_trial=1) == (1, 3)
    assert found(cpus_per_trial=2, gpus_per_trial=0) == (0, 2)
    assert found(concurrency=2) == (0.25, 2)
    with pytest.raises(UserError, match=r"GPUs there are on a node \(2\), but got 3"):
        found(gpus_per_trial=3)
    with pytest.raises(UserError, match=r"CPUs there are on a node \(4\), but got 5"):
        found(cpus_per_trial=5)
    assert list(tmp_path.iterdir()) == []  # nothing is left of the look at the folder

    assert found(concurrency=40) == (0.25, 40)  # more than fit: an autoscaler may bring nodes
    later = find_place(Settings("lwta", gpus_per_trial=3, concurrency=7), None, address=cluster)
    assert (later.gpus, later.concurrency, later.device, later.nodes) == (3, 7, None, None)
    assert "asked for 7" in later.lines("Another")[-1]

    place = find_place(Settings("lwta", gpus_per_trial=1), tmp_path, address=cluster)
    small = next(node["NodeID"] for node in ray.nodes() if node["Resources"].get("CPU") == 1)
    kept = type(place)(**(vars(place) | {"nodes": (small,), "idle": {"Other": 2}}))
    assert any("Other (would hold 2)" in line for line in kept.lines(None))
    assert kept.lines("Another")[-1].startswith("The run was begun on Another")
    first, second = (kept.request().to_placement_group() for _ in range(2))
    assert ray.get(first.ready(), timeout=60)
    assert placement_group_table(first)["bundles_to_node_id"] == {0: small}
    ready, _ = ray.wait([second.ready()], timeout=2)
    assert not ready  # there is room on the other node, which is of another type
