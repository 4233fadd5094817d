"""What `benchmarks.memory` compares with is the same network, and its megabytes are the kernel's."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robustsearch.models.wrn import WideResNet

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks are no part of the package
from benchmarks.bare import wide_resnet
from benchmarks.memory import memory


@pytest.mark.parametrize("depth", [10, 16])
def test_the_plain_network_is_the_one_that_trials_train(depth: int) -> None:
    ours, plain = WideResNet(depth, 1, 5, 3, size=(8, 8)).train(), wide_resnet(depth, 3, 5).train()
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        other.data.copy_(one)
    images = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(plain(images), ours(images))


READER = """
import mmap, sys
print("here", flush=True)
input()
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
    sum(pages[:: mmap.PAGESIZE])
    print("read", flush=True)
    input()
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux says it")
def test_pages_of_one_process_are_unique_and_those_of_two_are_shared(tmp_path: Path) -> None:
    """32 MB of a file, read by this process alone, and by another one too, which makes half of them its share."""
    file = tmp_path / "pages"
    file.write_bytes(bytes(range(256)) * 2**17)
    command = [sys.executable, "-c", READER, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "here\n"  # and shares Python
        before = memory(os.getpid())
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as pages:
            assert sum(pages[:: mmap.PAGESIZE]) == 0
            alone = memory(os.getpid())
            other.stdin.write("\n")
            other.stdin.flush()
            assert other.stdout.readline() == "read\n"
            shared = memory(os.getpid())
            other.communicate("\n")
    for name in ("USS", "PSS"):
        assert alone[name] - before[name] == pytest.approx(32, abs=4)
    assert alone["USS"] - shared["USS"] == pytest.approx(32, abs=4)
    assert alone["PSS"] - shared["PSS"] == pytest.approx(16, abs=4)
