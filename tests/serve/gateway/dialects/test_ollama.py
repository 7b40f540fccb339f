"""Ollama's chat and generate: what is asked becomes OpenAI's request."""

import base64
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.serve.gateway.dialects.ollama import OllamaChat, OllamaGenerate
from batuta_cli.serve.gateway.http_errors import HttpError
from tests.serve.gateway.support import OLLAMA_CHAT, OLLAMA_GENERATE, Asking, ask, chat, run

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"pixels").decode()
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
TIME = {"type": "function", "function": {"name": "time", "parameters": {"type": "object"}}}


def read(**document: Any) -> Any:
    return OllamaChat().read({"model": "m", "messages": [{"role": "user", "content": "Hi"}]} | document)


def generate(**document: Any) -> Any:
    return OllamaGenerate().read({"model": "m", "prompt": "Hi"} | document)


def sent(*turns: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages of a request, in OpenAI's form."""
    return [message.to_dict() for message in read(messages=list(turns)).messages]


def refusal(**document: Any) -> HttpError:
    with pytest.raises(HttpError) as caught:
        read(**document)
    assert caught.value.status == 400
    return caught.value


def test_a_request_is_streamed_unless_it_says_otherwise() -> None:
    assert (read().stream, read(stream=True).stream, read(stream=False).stream) == (True, True, False)
    assert generate().stream


def test_options_become_openais_fields() -> None:
    parsed = read(
        options={
            "num_predict": 40.0, "temperature": 0.2, "top_p": 0.9, "top_k": 20, "min_p": 0.05, "seed": 7,
            "stop": ["\n", "END"], "presence_penalty": 0.1, "frequency_penalty": 0.3, "repeat_penalty": 1.1,
        }
    )  # fmt: skip
    assert parsed.max_tokens == 40
    assert parsed.options == {
        "temperature": 0.2, "top_p": 0.9, "top_k": 20, "min_p": 0.05, "seed": 7, "stop": ["\n", "END"],
        "presence_penalty": 0.1, "frequency_penalty": 0.3, "repeat_penalty": 1.1,
    }  # fmt: skip


@pytest.mark.parametrize("endless", [-1, -2, 0])
def test_a_limit_of_minus_one_or_two_is_none(endless: int) -> None:
    assert read(options={"num_predict": endless}).max_tokens is None


def test_what_only_loads_a_model_is_dropped_by_name() -> None:
    parsed = read(keep_alive="5m", options={"num_ctx": 8192, "num_gpu": 1, "seed": 1})
    assert parsed.dropped == ("keep_alive", "options.num_ctx", "options.num_gpu")
    assert parsed.options == {"seed": 1}


def test_format_becomes_the_response_format() -> None:
    assert read(format="json").options == {"response_format": {"type": "json_object"}}
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "format", "schema": schema, "strict": True}}
    assert read(format=schema).options == {"response_format": wanted}
    assert read(format="").options == {}


def test_think_becomes_a_template_variable_or_an_effort() -> None:
    assert read(think=True).options == {"chat_template_kwargs": {"enable_thinking": True}}
    assert read(think=False).options == {"chat_template_kwargs": {"enable_thinking": False}}
    assert read(think="low").options == {"reasoning_effort": "low"}


def test_logprobs_are_asked_for_as_openai_does() -> None:
    assert read(logprobs=True, top_logprobs=3).options == {"logprobs": True, "top_logprobs": 3}


def test_tools_are_kept_and_their_type_is_added() -> None:
    assert read(tools=[WEATHER]).options == {"tools": [WEATHER]}
    assert read(tools=[{"function": WEATHER["function"]}]).options == {"tools": [WEATHER]}
    assert read(tools=[]).options == {}


def test_images_become_parts_with_their_media_type() -> None:
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    assert sent({"role": "user", "content": "What is it?", "images": [PNG]}) == [
        {"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}
    ]
    assert [m.to_dict() for m in generate(prompt="", images=[PNG]).messages] == [{"role": "user", "content": [part]}]


def test_thinking_of_an_earlier_turn_is_kept() -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello", "thinking": "A greeting."}]
    assert sent(*turns)[1] == {"role": "assistant", "content": "Hello", "reasoning_content": "A greeting."}


def call(name: str, arguments: Any = None, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments or {}}, **more}


def test_calls_get_an_id_and_results_belong_to_the_call_of_their_name() -> None:
    messages = sent(
        {"role": "user", "content": "Weather and time?"},
        {"role": "assistant", "tool_calls": [call("weather", {"city": "Łódź"}), call("time"), call("weather")]},
        {"role": "tool", "content": "noon", "tool_name": "time"},
        {"role": "tool", "content": "rain", "tool_name": "weather"},
        {"role": "tool", "content": "sun", "tool_name": "weather"},
        {"role": "assistant", "content": "Done.", "tool_calls": [call("time", id="own")]},
        {"role": "tool", "content": "one", "tool_call_id": "own"},
    )
    ids = [c["id"] for c in messages[1]["tool_calls"]]
    assert len(set(ids)) == 3
    assert messages[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city":"Łódź"}'}
    assert [m["tool_call_id"] for m in messages[2:5]] == [ids[1], ids[0], ids[2]]
    assert messages[6] == {"role": "tool", "content": "one", "tool_call_id": "own"}


def test_a_result_without_a_name_belongs_to_the_oldest_open_call() -> None:
    messages = sent(
        {"role": "assistant", "tool_calls": [call("weather"), call("time")]},
        {"role": "tool", "content": "rain"},
        {"role": "tool", "content": "noon"},
    )
    assert [m["tool_call_id"] for m in messages[1:]] == [c["id"] for c in messages[0]["tool_calls"]]


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([{"role": "tool", "content": "x"}], "message 1: a tool result without its call"),
        ([{"role": "wizard", "content": "x"}], "message 1: role must be one of system, user, assistant, tool"),
        ([{"role": "user", "content": 7}], "message 1: content must be text"),
        ([{"role": "user", "images": ["!"]}], "message 1: an image is not base64"),
        ([{"role": "user", "images": ["aGVsbG8gd29ybGQ="]}], "message 1: an image is not PNG, JPEG, GIF, WebP or BMP"),
        ([{"role": "user", "images": PNG}], "message 1: images must be a list of base64 strings"),
        ([{"role": "assistant", "tool_calls": [{}]}], "message 1: a tool call needs a function with a name"),
        ([{"role": "assistant", "tool_calls": [call("f", ["x"])]}], "message 1: the arguments of a tool call must be"),
        ([{"role": "assistant", "tool_calls": {"a": 1}}], "message 1: tool_calls must be a list"),
        (
            [{"role": "assistant", "tool_calls": [call("f", id="a")]}, {"role": "tool", "tool_call_id": "b"}],
            "message 2: a tool result without its call",
        ),
    ],
)
def test_a_wrong_message_is_named_by_its_number(turns: list[Any], message: str) -> None:
    assert refusal(messages=turns).message.startswith(message)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stream", "yes"),
        ("format", "yaml"),
        ("think", 3),
        ("top_logprobs", 21),
        ("messages", "Hi"),
        ("options", [1]),
        ("tools", [{"function": {}}]),
        ("tools", [{"type": "web_search", "function": {"name": "f"}}]),
        ("tools", "f"),
        ("_debug_render_only", True),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    assert refusal(**{field: value}).param == field


@pytest.mark.parametrize(
    ("name", "value"), [("num_predict", 0.5), ("num_predict", 10**9), ("temperature", "hot"), ("seed", 1.5)]
)
def test_a_wrong_option_is_named(name: str, value: Any) -> None:
    assert refusal(options={name: value}).param == name


def test_generate_takes_a_system_message_and_a_prompt() -> None:
    assert [m.to_dict() for m in generate(system="Be brief.").messages] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]


@pytest.mark.parametrize(("field", "value"), [("suffix", "return x"), ("template", "{{ .Prompt }}"), ("raw", True)])
def test_what_only_ollama_can_do_is_marked_for_ollama(field: str, value: Any) -> None:
    assert generate(**{field: value}).native_only == (field,)
    assert generate(suffix="", template="", raw=False, context=[]).native_only == ()


def test_a_generated_image_is_refused() -> None:
    with pytest.raises(HttpError) as caught:
        generate(width=512)
    assert caught.value.param == "width"
    assert generate(width=0, height=0, steps=0).messages


def test_a_request_without_a_prompt_is_answered_as_a_loaded_model(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        loaded = (await asking.ask(OLLAMA_GENERATE, {"model": "echo"})).json
        assert (loaded["response"], loaded["done"], loaded["done_reason"]) == ("", True, "load")
        unloaded = (await asking.ask(OLLAMA_CHAT, {"model": "echo", "messages": [], "keep_alive": 0})).json
        assert (unloaded["message"]["content"], unloaded["done_reason"]) == ("", "unload")
        unknown = await asking.ask(OLLAMA_CHAT, {"model": "gpt-9"})
        assert (unknown.status, unknown.json) == (
            404,
            {"error": "no backend has this model; GET /v1/models lists them"},
        )
        assert asking.pipeline.requests == []

    run(tmp_path, scenario)


def test_the_pipeline_gets_the_request(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        await asking.ask(OLLAMA_CHAT, chat(options={"num_predict": 5, "temperature": 0}))
        (request,) = asking.pipeline.requests
        assert (request.model, request.max_tokens, request.stream) == ("echo", 5, True)
        assert (request.options, request.messages[0].content) == ({"temperature": 0}, "one two three")

    run(tmp_path, scenario)


def test_a_wrong_body_gets_an_error_as_ollama_writes_it(tmp_path: Path) -> None:
    answer = ask(tmp_path, OLLAMA_CHAT, {"model": "echo", "messages": "Hi"})
    assert (answer.status, answer.json) == (400, {"error": "messages must be a list of objects"})
    assert ask(tmp_path, OLLAMA_CHAT, b"{").json == {"error": "the body is not valid JSON in UTF-8"}
