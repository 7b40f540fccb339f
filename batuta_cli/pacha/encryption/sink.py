"""Outputs: a sink lends a buffer, the cipher fills it in place, and `advance` writes it.

`StreamSink` writes at once. `FileSink` writes a new regular file from threads and past the page cache, because writing
costs more than the cipher. Both name the output in their errors.
"""

import contextlib
import errno
import fcntl
import mmap
import os
import queue
import threading
from types import TracebackType
from typing import Protocol, Self

from batuta_cli.files import StrPath, errors_named, write_all

_BLOCK = 4 * 1024 * 1024  # what one write takes; a multiple of every page and sector size
_THREADS = 2
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class Sink(Protocol):
    """Takes bytes in order."""

    def space(self, count: int) -> memoryview:
        """`count` writable bytes, lent until `advance` or the next `space`."""

    def advance(self, count: int) -> None:
        """Take over the first `count` bytes of the space lent."""


def put(sink: Sink, data: bytes) -> None:
    """Copy `data` into `sink`."""
    sink.space(len(data))[:] = data
    sink.advance(len(data))


class MemorySink:
    """Bytes in memory, of a size known beforehand."""

    def __init__(self, size: int) -> None:
        self._view = memoryview(bytearray(size))
        self._filled = 0

    def space(self, count: int) -> memoryview:
        """See `Sink`."""
        return self._view[self._filled : self._filled + count]

    def advance(self, count: int) -> None:
        """See `Sink`."""
        self._filled += count

    def content(self) -> bytes:
        """All that was taken over."""
        return bytes(self._view[: self._filled])


class StreamSink:
    """A pipe, a device or stdout: each piece is written as soon as it is taken over."""

    def __init__(self, descriptor: int, name: StrPath) -> None:
        self._descriptor = descriptor
        self._name = name
        self._buffer = memoryview(bytearray())

    def space(self, count: int) -> memoryview:
        """See `Sink`."""
        if len(self._buffer) < count:
            self._buffer = memoryview(bytearray(count))
        return self._buffer[:count]

    def advance(self, count: int) -> None:
        """See `Sink`. Raises `OperationError`; `BrokenPipeError` when the reader closed the pipe."""
        with errors_named(self._name):
            write_all(self._descriptor, self._buffer[:count])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held back, so there is nothing left to do."""


class FileSink:
    """A new regular file, written from its beginning.

    Whole blocks are written by threads with `O_DIRECT`: the page cache would cost a copy, and half of the time of
    the whole job. Where the file system has no direct writing the same blocks go through the cache. The end of the
    file, less than a block, always does.
    """

    def __init__(self, descriptor: int, name: StrPath, largest: int) -> None:
        """`largest`: the most bytes that `space` will be asked for."""
        self._descriptor = descriptor
        self._name = name
        self._size = _BLOCK + largest
        self._buffer: mmap.mmap | None = None  # page-aligned memory, as direct writing demands
        self._filled = 0
        self._offset = 0
        self._direct = False
        self._free: queue.SimpleQueue[mmap.mmap] = queue.SimpleQueue()
        self._jobs: queue.SimpleQueue[tuple[mmap.mmap, int] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._failure: BaseException | None = None

    def space(self, count: int) -> memoryview:
        """See `Sink`."""
        if self._buffer is None:
            self._buffer = mmap.mmap(-1, self._size, _PRIVATE)
        return memoryview(self._buffer)[self._filled : self._filled + count]

    def advance(self, count: int) -> None:
        """See `Sink`. Raises the `OperationError` of an earlier block that could not be written."""
        self._filled += count
        while self._filled >= _BLOCK:
            self._submit()

    def _submit(self) -> None:
        assert self._buffer is not None  # noqa: S101  (something was taken over, so it was lent)
        if not self._threads:
            self._start()
        full, following = self._buffer, self._free.get()
        self._filled -= _BLOCK
        following[: self._filled] = full[_BLOCK : _BLOCK + self._filled]
        self._jobs.put((full, self._offset))
        self._buffer = following
        self._offset += _BLOCK
        self._raise_failure()

    def _start(self) -> None:
        self._set_direct(True)
        for _ in range(_THREADS):
            self._free.put(mmap.mmap(-1, self._size, _PRIVATE))
            # A daemon, so that a disk that does not respond cannot keep an interrupted process alive.
            thread = threading.Thread(target=self._work, name="batuta-write", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            buffer, offset = job
            try:
                if self._failure is None:
                    self._write_at(memoryview(buffer)[:_BLOCK], offset)
            except BaseException as error:  # raised again where the work was ordered
                self._failure = error
            self._free.put(buffer)

    def _write_at(self, view: memoryview, offset: int) -> None:
        with errors_named(self._name):
            while view:
                direct = self._direct
                try:
                    count = os.pwrite(self._descriptor, view, offset)
                except OSError as error:
                    # A file system without direct writing, or one that refuses it where a short write ended.
                    if error.errno != errno.EINVAL or not direct:
                        raise
                    self._set_direct(False)
                    continue
                view = view[count:]
                offset += count

    def _set_direct(self, wanted: bool) -> None:
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        with contextlib.suppress(OSError):  # not supported here; writing works without it, slower
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if wanted else flags & ~os.O_DIRECT)
            self._direct = wanted  # only now, so that no thread reports a refusal of direct writing as a failure

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the threads, so that the descriptor can be closed; write what is left, unless the block failed."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        if kind is not None:
            return
        self._raise_failure()
        self._set_direct(False)
        if self._buffer is not None:
            self._write_at(memoryview(self._buffer)[: self._filled], self._offset)
