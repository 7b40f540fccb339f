"""Every field of the official clients' requests has a row in the table of its dialect."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.serve.gateway.dialects.anthropic_fields import BLOCKS, COUNT_FIELDS, MESSAGE_FIELDS
from batuta_cli.serve.gateway.dialects.ollama_fields import CHAT_FIELDS as OLLAMA_CHAT_FIELDS
from batuta_cli.serve.gateway.dialects.ollama_fields import EMBED_FIELDS, EMBEDDINGS_FIELDS, GENERATE_FIELDS, OPTIONS
from batuta_cli.serve.gateway.dialects.openai_fields import (
    CHAT_FIELDS,
    COMPLETION_FIELDS,
    EMBEDDING_FIELDS,
)
from batuta_cli.serve.gateway.dialects.responses_fields import INPUT_TOKEN_FIELDS, RESPONSE_FIELDS
from batuta_cli.serve.gateway.dialects.treatment import FieldTable, Treatment

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


"""Dialects beside chat completions, each with the least that a request has."""
