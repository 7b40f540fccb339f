"""The list of client keys on disk."""

import base64
import hashlib
import stat
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.errors import (
    DamagedStateError,
    InvalidInputError,
    NotFoundError,
    OperationError,
    UnsafeFileError,
    UsageError,
)
from batuta_cli.files import write_file
from batuta_cli.serve.gateway import keys
from batuta_cli.serve.gateway.keys import ClientKeys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gateway" / "keys.toml"


def owner(known: ClientKeys, key: str) -> str | None:
    """The name of a key's entry."""
    entry = known.find(key.encode())
    return entry.name if entry else None


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
    assert (owner(known, first), owner(known, second)) == (None, "ci")
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
    for use in (lambda: keys.load(file), lambda: keys.create("x", file), lambda: ClientKeys(file).find(b"k")):
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


def test_a_list_that_was_removed_is_an_error_and_not_an_open_door(file: Path) -> None:
    key, _ = keys.create("alice", file)
    running = ClientKeys(file)
    assert owner(running, key) == "alice"
    file.unlink()
    for known in (running, ClientKeys(file)):  # the one that ran, and one after a restart
        for _ in range(2):
            with pytest.raises(DamagedStateError, match="missing"):
                known.required  # noqa: B018 - it is the reading that raises
            with pytest.raises(DamagedStateError, match="missing"):
                owner(known, key)
    for use in (lambda: keys.load(file), lambda: keys.revoke("alice", file)):
        with pytest.raises(DamagedStateError, match="is missing"):
            use()
    other, _ = keys.create("bob", file)
    for known in (running, ClientKeys(file)):
        assert (known.required, owner(known, other), owner(known, key)) == (True, "bob", None)


def test_a_list_without_a_key_does_not_open_the_door_again(file: Path) -> None:
    keys.create("alice", file)
    running = ClientKeys(file)
    assert running.required
    file.write_text("# no keys\n")
    assert running.required
    assert ClientKeys(file).required


def test_a_list_of_an_earlier_version_gets_its_marker_when_it_is_read(file: Path) -> None:
    keys.create("alice", file)
    for marker in set(file.parent.iterdir()) - {file}:
        marker.unlink()
    assert ClientKeys(file).required
    file.unlink()
    with pytest.raises(DamagedStateError):
        keys.load(file)


def test_a_gateway_remembers_keys_though_it_cannot_write_the_marker(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.create("alice", file)
    for marker in set(file.parent.iterdir()) - {file}:
        marker.unlink()
    monkeypatch.setattr(keys, "write_file", fails)
    known = ClientKeys(file)
    assert known.required
    file.unlink()
    with pytest.raises(DamagedStateError):
        known.required  # noqa: B018


def fails(*_: object, **__: object) -> None:
    raise OperationError("no space left on the device")


@pytest.mark.parametrize("written", [0, 1])
def test_a_crash_while_the_first_key_is_made_leaves_no_open_door_that_was_to_be_shut(
    file: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """Killed before the first of its writes the gateway is as it was; killed before the second it refuses."""
    real, left = write_file, written

    def killed(*arguments: Any, **options: Any) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt  # nothing of the process is run after this write
        left -= 1
        real(*arguments, **options)

    monkeypatch.setattr(keys, "write_file", killed)
    with pytest.raises(KeyboardInterrupt):
        keys.create("alice", file)
    monkeypatch.undo()
    if written:
        with pytest.raises(DamagedStateError, match="is missing"):
            ClientKeys(file).required  # noqa: B018
    else:
        assert not ClientKeys(file).required
    key, _ = keys.create("alice", file)
    assert owner(ClientKeys(file), key) == "alice"


def test_only_a_key_that_was_made_for_it_is_an_admin_key(file: Path) -> None:
    plain, _ = keys.create("laptop", file)
    admin, entry = keys.create("prometheus", file, admin=True)
    assert entry.admin
    known = ClientKeys(file)
    assert [known.find(key.encode()).admin for key in (plain, admin)] == [False, True]  # type: ignore[union-attr]
    assert "admin" not in file.read_text().partition("prometheus")[0]  # as earlier versions wrote and read it
    keys.revoke("prometheus", file)
    assert known.find(admin.encode()) is None


def test_an_admin_mark_that_is_not_true_or_false_is_damage(file: Path) -> None:
    keys.create("prometheus", file, admin=True)
    file.write_text(file.read_text().replace("admin = true", 'admin = "no"'))
    with pytest.raises(DamagedStateError, match="admin"):
        keys.load(file)
