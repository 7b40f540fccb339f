"""How much memory a model may take here, whether memory can be swapped out, and how many files can be open.

Read from /proc/meminfo (proc_meminfo(5)) and from the files of the control groups of this process:
https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files and
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
"""

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from batuta_cli.errors import OperationError

_PROC = Path("/proc")
_CONTROL_GROUPS = Path("/sys/fs/cgroup")

_SPARE_DESCRIPTORS = 64
"""Descriptors that are needed besides those of the model's files, here and by a program as it starts."""


def available_memory(proc: Path = _PROC, control_groups: Path = _CONTROL_GROUPS) -> int | None:
    """Bytes that can be used without swapping: the smaller of the machine's and those of each control group.

    The headroom of a control group is its limit less its working set, which is its usage without inactive file pages.
    None when nothing can be read.
    """
    found = [_meminfo(proc).get("MemAvailable")]
    for group in _groups(proc, control_groups):
        found.append(_headroom(group, "memory.max", "memory.current", "inactive_file"))
        found.append(_headroom(group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))
    return min((size for size in found if size is not None), default=None)


def swap_is_possible(proc: Path = _PROC, control_groups: Path = _CONTROL_GROUPS) -> bool:
    """Whether memory of this process may be swapped out; True when that is not known.

    Without swap on the machine, or with `memory.swap.max` 0 in a control group, it cannot be.
    """
    if _meminfo(proc).get("SwapTotal") == 0:
        return False
    return all(_number(group / "memory.swap.max") != 0 for group in _groups(proc, control_groups))


def make_room_for_descriptors(count: int) -> None:
    """Raise the soft limit of open files where `count` more need it. Raises `OperationError` beyond the hard limit."""
    needed = count + len(os.listdir("/proc/self/fd")) + _SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise too_few_descriptors(count, needed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def too_few_descriptors(files: int | None = None, needed: int | None = None) -> OperationError:
    """The error for a limit of open files that is too low for a model, each file of which stays open."""
    what = "" if files is None else f" for the model's {files:,} files"
    limit = "" if needed is None else f" to at least {needed:,}"
    return OperationError(
        f"too few open files are allowed{what}", hint=f"raise the limit{limit}: ulimit -Hn, LimitNOFILE="
    )


def _meminfo(proc: Path) -> dict[str, int]:
    """The amounts of /proc/meminfo in bytes; empty where it cannot be read."""
    amounts = {}
    with contextlib.suppress(OSError):
        for line in (proc / "meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            number, _, unit = rest.strip().partition(" ")
            if number.isdigit() and unit == "kB":
                amounts[name] = int(number) * 1024
    return amounts


def _groups(proc: Path, control_groups: Path) -> Iterator[Path]:
    """The folders of the control groups that bound the memory of this process: its own and those above."""
    lines = []
    with contextlib.suppress(OSError):
        lines = (proc / "self/cgroup").read_text().splitlines()
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        root = control_groups / "memory" if controllers else control_groups
        folder = root / path.strip("/")
        if not folder.is_dir():  # the group is the root of what a container sees of the hierarchy
            folder = root
        yield from (each for each in (folder, *folder.parents) if each.is_relative_to(root))


def _headroom(group: Path, limit: str, usage: str, inactive: str) -> int | None:
    bound, used = _number(group / limit), _number(group / usage)
    if bound is None or used is None:
        return None
    reclaimable = 0
    with contextlib.suppress(OSError):
        for line in (group / "memory.stat").read_text().splitlines():
            name, _, number = line.partition(" ")
            if name == inactive and number.isdigit():
                reclaimable = int(number)
    return max(0, bound - max(0, used - reclaimable))


def _number(path: Path) -> int | None:
    """The number in a file of a control group; None for `max` and where there is no such file."""
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return None
