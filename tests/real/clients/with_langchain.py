"""LangChain's chat models for OpenAI and Anthropic. See `common`."""

from typing import Any

from common import HELLO, MODEL, NOTE, URL, main, read_note  # type: ignore[import-not-found]
from langchain_anthropic import ChatAnthropic  # type: ignore[import-not-found,unused-ignore]
from langchain_core.messages import HumanMessage, ToolMessage  # type: ignore[import-not-found,unused-ignore]
from langchain_core.tools import tool  # type: ignore[import-not-found,unused-ignore]
from langchain_openai import ChatOpenAI  # type: ignore[import-not-found,unused-ignore]


def uses(model: Any) -> tuple[str, list[str], str]:
    asked = model.invoke(HELLO)
    parts = [part.text for part in model.stream(HELLO)]
    function = tool(read_note)
    bound = model.bind_tools([function])
    messages: list[Any] = [HumanMessage(NOTE)]
    call = None
    for part in bound.stream(messages):
        call = part if call is None else call + part
    assert call is not None
    results = [ToolMessage(function.invoke(made["args"]), tool_call_id=made["id"]) for made in call.tool_calls]
    messages += [call, *results]
    return asked.text, [part for part in parts if part], model.bind_tools([function]).invoke(messages).text


OPTIONS = {"model": MODEL, "max_tokens": 80, "temperature": 0, "max_retries": 0}


def chat() -> tuple[str, list[str], str]:
    return uses(ChatOpenAI(base_url=f"{URL}/v1", api_key="none", **OPTIONS))


def responses() -> tuple[str, list[str], str]:
    return uses(ChatOpenAI(base_url=f"{URL}/v1", api_key="none", use_responses_api=True, **OPTIONS))


def messages() -> tuple[str, list[str], str]:
    return uses(ChatAnthropic(base_url=URL, api_key="none", **OPTIONS))


main({"chat": chat, "responses": responses, "messages": messages})
