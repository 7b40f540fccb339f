"""Ledger URLs: what each names, and which are refused without being repeated."""

import re
from pathlib import Path

import pytest

from batuta_cli.config.ledger_url import LedgerUrl, parse_ledger_url
from batuta_cli.errors import UsageError
from batuta_cli.serve.budget.ledger import open_ledger
from batuta_cli.serve.budget.ledger.sqlite import SqliteLedger


def test_addresses_mean_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url, path in (
        ("sqlite:////tmp/x", "/tmp/x"),
        ("sqlite://///tmp/x", "/tmp/x"),
        ("sqlite:///x/y", f"{tmp_path}/x/y"),
        ("sqlite:///../x", f"{tmp_path.parent}/x"),
    ):
        ledger = open_ledger(url)
        assert isinstance(ledger, SqliteLedger) and ledger.path == path


@pytest.mark.parametrize(
    "url",
    ["", "sqlite:", "sqlite://", "sqlite:///", "sqlite:////", "sqlite:x", "sqlite:/tmp/x", "sqlite:///x\0y", "sqlite:///d/",
     "sqlite:///.", "mysql://x", "Memory:", "memory", "SQLite:///x", "file:///tmp/x", "/tmp/x", "sqlite:///:memory:"],
)  # fmt: skip
def test_a_url_that_names_no_ledger_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        open_ledger(url)
    assert "sqlite:////absolute/path" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("sqlite://host/path", "sqlite:// takes no host; use sqlite:////absolute/path"),
        ("sqlite://tmp", "takes no host"),
        ("sqlite:////x?mode=memory", "query"),
        ("sqlite:////x#y", "fragment"),
        ("sqlite:///~/ledger", "~"),
        ("sqlite:////home/~me/ledger", "~"),
        ("redis:host", "must be redis://host:6379/0"),
        ("redis://:hunter2@host/0", "password"),
        ("rediss://me:hunter2@host", "password"),
        ("sqlite://me:hunter2@host/x", "password"),
        ("postgresql://me:hunter2@host/x", "password"),
    ],
)
def test_a_refused_url_is_told_the_rule_and_never_repeated(url: str, rule: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(rule)) as refused:
        open_ledger(url)
    assert refused.value.hint
    assert "hunter2" not in f"{refused.value} {refused.value.hint} {refused.value.__cause__}"


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("redis://redis.example", LedgerUrl("redis", None, "redis.example", 6379, 0)),
        ("redis://10.0.0.7:6380/3", LedgerUrl("redis", None, "10.0.0.7", 6380, 3)),
        ("rediss://[fd00::1]:6379/0", LedgerUrl("rediss", None, "fd00::1", 6379, 0)),
        ("redis://h/", LedgerUrl("redis", None, "h", 6379, 0)),
    ],
)
def test_a_redis_url_names_a_server_and_a_database(url: str, server: LedgerUrl) -> None:
    assert parse_ledger_url(url) == server
