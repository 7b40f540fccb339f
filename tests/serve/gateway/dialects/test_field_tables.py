"""Every field of the official clients' requests has a row in the table of its dialect."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.serve.gateway.dialects.anthropic import Messages
from batuta_cli.serve.gateway.dialects.anthropic_fields import BLOCKS, COUNT_FIELDS, MESSAGE_FIELDS
from batuta_cli.serve.gateway.dialects.ollama import OllamaChat, OllamaGenerate
from batuta_cli.serve.gateway.dialects.ollama_fields import CHAT_FIELDS as OLLAMA_CHAT_FIELDS
from batuta_cli.serve.gateway.dialects.ollama_fields import EMBED_FIELDS, EMBEDDINGS_FIELDS, GENERATE_FIELDS, OPTIONS
from batuta_cli.serve.gateway.dialects.openai import Completions
from batuta_cli.serve.gateway.dialects.openai_fields import (
    CHAT_FIELDS,
    COMPLETION_FIELDS,
    EMBEDDING_FIELDS,
    SERVER_FIELDS,
)
from batuta_cli.serve.gateway.dialects.responses import Responses
from batuta_cli.serve.gateway.dialects.responses_fields import INPUT_TOKEN_FIELDS, RESPONSE_FIELDS
from batuta_cli.serve.gateway.dialects.treatment import FieldTable, Treatment
from batuta_cli.serve.gateway.http_errors import HttpError

CLIENTS = Path(sys.prefix) / "clients" / "bin" / "python"
TABLES: dict[str, FieldTable] = {
    "chat": CHAT_FIELDS,
    "completions": COMPLETION_FIELDS,
    "responses": RESPONSE_FIELDS,
    "input_tokens": INPUT_TOKEN_FIELDS,
    "messages": MESSAGE_FIELDS,
    "embeddings": EMBEDDING_FIELDS,
    "ollama_chat": OLLAMA_CHAT_FIELDS,
    "ollama_generate": GENERATE_FIELDS,
    "ollama_options": OPTIONS,
    "ollama_embed": EMBED_FIELDS,
    "ollama_embeddings": EMBEDDINGS_FIELDS,
    "count_tokens": COUNT_FIELDS,
}


@cache
def of_clients() -> dict[str, Any]:
    assert CLIENTS.exists(), f"{CLIENTS} is missing; run `make test`"
    script = Path(__file__).with_name("list_client_fields.py")
    done = subprocess.run([CLIENTS, script], capture_output=True, text=True, timeout=120, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def client_fields() -> dict[str, list[str]]:
    fields: dict[str, list[str]] = of_clients()["fields"]
    return fields


def test_every_content_block_of_the_official_client_has_a_row() -> None:
    blocks = of_clients()["blocks"]
    assert len(blocks) > 20
    assert [name for name in blocks if name not in BLOCKS] == []


@pytest.mark.parametrize("dialect", TABLES)
def test_every_field_of_the_official_client_has_a_row(dialect: str) -> None:
    fields = client_fields()[dialect]
    assert len(fields) >= 4
    assert [name for name in fields if name not in TABLES[dialect]] == []


def test_every_type_list_of_the_clients_has_a_table() -> None:
    assert list(client_fields()) == list(TABLES)


@pytest.mark.parametrize("dialect", TABLES)
def test_every_row_says_what_becomes_of_its_field(dialect: str) -> None:
    for name, row in TABLES[dialect].items():
        assert row.note, name
        assert not row.copied or row.treatment is Treatment.MAPPED, name
        assert not row.native_only or row.treatment is Treatment.CARRIED, name


OTHER_DIALECTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "completions": (Completions(), {"prompt": "Hi"}),
    "messages": (Messages(), {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}),
    "responses": (Responses(), {"input": "Hi"}),
    "ollama_chat": (OllamaChat(), {"messages": [{"role": "user", "content": "Hi"}]}),
    "ollama_generate": (OllamaGenerate(), {"prompt": "Hi"}),
}
"""Dialects beside chat completions, each with the least that a request has."""

OF_THE_GATEWAY = [
    name for name, row in CHAT_FIELDS.items() if not row.copied and name not in SERVER_FIELDS and name != "model"
]


@pytest.mark.parametrize("dialect", OTHER_DIALECTS)
@pytest.mark.parametrize("name", OF_THE_GATEWAY)
def test_a_field_of_chat_completions_in_another_api_never_reaches_a_backend_unchecked(dialect: str, name: str) -> None:
    """A second output limit would exceed the reservation, and `store` would make a provider keep the conversation."""
    reader, least = OTHER_DIALECTS[dialect]
    if name in TABLES[dialect]:
        return
    parsed = reader.read({"model": "m", **least, name: {"x": 10**6}})
    assert name not in (parsed.options or {})
    assert name in parsed.dropped


@pytest.mark.parametrize("dialect", OTHER_DIALECTS)
@pytest.mark.parametrize(("name", "value"), [("n", "5"), ("n", 10**6), ("tools", "f"), ("seed", [])])
def test_an_option_of_chat_completions_in_another_api_has_its_type(dialect: str, name: str, value: Any) -> None:
    reader, least = OTHER_DIALECTS[dialect]
    with pytest.raises(HttpError):
        reader.read({"model": "m", **least, name: value})


def test_the_options_of_ollama_are_checked_alike() -> None:
    reader, least = OTHER_DIALECTS["ollama_chat"]
    parsed = reader.read({"model": "m", **least, "options": {"max_completion_tokens": 10**6, "store": True}})
    assert parsed.options == {}
    assert parsed.dropped == ("options.max_completion_tokens", "options.store")
    with pytest.raises(HttpError):
        reader.read({"model": "m", **least, "options": {"n": "5"}})
