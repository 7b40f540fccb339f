"""The content of messages beside text, in OpenAI's form: what a backend must take, and what it counts as.

Images count as the backend's profile says. Nothing bounds files, audio and video, so they count as the model's
whole context window. Parts of other types, and fields such as `reasoning_content`, count as their JSON text.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from batuta_cli.serve.backends.wire_formats import Need
from batuta_cli.serve.pipeline.request import ChatRequest
from batuta_cli.serve.routing.demands import Demands
from batuta_cli.serve.usage import CacheWrites, cache_writes

_KINDS = {
    "image_url": Need.IMAGES,
    "image": Need.IMAGES,
    "file": Need.FILES,
    "input_audio": Need.AUDIO,
    "audio_url": Need.AUDIO,
    "audio": Need.AUDIO,
    "video_url": Need.VIDEO,
    "video": Need.VIDEO,
}
"""Types of content parts in OpenAI's API, in vLLM's, and in the templates of models."""

_PROMPT_OPTIONS = ("chat_template_kwargs", "prediction")
"""Options beside those of `request_fields.py` whose text may become part of the prompt or of the bill."""

_PRICES = {
    ("service_tier", "priority"): 300,
    ("service_tier", "fast"): 300,
    ("speed", "fast"): 600,
    ("inference_geo", "us"): 110,
}
"""Fields and values that change the price, in per cent of the standard price, the highest that the services list
(https://openai.com/api-priority-processing, https://docs.anthropic.com/en/docs/about-claude/pricing)."""


@dataclass(frozen=True)
class _Media:
    images: int
    needs: frozenset[Need]


def needs_of(request: ChatRequest) -> frozenset[Need]:
    """What the content and the hosted tools need a backend to take."""
    hosted = {Need.HOSTED_TOOLS} if request.reach.hosted else set()
    return _media(request).needs | hosted


def demands_of(request: ChatRequest) -> Demands:
    """What the request asks beside its text."""
    media, reach = _media(request), request.reach
    unbounded_content = bool(media.needs - {Need.IMAGES})
    return Demands(
        api=request.native.api if request.native else None,
        native_only=request.native_only,
        outside=(*reach.hosted, *reach.stored),
        fetches=request.fetches,
        images=media.images,
        windows=1 + reach.uses if unbounded_content or reach.uses else 0,
        price_percent=_price_percent(request),
        call_cost=reach.call_cost,
        unbounded_tools=reach.unbounded,
        unknown_fields=request.unknown_fields,
    )


def cache_writes_of(request: ChatRequest) -> CacheWrites:
    """The cache writes that the request may cause."""
    parts = [part for message in request.messages for part in message.parts]
    return cache_writes([request.options, parts, request.native.document if request.native else None])


def other_texts(request: ChatRequest, *, fields: bool = True) -> Iterator[str]:
    """The JSON texts that may become part of the prompt beside the messages' texts, tools and formats.

    Without `fields`, the further fields of messages are left out, which `count_messages` counts itself.
    """
    for message in request.messages:
        yield from (_json(part) for part in message.parts if part.get("type") != "text" and not _kind(part))
        yield from (_json(value) for value in message.fields.values() if value and fields)
    for name in (*_PROMPT_OPTIONS, *request.unknown_fields):
        if value := request.options.get(name):
            yield _json(value)
    if request.native is not None:  # such as the end of a text to complete, or tokens of an earlier response
        yield from (_json(value) for name in request.native_only if (value := request.native.document.get(name)))


def _media(request: ChatRequest) -> _Media:
    kinds = [kind for message in request.messages for part in message.parts if (kind := _kind(part))]
    return _Media(kinds.count(Need.IMAGES), frozenset(kinds))


def _kind(part: Mapping[str, object]) -> Need | None:
    kind = part.get("type")
    return _KINDS.get(kind) if isinstance(kind, str) else None


def _price_percent(request: ChatRequest) -> int:
    fields = {**request.options, **(request.native.document if request.native else {})}
    return max((percent for (name, value), percent in _PRICES.items() if fields.get(name) == value), default=100)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
