"""The OpenAI Agents SDK, over chat completions and over responses, its default. See `common`."""

import asyncio
from typing import Any

from agents import (  # type: ignore[import-not-found,unused-ignore]
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from common import HELLO, MODEL, NOTE, URL, main, read_note  # type: ignore[import-not-found]
from openai import AsyncOpenAI  # type: ignore[import-not-found,unused-ignore]

set_tracing_disabled(True)


async def uses(kind: Any) -> tuple[str, list[str], str]:
    model = kind(model=MODEL, openai_client=AsyncOpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0))
    settings = ModelSettings(max_tokens=80, temperature=0)
    agent = Agent(name="greeter", instructions="Be brief.", model=model, model_settings=settings)
    asked = await Runner.run(agent, HELLO)
    stream = Runner.run_streamed(agent, HELLO)
    parts = [
        event.data.delta
        async for event in stream.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    reader = Agent(name="reader", model=model, model_settings=settings, tools=[function_tool(read_note)])
    told = Runner.run_streamed(reader, NOTE)
    async for _ in told.stream_events():
        pass
    return asked.final_output, parts, told.final_output


def chat() -> tuple[str, list[str], str]:
    return asyncio.run(uses(OpenAIChatCompletionsModel))


def responses() -> tuple[str, list[str], str]:
    return asyncio.run(uses(OpenAIResponsesModel))


main({"chat": chat, "responses": responses})
