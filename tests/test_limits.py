"""Asking whether threads can be started: never a wait without an end."""

import _thread
import threading
from collections.abc import Callable
from typing import Any

import pytest

from batuta_cli import limits


def test_threads_that_run_can_be_started() -> None:
    before = threading.active_count()
    assert limits.can_start(4)
    assert threading.active_count() == before


@pytest.mark.parametrize("dead", [[0], [1], [0, 1, 2]])
def test_threads_that_end_before_they_run_cannot_be_started(monkeypatch: pytest.MonkeyPatch, dead: list[int]) -> None:
    """So a thread ends whose first frame cannot be allocated: `start_new_thread` returns, the function never runs."""
    start, count = _thread.start_new_thread, iter(range(3))

    def start_new_thread(function: Callable[..., object], arguments: tuple[Any, ...]) -> int:
        return 0 if next(count) in dead else start(function, arguments)

    monkeypatch.setattr(_thread, "start_new_thread", start_new_thread)
    monkeypatch.setattr(limits, "_PATIENCE", 0.2)
    assert not limits.can_start(3)
