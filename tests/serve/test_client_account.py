"""Which models a client key may use."""

import pytest

from batuta_cli.errors import ModelNotAllowedError
from batuta_cli.serve.client_account import ANY_CLIENT, ClientAccount


@pytest.mark.parametrize(
    ("patterns", "model", "allowed"),
    [
        ((), "anything", True),
        (("qwen*",), "qwen3-32b", True),
        (("qwen*",), "Qwen3-32b", False),
        (("qwen*",), "my-qwen3", False),
        (("qwen*", "llama-3.?-8b"), "llama-3.1-8b", True),
        (("*/gpt-4o",), "openai/gpt-4o", True),
        (("gpt-4o",), "gpt-4o-mini", False),
    ],
)
def test_a_model_is_allowed_when_a_pattern_matches_its_whole_name(
    patterns: tuple[str, ...], model: str, allowed: bool
) -> None:
    assert ClientAccount("ci", patterns).may_use(model) is allowed


def test_another_model_is_refused_in_words() -> None:
    ANY_CLIENT.require("gpt-4")
    with pytest.raises(ModelNotAllowedError, match="this key may not use this model"):
        ClientAccount("ci", ("qwen*",)).require("gpt-4")
