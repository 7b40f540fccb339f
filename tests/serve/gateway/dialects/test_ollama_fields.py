"""The fields of Ollama's API: what its types accept, and what chat completions have beside them."""

from typing import Any

import pytest

from batuta_cli.serve.gateway.dialects.ollama import OllamaChat
from batuta_cli.serve.gateway.http_errors import HttpError

LEAST = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def test_the_options_of_ollama_are_checked_alike() -> None:
    parsed = OllamaChat().read(LEAST | {"options": {"max_completion_tokens": 10**6, "store": True}})
    assert parsed.options == {}
    assert parsed.dropped == ("options.max_completion_tokens", "options.store")
    with pytest.raises(HttpError):
        OllamaChat().read(LEAST | {"options": {"n": "5"}})


@pytest.mark.parametrize("number", [40, 40.0])
def test_a_count_may_be_written_as_javascript_writes_it(number: float) -> None:
    parsed = OllamaChat().read(LEAST | {"options": {"num_predict": number, "top_k": number, "seed": number}})
    assert (parsed.max_tokens, parsed.options) == (40, {"top_k": 40, "seed": 40})


@pytest.mark.parametrize("name", ["num_predict", "top_k", "seed"])
@pytest.mark.parametrize("value", [40.5, "40", True, [40]])
def test_anything_else_is_no_count(name: str, value: Any) -> None:
    with pytest.raises(HttpError) as caught:
        OllamaChat().read(LEAST | {"options": {name: value}})
    assert (caught.value.status, caught.value.code) == (400, "invalid_type")


def test_how_ollama_loads_a_model_is_dropped_by_name() -> None:
    parsed = OllamaChat().read(LEAST | {"options": {"num_ctx": 4096, "num_gpu": 1}, "keep_alive": "5m"})
    assert sorted(parsed.dropped) == ["keep_alive", "options.num_ctx", "options.num_gpu"]
