"""Who is let in: the loopback without keys, everybody with one, no web page that was not named."""

from pathlib import Path

import pytest

from batuta_cli.serve.gateway import keys
from batuta_cli.serve.gateway.state import GatewaySettings
from batuta_cli.serve.tiers import PrivacyTier
from tests.serve.gateway.support import CHAT, LOCAL, MESSAGES, REMOTE, Asking, ask, chat, message, run

EVERYTHING = [CHAT, MESSAGES, "/v1/models", "/v1/models/echo", "/metrics", "/nothing"]
PAGE = "http://localhost:3000"


def key_for(tmp_path: Path, name: str = "alice") -> str:
    return keys.create(name, tmp_path / "keys.toml")[0]


@pytest.mark.parametrize("client", [LOCAL, ("::1", 1), ("127.8.9.1", 1), ("::ffff:127.0.0.1", 1)])
def test_without_keys_the_loopback_is_served(tmp_path: Path, client: tuple[str, int]) -> None:
    assert ask(tmp_path, CHAT, chat(), client=client).status == 200


ELSEWHERE = [REMOTE, ("192.168.1.2", 1), ("::ffff:10.0.0.1", 1), ("::", 1), ("x", 1), None]


@pytest.mark.parametrize("client", ELSEWHERE)
@pytest.mark.parametrize("path", EVERYTHING)
def test_without_keys_nobody_beyond_the_loopback_is(tmp_path: Path, path: str, client: tuple[str, int] | None) -> None:
    async def scenario(asking: Asking) -> None:
        body = message() if path in (CHAT, MESSAGES) else None
        done = await asking.ask(path, body, client=client)
        assert (done.status, done.error["type"]) == (401, "authentication_error")
        assert asking.pipeline.requests == []

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "header", ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "x-real-ip", "via"]
)
def test_what_a_proxy_forwards_is_not_from_the_loopback(tmp_path: Path, header: str) -> None:
    assert ask(tmp_path, CHAT, chat(), headers={header: "127.0.0.1"}).status == 401


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8484", "localhost:1", "LOCALHOST", "[::1]:8484", "127.0.0.2"])
def test_a_loopback_name_is_a_good_host(tmp_path: Path, host: str) -> None:
    assert ask(tmp_path, CHAT, chat(), headers={"host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8484",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example#127.0.0.1",
        "localhost:8484@evil.example",
        "xlocalhost",
        "0.0.0.0:8484",
        "192.168.1.1",
        "[::]:8484",
        "localhost:",
        "",
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/metrics"])
def test_a_name_that_was_made_to_point_here_is_refused(tmp_path: Path, path: str, host: str) -> None:
    body = chat() if path == CHAT else None
    done = ask(tmp_path, path, body, headers={"host": host})
    assert (done.status, done.error["code"]) == (403, "host")


def test_a_request_without_a_host_is_refused(tmp_path: Path) -> None:
    assert ask(tmp_path, CHAT, chat(), headers=[("content-type", "application/json")]).status == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8484", PAGE + "/", PAGE.upper()])
def test_a_web_page_that_is_not_named_is_refused_even_with_a_key(tmp_path: Path, origin: str) -> None:
    named = GatewaySettings(origins=(PAGE,))
    done = ask(tmp_path, CHAT, chat(), headers={"origin": origin}, settings=named)
    assert (done.status, done.error["code"]) == (403, "origin")
    bearer = {"authorization": f"Bearer {key_for(tmp_path)}"}
    assert ask(tmp_path, CHAT, chat(), headers=bearer | {"origin": origin}, settings=named).status == 403
    assert "access-control-allow-origin" not in done.headers


def test_a_named_web_page_is_served_and_its_browser_is_told_so(tmp_path: Path) -> None:
    named = GatewaySettings(origins=(PAGE,))
    done = ask(tmp_path, CHAT, chat(), headers={"origin": PAGE}, settings=named)
    assert (done.status, done.headers["access-control-allow-origin"], done.headers["vary"]) == (200, PAGE, "origin")
    asked = {"origin": PAGE, "access-control-request-method": "POST"}
    before = ask(tmp_path, CHAT, method="OPTIONS", headers=asked, settings=named)
    assert before.status == 200
    assert "authorization" in before.headers["access-control-allow-headers"]
    assert ask(tmp_path, CHAT, method="OPTIONS", headers=asked).status == 403


@pytest.mark.parametrize("client", [LOCAL, REMOTE])
@pytest.mark.parametrize("path", EVERYTHING)
def test_with_keys_everybody_needs_one_for_everything(tmp_path: Path, path: str, client: tuple[str, int]) -> None:
    key = key_for(tmp_path)
    body = message() if path in (CHAT, MESSAGES) else None
    good = {"/nothing": 404, "/metrics": 200 if client == LOCAL else 403}.get(path, 200)
    for headers, status in (
        ({}, 401),
        ({"authorization": f"Bearer {key}"}, good),
        ({"authorization": f"bearer  {key} "}, good),
        ({"x-api-key": key}, good),
        ({"authorization": f"Bearer {key}x"}, 401),
        ({"authorization": f"Bearer {key[:-1]}"}, 401),
        ({"authorization": f"Bearer {key.swapcase()}"}, 401),
        ({"authorization": f"Basic {key}"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"x-api-key": ""}, 401),
        ({"x-api-key": "é"}, 401),
    ):
        done = ask(tmp_path, path, body, headers=headers | {"host": "gw.example"}, client=client)
        assert done.status == status, headers
        assert key not in done.body.decode()


def test_the_owner_of_a_key_is_in_the_log_and_the_key_is_not(tmp_path: Path) -> None:
    key = key_for(tmp_path, "ci")

    async def scenario(asking: Asking) -> None:
        await asking.ask(CHAT, chat(), headers={"x-api-key": key})
        await asking.ask(CHAT, chat(), headers={"x-api-key": key + "wrong"})
        assert [line.get("client") for line in asking.log] == ["ci", None]
        assert key[4:] not in asking.log_text

    run(tmp_path, scenario)


def test_a_change_of_the_keys_holds_from_the_next_request_on(tmp_path: Path) -> None:
    async def scenario(asking: Asking) -> None:
        async def status(key: str) -> int:
            return (await asking.ask(CHAT, chat(), headers={"x-api-key": key})).status

        assert await status("") == 200
        first, second = key_for(tmp_path, "first"), key_for(tmp_path, "second")
        assert [await status(k) for k in ("", first, second)] == [401, 200, 200]
        keys.revoke("first", tmp_path / "keys.toml")
        assert [await status(k) for k in ("", first, second)] == [401, 401, 200]
        keys.revoke("second", tmp_path / "keys.toml")
        assert [await status(k) for k in ("", first, second)] == [401, 401, 401]  # the door does not open again

    run(tmp_path, scenario)


@pytest.mark.parametrize("content", [b"", b"key = 1", b"not toml [", b'[[key]]\nname = "x"\n'])
def test_a_damaged_list_of_keys_lets_nobody_in(tmp_path: Path, content: bytes) -> None:
    key = key_for(tmp_path)

    async def scenario(asking: Asking) -> None:
        headers = {"x-api-key": key}
        assert (await asking.ask(CHAT, chat(), headers=headers)).status == 200
        (tmp_path / "keys.toml").write_bytes(content)
        done = await asking.ask(CHAT, chat(), headers=headers)
        assert (done.status, done.error["code"]) == (503, "client_keys")
        assert str(tmp_path) not in done.body.decode()

    run(tmp_path, scenario)


def test_a_list_of_keys_that_others_can_write_lets_nobody_in(tmp_path: Path) -> None:
    key = key_for(tmp_path)
    (tmp_path / "keys.toml").chmod(0o666)
    assert ask(tmp_path, CHAT, chat(), headers={"x-api-key": key}).status == 503


@pytest.mark.parametrize("name", ["host", "origin", "authorization", "x-api-key", "x-batuta-privacy", "content-type"])
def test_a_header_that_decides_may_not_come_twice(tmp_path: Path, name: str) -> None:
    values = {"host": "127.0.0.1", "content-type": "application/json", "origin": PAGE, "x-batuta-privacy": "private"}
    sent = [("host", "127.0.0.1"), ("content-type", "application/json")]
    sent += [(name, values.get(name, "x"))] * (1 if name in ("host", "content-type") else 2)
    done = ask(tmp_path, CHAT, chat(), headers=sent, settings=GatewaySettings(origins=(PAGE,)))
    assert (done.status, done.error["code"]) == (400, "duplicate_header")


@pytest.mark.parametrize("default", PrivacyTier)
@pytest.mark.parametrize("asked", PrivacyTier)
def test_the_privacy_header_tightens_and_never_loosens(
    tmp_path: Path, default: PrivacyTier, asked: PrivacyTier
) -> None:
    order = ["sovereign", "private", "standard"]

    async def scenario(asking: Asking) -> None:
        done = await asking.ask(CHAT, chat(), headers={"x-batuta-privacy": asked.upper()})
        if order.index(asked) <= order.index(default):
            assert (done.status, done.headers["x-batuta-tier"]) == (200, asked)
            assert asking.pipeline.requests[0].privacy is asked
        else:
            assert (done.status, done.error["code"], done.error["type"]) == (403, "privacy", "permission_error")
            assert asking.pipeline.requests == []
        assert (await asking.ask(CHAT, chat())).headers["x-batuta-tier"] == default

    run(tmp_path, scenario, GatewaySettings(privacy=default))


@pytest.mark.parametrize("asked", ["", "public", "sovereign,standard", "é"])
def test_a_tier_that_is_none_is_refused(tmp_path: Path, asked: str) -> None:
    assert ask(tmp_path, CHAT, chat(), headers={"x-batuta-privacy": asked}).status == 400


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key"])
def test_metrics_want_an_admin_key_beyond_the_loopback(tmp_path: Path, header: str) -> None:
    file = tmp_path / "keys.toml"
    keys_by_name = {"plain": keys.create("plain", file)[0], "admin": keys.create("admin", file, admin=True)[0]}

    async def scenario(asking: Asking) -> None:
        async def status(name: str, path: str, client: tuple[str, int], **more: str) -> int:
            key = keys_by_name[name]
            sent = {header: f"Bearer {key}" if header == "authorization" else key} | more
            return (await asking.ask(path, client=client, headers=sent)).status

        assert [await status(name, "/metrics", LOCAL) for name in keys_by_name] == [200, 200]
        assert [await status(name, "/metrics", REMOTE) for name in keys_by_name] == [403, 200]
        assert [await status(name, "/v1/models", REMOTE) for name in keys_by_name] == [200, 200]
        # A proxy on this machine connects from the loopback.
        forwarded = {"x-forwarded-for": "203.0.113.7"}
        assert [await status(name, "/metrics", LOCAL, **forwarded) for name in keys_by_name] == [403, 200]

    run(tmp_path, scenario)
