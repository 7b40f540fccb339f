"""Each wire format is one module and one row, and a row says what the format can carry."""

from pathlib import Path

import pytest

from batuta_cli.config import Config, FailoverSection, TimeoutsSection
from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.backends.wire_formats import Need, WireFormat
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.pipeline.pipeline import Pipeline
from batuta_cli.serve.providers import formats
from batuta_cli.serve.providers.formats import format_module
from batuta_cli.serve.providers.wire import Call

CALL = Call(model="owner/m", messages=(ChatMessage.user("Hi"),), max_tokens=9, stream=True, prompt="Hi")


def test_every_module_of_the_folder_has_one_row() -> None:
    modules = {path.stem for path in Path(formats.__path__[0]).glob("*.py")} - {"__init__", "native"}
    assert sorted(row.module for row in WireFormat) == sorted(modules)


@pytest.mark.parametrize("wire", WireFormat)
def test_every_format_builds_a_request_and_reads_a_response(wire: WireFormat) -> None:
    module = format_module(wire)
    outgoing = module.outgoing(CALL, ServingBackend.OLLAMA.profile)
    assert outgoing.path and outgoing.body
    assert not module.reader(CALL).complete


def test_the_table_says_what_each_format_carries() -> None:
    assert WireFormat.OPENAI.carries == set(Need)
    assert Need.TOOLS in WireFormat.ANTHROPIC.carries and Need.JSON not in WireFormat.ANTHROPIC.carries
    assert WireFormat.REPLICATE.carries == {Need.STREAMING}


def test_a_pipeline_takes_its_limits_and_timeouts_from_the_configuration() -> None:
    section = FailoverSection(max_retries=5, prompted=True, cooldown=0.5, max_cooldown=2.0, max_retry_after=9.0)
    made = Pipeline(Config(failover=section, timeouts=TimeoutsSection(first_token=600.0)))
    assert made.timeouts.first_token == 600.0
    assert (made.failover.max_retries, made.failover.prompted, made.failover.max_retry_after) == (5, True, 9.0)
    assert [made.failover.cooldown_after(failures, 0.0) for failures in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 2.0]
