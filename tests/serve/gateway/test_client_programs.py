"""The settings of known clients: where they lead, what they clear, and that no key is among them."""

import json

import pytest

from batuta_cli.config import BackendSection, Config, GatewaySection
from batuta_cli.errors import UsageError
from batuta_cli.serve.gateway.client_programs import (
    PROGRAMS,
    ClientProgram,
    gateway_url,
    only_model,
    program_named,
    provider_keys,
    settings_for,
)

URL = "http://127.0.0.1:8484"
KEY = "btk_0123456789abcdef"


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_every_client_is_led_to_the_gateway_and_the_model(program: ClientProgram) -> None:
    found = settings_for(program, url=f"{URL}/v1/", model="qwen3:8b", directory="/d")
    everything = json.dumps([found.variables, found.arguments, found.file])
    assert URL in everything and "qwen3:8b" in everything
    assert "$" not in everything and "/v1/v1" not in everything


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_the_key_is_named_and_never_among_the_settings(program: ClientProgram) -> None:
    found = settings_for(program, url=URL, model="m", key_variable="MY_KEY", directory="/d")
    child = found.environment({"MY_KEY": KEY, "PATH": "/bin", "OPENAI_API_KEY": "sk-x"}, provider_keys(Config()))
    assert KEY not in json.dumps([found.variables, found.arguments, found.file])
    assert child["MY_KEY"] == KEY and child["PATH"] == "/bin"
    assert "sk-x" not in child.values()
    carried = [name for name, value in child.items() if value == KEY and name != "MY_KEY"]
    named = "MY_KEY" in json.dumps([found.variables, found.arguments])
    assert bool(carried) is not named  # its value in a variable, or the name of the variable in a setting


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_variables_that_lead_elsewhere_are_not_inherited(program: ClientProgram) -> None:
    found = settings_for(program, url=URL, model="m", directory="/d")
    assert "elsewhere" not in found.environment(dict.fromkeys(program.cleared, "elsewhere"), ()).values()


def test_the_variable_of_the_key_is_not_cleared() -> None:
    """Codex reads the key from any variable, also from one that is cleared otherwise."""
    found = settings_for(program_named("codex"), url=URL, model="m", key_variable="OPENAI_API_KEY")
    assert "OPENAI_API_KEY" not in found.cleared
    assert found.environment({"OPENAI_API_KEY": KEY}, provider_keys(Config())) == {"OPENAI_API_KEY": KEY}


def test_opencodes_settings_are_json_of_its_schema() -> None:
    found = settings_for(program_named("opencode"), url=URL, model="m", key_variable="K")
    document = json.loads(found.variables["OPENCODE_CONFIG_CONTENT"])
    provider = document["provider"]["batuta"]
    assert (document["model"], list(provider["models"])) == ("batuta/m", ["m"])
    assert provider["options"] == {"baseURL": f"{URL}/v1", "apiKey": "{env:K}"}


def test_codex_takes_options_of_its_configuration() -> None:
    arguments = settings_for(program_named("codex"), url=URL, model="m").arguments
    assert set(arguments[::2]) == {"-c"}
    assert 'model_providers.batuta.base_url="http://127.0.0.1:8484/v1"' in arguments
    assert "analytics.enabled=false" in arguments


@pytest.mark.parametrize("model", ["", 'a"b', "a b", "a$URL", "-m", "x" * 300])
def test_a_model_that_would_need_quoting_is_refused(model: str) -> None:
    with pytest.raises(UsageError):
        settings_for(PROGRAMS[0], url=URL, model=model)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8484", "http://u:p@h/", 'http://h/"', "http://h/?a=b", "file:///x"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        settings_for(PROGRAMS[0], url=url, model="m")


def test_keys_of_services_and_of_the_configuration_are_stripped() -> None:
    keys = provider_keys(Config(backends={"x": BackendSection(api_key_env="OFFICE_KEY")}))
    expected = {"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GROQ_API_KEY", "HF_TOKEN", "OPENROUTER_API_KEY", "OFFICE_KEY"}
    assert keys >= expected


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("", "http://127.0.0.1:9000"),
        ("0.0.0.0", "http://127.0.0.1:9000"),  # noqa: S104
        ("::", "http://[::1]:9000"),
        ("gw.example", "http://gw.example:9000"),
    ],
)
def test_the_address_is_that_of_the_configuration(host: str, wanted: str) -> None:
    assert gateway_url(Config(gateway=GatewaySection(host=host, port=9000))) == wanted
    with pytest.raises(UsageError, match=r"gateway.port is 0"):
        gateway_url(Config(gateway=GatewaySection(port=0)))


def test_the_only_model_of_the_configuration_is_taken() -> None:
    assert only_model(Config(backends={"x": BackendSection(models=("m",))})) == "m"
    with pytest.raises(UsageError) as caught:
        only_model(Config(backends={"x": BackendSection(models=("a", "b"))}))
    assert caught.value.hint == "add --model NAME: a, b"


def test_a_misspelt_client_gets_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="unknown client codx, did you mean codex"):
        program_named("codx")
