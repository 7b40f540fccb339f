"""`batuta serve backends`: where each one is, whether a tier may use it, and how it is."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import answer, result, shows_no
from tests.conftest import Run
from tests.serve.support_server import json_reply, running_llamacpp, serving

SECRET = "gsk_the-key-of-the-user"


def configure(home: Path, text: str) -> None:
    path = home / "config" / "batuta" / "config.toml"
    path.parent.mkdir(parents=True, mode=0o700)
    path.write_text(text)


def cells(text: str) -> dict[str, list[str]]:
    """The rows of a table by their first cell."""
    import re

    rows = [re.split(r"  +", line) for line in text.splitlines()]
    return {row[0]: row for row in rows[1:]}


@pytest.fixture(scope="module")
def llamacpp(gguf: Path) -> Iterator[str]:
    with running_llamacpp(gguf) as base_url:
        yield base_url


LOCAL = ["Realizar", "Ollama", "LlamaCpp", "Llamafile", "Candle", "Vllm", "Tgi", "LocalAI"]


def test_without_a_configuration_every_kind_is_listed_and_the_hint_is_config_init(batuta: Run) -> None:
    done = batuta("serve", "backends", code=0)
    assert "batuta config init" in done.stderr
    rows = cells(done.stdout)
    assert list(rows)[: len(LOCAL)] == LOCAL
    assert len(rows) == 20
    assert rows["Ollama"] == ["Ollama", "sovereign", "http://127.0.0.1:11434/v1", "allowed"]


def test_without_a_configuration_the_local_ones_alone_are_probed(batuta: Run) -> None:
    result = json.loads(batuta("serve", "backends", "--probe", "--json", code=0).stdout)["result"]
    assert [each["name"] for each in result["backends"]] == LOCAL


def test_all_lists_every_kind_and_what_has_to_be_set(batuta: Run) -> None:
    rows = cells(batuta("serve", "backends", "--all", "--privacy", "Private", code=0).stdout)
    assert len(rows) == 20
    assert rows["Groq"] == ["Groq", "standard", "https://api.groq.com/openai/v1", "refused"]
    assert rows["AzureOpenAI"][1:] == ["private", "set AZURE_OPENAI_ENDPOINT", "allowed"]
    assert rows["GoogleVertex"][2] == "set GOOGLE_CLOUD_LOCATION and GOOGLE_CLOUD_PROJECT"


def test_the_tier_is_that_of_the_address_and_not_of_the_name(batuta: Run, home: Path) -> None:
    configure(
        home,
        "[privacy]\ntier = 'sovereign'\nlocal_networks = ['10.1.0.0/16']\n"
        "[backends.ollama]\nbase_url = 'http://203.0.113.7:11434/v1'\n"
        "[backends.box]\nprofile = 'vllm'\nbase_url = 'http://10.1.2.3:8000/v1'\n"
        "[backends.here]\nprofile = 'openai'\nbase_url = 'http://localhost:9000/v1'\n",
    )
    rows = cells(batuta("serve", "backends", code=0).stdout)
    assert rows["ollama"][1::2] == ["standard", "refused"]
    assert rows["box (Vllm)"][1::2] == ["sovereign", "allowed"]
    assert rows["here (OpenAI)"][1::2] == ["sovereign", "allowed"]
    assert cells(batuta("serve", "backends", "--privacy", "standard", code=0).stdout)["ollama"][3] == "allowed"


def test_probing_tells_who_answers_and_how_deep_the_queue_is(batuta: Run, home: Path, llamacpp: str) -> None:
    configure(
        home,
        f"[backends.mine]\nprofile = 'llamacpp'\nbase_url = '{llamacpp}'\n"
        f"[backends.wrong]\nprofile = 'realizar'\nbase_url = '{llamacpp}'\n",
    )
    done = batuta("serve", "backends", "--probe", "--privacy", "sovereign", code=0)
    rows = cells(done.stdout)
    assert rows["mine (LlamaCpp)"][3:] == ["ready", "0 (2 slots)", "smollm2-135m"]
    assert rows["wrong (Realizar)"][3:] == ["the server at this address is llama.cpp, not realizar", "-", "-"]
    found = result(batuta("serve", "backends", "--probe", "--json", code=0))
    assert found["privacy"] == "standard"
    mine = next(b for b in found["backends"] if b["name"] == "mine")
    assert (mine["backend"], mine["tier"], mine["allowed"], mine["addresses"]) == (
        "LlamaCpp",
        "sovereign",
        True,
        [llamacpp],
    )
    expected = {
        "address": llamacpp,
        "reachable": True,
        "identified_as": "LlamaCpp",
        "healthy": True,
        "loading": False,
        "queue_depth": 0,
        "slots": 2,
        "models": ["smollm2-135m"],
        "remote_models": [],
        "context_length": 2048,
        "error": None,
    }
    assert {name: mine["probe"][name] for name in expected} == expected
    batuta("serve", "audit", "verify", code=0)


def test_what_the_tier_forbids_is_not_asked(batuta: Run, home: Path) -> None:
    with serving({"/v1/models": json_reply("{}")}) as server:
        configure(home, f"[backends.far]\nprofile = 'vllm'\nbase_url = 'http://host.invalid:{server.port}/v1'\n")
        rows = cells(batuta("serve", "backends", "--probe", "--privacy", "sovereign", code=0).stdout)
    assert rows["far (Vllm)"][3:] == ["refused", "-", "-"]


def test_all_asks_no_hosted_backend_that_is_not_configured(batuta: Run) -> None:
    rows = cells(batuta("serve", "backends", "--all", "--probe", env={"GROQ_API_KEY": SECRET}, code=0).stdout)
    assert rows["Groq"][3:] == ["not probed", "-", "-"]


def test_a_key_is_never_shown(batuta: Run, home: Path) -> None:
    with serving({"/v1/models": json_reply("{}", 401)}) as server:
        configure(
            home,
            f"[backends.groq]\nbase_url = '{server.url}/v1'\napi_key_env = 'MY_KEY'\n[privacy]\ntier = 'standard'\n",
        )
        runs = [
            batuta("serve", "backends", "--probe", *more, env={"MY_KEY": SECRET, "BATUTA_DEBUG": "1"}, code=0)
            for more in ((), ("--json",))
        ]
        assert any(SECRET in str(seen.headers) for seen in server.seen)
    shows_no(SECRET, *runs)
    assert "MY_KEY" in runs[0].stdout


def test_names_of_models_do_not_drive_the_terminal(batuta: Run, home: Path) -> None:
    routes = {"/health": json_reply("{}"), "/v1/models": json_reply('{"data": [{"id": "a\\u001b[31mb\\u202e"}]}')}
    with serving(routes) as server:
        configure(home, f"[backends.vllm]\nbase_url = '{server.url}/v1'\n")
        done = batuta("serve", "backends", "--probe", code=0)
    assert "a\\x1b[31mb\\u202e" in done.stdout
    assert "\x1b" not in done.stdout


def test_only_some_models_are_shown_and_the_rest_counted_and_remote_ones_marked(batuta: Run, home: Path) -> None:
    models = ", ".join(f'{{"id": "m{n}{"-cloud" * (n == 1)}"}}' for n in range(5))
    routes = {"/api/version": json_reply("{}"), "/v1/models": json_reply(f'{{"data": [{models}]}}')}
    with serving(routes) as server:
        configure(home, f"[backends.ollama]\nbase_url = '{server.url}/v1'\n")
        rows = cells(batuta("serve", "backends", "--probe", code=0).stdout)
    assert rows["ollama"][5] == "m0, m1-cloud (remote), m2 and 2 more"


def test_a_log_that_cannot_be_written_stops_a_strict_probe_and_warns_about_a_standard_one(
    batuta: Run, home: Path
) -> None:
    (home / "state" / "batuta").mkdir(parents=True)
    (home / "state" / "batuta" / "audit").write_text("")
    failed = answer(batuta("serve", "backends", "--probe", "--privacy", "sovereign", "--json", code=1))
    assert failed["error"]["kind"] == "audit"
    done = batuta("serve", "backends", "--probe", "--privacy", "standard", code=0)
    assert "cannot write the audit log" in done.stderr


def test_a_misspelt_tier_or_backend_is_wrong_usage_that_suggests_the_nearest(batuta: Run, home: Path) -> None:
    done = batuta("serve", "backends", "--privacy", "soverein", code=2)
    assert "did you mean sovereign" in done.stderr
    configure(home, "[backends.box]\nprofile = 'olama'\nbase_url = 'http://127.0.0.1:1/v1'\n")
    assert "did you mean Ollama" in batuta("serve", "backends", code=2).stderr


def test_a_backend_without_a_profile_is_any_server_with_openai_s_api(batuta: Run, home: Path) -> None:
    configure(home, "[backends.box]\nbase_url = 'http://127.0.0.1:1/v1'\n")
    assert "box (Generic)" in batuta("serve", "backends", code=0).stdout


def test_a_variable_that_is_no_address_is_named(batuta: Run) -> None:
    done = batuta("serve", "backends", env={"OLLAMA_HOST": "http://user:pw@x"}, code=2)
    assert "OLLAMA_HOST" in done.stderr
    shows_no("pw", done)
