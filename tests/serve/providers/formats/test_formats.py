"""Each wire format has its module."""

import pytest

from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.backends.wire_formats import WireFormat
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.providers.formats import format_module
from batuta_cli.serve.providers.wire import Call

CALL = Call(model="owner/m", messages=(ChatMessage.user("Hi"),), max_tokens=9, stream=True, prompt="Hi")


@pytest.mark.parametrize("wire", WireFormat)
def test_every_format_builds_a_request_and_reads_a_response(wire: WireFormat) -> None:
    module = format_module(wire)
    outgoing = module.outgoing(CALL, ServingBackend.OLLAMA.profile)
    assert outgoing.path and outgoing.body
    assert not module.reader(CALL).complete
