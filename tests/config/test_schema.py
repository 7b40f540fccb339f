"""The table of all keys: each is documented, found by its name, and overridden by its variable."""

import dataclasses

import pytest

from batuta_cli.config import Config
from batuta_cli.config.schema import ENTRY_TABLES, NAMED, SETTINGS, TABLE_DOCS, TABLES, find, is_name, split, variable

KEYS = [(table, name) for table, settings in SETTINGS.items() for name in settings]


def test_every_table_has_a_description_and_a_place_in_the_configuration() -> None:
    known = {each.name for each in dataclasses.fields(Config)} - {"origins"}
    assert set(TABLE_DOCS) == set(TABLES) == known - set(ENTRY_TABLES)
    assert set(ENTRY_TABLES) < known
    assert all(text.endswith(".") for text in TABLE_DOCS.values())


@pytest.mark.parametrize(("table", "name"), KEYS)
def test_every_key_is_documented_and_its_default_is_valid(table: str, name: str) -> None:
    setting = SETTINGS[table][name]
    assert setting.doc.strip().endswith((".", ")", ":"))
    assert setting.kind.check(setting.kind.toml(setting.default)) == setting.default


@pytest.mark.parametrize(("table", "name"), [key for key in KEYS if key[0] not in NAMED])
def test_a_key_is_found_by_its_dotted_name(table: str, name: str) -> None:
    found = find(split(f"{table}.{name}"))
    assert found is SETTINGS[table][name]


def test_a_key_of_a_named_table_is_found_under_any_valid_name() -> None:
    assert split("models.llama-3.3-70b.context_window") == ("models", "llama-3.3-70b", "context_window")
    assert find(("models", "llama-3.3-70b", "context_window")) is SETTINGS["models"]["context_window"]
    assert find(("backends", "groq", "base_url")) is SETTINGS["backends"]["base_url"]
    assert find(("backends", "a.b", "base_url")) is None
    assert find(("backends", "base_url")) is None
    assert is_name("models", "qwen3:8b") and not is_name("models", "a b")


def test_variables_are_in_upper_case_without_dashes() -> None:
    assert variable(("budget", "daily_budget_usd")) == "BATUTA_BUDGET_DAILY_BUDGET_USD"
    assert variable(("backends", "my-groq", "base_url")) == "BATUTA_BACKENDS_MY_GROQ_BASE_URL"


def test_no_two_keys_share_a_variable() -> None:
    names = [variable((table, name)) for table, name in KEYS if table not in NAMED]
    assert len(set(names)) == len(names)
