"""A request reads what its caller gives, and refuses what no backend could take."""

from dataclasses import replace

import pytest

from batuta_cli.errors import UsageError
from batuta_cli.serve import ChatMessage, ChatRequest, PrivacyTier
from batuta_cli.serve.pipeline.request import Summary
from batuta_cli.serve.usage import Usage


def test_a_request_reads_names_of_tiers_and_generates_ids_that_differ() -> None:
    hello = [ChatMessage.user("Hello")]
    first = ChatRequest(model="m", messages=hello, privacy="Sovereign")
    second = ChatRequest(model="m", messages=hello, privacy=PrivacyTier.SOVEREIGN)
    assert first.privacy is PrivacyTier.SOVEREIGN
    assert first.messages == tuple(hello)
    assert first.request_id != second.request_id


def test_a_request_without_a_tier_messages_or_room_for_a_response_is_refused() -> None:
    hello = [ChatMessage.user("Hello")]
    with pytest.raises(TypeError, match="privacy"):
        ChatRequest(model="m", messages=hello)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="unknown privacy tier sovreign, did you mean sovereign"):
        ChatRequest(model="m", messages=hello, privacy="sovreign")
    with pytest.raises(UsageError, match="messages must not be empty"):
        ChatRequest(model="m", messages=[], privacy="private")
    with pytest.raises(UsageError, match="max_tokens must be at least 1"):
        ChatRequest(model="m", messages=hello, privacy="private", max_tokens=0)


def test_embeddings_have_no_messages_and_are_not_streamed() -> None:
    hello = [ChatMessage.user("Hello")]
    assert ChatRequest(model="m", inputs=("a text",), privacy="private").messages == ()
    with pytest.raises(UsageError, match="not both"):
        ChatRequest(model="m", messages=hello, inputs=("a text",), privacy="private")
    with pytest.raises(UsageError, match="cannot be streamed"):
        ChatRequest(model="m", inputs=("a text",), privacy="private", stream=True)


def test_a_summary_without_a_report_has_the_counted_tokens() -> None:
    counted = Summary(
        backend="one", input_tokens=7, output_tokens=5, exact=False, cost=0, budget_left=None, attempts=()
    )
    assert counted.tokens == Usage(7, 5)
    reported = Usage(7, 5, reasoning_tokens=3)
    assert replace(counted, usage=reported).tokens == reported
