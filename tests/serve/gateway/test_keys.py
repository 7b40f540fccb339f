"""The list of client keys on disk."""

import base64
import hashlib
import stat
import threading
import tomllib
from pathlib import Path

import pytest

from batuta_cli.errors import DamagedStateError, InvalidInputError, NotFoundError, UnsafeFileError, UsageError
from batuta_cli.serve.gateway import keys
from batuta_cli.serve.gateway.keys import ClientKeys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gateway" / "keys.toml"


def test_a_key_has_32_random_bytes_and_only_its_hash_is_kept(file: Path) -> None:
    key, entry = keys.create("alice", file)
    other, _ = keys.create("bob", file)
    assert key.startswith("btk_")
    assert len(base64.urlsafe_b64decode(key.removeprefix("btk_") + "=")) == 32
    assert key != other
    assert entry.sha256 == hashlib.sha256(key.encode()).hexdigest()
    text = file.read_text()
    assert key not in text
    assert key.removeprefix("btk_") not in text
    assert [k["name"] for k in tomllib.loads(text)["key"]] == ["alice", "bob"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_name_is_taken_until_its_key_is_revoked(file: Path) -> None:
    first, _ = keys.create("ci", file)
    with pytest.raises(UsageError, match="already"):
        keys.create("ci", file)
    assert keys.revoke("ci", file).revoked is not None
    second, _ = keys.create("ci", file)
    known = ClientKeys(file)
    assert (known.owner(first.encode()), known.owner(second.encode())) == (None, "ci")
    assert [e.revoked is None for e in keys.load(file)] == [False, True]
    with pytest.raises(NotFoundError):
        keys.revoke("nobody", file)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\x1b[31m", "x" * 101, "a\u202eb"])
def test_a_name_that_cannot_be_shown_is_refused(file: Path, name: str) -> None:
    with pytest.raises(InvalidInputError):
        keys.create(name, file)
    assert not file.exists()


def test_there_is_nothing_before_the_first_key(file: Path) -> None:
    known = ClientKeys(file)
    assert keys.load(file) == ()
    assert not known.required
    keys.create("alice", file)
    assert known.required


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "[[key]\n",
        "other = 1\n",
        "key = 1\n",
        "key = [1]\n",
        '[[key]]\nname = "x"\nsha256 = "abc"\ncreated = 2026-11-23T00:00:00Z\n',
        f'[[key]]\nname = "x"\nsha256 = "{"a" * 64}"\n',
        f'[[key]]\nname = "x"\nsha256 = "{"a" * 64}"\ncreated = "yesterday"\n',
        f'[[key]]\nname = "x"\nsha256 = "{"a" * 64}"\ncreated = 2026-11-23T00:00:00Z\nlimit = 3\n',
        f'[[key]]\nname = 5\nsha256 = "{"a" * 64}"\ncreated = 2026-11-23T00:00:00Z\n',
    ],
)
def test_a_damaged_list_is_an_error_and_stays_as_it_is(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    for use in (lambda: keys.load(file), lambda: keys.create("x", file), lambda: ClientKeys(file).owner(b"k")):
        with pytest.raises(DamagedStateError):
            use()
    assert file.read_text() == text


def test_a_list_that_others_can_write_is_not_believed(file: Path) -> None:
    keys.create("alice", file)
    file.chmod(0o620)
    with pytest.raises(UnsafeFileError):
        keys.load(file)


def test_keys_made_at_the_same_time_are_all_kept(file: Path) -> None:
    threads = [threading.Thread(target=keys.create, args=(f"k{n}", file)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {e.name for e in keys.load(file)} == {f"k{n}" for n in range(16)}
