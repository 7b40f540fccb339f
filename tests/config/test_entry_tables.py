"""`[aliases]` and `[fallbacks]`: tables whose keys are names of models."""

from pathlib import Path

import pytest

from batuta_cli import config
from batuta_cli.config import load, set_value, unset
from batuta_cli.errors import ConfigError

TEXT = """[aliases]
"gpt-4.1" = "smollm2-135m"  # by name
fast = "qwen3:8b"
[fallbacks]
"meta/llama-3.3-70b" = ["qwen3-32b", "smollm2-135m"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(TEXT)
    return path


def test_they_are_read_with_their_lines(file: Path) -> None:
    found = load(file, {})
    assert found.aliases == {"gpt-4.1": "smollm2-135m", "fast": "qwen3:8b"}
    assert found.fallbacks == {"meta/llama-3.3-70b": ("qwen3-32b", "smollm2-135m")}
    entry = found.entry("aliases.gpt-4.1")
    assert (entry.text, str(entry.origin)) == ("smollm2-135m", f"{file}:2")
    assert [e.key for e in found.entries() if e.path[0] == "fallbacks"] == ["fallbacks.meta/llama-3.3-70b"]


def test_set_and_unset_change_one_line(file: Path) -> None:
    set_value("aliases.gpt-4.1", "m2", file)
    set_value("aliases.o3.mini", "m3", file)
    set_value("fallbacks.fast", "a,b", file)
    assert load(file, {}).aliases == {"gpt-4.1": "m2", "fast": "qwen3:8b", "o3.mini": "m3"}
    assert load(file, {}).fallbacks["fast"] == ("a", "b")
    assert "# by name" in file.read_text()
    assert unset("aliases.gpt-4.1", file) is not None
    assert "gpt-4.1" not in load(file, {}).aliases
    with pytest.raises(ConfigError, match=r"no alias gpt-4\.1 is configured"):
        load(file, {}).entry("aliases.gpt-4.1")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('aliases = "x"', r":1: aliases must be a table", r'"gpt-4o-mini" = "smollm2-135m"'),
        ("[aliases]\na = 5", r":2: aliases.a must be the name of a model, not a whole number", None),
        ('[aliases]\na = ""', r":2: aliases.a must be the name of a model", None),
        ('[aliases]\ngpt-4.1 = "x"', r":2: aliases.gpt-4 must be the name of a model, not a table", None),
        ('[aliases]\n"a b" = "x"', r"aliases.a b: a model's name has letters", None),
        ('[fallbacks]\na = "b"', r":2: fallbacks.a must be a list of names", None),
        ('[alias]\na = "b"', r"unknown table alias, did you mean aliases", None),
    ],
)
def test_a_mistake_is_told_with_its_line(file: Path, text: str, message: str, hint: str | None) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load(file, {})
    assert hint is None or hint in str(caught.value.hint)


def test_a_variable_cannot_name_a_model_and_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match="BATUTA_ALIASES_FAST: variables cannot set aliases") as caught:
        load(file, {"BATUTA_ALIASES_FAST": "x"})
    assert "batuta config set aliases.NAME VALUE" in str(caught.value.hint)


def test_the_table_alone_is_no_key(file: Path) -> None:
    with pytest.raises(ConfigError, match="aliases is a table, not a key"):
        set_value("aliases", "x", file)


def test_the_documented_file_shows_both(tmp_path: Path) -> None:
    text = config.documented()
    assert '[aliases]\n# "gpt-4o-mini" = "smollm2-135m"' in text
    shown = text.replace('# "', '"')
    (tmp_path / "c.toml").write_text(shown)
    assert load(tmp_path / "c.toml", {}).fallbacks == {"llama-3.3-70b": ("qwen3-32b",)}
