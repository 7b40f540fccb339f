"""The contract of truncation, property by property, over conversations with systems, tools and odd beginnings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batuta_cli.errors import ContextOverflowError, TemplateError
from batuta_cli.serve.context.truncation import Truncation, TruncationStrategy, truncate
from batuta_cli.serve.messages import ChatMessage, Role, ToolCall, check_tool_results

SLIDING, MIDDLE, ERROR = TruncationStrategy
PINNED = (Role.SYSTEM, Role.DEVELOPER)

Messages = Sequence[ChatMessage]


@dataclass(frozen=True)
class Tokens:
    """A count for tests."""

    tokens: int
    exact: bool = True


def by_length(messages: Messages) -> Tokens:
    """Three tokens of overhead for each message, one for each four characters, three for the answer."""
    calls = sum(len(call.arguments) for message in messages for call in message.tool_calls)
    return Tokens(3 + calls + sum(3 + len(message.content) // 4 for message in messages))


texts = st.integers(0, 120).map(lambda n: "x" * n)


@st.composite
def units(draw: st.DrawFn) -> list[ChatMessage]:
    """What stands between two user messages: a reply, or tool calls with their results."""
    if draw(st.booleans()):
        return [ChatMessage.assistant(draw(texts))]
    calls = [ToolCall(f"c{n}", "f", draw(texts)) for n in range(draw(st.integers(1, 3)))]
    return [ChatMessage.assistant("", calls), *(ChatMessage.tool(draw(texts), call.id) for call in calls)]


@st.composite
def conversations(draw: st.DrawFn, users: int = 1) -> list[ChatMessage]:
    """Any well-formed conversation with at least so many user messages."""
    messages = [ChatMessage.system(draw(texts))] if draw(st.booleans()) else []
    for unit in draw(st.lists(units(), max_size=2)) if draw(st.integers(0, 3)) == 0 else []:
        messages += unit
    for _ in range(draw(st.integers(users, users + 6))):
        messages.append(ChatMessage.user(draw(texts)))
        for unit in draw(st.lists(units(), max_size=3)):
            messages += unit
        if draw(st.integers(0, 9)) == 0:
            messages.append(ChatMessage(draw(st.sampled_from(PINNED)), draw(texts)))
    check_tool_results(messages)
    return messages


strategies = st.sampled_from([SLIDING, MIDDLE])
limits = st.integers(1, 900)


def shortened(messages: Messages, limit: int, strategy: TruncationStrategy) -> Truncation[Tokens]:
    """The truncation; an example in which it is an error is not one."""
    try:
        return truncate(messages, by_length, limit, strategy)
    except ContextOverflowError:
        assume(False)
        raise


def kept(messages: Messages, found: Truncation[Tokens]) -> list[int]:
    """The indexes of what is left."""
    return [index for index in range(len(messages)) if index + 1 not in found.dropped]


def indispensable(messages: Messages) -> list[ChatMessage]:
    """System messages, the last user message, and the last unit after it, worked out from the end."""
    last_user = max((i for i, m in enumerate(messages) if m.role is Role.USER), default=-1)
    spoken = [i for i, m in enumerate(messages) if m.role not in PINNED]
    at = len(spoken) - 1
    while messages[spoken[at]].role is Role.TOOL:
        at -= 1
    last = set(spoken[at:])
    return [m for i, m in enumerate(messages) if m.role in PINNED or i == last_user or i in last]


@given(conversations(), limits, strategies)
def test_the_result_fits_and_its_count_is_true(messages: Messages, limit: int, strategy: TruncationStrategy) -> None:
    found = shortened(messages, limit, strategy)
    assert by_length(found.messages).tokens == found.after.tokens <= limit
    assert found.before == by_length(messages)


@given(conversations(), limits, strategies)
def test_it_fails_only_when_the_indispensable_is_too_long_and_names_the_missing_tokens(
    messages: Messages, limit: int, strategy: TruncationStrategy
) -> None:
    least = by_length(indispensable(messages)).tokens
    if least <= limit:
        truncate(messages, by_length, limit, strategy)
        return
    with pytest.raises(ContextOverflowError) as caught:
        truncate(messages, by_length, limit, strategy)
    missing = min(least, by_length(messages).tokens) - limit
    assert caught.value.exit_code == 8
    assert f" {missing:,} more " in caught.value.message
    assert caught.value.result["missing"] == missing


@given(conversations(), limits, strategies)
def test_the_result_is_a_subsequence_of_the_very_same_messages(
    messages: Messages, limit: int, strategy: TruncationStrategy
) -> None:
    found = shortened(messages, limit, strategy)
    rest = [messages[index] for index in kept(messages, found)]
    assert len(rest) == len(found.messages)
    assert all(mine is theirs for mine, theirs in zip(rest, found.messages, strict=True))
    assert list(found.dropped) == sorted(set(found.dropped))


@given(conversations(), limits, strategies)
def test_the_indispensable_is_kept(messages: Messages, limit: int, strategy: TruncationStrategy) -> None:
    found = shortened(messages, limit, strategy)
    identities = {id(message) for message in found.messages}
    assert all(id(message) in identities for message in indispensable(messages))


@given(conversations(), limits, strategies)
def test_tool_calls_and_their_results_stay_together(
    messages: Messages, limit: int, strategy: TruncationStrategy
) -> None:
    found = shortened(messages, limit, strategy)
    check_tool_results(found.messages)
    calls = sum(len(message.tool_calls) for message in found.messages)
    assert calls == sum(message.role is Role.TOOL for message in found.messages)


@given(conversations(), limits, strategies)
def test_what_was_shortened_starts_with_a_user_after_the_system(
    messages: Messages, limit: int, strategy: TruncationStrategy
) -> None:
    found = shortened(messages, limit, strategy)
    if found.dropped:
        assert next(message.role for message in found.messages if message.role not in PINNED) is Role.USER


@given(conversations(), limits, strategies)
def test_twice_is_once(messages: Messages, limit: int, strategy: TruncationStrategy) -> None:
    found = shortened(messages, limit, strategy)
    again = truncate(found.messages, by_length, limit, strategy)
    assert again.messages == found.messages and again.dropped == ()


@given(conversations(), limits, limits, strategies)
def test_a_larger_window_keeps_all_that_a_smaller_one_kept(
    messages: Messages, one: int, other: int, strategy: TruncationStrategy
) -> None:
    small = shortened(messages, min(one, other), strategy)
    large = truncate(messages, by_length, max(one, other), strategy)
    assert set(large.dropped) <= set(small.dropped)


@given(conversations(), st.sampled_from(TruncationStrategy), st.integers(0, 50))
def test_what_fits_is_unchanged(messages: Messages, strategy: TruncationStrategy, room: int) -> None:
    found = truncate(messages, by_length, by_length(messages).tokens + room, strategy)
    assert found.messages == tuple(messages) and found.dropped == ()


@given(conversations(users=2), st.integers(1, 50))
def test_the_strategy_error_drops_nothing(messages: Messages, missing: int) -> None:
    limit = by_length(messages).tokens - missing
    with pytest.raises(ContextOverflowError, match=f" {missing} more "):
        truncate(messages, by_length, limit, ERROR)


@given(st.lists(st.tuples(texts, texts), min_size=2, max_size=12), texts, limits)
def test_a_sliding_window_is_the_longest_run_of_whole_turns_at_the_end(
    pairs: list[tuple[str, str]], question: str, limit: int
) -> None:
    messages = [ChatMessage.system("be brief")]
    for asked, answered in pairs:
        messages += [ChatMessage.user(asked), ChatMessage.assistant(answered)]
    messages.append(ChatMessage.user(question))
    runs = [messages[:1] + messages[start:] for start in range(1, len(messages), 2)]
    fitting = [run for run in runs if by_length(run).tokens <= limit]
    assume(fitting)
    assert list(truncate(messages, by_length, limit).messages) == fitting[0]


def chat(*spoken: str) -> list[ChatMessage]:
    """A conversation by letters: u1 a1 s1; t1 is a tool call with its result."""
    messages = []
    for word in spoken:
        if word[0] == "t":
            messages += [ChatMessage.assistant("", [ToolCall(word, "f")]), ChatMessage.tool(word, word)]
        else:
            role = {"u": Role.USER, "a": Role.ASSISTANT, "s": Role.SYSTEM}[word[0]]
            messages.append(ChatMessage(role, word))
    return messages


def one_each(messages: Messages) -> Tokens:
    """One token a message."""
    return Tokens(len(messages))


def left(limit: int, strategy: TruncationStrategy, spoken: str) -> str:
    """What is left, in the same letters."""
    found = truncate(chat(*spoken.split()), one_each, limit, strategy)
    return " ".join(message.content for message in found.messages if message.content)


def test_a_sliding_window_drops_the_oldest_turns() -> None:
    conversation = "s1 u1 a1 u2 a2 u3 a3 u4"
    assert left(8, SLIDING, conversation) == "s1 u1 a1 u2 a2 u3 a3 u4"
    assert left(7, SLIDING, conversation) == "s1 u2 a2 u3 a3 u4"
    assert left(5, SLIDING, conversation) == "s1 u3 a3 u4"
    assert left(2, SLIDING, conversation) == "s1 u4"


def test_middle_out_keeps_the_first_turn_and_the_newest() -> None:
    conversation = "s1 u1 a1 u2 a2 u3 a3 u4"
    assert left(7, MIDDLE, conversation) == "s1 u1 a1 u3 a3 u4"
    assert left(5, MIDDLE, conversation) == "s1 u1 a1 u4"
    assert left(3, MIDDLE, conversation) == "s1 u4"


def test_the_steps_of_a_long_last_turn_go_oldest_first_but_never_the_newest() -> None:
    working = "s1 u1 t1 t2 t3 t4"
    assert left(9, SLIDING, working) == "s1 u1 t2 t3 t4"
    assert left(4, SLIDING, working) == "s1 u1 t4"
    with pytest.raises(ContextOverflowError):
        left(3, SLIDING, working)
    assert left(8, MIDDLE, "u1 a1 u2 t1 t2 t3") == "u1 a1 u2 t2 t3"


def test_a_greeting_goes_before_any_turn_does() -> None:
    assert left(4, SLIDING, "a0 u1 a1 s1 u2") == "u1 a1 s1 u2"
    assert left(4, MIDDLE, "a0 u1 a1 s1 u2") == "u1 a1 s1 u2"


def test_a_conversation_in_which_no_user_speaks_keeps_its_end() -> None:
    assert left(2, SLIDING, "s1 a1 a2") == "s1 a2"


def test_one_message_larger_than_the_window_is_an_error_under_every_strategy() -> None:
    for strategy in TruncationStrategy:
        with pytest.raises(ContextOverflowError, match="256 tokens, 156 more than the 100"):
            truncate([ChatMessage.user("x" * 1000)], by_length, 100, strategy)
    with pytest.raises(ContextOverflowError) as caught:
        truncate([*chat("s", "u", "a"), ChatMessage.user("secret" * 1000), *chat("a")], by_length, 100)
    assert "message 4;" in (caught.value.hint or "")
    assert "secret" not in caught.value.message + (caught.value.hint or "") + str(caught.value.result)


def refusing(accepts: Callable[[Messages], bool]) -> tuple[list[int], Callable[[Messages], Tokens]]:
    """A counter whose template refuses some conversations, with the lengths it was asked to count."""
    asked: list[int] = []

    def count(messages: Messages) -> Tokens:
        asked.append(len(messages))
        if not accepts(messages):
            raise TemplateError("roles must alternate")
        return one_each(messages)

    return asked, count


@given(st.integers(2, 60), st.data())
def test_a_shortened_conversation_that_the_template_refuses_is_passed_over(turns: int, data: st.DataObject) -> None:
    messages = [message for _ in range(turns) for message in chat("u", "a")]
    refused = data.draw(st.sets(st.integers(2, 2 * turns - 2), max_size=8))
    limit = data.draw(st.integers(2, 2 * turns))
    _, count = refusing(lambda shown: len(shown) not in refused)
    accepted = [length for length in range(2, limit + 1, 2) if length not in refused]
    if not accepted:
        with pytest.raises(ContextOverflowError):
            truncate(messages, count, limit)
        return
    assert len(truncate(messages, count, limit).messages) in accepted


def test_a_template_that_refuses_everything_shorter_ends_the_search_with_its_error() -> None:
    messages = [message for _ in range(1000) for message in chat("u", "a")]
    asked, count = refusing(lambda shown: len(shown) == 2000)
    with pytest.raises(TemplateError, match="alternate"):
        truncate(messages, count, 100)
    assert len(asked) < 100


def test_a_template_that_refuses_the_whole_conversation_is_heard() -> None:
    _, count = refusing(lambda shown: False)
    with pytest.raises(TemplateError):
        truncate(chat("u", "a", "u"), count, 1)


@pytest.mark.parametrize("strategy", [SLIDING, MIDDLE])
@pytest.mark.parametrize("uneven", [False, True])
def test_a_hundred_thousand_messages_are_rendered_whole_once_and_near_the_limit_a_few_times(
    strategy: TruncationStrategy, uneven: bool
) -> None:
    messages = [
        message
        for number in range(50_000)
        for message in (
            ChatMessage.user("x" * (number * number * 7919 % 1500 if uneven else 500)),
            ChatMessage.assistant("y" * (number // 60 if uneven else 500)),
        )
    ]
    limit, rendered = 30_000, []

    def count(shown: Messages) -> Tokens:
        rendered.append(sum(len(message.content) for message in shown))
        return by_length(shown)

    found = truncate(messages, count, limit, strategy)
    whole = sum(len(message.content) for message in messages)
    assert sum(size == whole for size in rendered) == 1
    assert len(rendered) <= 30
    assert sum(rendered) - whole <= 30 * 2 * 4 * limit
    turn = messages[len(messages) - len(found.messages) - 2 :][:2] if strategy is SLIDING else []
    assert limit - 600 < found.after.tokens <= limit
    assert not turn or by_length([*turn, *found.messages]).tokens > limit


def test_long_passages_that_the_template_leaves_out_do_not_slow_the_search() -> None:
    """Templates drop the reasoning of former turns: text that is there and counts for nothing."""
    turn = [ChatMessage.user("x" * 400), ChatMessage.assistant("y" * 400)]
    reasoned = [ChatMessage.user("z"), ChatMessage.assistant("z" * 4000)]
    long = [ChatMessage.user("x" * 400_000), ChatMessage.assistant("y" * 400_000)]
    messages = [*long * 1000, *turn, *reasoned * 20_000, *turn * 90]
    asked: list[int] = []

    def count(shown: Messages) -> Tokens:
        asked.append(len(shown))
        return by_length([message for message in shown if not message.content.startswith("z")])

    found = truncate(messages, count, 19_000)
    assert found.messages == tuple(messages[2000:])
    assert len(asked) <= 30


@pytest.mark.parametrize("strategy", TruncationStrategy)
def test_an_estimate_that_exceeds_the_limit_is_no_error(strategy: TruncationStrategy) -> None:
    messages = [ChatMessage.user("x" * 400), ChatMessage.assistant("y" * 400), ChatMessage.user("z" * 1024)]
    found = truncate(messages, lambda kept: replace(by_length(kept), exact=False), 100, strategy)
    assert found.messages == tuple(messages if strategy is ERROR else messages[2:])
    assert found.after.tokens > 100
