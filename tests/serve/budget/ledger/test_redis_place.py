"""What a host remembers of a Redis ledger."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from batuta_cli.errors import LedgerError
from batuta_cli.serve.budget.ledger import Use
from batuta_cli.serve.budget.ledger.redis import RedisLedger, RedisServer
from batuta_cli.serve.budget.ledger.redis_place import RedisPlace
from tests.redis_server import Redis, redis_server
from tests.serve.budget.ledger.support import START, at


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(one_server: Redis) -> Redis:
    with closing(one_server.client()) as client:
        client.flushall()
        client.config_set("maxmemory", 0)
    return one_server


def ledger_of(server: Redis, place: Path, *, port: int | None = None, timeout: float = 5.0) -> RedisLedger:
    """A ledger whose clock is the test's."""
    reached = RedisServer(host="127.0.0.1", port=port or server.port, timeout=timeout)
    return RedisLedger(reached, RedisPlace("test", place), server_clock=False)


@pytest.fixture
def ledger(server: Redis, tmp_path: Path) -> Iterator[RedisLedger]:
    made = ledger_of(server, tmp_path)
    yield made
    made.close()


def test_a_damaged_memory_of_the_ledger_is_an_error_and_not_a_new_ledger(
    server: Redis, ledger: RedisLedger, tmp_path: Path
) -> None:
    ledger.record(at(START), 900, Use())
    [file] = tmp_path.glob("redis-*.recorded")
    for damage in (b"", b"{}", b"[1]", b'{"epoch": "x", "counter": "y"}', b"\xff"):
        file.write_bytes(damage)
        with pytest.raises(LedgerError, match="damaged"):
            ledger_of(server, tmp_path)


def test_what_is_remembered_is_for_its_owner_alone(server: Redis, ledger: RedisLedger, tmp_path: Path) -> None:
    ledger.record(at(START), 1, Use())
    [file] = tmp_path.glob("redis-*.recorded")
    assert file.stat().st_mode & 0o777 == 0o600
    assert set(json.loads(file.read_bytes())) == {"epoch", "counter"}
    assert time.time() - file.stat().st_mtime < 3600


def test_without_a_file_nothing_is_remembered_and_what_is_written_is_read(tmp_path: Path) -> None:
    place = RedisPlace("redis://a/0", tmp_path)
    assert place.read() == ("", 0)
    place.write("epoch", 41)
    place.write("epoch", 42)
    assert RedisPlace("redis://a/0", tmp_path).read() == ("epoch", 42)


def test_each_ledger_has_a_file_of_its_own_whose_name_does_not_show_the_url(tmp_path: Path) -> None:
    RedisPlace("redis://:PRIVATE@a/0", tmp_path).write("one", 1)
    assert RedisPlace("redis://:PRIVATE@a/1", tmp_path).read() == ("", 0)
    [file] = tmp_path.iterdir()
    assert "PRIVATE" not in file.name


def test_a_directory_that_cannot_be_made_is_an_error_of_the_ledger(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="cannot remember the ledger in Redis"):
        RedisPlace("redis://a/0", tmp_path / "file" / "state").write("one", 1)
