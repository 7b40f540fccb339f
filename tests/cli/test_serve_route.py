"""`batuta serve route`: where a request would go, in one word, in JSON, and with reasons."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import answer
from tests.conftest import Run

PUBLIC = "http://192.0.2.7:8080/v1"  # RFC 5737: documentation, reaches nobody


def configure(home: Path, text: str) -> None:
    path = home / "config" / "batuta" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def result(done: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)["result"]
    return found


def gates(found: dict[str, Any], backend: str) -> dict[str, Any]:
    candidate = next(c for c in found["plan"] if c["backend"] == backend)
    return {gate["gate"]: gate for gate in candidate["gates"]}


class LlamaCpp(BaseHTTPRequestHandler):
    """As much of llama.cpp's server as a probe looks at; `waiting` is what its metrics say."""

    waiting = 0

    def do_GET(self) -> None:
        answers = {
            "/health": '{"status":"ok"}',
            "/v1/models": '{"data":[{"id":"smollm2-135m"}]}',
            "/props": '{"total_slots":2,"default_generation_settings":{"n_ctx":2048}}',
            "/metrics": f"llamacpp:requests_processing 2\nllamacpp:requests_deferred {self.waiting}\n",
        }
        body = answers.get(self.path, "").encode()
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "llama.cpp"

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def llamacpp() -> Iterator[tuple[str, type[LlamaCpp]]]:
    """The base URL of a server, and the class that sets what it says."""

    class Server(LlamaCpp):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1", Server
        server.shutdown()
        thread.join()


@pytest.fixture
def nobody() -> Iterator[tuple[str, socket.socket]]:
    """An address at which connections would be seen, and the socket that sees them."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1", listening


@pytest.mark.parametrize(
    ("arguments", "backend"),
    [
        ("--queue-depth 0", "Realizar"),
        ("--queue-depth 9", "Realizar"),
        ("--queue-depth 10", "Groq"),
        ("--queue-depth 12 --privacy standard", "Groq"),
        ("--queue-depth 12 --privacy private", "Ollama"),
        ("--queue-depth 12 --privacy SOVEREIGN", "Ollama"),
        ("--queue-depth 12 --no-spillover", "Realizar"),
        ("--queue-depth 3 --latency batch", "Realizar"),
        ("--queue-depth 12 --latency batch", "Together"),
        ("--queue-depth 12 --latency batch --cost frugal --privacy private", "Ollama"),
        ("--queue-depth 3 --throughput high --privacy sovereign", "Vllm"),
        ("--backend Groq", "Groq"),
        ("--backend llama-cpp --privacy sovereign", "LlamaCpp"),
        ("--backend azure_openai --privacy private", "AzureOpenAI"),
    ],
)
def test_without_a_configuration_the_design_s_backends_are_decided_among(
    batuta: Run, arguments: str, backend: str
) -> None:
    done = batuta("serve", "route", *arguments.split(), code=0)
    assert (done.stdout, done.stderr) == (f"{backend}\n", "")


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ("--queue-depth 50 --no-spillover", 7, "queue_full"),
        ("--queue-depth 3 --configured", 7, "no_backends"),
        ("--backend Groq --privacy sovereign", 6, "privacy_violation"),
        ("--backend Groq --privacy private", 6, "privacy_violation"),
        ("--backend AzureOpenAI --privacy sovereign", 6, "privacy_violation"),
        ("--backend Groq --queue-depth 50", 7, "queue_full"),
    ],
)
def test_a_refusal_has_its_exit_code_and_its_reason(batuta: Run, arguments: str, code: int, reason: str) -> None:
    done = batuta("serve", "route", *arguments.split(), code=code)
    assert done.stdout == "" and done.stderr.startswith("error: ")
    document = json.loads(batuta("serve", "route", *arguments.split(), "--json", code=code).stdout)
    assert (document["ok"], document["error"]["exit_code"]) == (False, code)
    assert document["result"]["decision"] == "reject" and document["result"]["backend"] is None
    assert document["result"]["reason"] == reason


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--queue-depth -1", "--queue-depth must be 0 or more"),
        ("--queue-depth 3 --input-tokens -5", "--input-tokens must be 0 or more"),
        ("--queue-depth 3 --max-output-tokens -5", "--max-output-tokens must be 0 or more"),
        ("--queue-depth many", "many"),
        ("--privacy sovreign", "unknown privacy tier sovreign, did you mean sovereign?"),
        ("--latency fast", "unknown latency tier fast"),
        ("--throughput hihg", "did you mean high?"),
        ("--cost cheap", "unknown cost tier cheap"),
        ("--backend grok", "unknown backend grok, did you mean Groq?"),
        ("--backend Groq --configured", "unknown backend Groq"),
        ("--queue-depth 3 --user Hello", "counting the messages needs the model"),
        ("--queue-depth 3 --model gpt-4 --input-tokens 3 --user Hello", "--input-tokens cannot be used with messages"),
    ],
)
def test_a_wrong_word_or_number_is_wrong_usage(batuta: Run, arguments: str, complaint: str) -> None:
    done = batuta("serve", "route", *arguments.split(), code=2)
    assert complaint in done.stderr and done.stdout == ""


def test_json_has_the_decision_and_every_gate(batuta: Run) -> None:
    found = result(batuta("serve", "route", "--queue-depth", "12", "--json", code=0))
    assert {k: found[k] for k in ("decision", "backend", "reason", "queue_depth")} == {
        "decision": "spillover",
        "backend": "Groq",
        "reason": "local_busy",
        "queue_depth": 12,
    }
    assert [c["backend"] for c in found["plan"]] == ["Realizar", "Groq", "Together", "Fireworks"]
    assert list(gates(found, "Groq")) == ["tier", "capability", "context", "budget", "cooldown", "queue"]
    assert gates(found, "Realizar")["queue"]["number"] == 12


def test_explain_begins_with_the_name_and_tells_what_every_gate_said(batuta: Run) -> None:
    lines = batuta("serve", "route", "--queue-depth", "12", "--explain", code=0).stdout.splitlines()
    assert lines[0] == "Groq" and "spillover: local_busy, queue depth 12" in lines
    assert sum(line.lstrip().startswith("tier ") for line in lines) == 4
    full = batuta("serve", "route", "--queue-depth", "50", "--no-spillover", "--explain", code=7)
    assert "refused  50 requests, the limit is 50" in full.stdout


def test_with_a_queue_figure_no_server_is_asked(batuta: Run, home: Path, nobody: tuple[str, socket.socket]) -> None:
    address, listening = nobody
    configure(home, f'[backends.llamacpp]\nbase_url = "{address}"\n')
    for arguments in (["--queue-depth", "3"], ["--backend", "llamacpp"]):
        assert batuta("serve", "route", *arguments, code=0).stdout == "llamacpp\n"
    with pytest.raises(BlockingIOError):
        listening.accept()


def test_without_one_the_configured_backends_are_asked_and_what_they_said_is_told(
    batuta: Run, home: Path, llamacpp: tuple[str, type[LlamaCpp]]
) -> None:
    address, server = llamacpp
    configure(
        home,
        f'[backends.here]\nprofile = "llamacpp"\nbase_url = "{address}"\n'
        '[backends.dead]\nprofile = "vllm"\nbase_url = "http://127.0.0.1:9/v1"\n',
    )
    done = batuta("serve", "route", code=0)
    assert done.stdout == "here\n"
    assert f"here at {address}: ready, queue depth 2" in done.stderr
    assert "dead at http://127.0.0.1:9/v1: connection refused" in done.stderr
    server.waiting = 48
    done = batuta("serve", "route", "--quiet", code=7)
    assert done.stderr.startswith(
        "error: the queue of every backend that may take the request is full: here: 50 requests"
    )


def test_past_the_threshold_another_configured_backend_takes_over(
    batuta: Run, home: Path, llamacpp: tuple[str, type[LlamaCpp]]
) -> None:
    address, server = llamacpp
    configure(
        home,
        f'[backends.first]\nprofile = "llamacpp"\nbase_url = "{address}"\n'
        f'[backends.second]\nprofile = "llamafile"\nbase_url = "{address}"\n'
        '[router]\nlocal_backend = "first"\nspillover_backends = ["second"]\n',
    )
    server.waiting = 7
    assert batuta("serve", "route", code=0).stdout == "first\n"
    server.waiting = 8
    found = result(batuta("serve", "route", "--json", code=0))
    assert (found["backend"], found["reason"], found["queue_depth"]) == ("second", "local_busy", 10)
    assert batuta("serve", "route", "--no-spillover", code=0).stdout == "first\n"


def test_the_server_s_own_window_and_models_count(
    batuta: Run, home: Path, llamacpp: tuple[str, type[LlamaCpp]]
) -> None:
    configure(home, f'[backends.llamacpp]\nbase_url = "{llamacpp[0]}"\n')
    ask = ("serve", "route", "--model", "smollm2-135m", "--max-output-tokens", "48", "--json", "--input-tokens")
    assert result(batuta(*ask, "2000", code=0))["backend"] == "llamacpp"
    found = result(batuta(*ask, "2001", code=8))
    assert gates(found, "llamacpp")["context"]["detail"] == "2,049 tokens in a window of 2,048"
    done = batuta("serve", "route", "--model", "gpt-4", code=7)
    assert "llamacpp: it does not have gpt-4" in done.stderr


def test_a_backend_out_of_reach_of_the_tier_is_not_even_asked(
    batuta: Run, home: Path, llamacpp: tuple[str, type[LlamaCpp]]
) -> None:
    configure(
        home,
        f'[backends.llamacpp]\nbase_url = "{llamacpp[0]}"\n[backends.far]\nprofile = "vllm"\nbase_url = "{PUBLIC}"\n',
    )
    found = result(batuta("serve", "route", "--privacy", "sovereign", "--json", code=0))
    assert found["backend"] == "llamacpp"
    assert gates(found, "far")["tier"]["passed"] is False
    assert gates(found, "far")["cooldown"]["passed"] is True  # not asked, so nothing is wrong with it
    batuta("serve", "route", "--privacy", "sovereign", "--backend", "far", code=6)


def test_the_tier_of_the_configuration_holds_unless_another_is_asked_for(batuta: Run, home: Path) -> None:
    configure(home, '[privacy]\ntier = "sovereign"\n')
    batuta("serve", "route", "--backend", "Groq", code=6)
    batuta("serve", "route", "--backend", "Groq", "--privacy", "standard", code=0)


def test_a_name_that_stands_for_a_remote_server_does_not_make_it_local(batuta: Run, home: Path) -> None:
    configure(home, f'[backends.ollama]\nbase_url = "{PUBLIC}"\n')
    done = batuta("serve", "route", "--backend", "ollama", "--privacy", "private", code=6)
    assert "ollama: private does not admit standard" in done.stderr


def test_with_nothing_configured_the_local_ones_are_looked_for(
    batuta: Run, llamacpp: tuple[str, type[LlamaCpp]]
) -> None:
    host = llamacpp[0].removeprefix("http://").removesuffix("/v1")
    done = batuta("serve", "route", env={"OLLAMA_HOST": host})
    assert "no backend is configured; probing local servers" in done.stderr
    assert "Ollama at" not in done.stderr  # who answers there is llama.cpp
    if done.returncode:  # no server runs at the usual addresses of this machine
        assert (done.returncode, done.stdout) == (7, "")
        assert "batuta config init" in done.stderr.splitlines()[-1]


def test_messages_are_counted_and_measured(batuta: Run, work: Path) -> None:
    (work / "chat.json").write_text(json.dumps([{"role": "user", "content": "word " * 9000}]))
    ask = ("serve", "route", "--queue-depth", "3", "--model", "gpt-4", "--messages", "chat.json", "--json")
    failed = answer(batuta(*ask, code=8))
    assert failed["error"]["kind"] == "context_overflow"
    gate = gates(failed["result"], "Realizar")["context"]
    assert gate["passed"] is False and gate["number"] > 9000 + 2048


def test_an_estimate_that_exceeds_the_window_is_a_warning_and_no_refusal(batuta: Run, work: Path) -> None:
    (work / "chat.json").write_text(json.dumps([{"role": "user", "content": "word " * 9000}]))
    ask = ("serve", "route", "--queue-depth", "3", "--model", "llama-3-8b", "--messages", "chat.json", "--json")
    done = batuta(*ask, code=0)
    gate = gates(result(done), "Realizar")["context"]
    assert gate["passed"] is True and gate["uncertain"] is True and gate["number"] > 9000
    assert "warning: " in done.stderr and "the backend decides" in done.stderr


def test_what_the_budget_refuses_has_the_exit_code_of_serve_chat(batuta: Run, home: Path) -> None:
    price = '[models.m]\ninput_usd_per_million = "10"\noutput_usd_per_million = "30"\ncontext_window = 8192\n'
    ask = (
        "serve",
        "route",
        "--model",
        "m",
        "--input-tokens",
        "1000",
        "--max-output-tokens",
        "100",
        "--backend",
        "Groq",
    )
    configure(home, price + '[budget]\ndaily_budget_usd = "0.012999999"\n')
    assert "left of the day" in batuta(*ask, code=5).stderr
    assert "price of x is not known" in batuta(*ask[:3], "x", *ask[4:], code=5).stderr


def test_a_request_that_costs_too_much_stays_where_it_is_free(batuta: Run, home: Path) -> None:
    price = '[models.m]\ninput_usd_per_million = "10"\noutput_usd_per_million = "30"\ncontext_window = 8192\n'
    ask = ("serve", "route", "--model", "m", "--input-tokens", "1000", "--max-output-tokens", "100", "--json")
    configure(home, price + '[budget]\ndaily_budget_usd = "0.013"\n')
    found = result(batuta(*ask, "--queue-depth", "12", code=0))
    assert found["backend"] == "Groq"
    assert gates(found, "Groq")["budget"]["number"] == "0.013"
    configure(home, price + '[budget]\ndaily_budget_usd = "0.012999999"\n')
    found = result(batuta(*ask, "--queue-depth", "12", code=0))
    assert (found["backend"], found["reason"]) == ("Realizar", "no_spillover")
    assert found["plan"][1]["gates"][3]["detail"] == "$0.013 of $0.012999999 left of the day"
    assert result(batuta(*ask, "--queue-depth", "50", code=7))["reason"] == "queue_full"


def test_a_damaged_ledger_stops_what_costs_money_and_nothing_else(batuta: Run, home: Path) -> None:
    price = '[models.m]\ninput_usd_per_million = "10"\noutput_usd_per_million = "30"\ncontext_window = 8192\n'
    configure(home, price)
    ledger = home / "state" / "batuta" / "ledger.sqlite3"
    ledger.parent.mkdir(mode=0o700, parents=True)
    ledger.write_bytes(b"not a ledger" * 1000)
    ask = ("serve", "route", "--model", "m", "--input-tokens", "9", "--max-output-tokens", "9", "--queue-depth")
    done = batuta(*ask, "12", code=0)
    assert done.stdout == "Realizar\n" and "requests that cost money are refused" in done.stderr
    done = batuta(*ask, "50", code=1)
    assert "ledger.sqlite3" in done.stderr
    done = batuta(*ask, "12", "--privacy", "sovereign", code=0)
    assert (done.stdout, done.stderr) == ("Ollama\n", "")


def test_a_router_table_that_names_nobody_is_a_wrong_configuration(batuta: Run, home: Path) -> None:
    configure(home, '[backends.llamacpp]\n[router]\nlocal_backend = "lamacpp"\n')
    done = batuta("serve", "route", "--queue-depth", "3", code=2)
    assert "router.local_backend: unknown backend lamacpp, did you mean llamacpp?" in done.stderr
    configure(home, '[router]\nspillover_backends = ["grok"]\n')
    done = batuta("serve", "route", "--queue-depth", "3", code=2)
    assert "router.spillover_backends: unknown backend grok, did you mean Groq?" in done.stderr
    configure(home, "[router]\nspillover_threshold = 60\n")
    done = batuta("serve", "route", "--queue-depth", "3", code=2)
    assert "spillover_threshold must be from 0 to max_queue_depth, which is 50" in done.stderr


def test_the_router_table_is_obeyed(batuta: Run, home: Path) -> None:
    configure(
        home,
        '[router]\nspillover_threshold = 2\nmax_queue_depth = 4\nlocal_backend = "llama_cpp"\n'
        'spillover_backends = ["openai", "groq"]\n',
    )
    found = [batuta("serve", "route", "--queue-depth", str(n), code=0).stdout.strip() for n in (1, 2, 4)]
    assert found == ["LlamaCpp", "OpenAI", "OpenAI"]
    full = batuta("serve", "route", "--queue-depth", "4", "--privacy", "sovereign", code=7)
    assert "LlamaCpp: 4 requests, the limit is 4" in full.stderr
    configure(home, "[router]\nspillover_enabled = false\n")
    assert batuta("serve", "route", "--queue-depth", "12", code=0).stdout == "Realizar\n"


def test_a_key_that_is_not_there_is_told(batuta: Run, home: Path) -> None:
    configure(home, '[backends.groq]\napi_key_env = "GROQ_API_KEY"\n')
    done = batuta("serve", "route", "--queue-depth", "3", code=0)
    assert (done.stdout, done.stderr) == ("groq\n", "groq: GROQ_API_KEY is not set\n")
    assert batuta("serve", "route", "--queue-depth", "3", env={"GROQ_API_KEY": "x"}, code=0).stderr == ""


DEAR = '[models.m]\ninput_usd_per_million = "1000000"\noutput_usd_per_million = "1"\ncontext_window = 8192\n'


@pytest.mark.parametrize(
    ("backends", "model", "words", "code"),
    [
        ('[backends.openai]\nbase_url = "http://192.0.2.1:9/v1"\nmodels = ["m"]\n' + DEAR, "m", 5, 5),
        ('[backends.openai]\nbase_url = "http://192.0.2.1:9/v1"\nmodels = ["x"]\n', "x", 5, 5),  # no price
        (f'[privacy]\ntier = "sovereign"\n[backends.far]\nprofile = "vllm"\nbase_url = "{PUBLIC}"\n', "m", 5, 6),
        ('[backends.vllm]\nbase_url = "http://127.0.0.1:1/v1"\n', "m", 5, 7),
        ('[backends.vllm]\nbase_url = "http://127.0.0.1:1/v1"\n', "gpt-4", 9000, 8),
        ('[backends.vllm]\nbase_url = "http://127.0.0.1:1/v1"\n', "llama-3-8b", 9000, 7),  # an estimate refuses nothing
    ],
)
def test_route_and_chat_agree_on_the_exit_code(
    batuta: Run, home: Path, work: Path, backends: str, model: str, words: int, code: int
) -> None:
    configure(home, backends)
    (work / "chat.json").write_text(json.dumps([{"role": "user", "content": "word " * words}]))
    line = ("--model", model, "--messages", "chat.json")
    route, chat = batuta("serve", "route", *line, code=code), batuta("serve", "chat", *line, code=code)
    assert route.stderr and chat.stderr


ROUTED = """
[backends.mine]
base_url = "http://127.0.0.1:9/v1"
models = ["big"]
[backends.empty]
[backends.claude]
profile = "anthropic"
models = ["claude", "small"]
[aliases]
"gpt-4.1" = "big"
[fallbacks]
big = ["none", "small"]
[models.small]
input_usd_per_million = "1"
output_usd_per_million = "1"
[models.claude]
input_usd_per_million = "1"
output_usd_per_million = "1"
"""


def test_an_alias_is_followed_and_told(batuta: Run, home: Path) -> None:
    configure(home, ROUTED)
    done = batuta("serve", "route", "--model", "gpt-4.1", "--queue-depth", "0", "--explain", code=0)
    assert done.stdout.startswith("mine\n\ngpt-4.1 is an alias of big\n")
    assert "gpt-4.1 is an alias of big" in done.stderr
    found = result(batuta("serve", "route", "--model", "gpt-4.1", "--queue-depth", "0", "--json", code=0))
    assert (found["backend"], found["model"], found["alias"], found["instead_of"]) == ("mine", "big", "gpt-4.1", None)


def test_a_fallback_is_planned_where_the_model_s_backend_is_down(
    batuta: Run, home: Path, llamacpp: tuple[str, type[LlamaCpp]]
) -> None:
    """The server that is up has no profile: it is any server with OpenAI's API."""
    up = f'[backends.up]\nbase_url = "{llamacpp[0]}"\n'
    configure(home, ROUTED.replace('"small"]', '"smollm2-135m"]') + up)
    done = batuta("serve", "route", "--model", "gpt-4.1", "--explain", code=0)
    assert done.stdout.startswith("up\n")
    assert "gpt-4.1 is an alias of big\nsmollm2-135m answers, because big cannot be reached" in done.stdout
    found = result(batuta("serve", "route", "--model", "big", "--json", code=0))
    assert (found["backend"], found["alias"], found["instead_of"]) == ("up", None, "big")
    assert found["model"] == "smollm2-135m"


def test_an_empty_table_stops_nothing_and_says_what_it_lacks(
    batuta: Run, home: Path, llamacpp: tuple[str, type[LlamaCpp]]
) -> None:
    configure(home, f'[backends.empty]\n[backends.up]\nbase_url = "{llamacpp[0]}"\n')
    done = batuta("serve", "route", "--model", "smollm2-135m", code=0)
    assert done.stdout == "up\n"
    assert "backends.empty.base_url must be set" in done.stderr


def test_a_misspelt_model_gets_the_nearest_name(batuta: Run, home: Path) -> None:
    configure(home, ROUTED.replace("[backends.empty]", ""))
    done = batuta("serve", "route", "--model", "clade", "--queue-depth", "0", code=7)
    assert "hint: did you mean claude?" in done.stderr


@pytest.mark.parametrize(
    ("fields", "lacking"),
    [
        ({"response_format": {"type": "json_object"}}, "JSON output"),
        ({"n": 2}, "several choices"),
        ({"tools": []}, ""),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, ""),
    ],
)
def test_the_needs_of_a_body_are_those_of_the_request(
    batuta: Run, home: Path, tmp_path: Path, fields: dict[str, Any], lacking: str
) -> None:
    configure(home, ROUTED)
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"messages": [{"role": "user", "content": "Hi"}], **fields}))
    arguments = ("serve", "route", "--model", "claude", "--backend", "claude", "--messages", str(body))
    done = batuta(*arguments, code=2 if lacking else 0)
    assert f"its API has no {lacking}" in done.stderr if lacking else done.stdout == "claude\n"


def test_an_image_needs_a_backend_that_takes_images(batuta: Run, home: Path, tmp_path: Path) -> None:
    configure(home, ROUTED.replace('profile = "anthropic"', 'profile = "replicate"'))
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"messages": [{"role": "user", "content": [image]}]}))
    arguments = ("serve", "route", "--queue-depth", "0", "--messages", str(body))
    assert batuta(*arguments, "--model", "big", code=0).stdout == "mine\n"
    assert "images" in batuta(*arguments, "--model", "claude", "--backend", "claude", code=2).stderr


def test_a_need_for_tools_excludes_a_backend_without_them(batuta: Run, home: Path, tmp_path: Path) -> None:
    configure(home, ROUTED.replace('profile = "anthropic"', 'profile = "replicate"'))
    tools = [{"type": "function", "function": {"name": "f"}}]
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"messages": [{"role": "user", "content": "Hi"}], "tools": tools}))
    done = batuta("serve", "route", "--model", "claude", "--backend", "claude", "--messages", str(body), code=2)
    assert "its API has no tools" in done.stderr
