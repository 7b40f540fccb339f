"""What in a client's request reaches beyond the generation of text: URLs in content, hosted tools, stored state.

The tables hold for all dialects, because the services use the same words. The rules follow in the plan
(`serve/routing/gates.py`), for every backend:

* `file:` URLs and URLs without a known form are refused here. Others go only to public services, unless the operator
  names their host in `[gateway] media_hosts`, because a backend would fetch them from inside the user's network.
* Hosted tools and stored state hand data to the service. Only the standard tier allows them.
* A hosted tool without a limit of its uses has no bound of its cost.

Only content is searched: the arguments of a tool call or the text of a message may have any URL, which no backend
fetches.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from batuta_cli.serve.gateway.dialects.fields import wrong
from batuta_cli.serve.routing.demands import Reach

HOSTED_FIELDS: Mapping[str, str] = {
    "code_execution": "runs code at the service",
    "compound_custom": "Groq's systems with tools",
    "container": "the files of hosted tools",
    "enable_search": "web search of Alibaba's models",
    "mcp_servers": "connections to MCP servers",
    "plugins": "OpenRouter's web search and file parsers",
    "search_parameters": "live search of xAI",
    "search_settings": "web search of Groq",
    "web_search": "web search",
    "web_search_options": "web search of OpenAI's chat models",
}
"""Fields that ask for tools which the service runs."""

STORED_FIELDS: Mapping[str, str] = {
    "background": "the service keeps the response until it is asked for",
    "conversation": "the service keeps the conversation",
    "file_ids": "files that the service keeps",
    "previous_response_id": "the service keeps the conversation",
    "prompt": "a prompt that the service keeps",
    "store": "the service keeps the response",
    "thread": "the service keeps the conversation",
}
"""Fields that ask the service to keep data, or to use data that it keeps. A value that is false or text of a completion
asks for nothing."""

CLIENT_TOOLS = frozenset(("function", "custom", "local_shell", "apply_patch"))
"""Types of tools that the client runs. A tool without a type is Anthropic's form of a function."""

CLIENT_TOOL_PREFIXES = ("bash_", "computer_", "memory_", "text_editor_")
"""Types of tools with a date in their name that the client runs; Anthropic's models know their schema."""

CALL_COST: Mapping[str, int] = {"web_search": 10_000_000}
"""Nano-dollars for one use, by the beginning of the tool's type
(https://docs.anthropic.com/en/docs/about-claude/pricing#web-search-tool)."""

_URL_KEY = re.compile(r"\w+_?ur[il]", re.IGNORECASE)
"""Keys of a content part whose value is a URL, or an object with one: `image_url`, `file_uri`, `imageUrl`, …"""
_DATA_KEYS = frozenset(("audio", "data", "file_data", "image", "video"))
"""Keys whose value is data, and a URL for some servers."""
_MEDIA_TYPE = re.compile(r"url|(\w*_)?(image|video|audio|file|document)(_\w*)?")
"""Types of parts in which `url` and `path` are where the content is, as transformers and SGLang have them. In other
parts, such as the results of a search, they are facts."""
_ID_KEYS = frozenset(("file_id", "container_id"))
_NESTED_KEYS = frozenset(("content", "source", "file", "input_audio", "output"))
_DEEPEST = 16
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,31}):")  # RFC 3986, section 3.1; base64 has no colon


@dataclass
class _Found:
    urls: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)


def reach_of(document: Mapping[str, Any], *content: str) -> Reach:
    """What a request reaches; `content`: its fields with messages. Raises `HttpError` for a URL of a refused form.

    A field counts unless its value is null, false or empty. An empty object asks for a hosted tool with its defaults,
    as `web_search_options` does at OpenAI (https://developers.openai.com/api/docs/guides/tools-web-search).
    """
    found = _Found()
    for name in content:
        _search(document.get(name), found, 0)
    for url in found.urls:
        _check_url(url)
    hosted = [name for name in HOSTED_FIELDS if document.get(name) or document.get(name) == {}]
    unbounded = list(hosted)
    uses = cost = 0
    for tool in _hosted_tools(document):
        kind = str(tool["type"])[:64]
        hosted.append(kind)
        limit = tool.get("max_uses")
        if type(limit) is int and 0 < limit <= 1000:
            uses += limit
            cost += limit * next((each for name, each in CALL_COST.items() if kind.startswith(name)), 0)
        else:
            unbounded.append(kind)
    stored = [name for name in STORED_FIELDS if name not in content and document.get(name)]
    return Reach(
        hosted=tuple(dict.fromkeys(hosted)),
        stored=tuple(dict.fromkeys([*stored, *found.ids])),
        urls=tuple(found.urls),
        unbounded=tuple(dict.fromkeys(unbounded)),
        uses=uses,
        call_cost=cost,
    )


def may_fetch(urls: tuple[str, ...], hosts: tuple[str, ...]) -> bool:
    """Whether every URL is at a host that the operator allows; `*` stands for a part of a host name."""
    return all(_is_at(url, hosts) for url in urls)


def is_of_client(kind: str) -> bool:
    """Whether the client runs tools of this type."""
    return kind in CLIENT_TOOLS or kind.startswith(CLIENT_TOOL_PREFIXES)


def _hosted_tools(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    tools = document.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        kind = tool.get("type") if isinstance(tool, dict) else None
        if isinstance(kind, str) and not is_of_client(kind):
            yield tool


def _search(value: Any, found: _Found, depth: int) -> None:
    if depth > _DEEPEST:
        raise wrong("messages", "nests content too deeply", "invalid_messages")
    if isinstance(value, list):
        for item in value:
            _search(item, found, depth + 1)
    if not isinstance(value, dict):
        return
    for name, inner in value.items():
        if _URL_KEY.fullmatch(name):
            _add_url(inner, found)
        elif name in _ID_KEYS and isinstance(inner, str):
            found.ids.append(name)
        elif isinstance(inner, str) and _is_url(name, value, inner):
            _add_url(inner, found)
        elif name in _NESTED_KEYS:
            _search(inner, found, depth + 1)


def _is_url(name: str, part: Mapping[str, Any], value: str) -> bool:
    """Whether a text field of a part says where the content is."""
    if name in ("url", "path"):
        kind = part.get("type")
        return isinstance(kind, str) and _MEDIA_TYPE.fullmatch(kind) is not None
    return name in _DATA_KEYS and _SCHEME.match(value) is not None


def _add_url(value: Any, found: _Found) -> None:
    url = value.get("url") if isinstance(value, dict) else value
    if isinstance(url, str) and not url.lower().startswith("data:"):
        found.urls.append(url)


def _check_url(url: str) -> None:
    found = _SCHEME.match(url) if _is_plain(url[:64]) else None
    scheme = found[1].lower() if found else ""
    if scheme == "file":
        raise wrong("messages", "must not have file: URLs", "unsupported_url")
    if not scheme:
        raise wrong("messages", "have a URL that is not valid; send a data: or https: URL", "unsupported_url")


def _is_plain(text: str) -> bool:
    return all("!" <= c <= "~" for c in text) and "\\" not in text


def _is_at(url: str, hosts: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    # Parsers disagree about user names, backslashes and other characters before the path.
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or not _is_plain(parts.netloc):
        return False
    host = (parts.hostname or "").rstrip(".")
    return any(fnmatchcase(host, pattern.lower()) for pattern in hosts)
