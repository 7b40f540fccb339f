"""What a request needs of a backend beside text."""

from typing import Any

import pytest

from batuta_cli.serve.backends.wire_formats import Need
from batuta_cli.serve.pipeline.needs import needs_of
from tests.serve.support_pipeline import request

TOOL = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(
    ("more", "needs"),
    [
        ({}, set()),
        ({"stream": True}, {Need.STREAMING}),
        ({"options": {"tools": [TOOL]}}, {Need.TOOLS}),
        ({"options": {"tools": []}}, set()),
        ({"options": {"response_format": {"type": "json_object"}}}, {Need.JSON}),
        ({"options": {"response_format": {"type": "text"}}}, set()),
        ({"options": {"response_format": None}}, set()),
        ({"options": {"n": 2}}, {Need.CHOICES}),
        ({"options": {"n": 1}}, set()),
        ({"options": {"n": None}}, set()),
        ({"messages": (), "inputs": ("a text",)}, {Need.EMBEDDINGS}),
        ({"stream": True, "options": {"tools": [TOOL], "n": 2}}, {Need.STREAMING, Need.TOOLS, Need.CHOICES}),
    ],
)
def test_each_option_has_its_need(more: dict[str, Any], needs: set[Need]) -> None:
    assert needs_of(request(**({"stream": False} | more))) == needs
