"""The kinds of backends: twenty, each with a profile, read in any spelling."""

import pytest

from batuta_cli.errors import BatutaError
from batuta_cli.serve import PrivacyTier, ServingBackend
from batuta_cli.serve.backends.kinds import private_hosts, profile

LOCAL = {"Realizar", "Ollama", "LlamaCpp", "Llamafile", "Candle", "Vllm", "Tgi", "LocalAI", "Generic"}
PRIVATE = {"AzureOpenAI", "AwsBedrock", "GoogleVertex"}


def test_nine_kinds_are_local_and_three_are_private_clouds() -> None:
    named = {backend for backend in ServingBackend if backend.profile.base_urls or backend.tier}
    assert {str(backend) for backend in named if backend.tier is PrivacyTier.SOVEREIGN} == LOCAL
    assert {str(backend) for backend in named if backend.tier is PrivacyTier.PRIVATE} == PRIVATE
    assert all(backend.is_local == (str(backend) in LOCAL) for backend in ServingBackend)


@pytest.mark.parametrize("name", ["LlamaCpp", "llamacpp", "llama-cpp", "LLAMA_CPP", "llama_cpp"])
def test_a_name_is_read_in_any_case_with_or_without_dashes(name: str) -> None:
    assert ServingBackend.parse(name) is ServingBackend.LLAMA_CPP


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(BatutaError) as caught:
        ServingBackend.parse("llamacp")
    assert "LlamaCpp" in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("backend", list(ServingBackend), ids=str)
def test_every_kind_has_its_profile_under_its_name(backend: ServingBackend) -> None:
    assert profile(backend) is backend.profile
    assert backend.profile.name == str(backend)


def test_private_hosts_are_those_of_the_three_clouds_alone() -> None:
    of_clouds = [pattern for name in PRIVATE for pattern in ServingBackend.parse(name).profile.private_hosts]
    assert sorted(private_hosts()) == sorted(of_clouds) != []
