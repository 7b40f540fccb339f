"""What a named format cannot express is an error that names the message; nothing is moved or lost unasked."""

import datetime as dt
from concurrent.futures import ThreadPoolExecutor

import pytest

from batuta_cli.errors import TemplateError, UsageError
from batuta_cli.serve import ChatMessage, ChatTemplateEngine, Role, TemplateFormat, ToolCall
from batuta_cli.serve.templates.formats import named_formats

SYSTEM, USER, ANSWER = ChatMessage.system("Be brief."), ChatMessage.user("Hi"), ChatMessage.assistant("Ho")
CALL = ChatMessage.assistant("", [ToolCall("c1", "add", '{"a": 1}')])
RESULT = ChatMessage.tool("2", "c1")


@pytest.mark.parametrize(
    ("format", "messages", "expected"),
    [
        ("gemma", [SYSTEM, USER], "message 1: the format gemma has no system messages"),
        ("phi3", [USER, ANSWER, SYSTEM, USER], "message 3: the format phi3 has no system messages"),
        ("llama2", [USER, ANSWER, SYSTEM, USER], "message 3: .* a system message only before all others"),
        ("llama2", [SYSTEM, SYSTEM, USER], "message 2: .* a system message only before all others"),
        ("llama2", [USER, USER], "message 2: .* must alternate, and both messages are user"),
        ("gemma", [USER, ANSWER, ANSWER], "message 3: .* must alternate, and both messages are assistant"),
        ("vicuna", [SYSTEM, ANSWER, USER], "message 2: .* begins with a user message"),
        ("mistral-v1", [ANSWER, USER], "message 1: .* begins with a user message"),
        ("chatml", [USER, CALL, RESULT], "message 2: the format chatml has no tool calls"),
        ("llama3", [USER, RESULT], "message 2: the format llama3 has no tool results"),
        (
            "llama3.1",
            [USER, ChatMessage.assistant("", [ToolCall("1", "f"), ToolCall("2", "g")])],
            "message 2: .* one tool",
        ),
        ("raw", [], "there are no messages"),
        *[(name, [SYSTEM], "there are only system messages") for name in named_formats()],
    ],
)
def test_what_a_format_cannot_express_names_the_message(
    format: str, messages: list[ChatMessage], expected: str
) -> None:
    with pytest.raises(TemplateError, match=f"^{expected}"):
        ChatTemplateEngine(format).apply(messages)


def test_the_system_message_is_merged_or_dropped_only_where_it_has_no_place() -> None:
    gemma = ChatTemplateEngine(TemplateFormat.GEMMA)
    messages = [SYSTEM, USER, ANSWER, ChatMessage.system("Now."), ChatMessage.user("And?")]
    turns = [ChatMessage.user("Be brief.\nNow.\nHi"), ANSWER, ChatMessage.user("And?")]
    assert gemma.apply(messages, system_fallback="merge") == gemma.apply(turns)
    assert gemma.apply(messages, system_fallback="drop") == gemma.apply([USER, ANSWER, ChatMessage.user("And?")])
    chatml = ChatTemplateEngine("chatml")
    assert chatml.apply(messages, system_fallback="drop") == chatml.apply(messages)
    with pytest.raises(TemplateError, match="message 1: there is no user message"):
        gemma.apply([SYSTEM, ANSWER], system_fallback="merge")
    with pytest.raises(UsageError, match="unknown system fallback"):
        gemma.apply(messages, system_fallback="ignore")


def test_the_numbers_of_messages_are_the_callers_also_after_a_system_message_is_gone() -> None:
    with pytest.raises(TemplateError, match="message 3"):
        ChatTemplateEngine("gemma").apply([SYSTEM, USER, USER], system_fallback="drop")


def test_a_given_date_is_the_one_that_stands_in_the_prompt() -> None:
    day = dt.date(2031, 2, 3)
    assert "Today Date: 03 Feb 2031\n" in ChatTemplateEngine("llama3.1").apply([USER], date=day)
    assert "Today Date: 26 Jul 2024\n" in ChatTemplateEngine("llama3.1").apply([USER])
    assert "Current date: 2031-02-03\n" in ChatTemplateEngine("gpt-oss").apply([USER], date=day)
    template = "{{ strftime_now('%d.%m.%Y %H') }} {{ messages[0].content }}"
    assert ChatTemplateEngine.from_template(template).apply([USER], date=day) == "03.02.2031 00 Hi"
    assert f"Current date: {dt.date.today()}"[:18] in ChatTemplateEngine("gpt-oss").apply([USER])


def test_threads_may_share_an_engine() -> None:
    engine = ChatTemplateEngine("gpt-oss")
    days = [dt.date(2026, 1, 1 + number) for number in range(28)]
    with ThreadPoolExecutor(8) as threads:
        prompts = list(threads.map(lambda day: engine.apply([USER] * 50, date=day), days * 10))
    assert [f"Current date: {day}\n" in prompt for day, prompt in zip(days * 10, prompts, strict=True)] == [True] * 280


def test_the_developers_message_is_a_system_message() -> None:
    developer = ChatMessage(Role.DEVELOPER, "Be brief.")
    for name in ("chatml", "llama2", "gpt-oss"):
        engine, day = ChatTemplateEngine(name), dt.date(2026, 1, 2)
        assert engine.apply([developer, USER], date=day) == engine.apply([SYSTEM, USER], date=day)
    with pytest.raises(TemplateError, match="message 1"):
        ChatTemplateEngine("gemma").apply([developer, USER])


def test_a_model_is_rendered_by_the_format_that_its_name_means() -> None:
    engine = ChatTemplateEngine.from_model("llama-2-70b")
    assert engine.format is TemplateFormat.LLAMA2 and engine.name == "llama2"
    assert engine.apply([USER]) == "<s>[INST] Hi [/INST]"
    with pytest.raises(UsageError, match="unknown model"):
        ChatTemplateEngine.from_model("nobody-knows-this")
