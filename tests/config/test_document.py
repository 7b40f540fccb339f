"""The scanner of TOML text: it finds the lines of what `tomllib` reads, and raises only `ConfigError`."""

import os
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import example, given
from hypothesis import strategies as st

from batuta_cli.config import document as toml
from batuta_cli.config import load
from batuta_cli.errors import ConfigError, OperationError
from tests.config.support import NO_ENV, written


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "batuta" / "config.toml"


def error_of(file: Path, text: str | bytes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(written(file, text), NO_ENV)
    return caught.value


def test_what_is_no_text_file_is_a_typed_error(file: Path, tmp_path: Path) -> None:
    assert error_of(file, b"[budget]\n# caf\xe9\n").message == f"{file}:2: not UTF-8 text"
    assert "larger than" in error_of(file, b"#" * (256 * 1024 + 1)).message
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ConfigError, match="is a FIFO"):
        load(file, NO_ENV)
    with pytest.raises(ConfigError, match="is a directory"):
        load(tmp_path, NO_ENV)
    with pytest.raises(OperationError, match="not a directory"):
        load(file / "below", NO_ENV)
    with pytest.raises(ConfigError, match="not a usable file name"):
        load(Path("a\0b"), NO_ENV)


def test_a_file_that_cannot_be_read_is_no_mistake_of_its_content(file: Path) -> None:
    written(file, "").chmod(0)
    privileged = os.geteuid() == 0
    if privileged:  # root reads everything
        os.seteuid(65534)
    try:
        with pytest.raises(OperationError, match="permission denied") as caught:
            load(file, NO_ENV)
    finally:
        if privileged:
            os.seteuid(0)
    assert caught.value.exit_code == 1


WORDS = (
    '[ ] [[x]] budget backends .x . timezone models = " \' """ \'\'\' \\ # { } , 1 0.5 nan true "UTC" 12:00:00 é "a"='
)
FRAGMENTS = st.sampled_from([*WORDS.split(), " ", "\t", "\n", "\r\n", "\0"])


PLAIN = st.recursive(
    st.text() | st.integers(-(2**63), 2**63) | st.booleans() | st.floats(allow_nan=False) | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.lists(FRAGMENTS, max_size=40).map("".join))
@example('[budget]\nx = """a""""" # c')
@example("a.'b.c'.\"d\\n\" = [ 1, # ]\n 2 ]\n[[x]]\n[ y . 'z' ]\r\nq = ''''a'''''")
def test_no_arrangement_of_toml_raises_anything_but_a_config_error_and_its_lines_are_found(text: str) -> None:
    try:
        document = toml.parse(text, "config.toml")
    except ConfigError:
        return
    for statement in document.statements:
        assert 1 <= document.line(statement.path) <= text.count("\n") + 1
        if not statement.header:
            tomllib.loads(f"value = {text[statement.value : statement.end]}")


@given(st.dictionaries(st.text(), PLAIN), st.booleans())
def test_the_scanner_finds_every_value_that_tomllib_reads(data: dict[str, Any], multiline: bool) -> None:
    text = tomli_w.dumps(data, multiline_strings=multiline)
    document = toml.parse(text, "config.toml")
    for statement in document.statements:
        if not statement.header:
            value: Any = document.data
            for part in statement.path:
                if isinstance(value, list):  # an array of tables: which one it is, a path does not say
                    break
                value = value[part]
            else:
                assert tomllib.loads(f"v = {text[statement.value : statement.end]}", parse_float=Decimal)["v"] == value
                assert text.split("\n")[document.line(statement.path) - 1].strip()
