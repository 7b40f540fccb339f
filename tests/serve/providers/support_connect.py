"""Requests through the gate of connections, and what the tests put in the place of the network."""

import asyncio
import json
import socket
from asyncio.selector_events import BaseSelectorEventLoop
from typing import Any

import pytest

from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.privacy.gate import Networks
from batuta_cli.serve.providers.connect import GatedSession
from batuta_cli.serve.tiers import PrivacyTier

SOVEREIGN, PRIVATE, STANDARD = PrivacyTier.SOVEREIGN, PrivacyTier.PRIVATE, PrivacyTier.STANDARD


NOWHERE = Networks()


def get(
    tier: PrivacyTier,
    log: AuditLog,
    *urls: str,
    networks: Networks = NOWHERE,
    proxy: str = "",
) -> list[tuple[int, bytes]]:
    """Get each URL in one session."""

    async def ask() -> list[tuple[int, bytes]]:
        answers = []
        async with GatedSession(tier, log, networks, proxy=proxy) as session:
            for url in urls:
                async with session.request("GET", url, backend="box", request_id="r1") as response:
                    answers.append((response.status, await response.read()))
        return answers

    return asyncio.run(ask())


def decisions(log: AuditLog) -> list[dict[str, Any]]:
    files = sorted(log.directory.iterdir()) if log.directory.exists() else []
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def no_connection(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Let no connection be opened; returns where those that were begun would have gone."""
    begun: list[object] = []

    async def sock_connect(self: object, sock: object, address: object) -> None:
        begun.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(BaseSelectorEventLoop, "sock_connect", sock_connect)
    return begun


class Resolver:
    """Stands in for the system's resolver: writes down each question, gives the prepared answers in turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        self.asked.append(host if isinstance(host, str) else host.decode())
        if not self._answers:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return [self._info(address, port) for address in self._answers.pop(0)]

    def _info(self, address: str, port: int) -> Any:
        if ":" in address:
            return socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0)
        return socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)
