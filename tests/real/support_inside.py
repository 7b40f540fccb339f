"""The machine at home, for `test_egress.py`: `python -m tests.real.support_inside DIRECTORY`, in namespaces of its own.

It has one way out, a link to `support_outside.py` with a default route over it, and local model servers on its
loopback. Runs `batuta` and the Python pipeline in all the ways that might lead out, and prints a line of JSON for
each: what it came to, what was said, and every packet that came out at the other end of the link.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.real.support_outside import PUBLIC
from tests.serve.support_backend import FaultServer, Script, chat_stream, chunk, response, stream_head

MODEL = "test-model"
BATUTA = str(Path(sys.executable).with_name("batuta"))
PROXY = "http://198.51.100.254:8000"
SECRET = "KEY-0123456789"


class Outside:
    """The other end of the link."""

    def __init__(self, directory: Path) -> None:
        run("link add v0 type veth peer name v1")
        command = [sys.executable, "-m", "tests.real.support_outside", "v1", str(directory)]
        waiting = ["unshare", "--net", "sh", "-c", 'read _; exec "$@"', "sh"]  # until the link is there
        self._child = subprocess.Popen([*waiting, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._number = 0
        while os.readlink("/proc/self/ns/net") == os.readlink(f"/proc/{self._child.pid}/ns/net"):
            pass
        run(f"link set v1 netns {self._child.pid}")
        for command_line in (
            "link set lo up",
            "address add 198.51.100.1/24 dev v0",
            "-6 address add 2001:db8::1/64 dev v0 nodad",
            "link set v0 up",
            "neighbour add 198.51.100.254 lladdr 02:00:00:00:00:fe dev v0",
            "-6 neighbour add 2001:db8::fe lladdr 02:00:00:00:00:fe dev v0",
            "route add default via 198.51.100.254",
            "-6 route add default via 2001:db8::fe",
        ):
            run(command_line)
        self._say("go")
        assert self._hear() == "ready"
        self._marker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.seen()

    def seen(self) -> dict[str, list[str]]:
        """What came out since it was asked last."""
        self._number += 1
        self._marker.sendto(f"m{self._number}".encode(), (PUBLIC, 9))
        self._say(f"m{self._number}")
        found: dict[str, list[str]] = json.loads(self._hear())
        return found

    def _say(self, line: str) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(f"{line}\n")
        self._child.stdin.flush()

    def _hear(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline().strip()


def run(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


Route = Callable[[str, Any], Script]


def server(route: Route) -> FaultServer:
    made = FaultServer(lambda path, headers, body: route(path, body))
    made.__enter__()
    return made


def healthy(chat: Route) -> Route:
    """A vLLM; `chat` is how it answers requests."""

    def route(path: str, body: Any) -> Script:
        if body is not None:
            return chat(path, body)
        listed = {"data": [{"id": MODEL, "owned_by": "vllm"}]}
        return [response(json.dumps(listed).encode() if path == "/v1/models" else b"", status="200 OK")]

    return route


def answering(path: str, body: Any) -> Script:
    return [stream_head(), chat_stream(["from home"])]


def dying(path: str, body: Any) -> Script:
    return [stream_head(), chunk("from home")]


def redirecting(status: int) -> Route:
    def route(path: str, body: Any) -> Script:
        return [response(b"", "text/plain", f"{status} Moved", f"Location: http://{PUBLIC}:8000{path}")]

    return route


def ollama(path: str, body: Any) -> Script:
    if body is not None:
        return answering(path, body)
    names = ["near", "big:cloud", "alias"]
    tags = [{"name": "near"}, {"name": "alias", "remote_host": "https://ollama.com:443", "remote_model": "big"}]
    found = {
        "/": b"Ollama is running",
        "/api/version": b'{"version": "0.13.0"}',
        "/v1/models": json.dumps({"data": [{"id": name} for name in names]}).encode(),
        "/api/tags": json.dumps({"models": tags}).encode(),
    }
    return [response(found[path])] if path in found else [response(b"", status="404 Not Found")]


def table(name: str, url: str, profile: str = "vllm", models: tuple[str, ...] = (MODEL,)) -> str:
    return f'[backends.{name}]\nprofile = "{profile}"\nbase_url = {json.dumps(url)}\nmodels = {json.dumps(models)}\n'


def priced(*models: str) -> str:
    lines = "context_window = 100000\noutput_reserve = 64\ninput_usd_per_million = 1\noutput_usd_per_million = 1\n"
    return "".join(f'[models."{model}"]\n{lines}' for model in models)


REMOTES = "[backends.openai]\n[backends.groq]\n" + table("box", f"http://{PUBLIC}:8000/v1")


class Commands:
    """Runs the installed command, each time with a home of its own."""

    def __init__(self, directory: Path, outside: Outside) -> None:
        self._directory = directory
        self._outside = outside
        self._number = 0

    def tell(self, case: str, tier: str, config: str, *arguments: str, env: dict[str, str] | None = None) -> None:
        self._number += 1
        home = self._directory / f"home{self._number}"
        (home / "config" / "batuta").mkdir(parents=True)
        (home / "config" / "batuta" / "config.toml").write_text(config + priced(MODEL, "near", "big:cloud", "alias"))
        (home / ".netrc").write_text(f"default login someone password {SECRET}-NETRC\n")
        own = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(home)}
        own |= {"XDG_CONFIG_HOME": str(home / "config"), "XDG_STATE_HOME": str(home / "state")}
        own |= {"OPENAI_API_KEY": SECRET, "GROQ_API_KEY": SECRET, "SSL_CERT_FILE": str(self._directory / "ca.pem")}
        own |= env or {}
        done = subprocess.run(
            [BATUTA, "serve", *arguments, "--privacy", tier],
            capture_output=True,
            text=True,
            env=own,
            timeout=60,
            input="",
        )
        verified = subprocess.run([BATUTA, "serve", "audit", "verify"], capture_output=True, text=True, env=own)
        print(
            json.dumps(
                {"case": case, "tier": tier, "code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
                | {"decisions": list(decisions(home / "state")), "verified": verified.returncode}
                | self._outside.seen()
            ),
            flush=True,
        )

    def chat(self, case: str, tier: str, config: str, *more: str, **env: str) -> None:
        self.tell(case, tier, config, "chat", "Say it.", "--model", MODEL, *more, env=env)


def decisions(directory: Path) -> Iterator[list[str]]:
    for file in sorted(directory.rglob("*.jsonl")):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            yield [record["decision"], record["backend"], record["address"], record["tier"]]


ODD = [
    f"http://{PUBLIC}:8000",
    "http://llm.example:8000",
    "http://LLM.Example:8000",
    "http://llm.example.:8000",
    "http://localhost.evil.example:8000",
    "http://evil.localhost:8000",
    "http://127.0.0.1.evil.example:8000",
    "http://2130706433:8000",
    "http://0x7f000001:8000",
    "http://0177.0.0.1:8000",
    "http://127.1:8000",
    "http://3405803783:8000",
    "http://0xcb007107:8000",
    "http://0313.0.0161.07:8000",
    "http://203.28935:8000",
    "http://0.0.0.0:8000",
    "http://0:8000",
    "http://169.254.169.254",
    "http://10.0.0.1:8000",
    "http://192.168.1.1:8000",
    "http://100.64.0.1:8000",
    "http://224.0.0.1:8000",
    "http://255.255.255.255:8000",
    f"http://[::ffff:{PUBLIC}]:8000",
    "http://[::ffff:cb00:7107]:8000",
    "http://[fe80::1%25v0]:8000",
    "http://[fe80::1]:8000",
    "http://[::]:8000",
    "http://[::127.0.0.1]:8000",
    "http://[fc00::1]:8000",
    "http://[2001:db8:1::1]:8000",
    "http://[64:ff9b::cb00:7107]:8000",
    "http://[64:ff9b::7f00:1]:8000",
    "http://[64:ff9b:1::7f00:1]:8000",
    "http://[2002:cb00:7107::1]:8000",
    "http://[2002:7f00:1::1]:8000",
    "http://[2001:0:cb00:7107::1]:8000",
    "http://[ff02::1]:8000",
    "https://llm.example",
    "https://api.openai.com",
    "https://contoso.openai.azure.com.evil.example",
    "https://evil.example/contoso.openai.azure.com",
    "http://contoso.openai.azure.com",
    f"http://127.0.0.1@{PUBLIC}:8000",
    f"http://127.0.0.1:80@{PUBLIC}:8000",
    f"http://{PUBLIC}:8000\\@127.0.0.1",
    f"http://127.0.0.1\\@{PUBLIC}:8000",
    f"http://{PUBLIC}:8000#@127.0.0.1",
    f"http://{PUBLIC}:8000?@127.0.0.1",
]
"""Addresses that are none of the loopback's, or are not to be taken for such."""

LEAVING = [*ODD[:6], "http://0xcb007107:8000", "http://169.254.169.254", "http://10.0.0.1:8000"]
LEAVING += [f"http://[::ffff:{PUBLIC}]:8000", "http://[64:ff9b::cb00:7107]:8000", "http://[2002:7f00:1::1]:8000"]
"""Those that a standard request is sent to, to show that it could get there."""

NEAR = ["http://127.0.0.1", "http://localhost", "http://LOCALHOST", "http://localhost.", "http://[::ffff:127.0.0.1]"]


def python_cases(directory: Path, outside: Outside, home: str) -> None:
    """The pipeline in this process: as it is, and with the plan's judgement left out, so that the gate stands alone."""
    from aiohttp import ClientError, ClientTimeout

    from batuta_cli import config as configuration
    from batuta_cli.config import BackendSection as Table
    from batuta_cli.config import Config, ModelSection
    from batuta_cli.errors import BatutaError
    from batuta_cli.serve.messages import ChatMessage
    from batuta_cli.serve.pipeline.pipeline import Pipeline
    from batuta_cli.serve.pipeline.request import ChatRequest
    from batuta_cli.serve.privacy.audit import AuditLog, verify_log
    from batuta_cli.serve.tiers import PrivacyTier

    log = directory / "log"
    log.mkdir()

    async def ask(url: str, tier: PrivacyTier, networks: dict[str, Any]) -> dict[str, str]:
        tables = {
            "box": Table(profile="vllm", base_url=f"{url}/v1", models=(MODEL,)),
            "home": Table(profile="vllm", base_url=home, models=(MODEL,)),
        }
        price = 1
        models = {MODEL: ModelSection(100_000, 64, input_usd_per_million=price, output_usd_per_million=price)}  # type: ignore[arg-type]
        privacy = configuration.Privacy(tier=str(tier), **networks)  # type: ignore[arg-type]
        config = Config(backends=tables, models=models, privacy=privacy)
        request = ChatRequest(
            model=MODEL, messages=[ChatMessage.user("Say it.")], privacy=tier, max_tokens=20, stream=True
        )
        found: dict[str, str] = {}
        async with Pipeline(config, audit=AuditLog(log)) as made:
            await made.monitor.refresh(tier=tier)
            for name, asked in (("any", request), ("box", ChatRequest(**(vars(request) | {"backend": "box"})))):
                try:
                    answer = await made.start(asked)
                    found[name] = "".join([piece.text async for piece in answer])
                except BatutaError as error:
                    found[name] = error.kind
            session = made.monitor.session(tier)
            try:
                timeout = ClientTimeout(total=5)
                body = json.dumps({"messages": [{"role": "user"}]}).encode()
                path = f"{url}/v1/chat/completions"
                async with session.request("POST", path, backend="box", data=body, timeout=timeout) as response:
                    found["gate"] = "from home" if b"from home" in await response.read() else "from outside"
            except BatutaError as error:
                found["gate"] = error.kind
            except (ClientError, TimeoutError):
                found["gate"] = "nobody"
        return found

    def tell(case: str, url: str, tier: str, **networks: Any) -> None:
        for file in log.glob("*"):
            file.unlink()
        found = asyncio.run(ask(url, PrivacyTier.parse(tier), networks))
        verified = 0 if verify_log([log]).ok else 1
        line = {"case": case, "tier": tier, "found": found, "decisions": list(decisions(log)), "verified": verified}
        print(json.dumps(line | outside.seen()), flush=True)

    port = urlsplit(home).port
    for tier in ("sovereign", "private"):
        for url in ODD:
            tell(url, url, tier)
        for url in NEAR:
            tell(url, f"{url}:{port}", tier)
    for url in LEAVING:
        tell(url, url, "standard")

    from ipaddress import ip_network

    local = {"local_networks": (ip_network("10.1.0.0/16"),)}
    real = socket.getaddrinfo
    answers: list[list[str]] = []

    def rebinding(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "rebind.example":
            return real(host, port, *args, **kwargs)
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    socket.getaddrinfo = rebinding
    for tier in ("sovereign", "private"):
        answers[:] = [["127.0.0.1"], [PUBLIC]]
        tell("rebinding", f"http://rebind.example:{port}", tier, **local)
        answers[:] = [[PUBLIC, "127.0.0.1"]]
        tell("mixed answers", f"http://rebind.example:{port}", tier, **local)
    answers[:] = [["127.0.0.1"], [PUBLIC]]
    tell("rebinding", f"http://rebind.example:{port}", "standard", **local)
    socket.getaddrinfo = real


def main(directory: Path) -> None:
    outside = Outside(directory)
    (directory / "resolv.conf").write_text("nameserver 198.51.100.254\noptions timeout:1 attempts:1\n")
    subprocess.run(["mount", "--bind", str(directory / "resolv.conf"), "/etc/resolv.conf"], check=True)
    good, dies, models = server(healthy(answering)), server(healthy(dying)), server(ollama)
    home, mortal = table("home", good.base_url), table("home", dies.base_url)
    python_cases(directory, outside, good.base_url)

    commands = Commands(directory, outside)
    router = '[router]\nlocal_backend = "home"\n'
    variables = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    proxies = dict.fromkeys(variables, PROXY)
    proxies["NETRC"] = str(directory / "home1" / ".netrc")
    for tier in ("standard", "private", "sovereign"):
        commands.chat("remotes beside the local one", tier, router + home + REMOTES)
        commands.chat("remotes alone", tier, REMOTES)
        commands.chat("a local one that dies", tier, router + mortal + REMOTES)
        commands.chat(
            "a local one that does not answer", tier, router + table("home", "http://127.0.0.1:9/v1") + REMOTES
        )
        commands.chat("proxy variables", tier, router + home, **proxies)
        commands.chat("proxy variables, and remotes", tier, REMOTES, **proxies)
        commands.chat("a proxy in the configuration", tier, f'[network]\nproxy = "{PROXY}"\n' + router + home + REMOTES)
        commands.tell("probe", tier, router + home + REMOTES, "backends", "--probe", "--all")
        commands.tell("route", tier, router + home + REMOTES, "route", "--model", MODEL, "--explain")
        commands.tell("route, no local one", tier, REMOTES, "route", "--model", MODEL)
        for status in (301, 302, 307, 308):
            away = server(healthy(redirecting(status)))
            commands.chat(f"redirect {status}", tier, table("home", away.base_url))
        everything = server(redirecting(307))
        commands.chat("redirected probes", tier, table("home", everything.base_url))
        for model in ("near", "big:cloud", "alias"):
            models.requests.clear()
            config = table("ollama", models.base_url, "ollama", models=())
            commands.tell(f"ollama {model}", tier, config, "chat", "Say it.", "--model", model)
            print(json.dumps({"case": f"asked of ollama {model}", "tier": tier, "chats": chats(models)}), flush=True)
    private = '[privacy]\nprivate_networks = ["10.9.0.0/16"]\n'
    for tier in ("private", "sovereign"):
        commands.chat("a private network", tier, private + table("office", "http://10.9.0.5:8000/v1"))
        commands.chat("beside a private network", tier, private + table("office", "http://10.10.0.5:8000/v1"))
        for resource in ("contoso", "fabrikam"):
            cloud = table("cloud", f"https://{resource}.openai.azure.com/openai/v1", "azureopenai")
            for proxied in ("", f'[network]\nproxy = "{PROXY}"\n'):
                commands.chat(
                    f"cloud {resource}{' with a proxy' * bool(proxied)}",
                    tier,
                    proxied + cloud,
                    AZURE_OPENAI_API_KEY=SECRET,
                )
            plain = table("cloud", f"http://{resource}.openai.azure.com/openai/v1", "azureopenai")
            commands.chat(f"cloud {resource} without https", tier, plain, AZURE_OPENAI_API_KEY=SECRET)
    os._exit(0)


def chats(server: FaultServer) -> int:
    return sum(body is not None for _, _, body in server.requests)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
