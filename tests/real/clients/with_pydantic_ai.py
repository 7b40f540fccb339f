"""pydantic-ai's models for OpenAI (chat completions and responses) and Anthropic. See `common`."""

import asyncio
from typing import Any

from common import HELLO, MODEL, NOTE, URL, main, read_note  # type: ignore[import-not-found]
from pydantic_ai import Agent  # type: ignore[import-not-found,unused-ignore]
from pydantic_ai.models.anthropic import AnthropicModel  # type: ignore[import-not-found,unused-ignore]
from pydantic_ai.models.openai import (  # type: ignore[import-not-found,unused-ignore]
    OpenAIChatModel,
    OpenAIResponsesModel,
)
from pydantic_ai.providers.anthropic import AnthropicProvider  # type: ignore[import-not-found,unused-ignore]
from pydantic_ai.providers.openai import OpenAIProvider  # type: ignore[import-not-found,unused-ignore]


async def uses(model: Any) -> tuple[str, list[str], str]:
    settings = {"max_tokens": 80, "temperature": 0}
    agent = Agent(model, model_settings=settings)
    asked = await agent.run(HELLO)
    async with agent.run_stream(HELLO) as stream:
        parts = [part async for part in stream.stream_text(delta=True, debounce_by=None)]
    helper = Agent(model, model_settings=settings, tools=[read_note])
    told = await helper.run(NOTE)
    return asked.output, parts, told.output


def openai() -> Any:
    return OpenAIProvider(base_url=f"{URL}/v1", api_key="none")


def chat() -> tuple[str, list[str], str]:
    return asyncio.run(uses(OpenAIChatModel(MODEL, provider=openai())))


def responses() -> tuple[str, list[str], str]:
    return asyncio.run(uses(OpenAIResponsesModel(MODEL, provider=openai())))


def messages() -> tuple[str, list[str], str]:
    return asyncio.run(uses(AnthropicModel(MODEL, provider=AnthropicProvider(base_url=URL, api_key="none"))))


main({"chat": chat, "responses": responses, "messages": messages})
