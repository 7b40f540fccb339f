"""Worker processes: how many run, when they end, and what an interrupted or ended one leaves for the next request."""

import os
import selectors
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.errors import TemplateError
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.templates import isolation
from batuta_cli.serve.templates.engine import ChatTemplateEngine

HELLO = [ChatMessage.user("Hello")]


def children() -> list[int]:
    """The process ids of the children of this process."""
    tasks = Path("/proc/self/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def test_at_most_four_workers_run_and_the_one_idle_longest_makes_room() -> None:
    before = set(children())
    engines = [ChatTemplateEngine.from_template(f"{number}{{{{ messages[0].content }}}}") for number in range(6)]
    assert [engine.apply(HELLO) for engine in engines] == [f"{number}Hello" for number in range(6)]
    first = set(children()) - before
    assert len(first) == isolation.MAX_WORKERS == 4
    assert engines[5].apply(HELLO) == "5Hello" and set(children()) - before == first
    assert engines[0].apply(HELLO) == "0Hello" and len(set(children()) - before) == 4
    for engine in engines:
        engine.close()
    assert set(children()) <= before  # idle workers of earlier tests made room


def test_more_threads_than_workers_all_get_their_prompts() -> None:
    engines = [ChatTemplateEngine.from_template(f"{number}{{{{ messages[0].content }}}}") for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        prompts = list(threads.map(lambda engine: engine.apply(HELLO), engines * 5))
    assert prompts == [f"{number}Hello" for number in range(8)] * 5
    for engine in engines:
        engine.close()


def test_a_template_that_ended_its_worker_does_not_end_the_next_use_of_the_engine() -> None:
    engine = ChatTemplateEngine.from_template(
        "{% if messages | length == 1 %}{{ '{:>99999999999}'.format('x') }}{% endif %}"
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    with pytest.raises(TemplateError, match="too much memory"):
        engine.apply(HELLO)
    assert engine.apply([*HELLO, ChatMessage.assistant(" you")]) == "Hello you"


def test_an_interrupted_request_leaves_no_answer_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ChatTemplateEngine.from_template("{{ messages[0].content }}")
    engine.apply(HELLO)
    real = selectors.DefaultSelector.select

    def interrupted(self: Any, timeout: float | None = None) -> Any:
        ready = real(self, timeout)
        if [key for key, _ in ready if key.events & selectors.EVENT_READ]:
            raise KeyboardInterrupt
        return ready

    with monkeypatch.context() as patched:
        patched.setattr(selectors.DefaultSelector, "select", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.apply([ChatMessage.user("first")])
    assert engine.apply([ChatMessage.user("second")]) == "second"
    engine.close()


def test_the_worker_stays_for_the_next_prompt_and_ends_with_the_engine() -> None:
    before = set(children())
    engine = ChatTemplateEngine.from_template("{{ messages[0].content }}")
    engine.apply(HELLO)
    (worker,) = set(children()) - before
    engine.apply([ChatMessage.user("again")])
    assert set(children()) - before == {worker}
    os.kill(worker, signal.SIGKILL)
    os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)
    assert engine.apply(HELLO) == "Hello"
    engine.close()
    assert not set(children()) - before
    assert engine.apply(HELLO) == "Hello"
    del engine
    assert not set(children()) - before
