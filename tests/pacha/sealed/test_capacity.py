"""What is read from /proc/meminfo and from control groups, in trees made by hand."""

import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from batuta_cli.pacha.sealed.capacity import available_memory, swap_is_possible

GIB = 1 << 30


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content + "\n")
    return root


def proc(tmp_path: Path, cgroup: str, *, available: int = 64 * GIB, swap: int = 0) -> Path:
    info = f"MemTotal: {available // 512} kB\nMemAvailable: {available // 1024} kB\nSwapTotal: {swap // 1024} kB"
    return tree(tmp_path / "proc", {"meminfo": info, "self/cgroup": cgroup})


def groups(tmp_path: Path, files: Mapping[str, str]) -> Path:
    (tmp_path / "cgroup").mkdir()
    return tree(tmp_path / "cgroup", files)


def test_without_control_groups_the_machine_decides(tmp_path: Path) -> None:
    assert available_memory(proc(tmp_path, "0::/"), groups(tmp_path, {})) == 64 * GIB
    assert available_memory(tmp_path / "nothing", tmp_path / "nothing") is None


def test_the_headroom_of_a_control_group_is_its_limit_less_what_cannot_be_reclaimed(tmp_path: Path) -> None:
    found = groups(
        tmp_path,
        {
            "pod/memory.max": str(8 * GIB),
            "pod/memory.current": str(5 * GIB),
            "pod/memory.stat": f"anon 1\ninactive_file {2 * GIB}\nactive_file {GIB}",
        },
    )
    assert available_memory(proc(tmp_path, "0::/pod"), found) == 5 * GIB


@pytest.mark.parametrize(("inner", "outer", "room"), [("max", "3", 2), ("9", "3", 2), ("2", "9", 1), ("1", "9", 0)])
def test_the_tightest_group_decides_up_to_the_root(tmp_path: Path, inner: str, outer: str, room: int) -> None:
    found = groups(
        tmp_path,
        {
            "a/b/memory.max": inner if inner == "max" else str(int(inner) * GIB),
            "a/b/memory.current": str(GIB),
            "a/memory.max": str(int(outer) * GIB),
            "a/memory.current": str(GIB),
        },
    )
    assert available_memory(proc(tmp_path, "0::/a/b"), found) == room * GIB


def test_in_a_container_the_group_is_the_root_of_what_is_mounted(tmp_path: Path) -> None:
    found = groups(tmp_path, {"memory.max": str(2 * GIB), "memory.current": "0"})
    assert available_memory(proc(tmp_path, "0::/kubepods/burstable/pod1"), found) == 2 * GIB


def test_control_groups_of_version_1_are_read(tmp_path: Path) -> None:
    found = groups(
        tmp_path,
        {
            "memory/docker/x/memory.limit_in_bytes": str(4 * GIB),
            "memory/docker/x/memory.usage_in_bytes": str(2 * GIB),
            "memory/docker/x/memory.stat": f"inactive_file 5\ntotal_inactive_file {GIB}",
            "memory/memory.limit_in_bytes": "9223372036854771712",
            "memory/memory.usage_in_bytes": "1",
        },
    )
    cgroup = "12:pids:/docker/x\n5:memory:/docker/x\n0::/docker/x"
    assert available_memory(proc(tmp_path, cgroup), found) == 3 * GIB


def test_memory_can_be_swapped_out_only_where_there_is_swap_that_every_group_may_use(tmp_path: Path) -> None:
    found = groups(tmp_path, {"a/b/memory.swap.max": "max", "a/memory.swap.max": "max"})
    assert not swap_is_possible(proc(tmp_path, "0::/a/b"), found)
    assert swap_is_possible(proc(tmp_path, "0::/a/b", swap=GIB), found)
    (found / "a" / "memory.swap.max").write_text("0\n")
    assert not swap_is_possible(proc(tmp_path, "0::/a/b", swap=GIB), found)
    assert swap_is_possible(tmp_path / "nothing", found)  # not known


@pytest.mark.parametrize(
    ("hard", "count", "raised"), [(1000, 5, False), (1000, 500, True), (200, 500, None)], ids=["enough", "soft", "hard"]
)
def test_the_soft_limit_of_open_files_is_raised_where_it_is_needed(hard: int, count: int, raised: bool | None) -> None:
    program = f"""
import resource
from batuta_cli.errors import OperationError
from batuta_cli.pacha.sealed.capacity import make_room_for_descriptors
try:
    make_room_for_descriptors({count})
    print(*resource.getrlimit(resource.RLIMIT_NOFILE))
except OperationError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard)),
    )
    if raised is None:
        assert f"for the model's {count} files" in done.stdout
    elif not raised:
        assert done.stdout == f"100 {hard}\n"
    else:
        assert count < int(done.stdout.split()[0]) < hard
