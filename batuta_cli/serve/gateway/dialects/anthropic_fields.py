"""The fields of Anthropic's Messages API and its betas (https://docs.anthropic.com/en/api/messages).

A test compares the tables with the types of the package `anthropic`.
"""

from batuta_cli.serve.gateway.dialects.fields import BOOLEAN, INTEGER, NUMBER, OBJECT, OBJECTS, STOP, TEXT, FieldType
from batuta_cli.serve.gateway.dialects.treatment import (
    ANY,
    FieldRow,
    dropped,
    mapped,
    native_only,
    option,
    personal,
    refused,
)

_NAMES_A_USER = "names a user; only Anthropic itself gets it"
_ACCOUNT = "belongs to an account at Anthropic"

_NO_THREADS = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
"""Anthropic's clients (beta `message-threads-2026-08-12`) then send the whole conversation with each request."""

_METADATA = FieldType(
    "an object whose user_id is a string",
    lambda value: OBJECT.holds(value) and isinstance(value.get("user_id") or "", str),
)

MESSAGE_FIELDS: dict[str, FieldRow] = {
    "model": mapped(TEXT, "model"),
    "messages": mapped(ANY, "messages"),
    "system": mapped(ANY, "messages"),
    "max_tokens": mapped(ANY, "max_tokens"),
    "stream": mapped(BOOLEAN, "stream"),
    "temperature": option(NUMBER, "temperature"),
    "top_p": option(NUMBER, "top_p"),
    "top_k": option(INTEGER, "top_k"),
    "stop_sequences": option(STOP, "stop"),
    "tools": mapped(OBJECTS, "tools"),
    "tool_choice": mapped(OBJECT, "tool_choice, parallel_tool_calls"),
    "output_config": mapped(OBJECT, "response_format, reasoning_effort"),
    "output_format": mapped(OBJECT, "response_format; the older name of output_config.format"),
    "compaction": native_only(OBJECT, "asks for a block of compaction"),
    "container": native_only(ANY, "a container of hosted tools; refused under sovereign and private"),
    "inference_geo": native_only(TEXT, "the region where the model must run"),
    "mcp_servers": native_only(OBJECTS, "hosted tools; refused under sovereign and private", []),
    "betas": dropped(ANY, "the official client sends it as the header anthropic-beta"),
    "cache_control": dropped(OBJECT, "setting of Anthropic's prompt cache"),
    "context_management": dropped(OBJECT, "Anthropic's service clears old tool results with it"),
    "diagnostics": dropped(OBJECT, "asks for facts about Anthropic's prompt cache"),
    "fallback_credit_token": dropped(ANY, _ACCOUNT),
    "metadata": personal(_METADATA, _NAMES_A_USER),
    "service_tier": dropped(TEXT, "Anthropic's speed, which may change the price"),
    "speed": dropped(TEXT, "Anthropic's speed, which changes the price"),
    "thinking": dropped(OBJECT, "the backend's model decides whether it thinks; output_config.effort is passed on"),
    "user_profile_id": personal(TEXT, _NAMES_A_USER),
    "workspace_id": dropped(TEXT, _ACCOUNT),
    "billing_policy": refused(
        "is not supported; requests are billed to the operator of this gateway",
        {"type": "billing_policy", "bill_to": "self"},
    ),
    "fallbacks": refused("is not supported; the gateway's own configuration names fallback models", []),
    "thread": refused(
        "is not supported, because batuta keeps no conversations; send all messages", details=_NO_THREADS
    ),
}

_SERVER_TOOL = "a call or a result of a tool that the service runs"
_TOOL_LIST = "changes the list of tools in the middle of the conversation"

BLOCKS: dict[str, FieldRow] = {
    "text": mapped(OBJECT, "content"),
    "image": mapped(OBJECT, "content, a part of the type image_url"),
    "document": mapped(OBJECT, "content, a part of the type file or text"),
    "search_result": mapped(OBJECT, "content, a part of the type text"),
    "thinking": mapped(OBJECT, "reasoning_content"),
    "tool_use": mapped(OBJECT, "tool_calls"),
    "tool_result": mapped(OBJECT, "a message of the role tool"),
    "redacted_thinking": dropped(OBJECT, "only Anthropic's models can read it"),
    "fallback": dropped(OBJECT, "says that another model has answered"),
    "advisor_tool_result": native_only(OBJECT, _SERVER_TOOL),
    "bash_code_execution_tool_result": native_only(OBJECT, _SERVER_TOOL),
    "code_execution_tool_result": native_only(OBJECT, _SERVER_TOOL),
    "compaction": native_only(OBJECT, "stands for the messages before it"),
    "container_upload": native_only(OBJECT, "a file in a container of hosted tools"),
    "mcp_tool_listing": native_only(OBJECT, _SERVER_TOOL),
    "mcp_tool_result": native_only(OBJECT, _SERVER_TOOL),
    "mcp_tool_use": native_only(OBJECT, _SERVER_TOOL),
    "server_tool_use": native_only(OBJECT, _SERVER_TOOL),
    "text_editor_code_execution_tool_result": native_only(OBJECT, _SERVER_TOOL),
    "tool_addition": native_only(OBJECT, _TOOL_LIST),
    "tool_removal": native_only(OBJECT, _TOOL_LIST),
    "tool_search_tool_result": native_only(OBJECT, _SERVER_TOOL),
    "web_fetch_tool_result": native_only(OBJECT, _SERVER_TOOL),
    "web_search_tool_result": native_only(OBJECT, _SERVER_TOOL),
}
"""The content blocks of messages, as the fields above. A type without a row is native."""

COUNT_FIELDS: dict[str, FieldRow] = {
    name: row for name, row in MESSAGE_FIELDS.items() if name not in ("max_tokens", "stream", "thread")
}
"""Fields of `count_tokens`."""
