"""What leaves the machine when `batuta serve` works: nothing under sovereign, only what was declared under private.

`support_inside.py` runs the command and the pipeline in a network namespace whose one link leads to a machine of ours
that answers to every address and sees every packet. What is tried there under sovereign and private is tried under
standard, too, and does leave: so the silence means something.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.real.support_inside import LEAVING, NEAR, ODD, SECRET
from tests.serve.support_certificates import make_certificates

ROOT = Path(__file__).parents[2]
NETWORK = ["unshare", "--map-root-user", "--net", "--mount"]
NEAR_TIERS = ["sovereign", "private"]

Told = dict[tuple[str, str], dict[str, Any]]


def need_namespaces() -> None:
    if shutil.which("ip") is None:
        pytest.skip("no network namespace can be set up here: there is no ip command")
    tried = subprocess.run(
        [*NETWORK, "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"], capture_output=True, text=True
    )
    if tried.returncode:
        pytest.skip(f"no network namespace with a link can be made here: {tried.stderr.strip()}")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """What each request came to, and what was seen outside, by case and tier."""
    need_namespaces()
    directory = tmp_path_factory.mktemp("egress")
    for name, hosts in (("good", ("contoso.openai.azure.com",)), ("unknown", ("fabrikam.openai.azure.com",))):
        (directory / name).mkdir()
        make_certificates(directory / name, *hosts)
    (directory / "ca.pem").write_bytes((directory / "good" / "ca.pem").read_bytes())
    done = subprocess.run(
        [*NETWORK, sys.executable, "-m", "tests.real.support_inside", str(directory)],
        cwd=ROOT,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": str(directory)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {(line["case"], line["tier"]): line for line in lines}


def refused(line: dict[str, Any]) -> set[str]:
    """The backends that the log has refused connections of."""
    return {backend for decision, backend, _, _ in line["decisions"] if decision == "refused"}


# The pipeline, address by address


@pytest.mark.parametrize("tier", NEAR_TIERS)
@pytest.mark.parametrize("url", ODD)
def test_no_packet_leaves_whatever_an_address_looks_like(told: Told, url: str, tier: str) -> None:
    line = told[url, tier]
    assert line["packets"] == []
    assert line["found"]["any"] == "from home"
    assert line["found"]["box"] in ("privacy", "no_backend")
    assert line["found"]["gate"] in ("privacy", "usage")  # usage: it is no address that anything is sent to


@pytest.mark.parametrize("tier", NEAR_TIERS)
@pytest.mark.parametrize("url", ODD)
def test_each_refusal_is_in_a_log_that_holds(told: Told, url: str, tier: str) -> None:
    line = told[url, tier]
    assert line["verified"] == 0
    if line["found"]["gate"] == "privacy":
        assert refused(line) == {"box"}
        assert {decision[3] for decision in line["decisions"]} == {tier}


@pytest.mark.parametrize("tier", NEAR_TIERS)
@pytest.mark.parametrize("url", NEAR)
def test_the_loopback_is_reached_by_its_names_and_nobody_is_asked_for_them(told: Told, url: str, tier: str) -> None:
    line = told[url, tier]
    assert set(line["found"].values()) == {"from home"}
    assert (line["packets"], refused(line)) == ([], set())


@pytest.mark.parametrize("url", LEAVING)
def test_under_standard_the_same_addresses_are_reached(told: Told, url: str) -> None:
    assert any(packet.startswith("tcp ") for packet in told[url, "standard"]["packets"])


@pytest.mark.parametrize("tier", NEAR_TIERS)
def test_a_name_that_turns_public_is_not_followed_there(told: Told, tier: str) -> None:
    line = told["rebinding", tier]
    assert (line["packets"], line["found"]["gate"]) == ([], "privacy")
    assert ["refused", "box", "203.0.113.7", tier] in [
        [d[0], d[1], d[2].split(":")[0], d[3]] for d in line["decisions"]
    ]
    assert (told["mixed answers", tier]["packets"], told["mixed answers", tier]["found"]["gate"]) == ([], "from home")
    assert any(packet.startswith("tcp 203.0.113.7 ") for packet in told["rebinding", "standard"]["packets"])


# The installed command


WITH_REMOTES = [
    "remotes beside the local one",
    "remotes alone",
    "a local one that dies",
    "a local one that does not answer",
    "proxy variables, and remotes",
    "a proxy in the configuration",
]
TABLES = ["probe", "route", "route, no local one"]
"""Commands that do not even try a backend that the tier does not admit."""

ENDS = {
    "remotes beside the local one": (0, "from home\n"),
    "remotes alone": (6, ""),
    "a local one that dies": (1, "from home"),
    "a local one that does not answer": (7, ""),
    "proxy variables": (0, "from home\n"),
    "proxy variables, and remotes": (6, ""),
    "a proxy in the configuration": (0, "from home\n"),
    "redirect 301": (1, ""),
    "redirect 302": (1, ""),
    "redirect 307": (1, ""),
    "redirect 308": (1, ""),
    "redirected probes": (7, ""),
}


@pytest.mark.parametrize("tier", NEAR_TIERS)
@pytest.mark.parametrize("case", [*ENDS, *TABLES])
def test_no_packet_leaves_when_the_command_runs(told: Told, case: str, tier: str) -> None:
    line = told[case, tier]
    assert (line["packets"], line["requests"]) == ([], [])
    assert line["verified"] == (0 if line["decisions"] else 1)  # without a decision there is no log to verify
    if case in ENDS:
        assert (line["code"], line["stdout"]) == ENDS[case]


@pytest.mark.parametrize("tier", NEAR_TIERS)
@pytest.mark.parametrize("case", WITH_REMOTES)
def test_the_command_logs_each_remote_backend_as_refused(told: Told, case: str, tier: str) -> None:
    assert refused(told[case, tier]) == {"box", "openai", "groq"}


@pytest.mark.parametrize("case", [*WITH_REMOTES, *TABLES])
def test_under_standard_the_command_does_send_packets(told: Told, case: str) -> None:
    line = told[case, "standard"]
    assert any(packet.startswith("tcp ") for packet in line["packets"])
    assert line["code"] == 0


def test_under_standard_another_backend_outside_takes_over(told: Told) -> None:
    line = told["a local one that dies", "standard"]
    assert line["stdout"] == "from home and from outside\n"
    assert any(request.startswith("POST 203.0.113.7") for request in line["requests"])


@pytest.mark.parametrize("tier", ["standard", *NEAR_TIERS])
@pytest.mark.parametrize("case", ["proxy variables", "redirect 301", "redirect 302", "redirect 307", "redirect 308"])
def test_no_tier_heeds_redirects_and_proxy_variables(told: Told, case: str, tier: str) -> None:
    assert told[case, tier]["packets"] == []


def test_only_a_standard_request_takes_the_proxy(told: Told) -> None:
    requests = told["a proxy in the configuration", "standard"]["requests"]
    assert any(" http://203.0.113.7:8000/" in request for request in requests)


def test_what_is_at_home_is_not_asked_for_at_the_proxy(told: Told) -> None:
    """Where it would be the proxy's own loopback."""
    line = told["a proxy in the configuration", "standard"]
    assert not any("127.0.0.1" in request for request in line["requests"])
    assert line["stdout"] == "from home\n"


@pytest.mark.parametrize("tier", ["standard", *NEAR_TIERS])
def test_a_model_that_its_server_sends_elsewhere_is_not_asked_for(told: Told, tier: str) -> None:
    assert told["asked of ollama near", tier]["chats"] == 1
    for model in ("big:cloud", "alias"):
        assert told[f"asked of ollama {model}", tier]["chats"] == (1 if tier == "standard" else 0)
        assert told[f"ollama {model}", tier]["code"] == (0 if tier == "standard" else 6)


# Private


def test_private_reaches_the_networks_that_were_declared_and_no_other(told: Told) -> None:
    line = told["a private network", "private"]
    assert (line["code"], line["stdout"], line["packets"]) == (0, "from outside\n", ["tcp 10.9.0.5 port 8000"])
    assert (
        told["beside a private network", "private"]["code"],
        told["beside a private network", "private"]["packets"],
    ) == (
        6,
        [],
    )
    for case in ("a private network", "beside a private network"):
        assert (told[case, "sovereign"]["code"], told[case, "sovereign"]["packets"]) == (6, [])
        assert refused(told[case, "sovereign"]) == {"office"}


@pytest.mark.parametrize("case", ["cloud contoso", "cloud contoso with a proxy"])
def test_private_reaches_a_private_cloud_directly_and_by_its_certificate(told: Told, case: str) -> None:
    line = told[case, "private"]
    assert (line["code"], line["stdout"]) == (0, "from outside\n")
    assert line["packets"] == ["udp 198.51.100.254 port 53", "tcp 203.0.113.7 port 443"]
    assert line["requests"][-1] == f"POST contoso.openai.azure.com /openai/v1/chat/completions {SECRET}"


@pytest.mark.parametrize("case", ["cloud fabrikam", "cloud fabrikam with a proxy"])
def test_who_has_a_certificate_of_its_own_making_gets_no_byte_of_a_request(told: Told, case: str) -> None:
    line = told[case, "private"]
    assert line["code"] == 7
    assert "certificate" in line["stderr"]
    assert "tcp 203.0.113.7 port 443" in line["packets"]  # it was connected to, and shown nothing
    assert not any("fabrikam" in request for every in told.values() for request in every.get("requests", ()))


@pytest.mark.parametrize("tier", NEAR_TIERS)
@pytest.mark.parametrize("resource", ["contoso", "fabrikam"])
def test_without_https_a_private_cloud_is_not_even_looked_up(told: Told, resource: str, tier: str) -> None:
    line = told[f"cloud {resource} without https", tier]
    assert (line["code"], line["packets"], refused(line)) == (6, [], {"cloud"})


@pytest.mark.parametrize("case", ["cloud contoso", "cloud fabrikam", "cloud contoso with a proxy"])
def test_sovereign_reaches_no_cloud(told: Told, case: str) -> None:
    line = told[case, "sovereign"]
    assert (line["code"], line["packets"], refused(line)) == (6, [], {"cloud"})


def test_a_password_of_netrc_and_a_key_go_to_nobody_they_are_not_for(told: Told) -> None:
    for (case, _), line in told.items():
        for request in line.get("requests", ()):
            assert f"{SECRET}-NETRC" not in request
            assert SECRET not in request or "contoso" in case


# A machine with nothing but the loopback


def test_a_local_backend_needs_no_network_at_all(tmp_path: Path) -> None:
    need_namespaces()
    script = (
        "import subprocess, sys\n"
        "from tests.real.support_inside import answering, healthy, server, table\n"
        "from tests.real import support_inside as inside\n"
        "from pathlib import Path\n"
        "inside.run('link set lo up')\n"
        "class Nobody:\n"
        "    def seen(self): return {}\n"
        "commands = inside.Commands(Path(sys.argv[1]), Nobody())\n"
        "home = table('home', server(healthy(answering)).base_url)\n"
        "for tier in ('sovereign', 'private', 'standard'):\n"
        "    commands.chat('no network', tier, '[router]\\nlocal_backend = \"home\"\\n' + home + inside.REMOTES)\n"
        "import os; os._exit(0)\n"
    )
    (tmp_path / "ca.pem").touch()
    done = subprocess.run(
        [*NETWORK, sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for line in map(json.loads, done.stdout.splitlines()):
        assert (line["code"], line["stdout"]) == (0, "from home\n")
