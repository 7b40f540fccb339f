"""The tables of known names and patterns: each row is whole, and each name finds its row."""

import re
import tomllib
from pathlib import Path

import pytest

from batuta_cli.errors import UsageError
from batuta_cli.serve.templates import known_models
from batuta_cli.serve.templates.detection import detect_format
from batuta_cli.serve.templates.formats import named_formats


def answer(model: str) -> str:
    try:
        return detect_format(model).name
    except UsageError:
        return "unknown"


def names_in_the_table() -> list[str]:
    table = tomllib.loads((Path(known_models.__file__).parent / "known_models.toml").read_text(encoding="utf-8"))
    return [name for row in table["models"] for name in row["names"]]


@pytest.mark.parametrize("pattern", known_models.patterns(), ids=lambda p: p.examples[0])
def test_a_pattern_decides_its_examples(pattern: known_models.Pattern) -> None:
    found = [known_models.known(name) for name in pattern.examples]
    assert all(f and (f[0].format, f[0].reason) == (pattern.known.format, pattern.known.reason) for f in found)
    assert any(f and f[0] is pattern.known for f in found)


def test_no_name_stands_twice_in_the_table() -> None:
    written = [re.sub(r"[-_.\s]", "", name).casefold() for name in names_in_the_table()]
    assert len(written) == len(set(written))


def test_a_name_of_absurd_length_is_nobodys() -> None:
    assert answer("zephyr-7b-beta" + "-GGUF" * 30) == "zephyr"
    assert answer("zephyr-7b-beta" + "-GGUF" * 40) == "unknown"


def test_every_row_of_the_tables_is_whole_and_every_known_name_finds_it() -> None:
    found = [known_models.known(name) for name in names_in_the_table()]
    assert len(found) > 500
    assert all(row and row[1] == "table" for row in found)
    for known in {row[0] for row in found if row} | {pattern.known for pattern in known_models.patterns()}:
        assert (known.format in named_formats()) != (known.reason is not None)
        assert known.reason is None or all(known_models.reason(known.reason))
    assert all(pattern.known.confidence != "high" for pattern in known_models.patterns())
