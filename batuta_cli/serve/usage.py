"""Token usage: the numbers of tokens of each kind, and the rules that make a backend's report consistent.

As in genai-prices, `input_tokens` and `output_tokens` are totals, and the other kinds are parts of them. None means
that a kind was not reported, which differs from 0.

A backend's report is untrusted. These rules make it consistent; `settlement.py` bounds its cost:

* A count is a whole number from 0 to 10^9, also as text of digits or as a float without a fraction. Anything else
  (null, a boolean, other text, a fraction, a negative or larger number) counts as not reported.
* A report without a count of the input or of the output is ignored.
* `total_tokens` above the sum of input and output: the difference is output (xAI and Gemini leave reasoning out of
  `completion_tokens`). A total below the sum is ignored.
* More reasoning than output: the output does not include the reasoning, so both are added.
* More cached, written and audio input than input: the kinds are reduced to the input, the cheapest (cached) first.
* Cache writes whose parts exceed their sum: the sum of the parts counts; at most that many are one-hour writes.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from enum import IntEnum
from typing import Any

MOST = 10**9
"""The largest accepted count, a hundred times the largest context window."""
_MOST_DIGITS = len(str(MOST))


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of a request, by kind."""

    input_tokens: int
    """The whole prompt: uncached, cached and written to a cache."""
    output_tokens: int
    """The whole response, reasoning included."""
    _: KW_ONLY
    cached_tokens: int | None = None
    """Of the input: read from a cache."""
    cache_write_tokens: int | None = None
    """Of the input: written to a cache, with any lifetime."""
    cache_write_1h_tokens: int | None = None
    """Of the cache writes: those kept for an hour."""
    reasoning_tokens: int | None = None
    """Of the output."""
    input_audio_tokens: int | None = None
    """Of the input; disjoint from the cached tokens."""
    output_audio_tokens: int | None = None
    """Of the output; disjoint from the reasoning."""


class CacheWrites(IntEnum):
    """The cache writes that a request may cause; a dearer kind includes the cheaper ones."""

    NONE = 0
    MINUTES = 1
    """Five minutes, the default of `cache_control`."""
    HOUR = 2


_BREAKPOINTS = ("prompt_cache_breakpoint", "prompt_cache_options")


def cache_writes(request: object) -> CacheWrites:
    """The cache writes that `cache_control` in a request's JSON may cause, or OpenAI's `prompt_cache_breakpoint`.

    A lifetime other than `5m` counts as an hour, the dearest kind
    (https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching).
    """
    found, parts = CacheWrites.NONE, [request]
    while parts:
        part = parts.pop()
        if isinstance(part, Mapping):
            if control := part.get("cache_control"):
                lifetime = control.get("ttl") if isinstance(control, Mapping) else None
                found = max(found, CacheWrites.MINUTES if lifetime in (None, "5m") else CacheWrites.HOUR)
            if any(part.get(name) for name in _BREAKPOINTS):
                found = max(found, CacheWrites.MINUTES)
            parts += part.values()
        elif isinstance(part, list | tuple):
            parts += part
    return found


def number(value: object) -> int | None:
    """A reported count; None unless it is a whole number from 0 to `MOST`."""
    digits = type(value) is str and len(value) <= _MOST_DIGITS and value.isascii() and value.isdecimal()
    if digits or (type(value) is float and value.is_integer()):
        value = int(value)  # type: ignore[call-overload]
    return value if type(value) is int and 0 <= value <= MOST else None


def plain(input_tokens: object, output_tokens: object) -> Usage | None:
    """The usage from two counts; None when one of them is invalid."""
    counts = number(input_tokens), number(output_tokens)
    return None if counts[0] is None or counts[1] is None else Usage(counts[0], counts[1])


def from_openai(value: object) -> Usage | None:
    """The usage from OpenAI's `usage`; None when it is invalid.

    Source: https://platform.openai.com/docs/api-reference/chat/object. `prompt_cache_hit_tokens` is DeepSeek's name of
    the cached tokens (https://api-docs.deepseek.com/guides/kv_cache), `cached_tokens` beside the counts Moonshot's.
    """
    if not isinstance(value, dict):
        return None
    whole = plain(value.get("prompt_tokens"), value.get("completion_tokens"))
    if whole is None:
        return None
    input, output = _table(value, "prompt_tokens_details"), _table(value, "completion_tokens_details")
    cached = _first(input.get("cached_tokens"), value.get("cached_tokens"), value.get("prompt_cache_hit_tokens"))
    reasoning = _first(output.get("reasoning_tokens"), value.get("reasoning_tokens"))
    output_tokens = max(whole.output_tokens, (number(value.get("total_tokens")) or 0) - whole.input_tokens)
    if reasoning is not None and reasoning > output_tokens:
        output_tokens += reasoning
    return _consistent(
        Usage(
            whole.input_tokens,
            output_tokens,
            cached_tokens=cached,
            cache_write_tokens=number(input.get("cache_write_tokens")),
            reasoning_tokens=reasoning,
            input_audio_tokens=number(input.get("audio_tokens")),
            output_audio_tokens=number(output.get("audio_tokens")),
        )
    )


def from_responses(value: object) -> Usage | None:
    """The usage from OpenAI's Responses API; None when it is invalid.

    Source: https://platform.openai.com/docs/api-reference/responses/object.
    """
    if not isinstance(value, dict):
        return None
    whole = plain(value.get("input_tokens"), value.get("output_tokens"))
    if whole is None:
        return None
    input, output = _table(value, "input_tokens_details"), _table(value, "output_tokens_details")
    return _consistent(
        replace(
            whole,
            cached_tokens=number(input.get("cached_tokens")),
            cache_write_tokens=number(input.get("cache_write_tokens")),
            reasoning_tokens=number(output.get("reasoning_tokens")),
        )
    )


class AnthropicUsage:
    """Collects Anthropic's usage from `message_start` and `message_delta`, whose counts are cumulative.

    Source: https://docs.anthropic.com/en/api/messages. A later count replaces an earlier one of the same name, except
    0, because some servers repeat the fields with zeros at the end.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, value: object) -> None:
        """Add the counts of one `usage` object."""
        usage = value if isinstance(value, dict) else {}
        for part in (usage, _table(usage, "cache_creation"), _table(usage, "output_tokens_details")):
            for name in _ANTHROPIC:
                if (count := number(part.get(name))) is not None:
                    self._counts[name] = count or self._counts.get(name, 0)

    def usage(self) -> Usage | None:
        """The usage so far; None without a count of the input or of the output."""
        uncached, created, read, five, hour, output, thinking = map(self._counts.get, _ANTHROPIC)
        if output is None or (uncached is None and created is None and read is None):
            return None
        written = (
            None if created is None and five is None and hour is None else max(created or 0, (five or 0) + (hour or 0))
        )
        return _consistent(
            Usage(
                (uncached or 0) + (written or 0) + (read or 0),
                output + (thinking if thinking and thinking > output else 0),
                cached_tokens=read,
                cache_write_tokens=written,
                cache_write_1h_tokens=hour if five is not None or hour is not None else None,
                reasoning_tokens=thinking,
            )
        )


_ANTHROPIC = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "ephemeral_5m_input_tokens",
    "ephemeral_1h_input_tokens",
    "output_tokens",
    "thinking_tokens",
)


def to_openai(usage: Usage) -> dict[str, Any]:
    """A usage in OpenAI's format, with the reported kinds."""
    shape: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    input = {
        "cached_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "audio_tokens": usage.input_audio_tokens,
    }
    output = {"reasoning_tokens": usage.reasoning_tokens, "audio_tokens": usage.output_audio_tokens}
    for name, kinds in (("prompt_tokens_details", input), ("completion_tokens_details", output)):
        if known := _known(kinds):
            shape[name] = known
    return shape


def to_anthropic(usage: Usage) -> dict[str, Any]:
    """A usage in Anthropic's format, whose `input_tokens` exclude cached and written tokens."""
    cached, written, hour = usage.cached_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens
    shape: dict[str, Any] = {
        "input_tokens": usage.input_tokens - (cached or 0) - (written or 0),
        **_known({"cache_creation_input_tokens": written, "cache_read_input_tokens": cached}),
        "output_tokens": usage.output_tokens,
    }
    if hour is not None:
        shape["cache_creation"] = {
            "ephemeral_5m_input_tokens": (written or 0) - hour,
            "ephemeral_1h_input_tokens": hour,
        }
    if usage.reasoning_tokens is not None:
        shape["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return shape


def to_responses(usage: Usage) -> dict[str, Any]:
    """A usage in the format of OpenAI's Responses API, which has 0 for a kind that was not reported.

    Source: https://platform.openai.com/docs/api-reference/responses/object.
    """
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens or 0,
            "cache_write_tokens": usage.cache_write_tokens or 0,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def kinds_of(usage: Usage) -> dict[str, int]:
    """The reported kinds, by the names of their fields."""
    names = [name for name in Usage.__dataclass_fields__ if name not in ("input_tokens", "output_tokens", "_")]
    return _known({name: getattr(usage, name) for name in names})


def _consistent(usage: Usage) -> Usage:
    """The usage with every kind within its total; the cheaper kinds are reduced first."""
    audio = _within(usage.input_audio_tokens, usage.input_tokens)
    left = usage.input_tokens - (audio or 0)
    written = _within(usage.cache_write_tokens, left)
    left -= written or 0
    reasoning = _within(usage.reasoning_tokens, usage.output_tokens)
    return Usage(
        usage.input_tokens,
        usage.output_tokens,
        cached_tokens=_within(usage.cached_tokens, left),
        cache_write_tokens=written,
        cache_write_1h_tokens=_within(usage.cache_write_1h_tokens, written or 0),
        reasoning_tokens=reasoning,
        input_audio_tokens=audio,
        output_audio_tokens=_within(usage.output_audio_tokens, usage.output_tokens - (reasoning or 0)),
    )


def _within(count: int | None, limit: int) -> int | None:
    return None if count is None else min(count, limit)


def _first(*values: object) -> int | None:
    return next((count for value in values if (count := number(value)) is not None), None)


def _known(counts: Mapping[str, int | None]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count is not None}


def _table(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}
