"""Tools of OpenAI's Responses API as functions of chat completions, the only tools that every backend knows. No I/O.

    tools = ResponseTools()
    tools.add(document["tools"])
    tools.functions                     # the `tools` of a chat completion
    tools.origin("multi_agent__spawn")  # the tool that the client declared

The client runs all of them, so the model's call of a function is returned as an item of the declared kind:

* `function`: as it is. Functions in a `namespace` are named `NAMESPACE__NAME`.
* `custom`: a function with one text argument, `input`. A grammar is part of the description, so it is not enforced.
* `tool_search` that the client executes: a function. One that OpenAI executes is dropped, and all deferred tools are
  declared instead.

A tool of another type runs at OpenAI, or is known to its models only, and is named in `native_only`.

Source: https://platform.openai.com/docs/api-reference/responses/create. Errors are `HttpError`.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from batuta_cli.serve.gateway.dialects.fields import OBJECT, wrong

INPUT = "input"
"""The argument of the function that stands for a custom tool."""

_LONGEST_NAME = 64
"""Characters of a function's name (https://platform.openai.com/docs/api-reference/chat/create)."""

_CUSTOM_PARAMETERS = {
    "type": "object",
    "properties": {INPUT: {"type": "string", "description": "The whole input of the tool, as free-form text."}},
    "required": [INPUT],
    "additionalProperties": False,
}
_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}


class ToolKind(Enum):
    """The kinds of tools that a client runs, by the type of their declaration."""

    FUNCTION = "function"
    CUSTOM = "custom"
    SEARCH = "tool_search"


_KINDS = frozenset(kind.value for kind in ToolKind)


@dataclass(frozen=True, slots=True)
class DeclaredTool:
    """A tool as the client declared it."""

    kind: ToolKind
    name: str
    namespace: str | None = None


class ResponseTools:
    """The tools of one request. `add` may be called several times: items of the input declare tools too."""

    def __init__(self) -> None:
        self.dropped: set[str] = set()
        """What was left out, as names for `X-Batuta-Dropped`."""
        self.native_only: set[str] = set()
        """Tools that only OpenAI's service has."""
        self.hosted: list[dict[str, Any]] = []
        """The declarations of these."""
        self._functions: dict[str, dict[str, Any]] = {}
        self._origins: dict[str, DeclaredTool] = {}

    @property
    def functions(self) -> list[dict[str, Any]]:
        """The `tools` of a chat completion."""
        return list(self._functions.values())

    def origin(self, function: str) -> DeclaredTool:
        """The tool that a function stands for; a function that was not declared stands for itself."""
        return self._origins.get(function) or DeclaredTool(ToolKind.FUNCTION, function)

    def add(self, tools: object) -> None:
        """Add a list of tools. Raises `HttpError`."""
        if not isinstance(tools, list):
            raise wrong("tools", "must be a list of tools")
        for tool in tools:
            self._add(_checked(tool), None)

    def _add(self, tool: dict[str, Any], namespace: str | None) -> None:
        kind = str(tool["type"])
        if namespace is not None and kind not in _NESTED:
            raise wrong("tools", "has a namespace with a tool that is neither a function nor custom", "invalid_value")
        if read := _READERS.get(kind):
            read(self, tool, namespace)
        else:
            self.native_only.add(f"tools.{shown_type(kind)}")
            self.hosted.append(tool)

    def _namespace(self, tool: dict[str, Any], _: str | None) -> None:
        if not isinstance(tool.get("tools"), list):
            raise wrong("tools", "has a namespace without a list of tools")
        name = _name(tool)
        for nested in map(_checked, tool["tools"]):
            description = "\n\n".join(text for text in (_description(tool), _description(nested)) if text)
            self._add({**nested, "description": description}, name)

    def _function(self, tool: dict[str, Any], namespace: str | None) -> None:
        parameters = tool.get("parameters")
        if parameters is not None and not isinstance(parameters, dict):
            raise wrong("tools", "has a function whose parameters are not an object")
        strict = {"strict": tool["strict"]} if isinstance(tool.get("strict"), bool) else {}
        self._declare(ToolKind.FUNCTION, tool, namespace, parameters=parameters or _NO_PARAMETERS, **strict)

    def _custom(self, tool: dict[str, Any], namespace: str | None) -> None:
        grammar = _grammar(tool.get("format"))
        description = "\n\n".join(text for text in (_description(tool), grammar) if text)
        self._declare(ToolKind.CUSTOM, {**tool, "description": description}, namespace, parameters=_CUSTOM_PARAMETERS)

    def _search(self, tool: dict[str, Any], _: str | None) -> None:
        if tool.get("execution") != "client":
            self.dropped.add("tools.tool_search")
            return
        parameters = tool.get("parameters")
        if not isinstance(parameters, dict):
            raise wrong("tools", "has a tool_search of the client without parameters")
        self._declare(ToolKind.SEARCH, {**tool, "name": ToolKind.SEARCH.value}, None, parameters=parameters)

    def _declare(self, kind: ToolKind, tool: dict[str, Any], namespace: str | None, **more: Any) -> None:
        origin = DeclaredTool(kind, _name(tool), namespace)
        name = function_name(origin.name, namespace)
        if self._origins.setdefault(name, origin) != origin:
            raise wrong("tools", "has two tools with the same name", "invalid_value")
        self.dropped.update(f"tools.{field}" for field in _UNUSED_FIELDS if tool.get(field))
        description = {"description": text} if (text := _description(tool)) else {}
        self._functions[name] = {"type": "function", "function": {"name": name, **description, **more}}

    def choice(self, choice: Any) -> dict[str, Any]:
        """The fields of a chat completion for a `tool_choice`. Raises `HttpError`.

        `allowed_tools` leaves only those tools in `functions`.
        """
        if isinstance(choice, str) and choice in ("none", "auto", "required"):
            return {"tool_choice": choice}
        if not isinstance(choice, dict) or not isinstance(choice.get("type"), str):
            raise wrong("tool_choice", "must be none, auto, required, or an object with a type")
        if choice["type"] == "allowed_tools":
            return self._allowed(choice)
        if choice["type"] not in _KINDS:
            self.native_only.add("tool_choice")
            return {}
        return {"tool_choice": {"type": "function", "function": {"name": self._chosen(choice)}}}

    def _allowed(self, choice: dict[str, Any]) -> dict[str, Any]:
        allowed, mode = choice.get("tools"), choice.get("mode")
        if not isinstance(allowed, list) or not allowed or mode not in ("auto", "required"):
            raise wrong("tool_choice", "allowed_tools needs a list of tools, and auto or required as its mode")
        if any(isinstance(tool, dict) and str(tool.get("type")) not in _KINDS for tool in allowed):
            self.native_only.add("tool_choice")
            return {}
        names = {self._chosen(tool if isinstance(tool, dict) else {}) for tool in allowed}
        self._functions = {name: tool for name, tool in self._functions.items() if name in names}
        return {"tool_choice": mode}

    def _chosen(self, tool: dict[str, Any]) -> str:
        """The function of a chosen tool."""
        kind, name, namespace = tool.get("type"), tool.get("name"), tool.get("namespace")
        name = ToolKind.SEARCH.value if kind == ToolKind.SEARCH.value else name
        function = function_name(name, namespace) if isinstance(name, str) else ""
        if function not in self._functions:
            raise wrong("tool_choice", "names a tool that is not in tools", "invalid_value")
        return function


_READERS: Mapping[str, Callable[[ResponseTools, dict[str, Any], str | None], None]] = {
    "function": ResponseTools._function,
    "custom": ResponseTools._custom,
    "namespace": ResponseTools._namespace,
    "tool_search": ResponseTools._search,
}
"""The types of tools that become functions."""


def is_optional(tool: Mapping[str, Any]) -> bool:
    """Whether a request can do without a hosted tool: Codex declares a search, with this field, for every provider."""
    return tool.get("type") == "web_search" and "external_web_access" in tool


_NESTED = ("function", "custom")
"""The types of tools in a namespace."""

_UNUSED_FIELDS = ("allowed_callers", "async", "defer_loading", "output_schema")
"""Fields of a tool that no chat completion has."""


def function_name(name: str, namespace: object = None) -> str:
    """The name of the function for a tool, at most 64 characters: a longer one ends with a digest."""
    if not isinstance(namespace, str) or not namespace:
        return name
    full = namespace + ("" if namespace.endswith("__") else "__") + name
    if len(full) <= _LONGEST_NAME:
        return full
    return full[: _LONGEST_NAME - 9] + "_" + hashlib.sha256(full.encode()).hexdigest()[:8]


def _checked(tool: object) -> dict[str, Any]:
    if not isinstance(tool, dict) or not isinstance(tool.get("type"), str) or not OBJECT.holds(tool):
        raise wrong("tools", f"has a tool that is not {OBJECT.description} with a type")
    return tool


def _name(tool: Mapping[str, Any]) -> str:
    if not isinstance(tool.get("name"), str) or not tool["name"]:
        raise wrong("tools", "has a tool without a name")
    return str(tool["name"])


def _description(tool: Mapping[str, Any]) -> str:
    description = tool.get("description")
    if description is not None and not isinstance(description, str):
        raise wrong("tools", "has a tool whose description is not a string")
    return description or ""


def _grammar(format: object) -> str:
    """The sentence about the format of a custom tool's input; empty for free text."""
    if format is None or (isinstance(format, dict) and format.get("type") == "text"):
        return ""
    if isinstance(format, dict) and format.get("type") == "grammar":
        syntax, definition = format.get("syntax"), format.get("definition")
        if isinstance(syntax, str) and isinstance(definition, str):
            return f"The input must match this {syntax} grammar:\n{definition}"
    raise wrong("tools", "has a custom tool whose format is neither text nor a grammar", "invalid_value")


def shown_type(kind: str) -> str:
    """A type for a header: at most 64 letters of ASCII, digits and underscores, or `unknown`."""
    return kind if kind.isascii() and kind.replace("_", "").isalnum() and len(kind) <= _LONGEST_NAME else "unknown"
