"""The conversations that faults and differences of templates are looked for with.

Their texts are words that no template writes by itself.
"""

from typing import Any, Final

from batuta_cli.serve.messages import ChatInput, ChatMessage, ToolCall

SYSTEM: Final = ChatMessage.system("Answer in Basque only.")
ASK, MORE = ChatMessage.user("Which river is longest?"), ChatMessage.user("How deep is it?")
LAST: Final = ChatMessage.user("Where does it end?")
ANSWER, AGAIN = ChatMessage.assistant("Probably the Nile."), ChatMessage.assistant("About nine metres.")
CALL: Final = ToolCall("call00001", "river_depth", '{"river": "Nilo", "exact": true}')
CALLS: Final = ChatMessage.assistant("", [CALL])
RESULT: Final = ChatMessage.tool("eleven fathoms", CALL.id, CALL.name)
TOOL: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": "river_depth",
        "description": "Measures a river.",
        "parameters": {
            "type": "object",
            "properties": {"river": {"type": "string", "description": "Its name."}, "exact": {"type": "boolean"}},
            "required": ["river"],
        },
    },
}
VALUE, VALUE_IN_PYTHON = "Nilo", "'river': 'Nilo'"
"""A value in the arguments of `CALL`, and the argument as Python writes a dict."""

GROWING: Final = (
    ((ASK,), (ASK, ANSWER, MORE)),
    ((SYSTEM, ASK), (SYSTEM, ASK, ANSWER, MORE)),
    ((ASK, ANSWER, MORE), (ASK, ANSWER, MORE, AGAIN, LAST)),
)
"""Conversations, each with a longer one that begins with it."""

_THOUGHT: Final = ChatMessage(ANSWER.role, ANSWER.content, fields={"reasoning_content": "Rivers have lengths."})

CONVERSATIONS: Final = (
    ChatInput([ASK]),
    ChatInput([ASK, ANSWER, MORE]),
    ChatInput([SYSTEM, ASK]),
    ChatInput([SYSTEM, ASK, ANSWER, MORE, AGAIN, LAST]),
    ChatInput([ASK], variables={"enable_thinking": False}),
    ChatInput([ASK, _THOUGHT, MORE]),
    ChatInput([ASK], tools=[TOOL]),
    ChatInput([SYSTEM, ASK, CALLS, RESULT], tools=[TOOL]),
    ChatInput([ASK, CALLS, RESULT, ANSWER, MORE], tools=[TOOL]),
)
"""One of each kind."""
