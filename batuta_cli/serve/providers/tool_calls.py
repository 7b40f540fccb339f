"""The tool calls of one choice of a response, mended where their meaning is plain.

Servers of OpenAI's format differ in how they write calls. Known faults, each from a public report:

* all calls have index 0, or no index, and differ by their ids only (maka#1976);
* calls without an id, or with a number as id;
* `arguments` as an object, or null, in place of JSON text;
* a call's fields beside `function` in place of within it.

`ToolCallReader.parts` returns parts as OpenAI's streams have them: each call has its own index, counted from 0, and its
first part has an id, a name and the type. A part that cannot be assigned to a call is a `BackendError`.
"""

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

from batuta_cli.serve.providers.tolerant_json import TextJoiner, mended
from batuta_cli.serve.providers.wire import BackendError

MOST_CALLS = 1024
"""Calls of one choice; eight times OpenAI's limit of tools (128)."""

_NAMELESS = "the backend answered with a tool call without a name"
_READ = frozenset(("index", "id", "type", "function", "name", "arguments"))


@dataclass(kw_only=True)
class _Begun:
    """One call, as far as it was read."""

    index: int | None
    """As the server numbers it."""
    id: str = ""
    name: str = ""
    number: int | None = None
    """Its index for the client, once its first part was returned."""
    arguments: list[str] = field(default_factory=list)
    joiner: TextJoiner = field(default_factory=TextJoiner)
    more: dict[str, Any] = field(default_factory=dict)
    """Fields to relay that batuta does not read, such as Gemini's `extra_content`."""

    @property
    def is_whole(self) -> bool:
        """Whether its arguments are a JSON object, so that further arguments belong to another call."""
        if not self.arguments or not self.arguments[-1].rstrip().endswith("}"):
            return False
        try:
            return isinstance(json.loads("".join(self.arguments)), dict)
        except (ValueError, RecursionError):
            return False

    def is_followed_by(self, call_id: str, name: str, arguments: str) -> bool:
        """Whether a part with these fields begins another call."""
        if call_id and self.id and call_id != self.id:
            return True
        if not name or not self.name:
            return False
        if name != self.name:
            return True
        return not (call_id and self.id) and bool(arguments.strip()) and self.is_whole


class ToolCallReader:
    """Reads the `tool_calls` of one choice."""

    def __init__(self) -> None:
        self._calls: list[_Begun] = []
        self._ids: set[str] = set()
        self._numbered = 0

    @property
    def any(self) -> bool:
        """Whether there was a call."""
        return bool(self._calls)

    def parts(self, value: object) -> list[dict[str, Any]]:
        """The parts in one `tool_calls` value. Raises `BackendError`."""
        found = []
        for item in value if isinstance(value, list) else [value]:
            if item is None:
                continue
            if not isinstance(item, dict):
                raise BackendError("the backend answered with a tool call that is not an object")
            if part := self._part(item):
                found.append(part)
        return found

    def end(self) -> list[dict[str, Any]]:
        """The parts that complete the calls: `{}` for a call without arguments. Raises `BackendError`."""
        found = []
        for call in self._calls:
            if not call.name:
                raise BackendError(_NAMELESS)
            if rest := call.joiner.add("", ended=True) or ("" if call.arguments else "{}"):
                call.arguments.append(rest)
                found.append(self._written(call, rest))
        return found

    def _part(self, item: dict[str, Any]) -> dict[str, Any] | None:
        function = item.get("function")
        function = function if isinstance(function, dict) else item
        call_id, name = _id(item.get("id")), _name(function.get("name"))
        arguments = _arguments(function.get("arguments"))
        more = {key: mended(each) for key, each in item.items() if key not in _READ and each is not None}
        if not (call_id or name or arguments or more):
            return None
        call = self._call(_index(item.get("index")), call_id, name, arguments)
        call.name = call.name or name
        if arguments and not call.name:
            raise BackendError(_NAMELESS)
        call.more |= more
        if arguments := call.joiner.add(arguments):
            call.arguments.append(arguments)
        if call.number is not None:
            return self._written(call, arguments) if arguments or more else None
        return self._written(call, arguments) if call.name else None

    def _call(self, index: int | None, call_id: str, name: str, arguments: str) -> _Begun:
        """The call that a part belongs to, a new one where the part begins one."""
        at_index = [call for call in self._calls if call.index == index]
        known = next((call for call in at_index if call_id and call.id == call_id), None)
        if known is None and at_index and (index is not None or not call_id):
            known = at_index[-1]
        if known is not None and not known.is_followed_by(call_id, name, arguments):
            if call_id and not known.id and known.number is None:
                known.id = self._own(call_id)
            return known
        if len(self._calls) >= MOST_CALLS:
            raise BackendError(f"the backend answered with more than {MOST_CALLS:,} tool calls")
        self._calls.append(_Begun(index=index, id=self._own(call_id)))
        return self._calls[-1]

    def _own(self, call_id: str) -> str:
        """The id, empty when another call has it: two calls with one id could not be told apart."""
        if call_id in self._ids:
            return ""
        self._ids.add(call_id)
        return call_id

    def _written(self, call: _Begun, arguments: str) -> dict[str, Any]:
        more, call.more = call.more, {}
        if call.number is not None:
            return {**more, "index": call.number, "function": {"arguments": arguments}}
        call.number, self._numbered = self._numbered, self._numbered + 1
        call.id = call.id or f"call_{uuid.uuid4().hex[:24]}"
        function = {"name": call.name, "arguments": arguments}
        return {**more, "index": call.number, "id": call.id, "type": "function", "function": function}


def _index(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value[:9])
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _id(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return str(mended(value)) if isinstance(value, str) else ""


def _name(value: object) -> str:
    if value is None or isinstance(value, str):
        return str(mended(value or ""))
    raise BackendError("the backend answered with a tool call whose name is not text")


def _arguments(value: object) -> str:
    """The arguments as JSON text. Raises `BackendError`."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, dict):
        try:
            return json.dumps(mended(value), ensure_ascii=False, allow_nan=False)
        except ValueError:
            raise BackendError("the backend answered with tool arguments that JSON cannot represent") from None
    raise BackendError("the backend answered with tool arguments that are neither text nor an object")
