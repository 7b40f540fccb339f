"""What leaves the machine: requests in a network namespace with one public-looking address, where all is seen."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.serve.support_certificates import make_certificates

ROOT = Path(__file__).parents[3]

QUIET: dict[str, list[str]] = {"queries": [], "connections": [], "requests": []}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """What each request came to, and what was seen outside, by case and tier."""
    directory = tmp_path_factory.mktemp("egress")
    isolated = ["unshare", "--map-root-user", "--net", "--mount"]
    tried = subprocess.run([*isolated, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no network namespace can be made here: {tried.stderr.strip()}")
    make_certificates(directory, "contoso.openai.azure.com", "llm.example")
    home = {
        "HOME": str(directory),
        "XDG_CONFIG_HOME": str(directory / "config"),
        "XDG_STATE_HOME": str(directory / "s"),
    }
    (directory / "config" / "batuta").mkdir(parents=True)
    (directory / "config" / "batuta" / "config.toml").write_text(
        '[backends.groq]\n[backends.box]\nprofile = "vllm"\nbase_url = "http://203.0.113.7/v1"\n'
        '[backends.far]\nprofile = "vllm"\nbase_url = "http://llm.example/v1"\n'
    )
    done = subprocess.run(
        [*isolated, sys.executable, "-m", "tests.serve.providers.support_egress", str(directory)],
        cwd=ROOT,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "GROQ_API_KEY": "k", **home},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {(line["case"], line["tier"]): line for line in lines}


def seen(line: dict[str, Any]) -> dict[str, list[str]]:
    return {name: line[name] for name in QUIET}


Told = dict[tuple[str, str], dict[str, Any]]


def test_the_place_sees_what_leaves(told: Told) -> None:
    """Without which the tests below would prove nothing."""
    assert told["name", "standard"]["outcome"] == "200"
    assert seen(told["name", "standard"]) == {"queries": ["llm.example"], "connections": ["80"], "requests": ["/"]}
    assert told["address", "standard"]["outcome"] == "200"
    assert told["name over https", "standard"]["outcome"] == "200"
    assert told["mapped address", "standard"]["requests"] == ["/"]


OUTSIDE = [
    "name",
    "name over https",
    "cloud without https",
    "address",
    "address over https",
    "mapped address",
    "decimal address",
]


@pytest.mark.parametrize("tier", ["sovereign", "private"])
@pytest.mark.parametrize("case", OUTSIDE)
def test_neither_a_connection_nor_a_question_leaves(told: Told, case: str, tier: str) -> None:
    assert told[case, tier]["outcome"] == "privacy"
    assert seen(told[case, tier]) == QUIET


@pytest.mark.parametrize("tier", ["standard", "sovereign", "private"])
def test_neither_a_redirect_nor_a_proxy_variable_leads_out(told: Told, tier: str) -> None:
    assert told["redirect", tier]["outcome"] == "302"
    assert told["loopback beside proxy variables", tier]["outcome"] == "200"
    for case in ("redirect", "loopback beside proxy variables"):
        assert seen(told[case, tier]) == QUIET


def test_a_private_cloud_is_reached_under_private_and_not_under_sovereign(told: Told) -> None:
    assert told["cloud", "private"]["outcome"] == "200"
    assert seen(told["cloud", "private"]) == {
        "queries": ["contoso.openai.azure.com"],
        "connections": ["443"],
        "requests": ["/"],
    }
    assert told["cloud", "sovereign"]["outcome"] == "privacy"
    assert seen(told["cloud", "sovereign"]) == QUIET


def test_nothing_is_sent_to_who_has_not_the_certificate_of_the_cloud(told: Told) -> None:
    line = told["cloud with the certificate of another", "private"]
    assert line["outcome"] == "ClientConnectorCertificateError"
    assert line["requests"] == []
    assert told["cloud with the certificate of another", "sovereign"]["outcome"] == "privacy"


def test_a_name_that_turns_public_is_not_followed_there(told: Told) -> None:
    assert told["name that resolves to the loopback", "sovereign"]["outcome"] == "200"
    line = told["the same name, now public", "sovereign"]
    assert (line["outcome"], line["connections"]) == ("privacy", [])


@pytest.mark.parametrize("tier", ["sovereign", "private"])
@pytest.mark.parametrize("passed", [True, False])
def test_the_peer_is_looked_at_again_before_anything_is_sent(told: Told, tier: str, passed: bool) -> None:
    line = told[f"peer, passed {passed}", tier]
    assert (line["outcome"], line["requests"]) == ("privacy", [])
    assert line["connections"] == ["80"]  # it was open, because the gate before it was taken away for this test


@pytest.mark.parametrize("tier", ["sovereign", "private"])
def test_the_command_that_probes_stays_at_home(told: Told, tier: str) -> None:
    assert told["command", tier]["outcome"] == "0"
    assert seen(told["command", tier]) == QUIET
