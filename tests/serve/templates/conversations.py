"""Conversations that Hypothesis makes up, with the contents that templates stumble over."""

import json

from hypothesis import strategies as st

from batuta_cli.serve.messages import ChatMessage, ToolCall

SENDABLE = st.characters(exclude_characters="\0", exclude_categories=["Cs"])

TEXT = st.one_of(
    st.text(SENDABLE),
    st.sampled_from(
        [
            "",
            " ",
            "\n",
            " a ",
            "\n\nword\n",
            "\x1c\x1da\x85",
            "{{ messages }}",
            "{% if %}{# #}",
            "'\"\\\\n",
            "<b>&amp;</b>",
            "<think>\na\n</think>\n\nb",
            "</think>",
            "<tool_response>x</tool_response>",
            "[INST] <|im_end|>",
            "null",
            "1.0",
            '{"a": [1.0, null]}',
            '{"a":1}',
            "日本語 😀",
        ]
    ),
)

_VALUE = st.one_of(
    st.integers(), st.floats(allow_nan=False), st.text(SENDABLE), st.none(), st.booleans(), st.lists(st.integers())
)
ARGUMENTS = st.dictionaries(st.text(SENDABLE, max_size=3), _VALUE, max_size=3)


@st.composite
def conversations(draw: st.DrawFn, *, system: bool = True, calls: int = 0) -> list[ChatMessage]:
    """User and assistant in turns, after a system message perhaps, with up to `calls` tool calls in a message."""
    made = [ChatMessage.system(draw(TEXT))] if system and draw(st.booleans()) else []
    turns = draw(st.integers(1, 3))
    for turn in range(turns):
        made.append(ChatMessage.user(draw(TEXT)))
        if calls and draw(st.booleans()):
            asked = [
                ToolCall(f"id{turn}{i}", draw(st.sampled_from(["f", "get_weather"])), json.dumps(draw(ARGUMENTS)))
                for i in range(draw(st.integers(1, calls)))
            ]
            made.append(ChatMessage.assistant(draw(TEXT), asked))
            made += [ChatMessage.tool(draw(TEXT), call.id) for call in asked]
        if turn < turns - 1 or draw(st.booleans()):
            made.append(ChatMessage.assistant(draw(TEXT)))
    return made
