"""A file in memory that nothing can change once it is written: a sealed memfd (memfd_create(2)).

The kernel refuses every write to sealed memory, every change of its size, and every removal of a seal, to this process
and to all others that have a descriptor of it. The memory never has a name in a file system. It is freed with its last
descriptor and mapping, also after kill -9.

The bytes are written through a shared mapping, so that no copy of them passes through buffers of this process. The
pages are locked (mlock(2)) before the first byte is written, because memory that is swapped out is written to a disk.
"""

import ctypes
import errno
import fcntl
import functools
import mmap
import os
import sys
from collections.abc import Callable
from typing import Any, Self

from batuta_cli.errors import ChangedWhileReadError, OperationError
from batuta_cli.files import Advance, StrPath, display, errors_named
from batuta_cli.pacha.sealed import capacity

_SEALS = ("F_SEAL_WRITE", "F_SEAL_GROW", "F_SEAL_SHRINK", "F_SEAL_SEAL")
_NOEXEC = 0x8  # MFD_NOEXEC_SEAL of linux/memfd.h, since Linux 6.3: the file can never be made executable
_PIECE = 4 * 1024 * 1024  # bytes read at a time
_FAILED = ctypes.c_void_p(-1).value


@functools.cache
def libc() -> Any:
    """The C library of this process."""
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    library.mlock.argtypes = library.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return library


class MemoryFile:
    """A file of a fixed size in memory. It is empty until `fill` has written and sealed it."""

    def __init__(self, size: int, *, allow_swap: bool = False) -> None:
        """`allow_swap`: accept that the memory cannot be locked on a machine that has swap.

        Raises `OperationError` where there is no memfd, no free descriptor, or no memory that stays off the disk.
        """
        self.size = size
        self._lock: tuple[int, int] | None = None  # address and length of the locked mapping
        self.descriptor = _create()
        try:
            with errors_named("memory"):
                os.fchmod(self.descriptor, 0o444)
                os.ftruncate(self.descriptor, size)
            self._lock_pages(allow_swap)
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> str:
        """A path that opens the bytes, in this process only."""
        return f"/proc/self/fd/{self.descriptor}"

    def fill(self, write: Callable[[memoryview], object]) -> None:
        """Let `write` fill in all bytes, then seal them. What `write` raises passes through."""
        if self.size:
            mapping = mmap.mmap(self.descriptor, self.size)
            view = memoryview(mapping)
            write(view)
            view.release()
            mapping.close()  # memory with a writable mapping cannot be sealed
        with errors_named("memory"):
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, sum(getattr(fcntl, name) for name in _SEALS))

    def close(self) -> None:
        """Free the memory, unless another process still has it open."""
        if self._lock is not None:
            libc().munmap(*self._lock)
            self._lock = None
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lock_pages(self, allow_swap: bool) -> None:
        """Lock the pages in a mapping that cannot write, which does not prevent the seals."""
        if not self.size or self._locked() or allow_swap or not capacity.swap_is_possible():
            return
        raise OperationError(
            f"{self.size >> 20:,} MiB of memory cannot be locked, and this machine may swap them to a disk",
            hint="allow more locked memory (ulimit -l, or the capability CAP_IPC_LOCK), switch swap off,"
            " or accept it: --allow-swap",
        )

    def _locked(self) -> bool:
        with errors_named("/proc"):
            readable = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            address = libc().mmap(None, self.size, mmap.PROT_READ, mmap.MAP_SHARED, readable, 0)
        finally:
            os.close(readable)
        if address in (None, _FAILED):
            return False
        self._lock = (address, self.size)
        return bool(libc().mlock(address, self.size) == 0)


def check_supported() -> None:
    """Raise `OperationError` on a system without sealed memory, which is any but Linux."""
    if not sys.platform.startswith("linux") or not hasattr(os, "memfd_create"):
        raise OperationError(
            "sealed memory needs Linux (memfd_create)", hint="here: batuta pacha verify, or batuta pacha decrypt"
        )


def _create() -> int:
    check_supported()
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        try:
            return os.memfd_create("batuta", flags | _NOEXEC)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return os.memfd_create("batuta", flags)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise capacity.too_few_descriptors() from None
        raise OperationError(
            f"sealed memory cannot be created here (memfd_create): {(error.strerror or '').lower()}",
            hint="a container's seccomp profile may forbid memfd_create",
        ) from error


def copy_from(descriptor: int, name: StrPath, advance: Advance | None = None) -> Callable[[memoryview], None]:
    """What `MemoryFile.fill` calls to copy the regular file `descriptor` from its beginning.

    Raises `ChangedWhileReadError` when the file has become shorter, `OperationError` when it cannot be read.
    """

    def write(view: memoryview) -> None:
        done = 0
        while done < len(view):
            with errors_named(name):
                count = os.preadv(descriptor, [view[done : done + _PIECE]], done)
            if count == 0:
                raise ChangedWhileReadError(
                    f"{display(name)}: became shorter while it was being read",
                    hint="try again when nothing writes to it",
                )
            done += count
            if advance:
                advance(count)

    return write


class MemoryFileSink:
    """Takes decrypted bytes in order, straight into the memory of a `MemoryFile`."""

    def __init__(self, view: memoryview, name: StrPath) -> None:
        self._view = view
        self._name = name
        self._filled = 0

    def space(self, count: int) -> memoryview:
        """See `encryption.sink.Sink`. Raises `ChangedWhileReadError` for more than the file had when it was opened."""
        if self._filled + count > len(self._view):
            raise ChangedWhileReadError(f"{display(self._name)}: changed while it was being decrypted")
        return self._view[self._filled : self._filled + count]

    def advance(self, count: int) -> None:
        """See `encryption.sink.Sink`."""
        self._filled += count
