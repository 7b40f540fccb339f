"""What the content of a request needs, and what it counts as before it is sent to a backend that costs money."""

from typing import Any

import pytest

from batuta_cli.serve.backends.wire_formats import ClientApi, Need
from batuta_cli.serve.messages import ChatMessage, Role
from batuta_cli.serve.pipeline.content import cache_writes_of, demands_of, needs_of
from batuta_cli.serve.providers.wire import NativeRequest
from batuta_cli.serve.routing.demands import Reach
from batuta_cli.serve.usage import CacheWrites
from tests.serve.support_pipeline import request

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4000}}
FILE = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64," + "A" * 4000}}


def of(*parts: Any, **more: Any) -> Any:
    return request(messages=[ChatMessage(Role.USER, "Hi", parts=({"type": "text", "text": "Hi"}, *parts))], **more)


def test_text_needs_nothing() -> None:
    assert needs_of(of()) == frozenset()
    assert (demands_of(of()).images, demands_of(of()).windows) == (0, 0)


@pytest.mark.parametrize(
    ("part", "need", "images", "windows"),
    [
        (IMAGE, Need.IMAGES, 1, 0),
        (FILE, Need.FILES, 0, 1),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, Need.AUDIO, 0, 1),
        ({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}, Need.VIDEO, 0, 1),
    ],
)
def test_each_kind_of_content_has_its_need_and_its_bound(part: Any, need: Need, images: int, windows: int) -> None:
    demands = demands_of(of(part))
    assert needs_of(of(part)) == {need}
    assert (demands.images, demands.windows) == (images, windows)


def native(**document: Any) -> NativeRequest:
    return NativeRequest(api=ClientApi.ANTHROPIC_MESSAGES, document=document)


def test_cache_writes_are_found_in_the_body_as_it_came() -> None:
    assert cache_writes_of(request()) is CacheWrites.NONE
    system = [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    assert cache_writes_of(request(native=native(system=system))) is CacheWrites.HOUR
    assert cache_writes_of(of({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}})) == 1


@pytest.mark.parametrize(
    ("more", "percent"),
    [
        ({}, 100),
        ({"options": {"service_tier": "priority"}}, 300),
        ({"options": {"service_tier": "flex"}}, 100),
        ({"native": native(speed="fast")}, 600),
        ({"native": native(inference_geo="us", speed="fast")}, 600),
    ],
)
def test_the_service_that_is_asked_for_has_its_price(more: dict[str, Any], percent: int) -> None:
    assert demands_of(request(**more)).price_percent == percent


def test_hosted_tools_are_a_need_and_each_use_reads_the_prompt_again() -> None:
    asked = request(reach=Reach(hosted=("web_search",), uses=4, call_cost=40, unbounded=("mcp_servers",)))
    demands = demands_of(asked)
    assert needs_of(asked) == {Need.HOSTED_TOOLS}
    assert (demands.windows, demands.call_cost, demands.unbounded_tools) == (5, 40, ("mcp_servers",))
    assert demands.outside == ("web_search",)
