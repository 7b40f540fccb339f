"""What is behind the address of each backend: whose server, whether it is well, how deep its queue is.

Several kinds share port 8080, so a server is asked who it is before it is taken for anything; the questions are in the
profiles. All backends are asked at the same time, and each question once for an address, however many backends are
said to be there. A key is sent to the address it was configured for, and only when the server is not known to be
another one's. The privacy gate stands before every connection; a backend that it refuses has that for its error.

Raises `AuditError` when the log cannot be written (see `audit`); all else becomes part of the result.
"""

import asyncio
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from batuta_cli.errors import PrivacyError, UsageError
from batuta_cli.serve.backends import Backend, ServingBackend
from batuta_cli.serve.backends.profile import Profile, ServerIdentity
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.privacy.gate import NO_NETWORKS, Networks
from batuta_cli.serve.providers.connect import GatedSession
from batuta_cli.serve.tiers import PrivacyTier

_LONGEST_BODY = 4 * 1024 * 1024  # bytes; the metrics of a busy vLLM are a tenth of it
_VALUE = r"(?:\{[^}\n]*\})?[ \t]+([-+0-9.eE]+|NaN)"  # https://prometheus.io/docs/instrumenting/exposition_formats/


@dataclass(frozen=True)
class ProbeResult:
    """What was seen of one backend."""

    backend: Backend
    base_url: str = ""
    """The address that answered, or the last that was tried."""
    reachable: bool | None = None
    """Whether a server answered; None when none was asked."""
    identified_as: ServingBackend | None = None
    """Whose server answered, when it shows."""
    healthy: bool = False
    """It is this backend's, and takes requests."""
    loading: bool = False
    """It is still loading its model."""
    queue_depth: int | None = None
    """Requests running and waiting; None when it does not tell."""
    slots: int | None = None
    """Requests it can run at once."""
    models: tuple[str, ...] = ()
    remote_models: tuple[str, ...] = ()
    """Models that the server itself sends elsewhere."""
    tells_remote: bool = True
    """False when a server that may do so was asked which, and did not say."""
    context_length: int | None = None
    """Tokens a request may have."""
    error: str | None = None
    """Why it is not healthy."""
    latency_ms: float | None = None
    """Until its state was known."""


@dataclass(frozen=True)
class _Answer:
    """What came back for one question; `error` in place of a status when nothing did. Header names in lower case."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: str | None = None
    refused: bool = False
    """The gate did not let the question out."""
    latency_ms: float = 0.0

    @property
    def json(self) -> Any:
        """The body of a successful answer as JSON, None when it is none."""
        if self.status != 200:
            return None
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


def probe(
    backends: Sequence[Backend],
    tier: PrivacyTier,
    *,
    networks: Networks = NO_NETWORKS,
    audit: AuditLog | None = None,
    timeout: float = 1.0,
    proxy: str = "",
    environ: Mapping[str, str] | None = None,
) -> list[ProbeResult]:
    """Ask all backends, in their order; for programs without a loop of their own. See `probe_all`."""

    async def ask() -> list[ProbeResult]:
        async with GatedSession(tier, audit or AuditLog(), networks, proxy=proxy) as session:
            return await probe_all(session, backends, timeout=timeout, environ=environ)

    return asyncio.run(ask())


async def probe_all(
    session: GatedSession,
    backends: Sequence[Backend],
    *,
    timeout: float = 1.0,
    environ: Mapping[str, str] | None = None,
) -> list[ProbeResult]:
    """Ask all backends at once; `timeout` is in seconds, for each question.

    Raises `AuditError`.
    """
    prober = _Prober(session, timeout, environ)
    found = await asyncio.gather(*(prober.backend(each) for each in backends), return_exceptions=True)
    results = []
    for each in found:
        if isinstance(each, BaseException):
            raise each
        results.append(each)
    return results


class _Prober:
    def __init__(self, session: GatedSession, timeout: float, environ: Mapping[str, str] | None) -> None:
        self._session = session
        self._timeout = timeout
        self._environ = environ
        self._asked: dict[tuple[str, frozenset[tuple[str, str]]], asyncio.Task[_Answer]] = {}

    async def backend(self, backend: Backend) -> ProbeResult:
        if backend.missing:
            return ProbeResult(backend, error=f"{' and '.join(backend.missing)} must be set to say where it is")
        if not backend.profile.health:
            return ProbeResult(backend, backend.base_urls[0], error="it has no address that tells its state")
        if not backend.profile.is_local:
            lacking = backend.api_key_env and not backend.api_key(self._environ)
            if lacking:
                return ProbeResult(backend, backend.base_urls[0], error=f"{backend.api_key_env} is not set")
        tried: list[ProbeResult] = []
        for base_url in backend.base_urls:
            tried.append(await self._at(backend, base_url))
            if tried[-1].healthy:
                break
        return max(tried, key=lambda found: (found.healthy, found.loading, found.reachable is True))

    async def _at(self, backend: Backend, base_url: str) -> ProbeResult:
        profile = backend.profile
        headers = backend.auth_headers(self._environ)
        # A server on a shared port is asked who it is before it is shown a key.
        health = await self._get(backend, base_url, profile.health, headers if not profile.identity else {})
        found = ProbeResult(backend, base_url, latency_ms=health.latency_ms)
        if not health.status:
            return replace(found, error=health.error, reachable=None if health.refused else False, latency_ms=None)
        found = replace(found, reachable=True)
        if profile.identity:
            found = replace(found, identified_as=await self._identify(backend, base_url))
            if complaint := _complaint(backend, found.identified_as):
                return replace(found, error=complaint)
            if health.status in (401, 403):
                health = await self._get(backend, base_url, profile.health, headers)
        else:
            found = replace(found, identified_as=backend.kind)
        if health.status == 503:
            return replace(found, loading=True, error="it is loading its model")
        if health.status != 200:
            return replace(found, error=_status(health.status, backend))
        return await self._details(found, headers)

    async def _identify(self, backend: Backend, base_url: str) -> ServingBackend | None:
        others = [kind for kind in ServingBackend if kind is not backend.kind]
        for kind in (backend.kind, *others):
            for identity in kind.profile.identity:
                if _shows(identity, await self._get(backend, base_url, identity.path, {})):
                    return kind
        return None

    async def _details(self, found: ProbeResult, headers: Mapping[str, str]) -> ProbeResult:
        profile = found.backend.profile
        load, describe, remote = profile.load, profile.describe, profile.remote_models

        async def ask(path: str) -> _Answer:
            return await self._get(found.backend, found.base_url, path, headers) if path else _Answer()

        models, metrics, slots, described, listed = await asyncio.gather(
            ask(profile.models),
            ask(load.metrics),
            ask(load.slots),
            ask(describe.path if describe else ""),
            ask(remote.path),
        )
        if remote.path and listed.status != 404 and not isinstance(listed.json, dict):  # 404: an older server
            return replace(found, error="it does not tell which of its models it sends elsewhere")
        names = _names(_entries(models.json, "data"), "id")
        depth = _gauges(metrics, load.gauges)
        facts = described.json
        return replace(
            found,
            healthy=True,
            models=names,
            remote_models=_remote(profile, names, listed.json),
            tells_remote=not remote.path or isinstance(listed.json, dict),
            queue_depth=_busy(slots.json) if depth is None else depth,
            slots=_number(facts, describe.slots) if describe else None,
            context_length=_number(facts, describe.context_length) if describe else None,
        )

    async def _get(self, backend: Backend, base_url: str, path: str, headers: Mapping[str, str]) -> _Answer:
        url = _url(base_url, path)
        key = (url, frozenset(headers.items()))
        if key not in self._asked:
            self._asked[key] = asyncio.create_task(self._ask(backend, url, headers))
        return await self._asked[key]

    async def _ask(self, backend: Backend, url: str, headers: Mapping[str, str]) -> _Answer:
        began = time.monotonic()
        timeout = aiohttp.ClientTimeout(total=self._timeout)
        try:
            async with self._session.request(
                "GET", url, backend=backend.name, request_id="probe", headers=headers, timeout=timeout
            ) as got:
                body = await got.content.read(_LONGEST_BODY)
                while len(body) < _LONGEST_BODY and (more := await got.content.read(_LONGEST_BODY - len(body))):
                    body += more
                elapsed = (time.monotonic() - began) * 1000
                names = {name.lower(): value for name, value in got.headers.items()}
                return _Answer(got.status, names, body, latency_ms=elapsed)
        except (PrivacyError, UsageError) as error:
            return _Answer(error=error.message, refused=True)
        except TimeoutError:
            return _Answer(error=f"no answer within {self._timeout:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return _Answer(error=_failure(error))


def _url(base_url: str, path: str) -> str:
    """A path of a profile at an address; one that begins with a slash counts from the root of the server.

    The root is the base URL without its `/v1`, because a server may live below a path of a proxy's.
    """
    return base_url.removesuffix("/v1") + path if path.startswith("/") else f"{base_url}/{path}"


def _shows(identity: ServerIdentity, answer: _Answer) -> bool:
    """Whether an answer shows the identity."""
    if identity.header:
        return answer.headers.get(identity.header.lower(), "").startswith(identity.begins)
    if identity.begins:
        return answer.status == 200 and answer.body.startswith(identity.begins.encode())
    document = answer.json
    if not isinstance(document, dict):
        return False
    if identity.owned_by:
        return any(entry.get("owned_by") == identity.owned_by for entry in _entries(document, "data"))
    return all(key in document for key in identity.has)


def _complaint(backend: Backend, shown: ServingBackend | None) -> str | None:
    """What speaks against taking a server for this backend's."""
    if shown is backend.kind:
        return None
    if shown is None:
        # Where the user says it is, it may stand behind something that hides it; elsewhere it is somebody else's.
        return None if backend.configured else f"a server answers there that is not {backend.profile.title}"
    if backend.configured and shown.value in backend.profile.embeds:
        return None
    return f"{shown.profile.title} answers there, not {backend.profile.title}"


def _status(status: int, backend: Backend) -> str:
    if 300 <= status < 400:
        return "it sends requests on to another place, which is never followed"
    if status in (401, 403):
        name = backend.api_key_env
        return f"it does not take the key in {name}" if name else "it wants a key: name its variable in api_key_env"
    return f"it answers with HTTP status {status}"


def _failure(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate cannot be verified"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its host name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return os.strerror(number).lower() if number else "it cannot be connected to"
    return "it does not speak HTTP" if isinstance(error, aiohttp.ClientResponseError) else "the connection broke off"


def _entries(document: object, name: str) -> list[dict[str, Any]]:
    found = document.get(name) if isinstance(document, dict) else None
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _names(entries: Sequence[dict[str, Any]], key: str) -> tuple[str, ...]:
    return tuple(entry[key] for entry in entries if isinstance(entry.get(key), str))


def _remote(profile: Profile, names: Sequence[str], listed: object) -> tuple[str, ...]:
    """The models that the server sends elsewhere, by any of the signs in the profile."""
    signs = profile.remote_models
    found = [name for name in names if signs.suffixes and name.endswith(signs.suffixes)]
    for entry in _entries(listed, signs.entries):
        name = entry.get(signs.name)
        told = any(entry.get(key) for key in signs.fields)
        told |= any(entry.get(key) == value for key, value in signs.values.items())
        told |= isinstance(name, str) and bool(signs.suffixes) and name.endswith(signs.suffixes)
        if told and isinstance(name, str):
            found.append(name)
    return tuple(dict.fromkeys(found))


def _gauges(answer: _Answer, names: Sequence[str]) -> int | None:
    """The sum of gauges in Prometheus text, over all their labels; None when it has none of them."""
    if answer.status != 200 or not names:
        return None
    pattern = rf"^(?:{'|'.join(map(re.escape, names))}){_VALUE}"
    values = re.findall(pattern, answer.body.decode(errors="replace"), re.MULTILINE)
    if not values:
        return None
    return sum(_whole(value) for value in values)


def _whole(text: str) -> int:
    try:
        return max(0, int(float(text)))
    except (ValueError, OverflowError):  # NaN, infinity
        return 0


def _busy(slots: object) -> int | None:
    if not isinstance(slots, list):
        return None
    return sum(1 for slot in slots if isinstance(slot, dict) and slot.get("is_processing") is True)


def _number(document: object, path: str) -> int | None:
    """The whole number above zero that a dotted name leads to. A number in the name is an index of a list."""
    for name in path.split("."):
        if isinstance(document, list) and name.isdigit():
            document = document[int(name)] if int(name) < len(document) else None
        else:
            document = document.get(name) if isinstance(document, dict) else None
    return document if type(document) is int and document > 0 else None
