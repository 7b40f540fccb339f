"""The worker process has limits of the operating system, and neither environment nor files of this process."""

import datetime as dt
import os
import re
from pathlib import Path

import pytest

from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.templates.engine import ChatTemplateEngine
from batuta_cli.serve.templates.isolation import Allowance, Isolated

HELLO = [ChatMessage.user("Hello")]


def children() -> list[int]:
    """The process ids of the children of this process."""
    tasks = Path("/proc/self/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def test_a_worker_has_neither_environment_nor_files_nor_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "secret")
    before = set(children())
    isolated = Isolated("{{ messages }}")
    isolated.render({"messages": 1}, now=dt.datetime.now(), allowance=Allowance.of(1, 1))
    (worker,) = set(children()) - before
    assert b"secret" not in Path(f"/proc/{worker}/environ").read_bytes()
    assert {Path(f"/proc/{worker}/fd/{fd}").exists() for fd in (0, 1, 2)} == {True}
    assert sorted(os.listdir(f"/proc/{worker}/fd")) == ["0", "1", "2"]
    limits = Path(f"/proc/{worker}/limits").read_text()
    assert re.search(r"Max open files +0 +0 ", limits)
    isolated.close()


def test_filters_that_jinja2_loads_late_work_in_the_worker() -> None:
    source = "{{ messages | pprint | length > 9 }} {{ 'a b' | wordwrap(1) }} {{ lipsum(1) | length > 9 }}"
    source += "{{ messages[0].content | urlize }}{{ strftime_now('%A') | length > 3 }}{{ 'é' ~ '\\u00e9' }}"
    prompt = ChatTemplateEngine.from_template(source).apply(HELLO)
    assert prompt == "True a\nb TrueHelloTrueéé"
