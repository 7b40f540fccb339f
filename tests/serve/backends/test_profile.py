"""The profiles: files of facts, and a loader that lets no misspelt one through."""

import json
import re
from decimal import Decimal
from fnmatch import fnmatchcase
from importlib import resources
from urllib.parse import urlsplit

import pytest

from batuta_cli.errors import ConfigError, UsageError
from batuta_cli.serve.backends import ServingBackend, profile
from batuta_cli.serve.backends.profile import ContinuationMethod, load, parse
from batuta_cli.serve.backends.wire_formats import OF_SERVERS, WireFormat
from batuta_cli.serve.tiers import PrivacyTier

SMALLEST = """
name = "Mine"
title = "mine"
tier = "sovereign"
wire = "openai"
cost_rank = 0
throughput = "low"
"""

# From each project's documents: address, variable of the key, its header.
FACTS = {
    "Realizar": ("http://127.0.0.1:8080/v1", "", "Authorization"),
    "Ollama": ("http://127.0.0.1:11434/v1", "", "Authorization"),
    "LlamaCpp": ("http://127.0.0.1:8080/v1", "", "Authorization"),
    "Llamafile": ("http://127.0.0.1:8080/v1", "", "Authorization"),
    "Candle": ("http://127.0.0.1:2000/v1", "", "Authorization"),
    "Vllm": ("http://127.0.0.1:8000/v1", "", "Authorization"),
    "Tgi": ("http://127.0.0.1:8080/v1", "", "Authorization"),
    "LocalAI": ("http://127.0.0.1:8080/v1", "", "Authorization"),
    "Generic": (None, "", "Authorization"),
    "HuggingFace": ("https://router.huggingface.co/v1", "HF_TOKEN", "Authorization"),
    "Together": ("https://api.together.ai/v1", "TOGETHER_API_KEY", "Authorization"),
    "Replicate": ("https://api.replicate.com/v1", "REPLICATE_API_TOKEN", "Authorization"),
    "Anyscale": (None, "ANYSCALE_API_KEY", "Authorization"),
    "Modal": ("https://inference.us-west.modal.direct/v1", "", "Authorization"),
    "Fireworks": ("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY", "Authorization"),
    "Groq": ("https://api.groq.com/openai/v1", "GROQ_API_KEY", "Authorization"),
    "OpenAI": ("https://api.openai.com/v1", "OPENAI_API_KEY", "Authorization"),
    "Anthropic": ("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", "x-api-key"),
    "AzureOpenAI": (None, "AZURE_OPENAI_API_KEY", "api-key"),
    "AwsBedrock": (
        "https://bedrock-runtime.{region}.amazonaws.com/openai/v1",
        "AWS_BEARER_TOKEN_BEDROCK",
        "Authorization",
    ),
    "GoogleVertex": (
        "https://{location}-aiplatform.googleapis.com/v1/projects/{project}/locations/{location}/endpoints/openapi",
        "GOOGLE_VERTEX_ACCESS_TOKEN",
        "Authorization",
    ),
}
LOCAL = {"Realizar", "Ollama", "LlamaCpp", "Llamafile", "Candle", "Vllm", "Tgi", "LocalAI", "Generic"}
PRIVATE = {"AzureOpenAI", "AwsBedrock", "GoogleVertex"}


@pytest.mark.parametrize("backend", ServingBackend)
def test_each_kind_has_the_facts_of_its_project(backend: ServingBackend) -> None:
    found = backend.profile
    address, variable, header = FACTS[backend.value]
    assert found.name == backend.value
    assert next(iter(found.base_urls), None) == address
    assert (found.auth.env, found.auth.header) == (variable, header)


def test_there_is_a_file_for_each_kind() -> None:
    assert {backend.value for backend in ServingBackend} == set(FACTS)
    files = [
        f.name for f in (resources.files("batuta_cli.serve.backends") / "profiles").iterdir() if f.name != "README.md"
    ]
    assert sorted(files) == sorted(f"{name.lower()}.toml" for name in FACTS)


def test_the_tier_of_a_kind_is_that_of_its_usual_place() -> None:
    for backend in ServingBackend:
        expected = "sovereign" if backend in LOCAL else "private" if backend in PRIVATE else "standard"
        assert backend.tier == expected
        assert backend.is_local is (backend in LOCAL)


def test_no_kind_claims_more_than_its_addresses_are_worth() -> None:
    for backend in ServingBackend:
        for url in backend.profile.base_urls:
            parts = urlsplit(url)
            if backend.is_local:
                assert (parts.scheme, parts.hostname) == ("http", "127.0.0.1")
                continue
            assert parts.scheme == "https"
            if backend.tier is PrivacyTier.PRIVATE:
                host = re.sub(r"\{\w+\}", "x", parts.netloc)
                assert any(fnmatchcase(host, pattern) for pattern in backend.profile.private_hosts)
        assert bool(backend.profile.private_hosts) is (backend.tier is PrivacyTier.PRIVATE)


def test_what_shares_a_port_tells_itself_apart() -> None:
    for backend in ServingBackend:
        assert bool(backend.profile.identity) is (backend.is_local and backend != "Generic")
    identities = [identity for backend in ServingBackend for identity in backend.profile.identity]
    assert len(set(identities)) == len(identities)


def test_local_backends_cost_nothing_and_hosted_ones_have_each_a_place_by_price() -> None:
    assert {b.profile.cost_rank for b in ServingBackend if b.is_local} == {0}
    ranks = [b.profile.cost_rank for b in ServingBackend if not b.is_local]
    assert sorted(ranks) == list(range(1, 13))


def test_the_order_by_price_is_that_of_the_price_table_for_llama_3_3_70b() -> None:
    text = (resources.files("batuta_cli.serve.models") / "data" / "prices.json").read_text()
    providers = json.loads(text)["providers"]

    def dearest(*names: str) -> Decimal:
        """Input and output together, of what the model costs at any of some providers."""
        found = [
            Decimal(price[1]) + Decimal(price[2])
            for name in names
            for model, _, _, prices in providers[name]["models"]
            if re.search(r"llama-?3[-.]3-70b-(instruct|versatile)(-turbo|-v1:0)?$", model.lower())
            for price in prices[-1:]
        ]
        assert found, names
        return max(found)

    routed = [name for name in providers if name.startswith("huggingface_") and "llama-3.3-70b" in str(providers[name])]
    priced = {
        ServingBackend.GROQ: dearest("groq"),
        ServingBackend.AWS_BEDROCK: dearest("aws"),
        ServingBackend.TOGETHER: dearest("together"),
        ServingBackend.FIREWORKS: dearest("huggingface_fireworks-ai"),  # which passes its price on
        ServingBackend.HUGGING_FACE: dearest(*routed),
    }
    assert sorted(priced, key=lambda b: b.profile.cost_rank) == sorted(priced, key=lambda b: priced[b])


@pytest.mark.parametrize(
    ("model", "can"),
    [
        ("claude-3-opus-20240229", True),
        ("claude-3-5-sonnet-20241022", True),
        ("claude-opus-4-20250514", True),
        ("claude-opus-4-1-20250805", True),
        ("claude-sonnet-4-5-20250929", True),
        ("claude-haiku-4-5", True),
        ("claude-opus-4-6", False),
        ("claude-sonnet-4-6-20260101", False),
        ("claude-opus-5-20270101", False),
        ("claude-fable-5", False),
    ],
)
def test_anthropics_models_continue_a_text_up_to_4_5_only(model: str, can: bool) -> None:
    continuation = ServingBackend.ANTHROPIC.profile.continuation
    assert continuation.method is ContinuationMethod.TRAILING
    assert any(fnmatchcase(model, pattern) for pattern in continuation.models) is can


def test_how_a_text_is_continued_is_never_guessed() -> None:
    can = {b.value for b in ServingBackend if b.profile.continuation.method is not ContinuationMethod.NONE}
    assert can == LOCAL - {"Generic"} | {"Anthropic", "Groq"}
    assert profile(ServingBackend.VLLM).continuation.body["continue_final_message"] is True
    assert profile(ServingBackend.OLLAMA).continuation.body == {"raw": True}


def test_a_profile_names_only_content_that_there_is() -> None:
    for backend in ServingBackend:
        found = backend.profile
        names = set(found.describe.modalities) if found.describe else set()
        assert names <= {str(need) for need in found.carries}
        assert set(found.carries) <= OF_SERVERS
        assert not (found.carries and found.wire is WireFormat.REPLICATE)


def test_only_the_providers_of_an_api_get_what_names_a_user() -> None:
    found = {b.value: [api.value for api in b.profile.provides] for b in ServingBackend if b.profile.provides}
    assert {name: "openai-chat" in apis or "anthropic-messages" in apis for name, apis in found.items()} == {
        "OpenAI": True,
        "Anthropic": True,
    }


def test_names_are_read_in_any_spelling() -> None:
    for name in ("LlamaCpp", "llama.cpp", "llama-cpp", "LLAMA_CPP"):
        assert ServingBackend.parse(name) is ServingBackend.LLAMA_CPP
    with pytest.raises(UsageError, match="unknown backend Olama, did you mean Ollama"):
        ServingBackend.parse("Olama")


def test_a_profile_needs_little() -> None:
    found = parse(SMALLEST, "mine.toml")
    assert (found.base_urls, found.models, found.identity) == ((), "", ())


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("helth = '/health'", "mine.toml: helth: unknown key, did you mean health?"),
        ("[auth]\nevn = 'X'", "mine.toml: auth.evn: unknown key, did you mean env?"),
        ("[[identity]]\nhas = ['x']", r"mine.toml: identity\[1\].path: is missing"),
        ("[[identity]]\npath = '/'\nhas = 'x'", r"mine.toml: identity\[1\].has: must be a list"),
        ("[identity]\npath = '/'", "mine.toml: identity: must be a list"),
        ("base_urls = [1]", r"mine.toml: base_urls\[1\]: must be text"),
        ("health = 3", "mine.toml: health: must be text"),
        ("auth = 3", "mine.toml: auth: must be a table"),
        ("[placeholders]\nregion = 'X'", "mine.toml: placeholders.region: must be a list"),
        ("placeholders = 1", "mine.toml: placeholders: must be a table"),
        ("[continuation]\nmethod = 'guess'", "continuation.method: must be one of fields, trailing, completion, none"),
        ("[continuation]\ntrims_space = 1", "continuation.trims_space: must be true or false"),
        ("x = ", "mine.toml: not TOML"),
    ],
)
def test_a_misspelt_or_mistyped_fact_is_an_error_that_names_it(line: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse(SMALLEST + line, "mine.toml")


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("name", None, "name: is missing"),
        ("wire", '"grpc"', "wire: must be one of openai, anthropic, replicate"),
        ("tier", '"secret"', "tier: must be one of sovereign, private, standard"),
        ("cost_rank", "true", "cost_rank: must be a whole number"),
        ("cost_rank", "1.5", "cost_rank: must be a whole number"),
    ],
)
def test_a_fact_that_every_profile_has_cannot_be_left_out_or_made_up(key: str, value: str | None, told: str) -> None:
    text = re.sub(rf"(?m)^{key} = .*\n", f"{key} = {value}\n" if value else "", SMALLEST)
    with pytest.raises(ConfigError, match=told):
        parse(text, "mine.toml")


def test_a_profile_is_read_once() -> None:
    assert load("groq") is load("groq")
