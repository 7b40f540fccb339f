"""Where batuta keeps its files (https://specifications.freedesktop.org/basedir-spec)."""

import os
import stat
from pathlib import Path

import pytest

from batuta_cli import paths
from batuta_cli.errors import OperationError


def test_xdg_variables_are_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", f"/x/{kind.lower()}")
    assert paths.config_file() == Path("/x/config/batuta/config.toml")
    assert paths.keys_dir() == Path("/x/data/batuta/keys")
    assert paths.trust_file() == Path("/x/data/batuta/trust/trust.toml")
    assert paths.store_dir() == Path("/x/data/batuta/store")
    assert paths.client_keys_file() == Path("/x/data/batuta/gateway/keys.toml")
    assert paths.ledger_file() == Path("/x/state/batuta/ledger.sqlite3")
    assert paths.audit_dir() == Path("/x/state/batuta/audit")
    assert paths.client_keys_marker() == Path("/x/state/batuta/client-keys-required")


def test_without_them_the_defaults_of_the_specification_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("CONFIG", "DATA", "STATE"):
        monkeypatch.delenv(f"XDG_{kind}_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/alice")
    assert paths.config_file() == Path("/home/alice/.config/batuta/config.toml")
    assert paths.store_dir() == Path("/home/alice/.local/share/batuta/store")
    assert paths.state_dir() == Path("/home/alice/.local/state/batuta")


def test_a_user_without_a_home_gets_an_error_that_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)

    def no_entry(_: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", no_entry)
    with pytest.raises(paths.NoHomeError) as caught:
        paths.keys_dir()
    assert caught.value.exit_code == 1
    assert "XDG_DATA_HOME" in str(caught.value.hint)


def test_directories_are_made_for_their_user_alone_and_existing_ones_keep_their_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert paths.private_dir(tmp_path / "a/b") == tmp_path / "a/b"
    modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (tmp_path / "a/b", tmp_path / "a", tmp_path)]
    assert modes == [0o700, 0o700, 0o755]


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OperationError, match="cannot create the directory"):
        paths.private_dir(tmp_path / "file/x")
