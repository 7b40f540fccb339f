"""Group commit: one thread runs the operations of all waiting callers in one transaction.

A transaction costs more than the operations in it: locks, checks of the file, the commit. The thread takes all
operations that wait when it holds the lock of the file, so that the cost of a transaction is shared.

A caller waits until its operation is committed, or gives up after its patience; then the operation is not run. An
interrupted caller gives up too, unless its operation has begun: then the thread completes it.
"""

import threading
from collections.abc import Callable
from typing import Any

from batuta_cli.errors import LedgerError

_IDLE = 1.0
"""Seconds without operations after which the thread ends; the next operation starts it again."""

_MOST = 512
"""Operations in one transaction, so that other processes wait for milliseconds only."""

_CROWDED = 8
"""Groups of one operation in a row after which a caller runs its operation itself."""


class Operation:
    """The body of a transaction, and its outcome."""

    __slots__ = ("anew", "body", "error", "finished", "result")

    def __init__(self, body: Callable[[Any], Any], *, anew: bool = False) -> None:
        self.body = body
        self.anew = anew
        """Whether it creates the file of the ledger when the file is missing."""
        self.result: Any = None
        self.error: BaseException | None = None
        self.finished = threading.Lock()
        """Released when the operation is over."""
        self.finished.acquire()


Take = Callable[[], list[Operation]]
"""Takes the operations that wait."""


class GroupWriter:
    """The thread and its queue.

    `run(take, wait)` takes the locks, takes the operations, runs them and sets their outcomes. It raises
    `BlockingIOError` when `wait` is false and another process holds the lock of the file. Another error is the outcome
    of all operations of the group; `copy` makes an instance of it for each.

    A single caller runs its operation itself, which saves two changes of threads.
    """

    def __init__(self, run: Callable[[Take, bool], None], copy: Callable[[BaseException], BaseException]) -> None:
        self._run = run
        self._copy = copy
        self._turn = threading.Lock()
        """Held while operations run."""
        self._guard = threading.Lock()
        """Of the attributes below."""
        self._waiting: list[Operation] = []
        self._taken: list[Operation] = []
        self._crowded = 0
        """Above 0 while there are several callers: their operations wait for each other to share a transaction."""
        self._alive = False
        self._asleep = False
        self._wake = threading.Lock()
        """Released to wake the thread."""
        self._wake.acquire()

    def perform(self, operation: Operation, patience: float) -> None:
        """Run an operation. Raises its error; `TimeoutError` when it did not begin within `patience` seconds."""
        if not self._run_at_once(operation):
            self._wait_for(operation, patience)
        if operation.error is not None:
            try:
                raise operation.error
            finally:
                operation.error = None  # its traceback refers to this frame

    def _run_at_once(self, operation: Operation) -> bool:
        """Run an operation in the caller's thread, unless there are other callers or another process holds the lock."""
        if self._crowded or not self._turn.acquire(blocking=False):
            return False
        try:
            self._run(lambda: [operation], False)
        except BlockingIOError:
            return False
        finally:
            self._turn.release()
        return True

    def _wait_for(self, operation: Operation, patience: float) -> None:
        self._submit(operation)
        try:
            if not operation.finished.acquire(timeout=patience):
                if self._cancel(operation):
                    raise TimeoutError
                operation.finished.acquire()
        except BaseException:
            self._cancel(operation)
            raise

    def _submit(self, operation: Operation) -> None:
        with self._guard:
            self._waiting.append(operation)
            if len(self._waiting) > 1 or not self._crowded:
                self._crowded = _CROWDED
            if self._asleep:
                self._asleep = False
                self._wake.release()
            elif not self._alive:
                try:
                    threading.Thread(target=self._loop, name="batuta-ledger-writer", daemon=True).start()
                except RuntimeError:
                    self._waiting.remove(operation)
                    raise LedgerError(
                        "cannot start the thread that writes the ledger", hint="raise the limit of threads"
                    ) from None
                self._alive = True

    def _cancel(self, operation: Operation) -> bool:
        with self._guard:
            if operation not in self._waiting:
                return False
            self._waiting.remove(operation)
            return True

    def _loop(self) -> None:
        while self._wait():
            with self._turn:
                self._run_group()

    def _run_group(self) -> None:
        self._taken = []
        error: BaseException | None = None
        try:
            self._run(self._take, True)
        except BaseException as failure:
            error = failure
        for operation in self._taken or (self._take() if error is not None else []):
            if error is not None and operation.error is None:
                operation.error = self._copy(error)
            operation.finished.release()

    def _take(self) -> list[Operation]:
        with self._guard:
            self._taken = self._waiting[:_MOST]
            del self._waiting[:_MOST]
            if len(self._taken) == 1 and not self._waiting:
                self._crowded -= 1
            return self._taken

    def _wait(self) -> bool:
        """Wait for operations; false when the thread has to end."""
        with self._guard:
            if self._waiting:
                return True
            self._asleep = True
        if not self._wake.acquire(timeout=_IDLE):
            with self._guard:
                if self._asleep:
                    self._asleep = self._alive = False
                    return False
            self._wake.acquire()  # woken just now
        return True
