"""Asking backends how they are: the real llama.cpp, and servers of ours for what it cannot be told to do."""

import json
import socket
import threading
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from batuta_cli.config import BackendSection as Table
from batuta_cli.config import Config
from batuta_cli.errors import AuditError
from batuta_cli.serve.backends import Backend, ServingBackend, configured_backends, default_backend
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.privacy.audit_verification import verify_log
from batuta_cli.serve.providers.probe import ProbeResult, probe
from batuta_cli.serve.tiers import PrivacyTier
from tests.serve.support_server import Reply, free_port, json_reply, serving

SOVEREIGN, STANDARD = PrivacyTier.SOVEREIGN, PrivacyTier.STANDARD
SECRET = "sk-the-key-of-the-user"

OLLAMA: dict[str, Reply] = {
    "/": (200, {}, b"Ollama is running"),
    "/api/version": json_reply('{"version": "0.12.0"}'),
    "/v1/models": json_reply('{"data": [{"id": "qwen3:8b"}, {"id": "gpt-oss:120b-cloud"}, {"id": "glm:cloud"}]}'),
    "/api/tags": json_reply(
        '{"models": [{"name": "qwen3:8b"}, {"name": "mine", "remote_host": "https://ollama.com", "remote_model": "x"},'
        ' {"name": "gpt-oss:120b-cloud", "remote_model": "gpt-oss:120b"}]}'
    ),
}
VLLM: dict[str, Reply] = {
    "/health": (200, {}, b""),
    "/v1/models": json_reply('{"data": [{"id": "llama-3", "owned_by": "vllm"}]}'),
    "/metrics": (
        200,
        {},
        b"# TYPE vllm:num_requests_running gauge\n"
        b'vllm:num_requests_running{engine="0",model_name="a"} 3.0\nvllm:num_requests_running{engine="1"} 2.0\n'
        b'vllm:num_requests_waiting{engine="0",model_name="a"} 1.1e1\nvllm:num_requests_waiting_by_reason{x="y"} 99\n'
        b'vllm:kv_cache_usage_perc{engine="0"} 0.5\n',
    ),
}
OTHERS: dict[str, dict[str, Reply]] = {
    "Realizar": {
        "/health": json_reply('{"status": "healthy"}'),
        "/realize/model": json_reply('{"id": "m", "format": "GGUF", "loaded": true, "context_length": 4096}'),
    },
    "Tgi": {
        "/health": (200, {}, b""),
        "/info": json_reply('{"model_id": "m", "max_concurrent_requests": 128, "max_total_tokens": 4096}'),
        "/metrics": (200, {}, b"tgi_queue_size 4\ntgi_batch_current_size 2\ntgi_queue_size_total 7\n"),
    },
    "LocalAI": {
        "/readyz": (200, {}, b"OK"),
        "/system": json_reply(
            '{"backends": ["llama-cpp"], "loaded_models": [{"id": "gpt", "backend": "cloud-proxy"}]}'
        ),
    },
    "Candle": {"/v1/models": json_reply('{"data": [{"id": "m", "owned_by": "candle-vllm"}]}')},
    "Llamafile": {"/health": json_reply('{"status": "ok"}', Server="llamafile/0.9.3")},
    "Ollama": OLLAMA,
    "Vllm": VLLM,
}


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return AuditLog(tmp_path / "audit")


def at(url: str, kind: str, *, name: str = "box", **table: Any) -> Backend:
    """A backend of the user's own at an address."""
    tables = {name: Table(base_url=f"{url}/v1", profile=kind, **table)}
    return configured_backends(Config(backends=tables), {})[0]


def usual(kind: ServingBackend, *urls: str) -> Backend:
    """A backend that stands in because nothing is configured, its usual addresses replaced."""
    usually = default_backend(kind, {})
    return Backend(name=usually.name, kind=kind, base_urls=tuple(f"{url}/v1" for url in urls), configured=False)


def ask(
    backend: Backend,
    log: AuditLog,
    *,
    tier: PrivacyTier = SOVEREIGN,
    environ: Mapping[str, str] | None = None,
    timeout: float = 10,
) -> ProbeResult:
    (result,) = probe([backend], tier, audit=log, timeout=timeout, environ=environ or {})
    return result


# The real one


def test_the_real_llamacpp_tells_its_model_its_slots_and_its_context(llamacpp: str, log: AuditLog) -> None:
    result = ask(at(llamacpp.removesuffix("/v1"), "llamacpp"), log)
    assert result.error is None
    assert (result.reachable, result.healthy, result.loading) == (True, True, False)
    assert result.identified_as is ServingBackend.LLAMA_CPP
    assert (result.models, result.remote_models) == (("smollm2-135m",), ())
    assert (result.queue_depth, result.slots, result.context_length) == (0, 2, 2048)
    assert result.latency_ms is not None
    assert verify_log([log.directory]).ok


def test_the_real_llamacpp_counts_a_request_that_it_works_on(llamacpp: str, log: AuditLog) -> None:
    connection = HTTPConnection(urlsplit(llamacpp).netloc)
    body = {"prompt": "One, two, three,", "max_tokens": 1500, "stream": True, "ignore_eos": True}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.readline().startswith(b"data:")  # it has begun
    assert ask(at(llamacpp.removesuffix("/v1"), "llamacpp"), log).queue_depth == 1
    connection.close()


def test_a_llamacpp_on_a_shared_port_is_not_taken_for_anything_else(llamacpp: str, log: AuditLog) -> None:
    here = llamacpp.removesuffix("/v1")
    local = [usual(kind, here) for kind in ServingBackend if kind.is_local and kind.has_usual_address]
    results = probe(local, SOVEREIGN, audit=log, timeout=10)
    assert [r.backend.kind for r in results if r.healthy] == [ServingBackend.LLAMA_CPP]
    assert {r.identified_as for r in results} == {ServingBackend.LLAMA_CPP}
    assert {r.error for r in results if not r.healthy} == {
        f"the server at this address is llama.cpp, not {r.backend.profile.title}" for r in results if not r.healthy
    }
    assert not ask(at(here, "realizar"), log).healthy  # nor when the user says that it is another one
    assert ask(at(here, "llamafile"), log).healthy  # which is a llama.cpp in a wrapper


def test_the_second_usual_address_is_tried_when_nobody_is_at_the_first(llamacpp: str, log: AuditLog) -> None:
    here = llamacpp.removesuffix("/v1")
    nobody = f"http://127.0.0.1:{free_port()}"
    assert ask(usual(ServingBackend.LLAMA_CPP, nobody, here), log).base_url == llamacpp
    with serving({"/health": json_reply("{}")}) as other:  # somebody else's server there
        assert ask(usual(ServingBackend.LLAMA_CPP, other.url, here), log).base_url == llamacpp


# Identity


@pytest.mark.parametrize("kind", OTHERS)
def test_each_local_kind_is_known_by_its_own_sign(kind: str, log: AuditLog) -> None:
    routes = OTHERS[kind]
    with serving(routes) as server:
        for backend in (at(server.url, kind), usual(ServingBackend(kind), server.url)):
            result = ask(backend, log)
            assert (result.error, result.healthy, result.identified_as) == (None, True, ServingBackend(kind))
        for other in set(OTHERS) - {kind}:
            result = ask(usual(ServingBackend(other), server.url), log)
            assert not result.healthy


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>Ollama is running</html>"), (403, b"Ollama is running")])
def test_a_server_that_answers_everything_with_a_page_is_nobodys(status: int, body: bytes, log: AuditLog) -> None:
    page: Reply = (status, {"Content-Type": "text/html"}, body)
    paths = "/ /health /v1/models /metrics /props /slots /info /system /readyz /api/version /realize/model /api/tags"
    with serving(dict.fromkeys(paths.split(), page)) as server:
        for kind in ServingBackend:
            if kind.is_local and kind.has_usual_address:
                result = ask(usual(kind, server.url), log)
                assert (result.reachable, result.healthy, result.identified_as) == (True, False, None)
                assert result.error == f"the server at this address is not {kind.profile.title}"


def test_a_gateway_that_greets_as_ollama_does_is_not_taken_for_ollama(log: AuditLog) -> None:
    greeting = (200, {"X-Batuta-Version": "0.1.0"}, b"Ollama is running")
    with serving({"/": greeting, "/api/version": (200, {}, b"{}")}) as server:
        found = ask(usual(ServingBackend.OLLAMA, server.url), log)
    assert (found.healthy, found.identified_as) == (False, None)
    assert found.error == "the server at this address is not Ollama"


def test_a_server_that_its_owner_vouches_for_may_hide_whose_it_is(log: AuditLog) -> None:
    with serving({"/health": json_reply("{}"), "/v1/models": json_reply('{"data": [{"id": "m"}]}')}) as server:
        result = ask(at(server.url, "llamacpp"), log)
    assert (result.healthy, result.identified_as, result.models) == (True, None, ("m",))


def test_a_server_below_a_path_of_a_proxys_is_asked_there(log: AuditLog) -> None:
    routes = {f"/gpu1{path}": reply for path, reply in VLLM.items()}
    with serving(routes) as server:
        assert ask(at(f"{server.url}/gpu1", "vllm"), log).queue_depth == 16


# Load and models


def test_the_depth_of_the_queue_is_the_sum_over_all_engines(log: AuditLog) -> None:
    with serving(VLLM) as server:
        assert ask(at(server.url, "vllm"), log).queue_depth == 3 + 2 + 11
    with serving(OTHERS["Tgi"]) as server:
        result = ask(at(server.url, "tgi"), log)
        assert (result.queue_depth, result.slots, result.context_length) == (6, 128, 4096)


@pytest.mark.parametrize(
    ("slots", "depth"),
    [
        ('[{"is_processing": true}, {"is_processing": false}, {"is_processing": true}]', 2),
        ("[]", 0),
        ('[1, null, {"is_processing": "yes"}]', 0),
        ('{"error": "disabled"}', None),
        ("[" * 100_000, None),
        ("not json", None),
    ],
)
def test_without_metrics_the_busy_slots_are_counted(slots: str, depth: int | None, log: AuditLog) -> None:
    routes = {"/health": json_reply("{}", Server="llama.cpp"), "/slots": json_reply(slots)}
    with serving(routes) as server:
        assert ask(at(server.url, "llamacpp"), log).queue_depth == depth


@pytest.mark.parametrize("value", ["NaN", "-3", "1e999", "1.2.3"])
def test_a_gauge_that_says_nonsense_counts_for_nothing(value: str, log: AuditLog) -> None:
    text = f"vllm:num_requests_running 2\nvllm:num_requests_waiting {value}\n".encode()
    with serving(VLLM | {"/metrics": (200, {}, text)}) as server:
        assert ask(at(server.url, "vllm"), log).queue_depth == 2


def test_models_that_ollama_sends_to_a_cloud_are_named(log: AuditLog) -> None:
    with serving(OLLAMA) as server:
        result = ask(at(server.url, "ollama"), log)
    assert result.models == ("qwen3:8b", "gpt-oss:120b-cloud", "glm:cloud")
    assert set(result.remote_models) == {"gpt-oss:120b-cloud", "glm:cloud", "mine"}


def test_what_ollama_tells_of_its_models_is_kept(log: AuditLog) -> None:
    told = {
        "size": 5_200_000_000,
        "digest": "500a1f067a9f",
        "modified_at": "2026-11-01T12:00:00Z",
        "details": {"family": "qwen3", "families": ["qwen3"], "quantization_level": "Q4_K_M"},
    }
    tags = {
        "models": [{"name": "qwen3:8b", "model": "qwen3:8b", "expires": 1, **told}, {"name": "mine", "size": "big"}]
    }
    with serving(OLLAMA | {"/api/tags": json_reply(json.dumps(tags))}) as server:
        assert ask(at(server.url, "ollama"), log).details == {"qwen3:8b": told, "mine": {}}


@pytest.mark.parametrize("answer", [(500, {}, b""), (200, {}, b"<html>"), (200, {}, b"[]")])
def test_a_server_that_does_not_tell_which_models_it_sends_to_a_cloud_is_not_relied_upon(
    answer: Any, log: AuditLog
) -> None:
    with serving(OLLAMA | {"/api/tags": answer}) as server:
        result = ask(at(server.url, "ollama"), log)
    assert not result.healthy
    assert result.error == "it does not list the models whose requests it forwards"


def test_models_that_localai_sends_to_a_cloud_are_named(log: AuditLog) -> None:
    with serving(OTHERS["LocalAI"]) as server:
        assert ask(at(server.url, "localai"), log).remote_models == ("gpt",)


@pytest.mark.parametrize(
    "body", ["", "[]", '{"data": 3}', '{"data": [1, {"id": 2}, {"name": "x"}]}', "\xff", "[" * 100_000]
)
def test_a_list_of_models_that_is_none_is_empty(body: str, log: AuditLog) -> None:
    routes = {"/health": json_reply("{}", Server="llama.cpp"), "/v1/models": json_reply(body)}
    with serving(routes) as server:
        result = ask(at(server.url, "llamacpp"), log)
    assert (result.healthy, result.models) == (True, ())


# What is wrong


def test_a_server_that_loads_its_model_says_so(log: AuditLog) -> None:
    routes = {"/health": json_reply('{"error": {"code": 503}}', 503, Server="llama.cpp")}
    with serving(routes) as server:
        result = ask(at(server.url, "llamacpp"), log)
    assert (result.reachable, result.healthy, result.loading) == (True, False, True)
    assert result.identified_as is ServingBackend.LLAMA_CPP


def test_of_several_usual_addresses_the_best_answer_counts(log: AuditLog) -> None:
    health: dict[str, Reply] = {"/health": json_reply("{}", 503, Server="llama.cpp")}
    nobody = f"http://127.0.0.1:{free_port()}"
    ready: dict[str, Reply] = {"/health": json_reply("{}", Server="llama.cpp")}
    with serving(health) as loading, serving(ready) as well, serving({"/health": json_reply("{}")}) as other:
        for urls, best in (
            ((nobody, other.url), other.url),
            ((other.url, nobody), other.url),
            ((other.url, loading.url), loading.url),
            ((loading.url, other.url), loading.url),
            ((loading.url, well.url), well.url),
        ):
            assert ask(usual(ServingBackend.LLAMA_CPP, *urls), log).base_url == f"{best}/v1"


def test_nobody_there_is_told_in_words(log: AuditLog) -> None:
    result = ask(at(f"http://127.0.0.1:{free_port()}", "llamacpp"), log)
    assert (result.reachable, result.healthy, result.error) == (False, False, "connection refused")


def test_a_server_that_never_answers_holds_up_nobody(log: AuditLog) -> None:
    never = threading.Event()

    def hang() -> Reply:
        never.wait()
        return 200, {}, b""

    with serving({"/health": hang}) as hanging, serving(VLLM) as well:
        backends = [at(hanging.url, "llamacpp"), at(well.url, "vllm")]
        one, two = probe(backends, SOVEREIGN, audit=log, timeout=0.5)
        never.set()
    assert (one.reachable, one.error) == (False, "no response within 0.5 s")
    assert two.healthy


def test_a_redirect_is_not_followed(log: AuditLog) -> None:
    with serving(VLLM) as other:
        away: Reply = (307, {"Location": f"{other.url}/health"}, b"")
        with serving({"/health": away, "/v1/models": away}) as server:
            result = ask(at(server.url, "vllm"), log, tier=STANDARD)
        assert other.connections == 0
    assert (result.reachable, result.healthy) == (True, False)
    assert "does not follow redirects" in str(result.error)


@pytest.mark.parametrize(("status", "told"), [(500, "HTTP 500"), (404, "HTTP 404"), (401, "requires a key")])
def test_a_server_that_is_not_well_is_not_healthy(status: int, told: str, log: AuditLog) -> None:
    with serving({"/health": (status, {"Server": "llama.cpp"}, b"")}) as server:
        result = ask(at(server.url, "llamacpp"), log)
    assert not result.healthy
    assert told in str(result.error)


def test_what_does_not_speak_http_is_told_in_words(log: AuditLog) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=speak)
        thread.start()
        result = ask(at(f"http://127.0.0.1:{listener.getsockname()[1]}", "llamacpp"), log)
        thread.join()
    assert (result.reachable, result.error) == (False, "the response is not HTTP")


def test_what_has_no_address_yet_is_not_asked(log: AuditLog) -> None:
    backends = configured_backends(Config(backends={"azureopenai": Table(), "googlevertex": Table()}), {})
    results = probe(backends, STANDARD, audit=log, environ={})
    assert [(r.reachable, r.error) for r in results] == [
        (None, "AZURE_OPENAI_ENDPOINT must be set: its address depends on it"),
        (None, "GOOGLE_CLOUD_LOCATION and GOOGLE_CLOUD_PROJECT must be set: its address depends on it"),
    ]
    assert not log.directory.exists()


# Keys, the gate, and the log


def test_a_key_goes_to_the_server_it_was_configured_for_and_is_not_shown_to_another(log: AuditLog) -> None:
    environ = {"OFFICE_KEY": SECRET}
    with serving(VLLM) as server:
        assert ask(at(server.url, "vllm", api_key_env="OFFICE_KEY"), log, environ=environ).healthy
        told = {seen.path for seen in server.seen if SECRET in str(seen.headers)}
        assert told == {"/v1/models", "/metrics"}  # and whose server it is was asked before, without it
    with serving(OLLAMA | {"/health": (200, {}, b"")}) as server:
        assert not ask(at(server.url, "vllm", api_key_env="OFFICE_KEY"), log, environ=environ).healthy
        assert not any(SECRET in str(seen.headers) for seen in server.seen)


def test_a_local_server_that_tells_nothing_without_its_key_is_asked_again_with_it(log: AuditLog) -> None:
    routes: dict[str, Any] = {}
    with serving(routes) as server:

        def locked() -> Reply:
            return json_reply('{"data": []}', 200 if server.seen[-1].headers.get("authorization") else 401)

        routes["/v1/models"] = locked
        assert "requires a key" in str(ask(at(server.url, "candle"), log).error)
        assert ask(at(server.url, "candle", api_key_env="OFFICE_KEY"), log, environ={"OFFICE_KEY": SECRET}).healthy


def test_a_hosted_backend_without_its_key_is_not_asked(log: AuditLog) -> None:
    with serving() as server:
        result = ask(at(server.url, "groq", api_key_env="OFFICE_KEY"), log, tier=STANDARD)
        assert (server.connections, result.reachable, result.error) == (0, None, "OFFICE_KEY is not set")


def test_a_hosted_backend_is_asked_with_its_key(log: AuditLog) -> None:
    with serving({"/v1/models": json_reply('{"data": [{"id": "llama-3.3-70b"}]}')}) as server:
        result = ask(
            at(server.url, "groq", api_key_env="OFFICE_KEY"), log, tier=STANDARD, environ={"OFFICE_KEY": SECRET}
        )
        assert {seen.headers["authorization"] for seen in server.seen} == {f"Bearer {SECRET}"}
    assert (result.healthy, result.models, result.queue_depth) == (True, ("llama-3.3-70b",), None)


def test_a_key_that_is_not_taken_is_told_by_the_name_of_its_variable(log: AuditLog) -> None:
    with serving({"/v1/models": json_reply("{}", 401)}) as server:
        result = ask(
            at(server.url, "groq", api_key_env="OFFICE_KEY"), log, tier=STANDARD, environ={"OFFICE_KEY": SECRET}
        )
    assert result.error == "it rejects the key in OFFICE_KEY"


def test_what_the_gate_refuses_is_not_asked_and_the_others_are(log: AuditLog) -> None:
    with serving(VLLM) as server:
        backends = [at("http://10.1.2.3", "vllm"), at("http://llm.example", "vllm"), at(server.url, "vllm")]
        far, name, near = probe(backends, SOVEREIGN, audit=log, timeout=10)
    assert (far.reachable, name.reachable) == (None, None)
    assert "sovereign does not admit 10.1.2.3:80" in str(far.error)
    assert "sovereign does not admit llm.example" in str(name.error)
    assert near.healthy


def test_without_a_log_nothing_is_asked_under_a_strict_tier(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    log = AuditLog(tmp_path / "file" / "audit")
    with serving(VLLM) as server:
        with pytest.raises(AuditError):
            probe([at(server.url, "vllm"), at(server.url, "ollama")], SOVEREIGN, audit=log)
        assert server.connections == 0


def test_an_address_is_asked_each_question_once_however_many_backends_may_be_there(log: AuditLog) -> None:
    with serving(VLLM) as server:
        probe([usual(k, server.url) for k in ServingBackend if k.is_local], SOVEREIGN, audit=log, timeout=10)
        assert len(set(server.paths)) == len(server.paths)
