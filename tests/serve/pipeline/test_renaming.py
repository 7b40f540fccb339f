"""A client that asked for an alias gets the alias as the model's name, whatever the API."""

import json
from typing import Any

import pytest

from batuta_cli.serve.pipeline.renaming import renamed
from batuta_cli.serve.providers.sse import Event
from batuta_cli.serve.providers.wire import Piece


@pytest.mark.parametrize(
    ("document", "wanted"),
    [
        ({"model": "m", "x": 1}, {"model": "alias", "x": 1}),
        ({"type": "message_start", "message": {"model": "m", "id": "i"}}, {"message": {"model": "alias", "id": "i"}}),
        ({"type": "response.created", "response": {"model": "m"}}, {"response": {"model": "alias"}}),
        ({"text": 'about a "model"'}, {"text": 'about a "model"'}),
    ],
)
def test_the_name_is_replaced_where_it_stands(document: dict[str, Any], wanted: dict[str, Any]) -> None:
    event = renamed(Piece(raw=Event("t", json.dumps(document).encode())), "alias").raw
    assert isinstance(event, Event)
    assert (event.type, json.loads(event.data)) == ("t", document | wanted)
    assert renamed(Piece(raw=document), "alias").raw == document | wanted


def test_other_pieces_are_left_as_they_are() -> None:
    piece = Piece("Hi")
    assert renamed(piece, "alias") is piece
    event = Event("", b"{not even json")
    assert renamed(Piece(raw=event), "alias").raw is event
