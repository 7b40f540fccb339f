"""A field of chat completions in a request of another API is checked, or dropped by name."""

from typing import Any

import pytest

from batuta_cli.serve.gateway.dialects.anthropic import Messages
from batuta_cli.serve.gateway.dialects.anthropic_fields import MESSAGE_FIELDS
from batuta_cli.serve.gateway.dialects.ollama import OllamaChat, OllamaGenerate
from batuta_cli.serve.gateway.dialects.ollama_fields import CHAT_FIELDS as OLLAMA_CHAT_FIELDS
from batuta_cli.serve.gateway.dialects.ollama_fields import GENERATE_FIELDS
from batuta_cli.serve.gateway.dialects.openai import Completions
from batuta_cli.serve.gateway.dialects.openai_fields import CHAT_FIELDS, COMPLETION_FIELDS, SERVER_FIELDS
from batuta_cli.serve.gateway.dialects.responses import Responses
from batuta_cli.serve.gateway.dialects.responses_fields import RESPONSE_FIELDS
from batuta_cli.serve.gateway.dialects.treatment import FieldTable
from batuta_cli.serve.gateway.http_errors import HttpError

HELLO = [{"role": "user", "content": "Hi"}]
OTHER_DIALECTS: dict[str, tuple[Any, FieldTable, dict[str, Any]]] = {
    "completions": (Completions(), COMPLETION_FIELDS, {"prompt": "Hi"}),
    "messages": (Messages(), MESSAGE_FIELDS, {"messages": HELLO, "max_tokens": 9}),
    "responses": (Responses(), RESPONSE_FIELDS, {"input": "Hi"}),
    "ollama_chat": (OllamaChat(), OLLAMA_CHAT_FIELDS, {"messages": HELLO}),
    "ollama_generate": (OllamaGenerate(), GENERATE_FIELDS, {"prompt": "Hi"}),
}
"""Dialects beside chat completions, each with its table and the least that a request has."""

OF_THE_GATEWAY = [
    name for name, row in CHAT_FIELDS.items() if not row.copied and name not in SERVER_FIELDS and name != "model"
]


@pytest.mark.parametrize("dialect", OTHER_DIALECTS)
@pytest.mark.parametrize("name", OF_THE_GATEWAY)
def test_a_field_of_chat_completions_in_another_api_never_reaches_a_backend_unchecked(dialect: str, name: str) -> None:
    """A second output limit would exceed the reservation, and `store` would make a provider keep the conversation."""
    reader, table, least = OTHER_DIALECTS[dialect]
    if name in table:
        return
    parsed = reader.read({"model": "m", **least, name: {"x": 10**6}})
    assert name not in (parsed.options or {})
    assert name in parsed.dropped


@pytest.mark.parametrize("dialect", OTHER_DIALECTS)
@pytest.mark.parametrize(("name", "value"), [("n", "5"), ("n", 10**6), ("tools", "f"), ("seed", [])])
def test_an_option_of_chat_completions_in_another_api_has_its_type(dialect: str, name: str, value: Any) -> None:
    reader, _, least = OTHER_DIALECTS[dialect]
    with pytest.raises(HttpError):
        reader.read({"model": "m", **least, name: value})
