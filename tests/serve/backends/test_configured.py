"""Backends as the configuration and the environment have them, and where their keys may go."""

from collections.abc import Mapping
from typing import Any

import pytest

from batuta_cli.config import BackendSection as Table
from batuta_cli.config import Config
from batuta_cli.errors import ConfigError
from batuta_cli.serve.backends import Backend, ServingBackend, configured_backends, default_backend
from batuta_cli.serve.backends.wire_formats import WireFormat

SECRET = "gsk-a-key-that-must-not-be-seen"


def configured(environ: Mapping[str, str] | None = None, /, name: str = "mine", **table: Any) -> Backend:
    (backend,) = configured_backends(Config(backends={name: Table(**table)}), environ or {})
    return backend


def test_without_a_configuration_the_local_ones_stand_in() -> None:
    found = configured_backends(Config(), {})
    assert [b.name for b in found] == "Realizar Ollama LlamaCpp Llamafile Candle Vllm Tgi LocalAI".split()  # noqa: SIM905
    assert not any(b.configured for b in found)


def test_a_configured_set_is_the_whole_set_in_its_order() -> None:
    tables = {"groq": Table(), "box": Table(base_url="http://10.1.2.3/v1/", profile="vllm", models=("m",))}
    groq, box = configured_backends(Config(backends=tables), {})
    assert (groq.kind, groq.base_urls) == (ServingBackend.GROQ, ("https://api.groq.com/openai/v1",))
    assert (box.name, box.kind, box.base_urls, box.models) == (
        "box",
        ServingBackend.VLLM,
        ("http://10.1.2.3/v1",),
        ("m",),
    )
    assert groq.configured and box.configured


def test_a_name_that_is_no_kind_is_any_server_with_openais_api() -> None:
    box = configured(name="box", base_url="http://10.1.2.3/v1/", models=("m",))
    assert (box.kind, box.base_urls, box.models, box.missing) == ("Generic", ("http://10.1.2.3/v1",), ("m",), ())
    assert (box.profile.wire, box.profile.models, box.auth_headers({})) == (WireFormat.OPENAI, "models", {})


def test_an_empty_table_has_no_address_and_stops_nothing() -> None:
    config = Config(backends={"box": Table(), "gpu": Table(profile="vllm")})
    box, gpu = configured_backends(config, {})
    assert (box.kind, box.base_urls, box.missing) == ("Generic", (), ("backends.box.base_url",))
    assert gpu.base_urls == ("http://127.0.0.1:8000/v1",)


def test_the_generic_kind_is_none_of_the_usual_servers() -> None:
    assert "Generic" not in {backend.name for backend in configured_backends(Config(), {})}


def test_a_misspelt_profile_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"backends.box.profile: unknown backend vlm, did you mean Vllm"):
        configured(name="box", profile="vlm")


def test_a_key_is_read_when_it_is_used_and_never_shown() -> None:
    environ: dict[str, str] = {}
    backend = configured(environ, name="groq")
    assert backend.api_key(environ) is None
    environ["GROQ_API_KEY"] = f"{SECRET}\n"
    assert backend.api_key(environ) == SECRET
    assert backend.auth_headers(environ) == {"Authorization": f"Bearer {SECRET}"}
    assert SECRET not in repr(backend)


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", SECRET)
    assert configured(name="groq").api_key() == SECRET
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:5000")
    assert default_backend(ServingBackend.OLLAMA).base_urls == ("http://127.0.0.1:5000/v1",)


@pytest.mark.parametrize("key", ["two words", "line\nfeed", "ключ", "bell\x07"])
def test_a_value_that_no_header_can_carry_is_no_key_and_is_not_quoted(key: str) -> None:
    with pytest.raises(ConfigError, match="GROQ_API_KEY: the API key has an invalid character") as caught:
        configured(name="groq").auth_headers({"GROQ_API_KEY": key})
    assert key not in caught.value.message


@pytest.mark.parametrize(
    ("name", "environ", "headers"),
    [
        ("anthropic", {"ANTHROPIC_API_KEY": "k"}, {"x-api-key": "k", "anthropic-version": "2023-06-01"}),
        ("anthropic", {}, {"anthropic-version": "2023-06-01"}),
        ("azureopenai", {"AZURE_OPENAI_API_KEY": "k", "AZURE_OPENAI_ENDPOINT": "https://x"}, {"api-key": "k"}),
        (
            "modal",
            {"MODAL_PROXY_TOKEN_ID": "i", "MODAL_PROXY_TOKEN_SECRET": "s"},
            {"Modal-Key": "i", "Modal-Secret": "s"},
        ),
        ("llamacpp", {"GROQ_API_KEY": "k", "OPENAI_API_KEY": "k"}, {}),
    ],
)
def test_each_kind_presents_its_key_in_its_own_way(name: str, environ: dict[str, str], headers: dict[str, str]) -> None:
    assert configured(environ, name=name).auth_headers(environ) == headers


@pytest.mark.parametrize(
    ("name", "base_url", "sent"),
    [
        ("openai", "", True),
        ("openai", "https://api.openai.com/v1", True),
        ("openai", "https://api.openai.com:443/v1", True),
        ("openai", "https://api.openai.com:8443/v1", False),
        ("openai", "http://api.openai.com/v1", False),
        ("openai", "https://api.openai.com.evil.example/v1", False),
        ("openai", "http://127.0.0.1:8080/v1", False),
        ("azureopenai", "https://contoso.openai.azure.com/openai/v1", True),
        ("azureopenai", "https://contoso.example/openai/v1", False),
        ("awsbedrock", "https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1", True),
        ("modal", "https://me--app.modal.run/v1", False),
    ],
)
def test_the_usual_key_of_a_service_goes_to_that_service_alone(name: str, base_url: str, sent: bool) -> None:
    environ = {
        "OPENAI_API_KEY": "k",
        "AZURE_OPENAI_API_KEY": "k",
        "AWS_BEARER_TOKEN_BEDROCK": "k",
        "MODAL_PROXY_TOKEN_SECRET": "k",
    }
    headers = configured(environ, name=name, base_url=base_url).auth_headers(environ)
    assert ("k" in " ".join(headers.values())) is sent


def test_a_key_that_is_named_beside_an_address_goes_there() -> None:
    backend = configured(name="openai", base_url="http://10.1.2.3/v1", api_key_env="OFFICE_KEY")
    assert backend.auth_headers({"OFFICE_KEY": "o", "OPENAI_API_KEY": "k"}) == {"Authorization": "Bearer o"}


@pytest.mark.parametrize(
    ("value", "base_url"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434/v1"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000/v1"),
        (":5000", "http://127.0.0.1:5000/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),  # noqa: S104 - what the server listens on
        ("0.0.0.0:5000", "http://127.0.0.1:5000/v1"),
        ("[::]:5000", "http://[::1]:5000/v1"),
        ("[::1]", "http://[::1]:11434/v1"),
        ("box.example", "http://box.example:11434/v1"),
        ("http://box.example", "http://box.example/v1"),
        ("https://box.example/", "https://box.example/v1"),
        ("https://box.example/ollama/v1", "https://box.example/ollama/v1"),
        (" 127.0.0.1 ", "http://127.0.0.1:11434/v1"),
        ("", "http://127.0.0.1:11434/v1"),
    ],
)
def test_ollama_is_where_its_own_variable_says(value: str, base_url: str) -> None:
    assert default_backend(ServingBackend.OLLAMA, {"OLLAMA_HOST": value}).base_urls == (base_url,)


@pytest.mark.parametrize(
    "value",
    [
        "ftp://x",
        "http:///",
        "http://u:p@x",
        "u:p@x",
        "http://x?y",
        "http://x#y",
        "x:port",
        "x:99999",
        "[::1",
        "a b",
        "é",
    ],
)
def test_a_variable_that_is_no_address_is_an_error_that_does_not_quote_it(value: str) -> None:
    with pytest.raises(ConfigError, match=r"OLLAMA_HOST: must be an address such as http://127.0.0.1:11434") as caught:
        default_backend(ServingBackend.OLLAMA, {"OLLAMA_HOST": value})
    assert value not in caught.value.message


def test_an_address_in_the_configuration_comes_before_the_variable() -> None:
    backend = configured({"OLLAMA_HOST": "http://elsewhere"}, name="ollama", base_url="http://127.0.0.1:1/v1")
    assert backend.base_urls == ("http://127.0.0.1:1/v1",)


def test_azure_and_anyscale_are_where_their_variables_say() -> None:
    azure = {"AZURE_OPENAI_ENDPOINT": "https://contoso.openai.azure.com/"}
    assert configured(azure, name="azureopenai").base_urls == ("https://contoso.openai.azure.com/openai/v1",)
    anyscale = {"ANYSCALE_BASE_URL": "https://llm.example/v1"}
    assert configured(anyscale, name="anyscale").base_urls == ("https://llm.example/v1",)
    with pytest.raises(ConfigError, match="ANYSCALE_BASE_URL"):
        configured({"ANYSCALE_BASE_URL": "llm.example"}, name="anyscale")


def test_what_is_still_missing_is_named() -> None:
    for name, missing in (
        ("azureopenai", ("AZURE_OPENAI_ENDPOINT",)),
        ("anyscale", ("ANYSCALE_BASE_URL",)),
        ("awsbedrock", ("AWS_REGION",)),
        ("googlevertex", ("GOOGLE_CLOUD_LOCATION", "GOOGLE_CLOUD_PROJECT")),
    ):
        backend = configured(name=name)
        assert (backend.base_urls, backend.missing) == ((), missing)


def test_placeholders_are_filled_in_from_the_environment() -> None:
    assert configured({"AWS_DEFAULT_REGION": "eu-west-1"}, name="awsbedrock").base_urls == (
        "https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1",
    )
    environ = {"GOOGLE_CLOUD_LOCATION": "europe-west1", "GOOGLE_CLOUD_PROJECT": "acme"}
    assert configured(environ, name="googlevertex").base_urls == (
        "https://europe-west1-aiplatform.googleapis.com/v1/projects/acme/locations/europe-west1/endpoints/openapi",
    )


@pytest.mark.parametrize("value", ["evil.example/", "x@evil.example", "evil.example#", "x/..", "-x", "a b", "{region}"])
def test_a_placeholder_cannot_lead_to_another_host(value: str) -> None:
    with pytest.raises(ConfigError, match="AWS_REGION: must have only letters, digits and -"):
        configured({"AWS_REGION": value}, name="awsbedrock")


def test_a_backend_is_a_value_that_can_be_kept_in_a_set() -> None:
    assert len({configured(name="groq"), configured(name="groq"), configured(name="openai")}) == 2
