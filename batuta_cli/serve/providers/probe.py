"""Probes: which server answers at a backend's address, whether it is healthy, and its queue depth.

Several kinds share port 8080, so a server is identified first, by the requests in the profiles. Backends are probed
concurrently, and each URL is requested once, also when several backends share an address. A key is sent only to the
address it is configured for, and not to a server that was identified as another kind's. Every connection passes the
privacy gate; its refusal becomes the backend's error.

Raises `AuditError` when the audit log cannot be written; every other failure is part of the result.
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
from batuta_cli.serve.backends.configured import no_address
from batuta_cli.serve.backends.profile import Profile, ServerIdentity
from batuta_cli.serve.backends.wire_formats import ClientApi, Need
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.privacy.gate import NO_NETWORKS, Networks
from batuta_cli.serve.providers.connect import GatedSession
from batuta_cli.serve.providers.model_details import Details, model_details
from batuta_cli.serve.tiers import PrivacyTier

_LONGEST_BODY = 4 * 1024 * 1024  # bytes; the metrics of a busy vLLM are a tenth of it
_VALUE = r"(?:\{[^}\n]*\})?[ \t]+([-+0-9.eE]+|NaN)"  # https://prometheus.io/docs/instrumenting/exposition_formats/


@dataclass(kw_only=True, frozen=True)
class ProbeResult:
    """The state of one backend."""

    backend: Backend
    base_url: str = ""
    """The address that answered, or the last one tried."""
    reachable: bool | None = None
    """Whether a server answered; None when no request was sent."""
    identified_as: ServingBackend | None = None
    """The kind of the server, when it can be identified."""
    healthy: bool = False
    """The server is of this backend's kind and takes requests."""
    loading: bool = False
    """The server is loading its model."""
    queue_depth: int | None = None
    """Requests running and waiting; None when the server does not report them."""
    slots: int | None = None
    """Requests it can run at once; None when the server does not report it."""
    models: tuple[str, ...] = ()
    remote_models: tuple[str, ...] = ()
    """Models whose requests the server forwards to another server."""
    tells_remote: bool = True
    """False when a server that may forward requests does not list for which models."""
    details: Mapping[str, Details] = field(default_factory=dict)
    """What the server reports about its models, by their names."""
    context_length: int | None = None
    """The context window in tokens that the server reports."""
    lacks: frozenset[Need] = frozenset()
    """Content that the server says its model does not take."""
    error: str | None = None
    """Why the backend is not healthy."""
    may_recover: bool = False
    """It is not healthy, and may become so without its user: there is no connection, or an HTTP status 5xx."""
    latency_ms: float | None = None
    """Milliseconds until the health response."""


GATEWAY_HEADER = "x-batuta-version"
"""A response header of batuta's gateway."""


@dataclass(kw_only=True, frozen=True)
class _ProbeResponse:
    """One HTTP response, or the `error` in its place. Header names are in lower case."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: str | None = None
    refused: bool = False
    """The privacy gate refused the request."""
    latency_ms: float = 0.0

    @property
    def json(self) -> Any:
        """The body as JSON, None when the status is not 200 or the body is not JSON."""
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
    """Probe all backends; for programs without an event loop. See `probe_all`."""

    async def run() -> list[ProbeResult]:
        async with GatedSession(tier, audit or AuditLog(), networks, proxy=proxy) as session:
            return await probe_all(session, backends, timeout=timeout, environ=environ)

    return asyncio.run(run())


async def probe_all(
    session: GatedSession,
    backends: Sequence[Backend],
    *,
    timeout: float = 1.0,
    environ: Mapping[str, str] | None = None,
) -> list[ProbeResult]:
    """Probe all backends concurrently, results in their order; `timeout`: seconds, for each HTTP request.

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
        self._asked: dict[tuple[str, frozenset[tuple[str, str]]], asyncio.Task[_ProbeResponse]] = {}

    async def backend(self, backend: Backend) -> ProbeResult:
        if backend.missing:
            return ProbeResult(backend=backend, error=no_address(backend))
        if not backend.profile.health:
            return ProbeResult(backend=backend, base_url=backend.base_urls[0], error="it has no health URL")
        if not backend.profile.is_local:
            lacking = backend.api_key_env and not backend.api_key(self._environ)
            if lacking:
                return ProbeResult(
                    backend=backend, base_url=backend.base_urls[0], error=f"{backend.api_key_env} is not set"
                )
        tried: list[ProbeResult] = []
        for base_url in backend.base_urls:
            tried.append(await self._at(backend, base_url))
            if tried[-1].healthy:
                break
        return max(tried, key=lambda found: (found.healthy, found.loading, found.reachable is True))

    async def _at(self, backend: Backend, base_url: str) -> ProbeResult:
        profile = backend.profile
        headers = backend.auth_headers(self._environ)
        # A server on a shared port is identified before a key is sent to it.
        health = await self._get(backend, base_url, profile.health, headers if not profile.identity else {})
        found = ProbeResult(backend=backend, base_url=base_url, latency_ms=health.latency_ms)
        if not health.status:
            reachable = None if health.refused else False
            return replace(
                found, error=health.error, reachable=reachable, may_recover=not health.refused, latency_ms=None
            )
        found = replace(found, reachable=True)
        if profile.identity:
            found = replace(found, identified_as=await self._identify(backend, base_url))
            if mismatch := _mismatch(backend, found.identified_as):
                return replace(found, error=mismatch)
            if health.status in (401, 403):
                health = await self._get(backend, base_url, profile.health, headers)
        else:
            found = replace(found, identified_as=backend.kind)
        if health.status == 503:
            return replace(found, loading=True, may_recover=True, error="it is loading its model")
        if health.status != 200:
            return replace(found, error=_status(health.status, backend), may_recover=health.status >= 500)
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

        async def ask(path: str) -> _ProbeResponse:
            return await self._get(found.backend, found.base_url, path, headers) if path else _ProbeResponse()

        models, metrics, slots, described, listed = await asyncio.gather(
            ask(profile.models),
            ask(load.metrics),
            ask(load.slots),
            ask(describe.path if describe else ""),
            ask(remote.path),
        )
        if remote.path and listed.status != 404 and not isinstance(listed.json, dict):  # 404: an older server
            return replace(found, error="it does not list the models whose requests it forwards")
        names = _names(_entries(models.json, "data"), "id")
        depth = _gauges(metrics, load.gauges)
        facts = described.json
        return replace(
            found,
            healthy=True,
            models=names,
            remote_models=_remote(profile, names, listed.json),
            tells_remote=not remote.path or isinstance(listed.json, dict),
            details=model_details(_entries(listed.json, remote.entries))
            if profile.takes(ClientApi.OLLAMA_CHAT)
            else {},
            queue_depth=_busy(slots.json) if depth is None else depth,
            slots=_number(facts, describe.slots) if describe else None,
            context_length=_number(facts, describe.context_length) if describe else None,
            lacks=_lacking(facts, describe.modalities) if describe else frozenset(),
        )

    async def _get(self, backend: Backend, base_url: str, path: str, headers: Mapping[str, str]) -> _ProbeResponse:
        url = _url(base_url, path)
        key = (url, frozenset(headers.items()))
        if key not in self._asked:
            self._asked[key] = asyncio.create_task(self._ask(backend, url, headers))
        return await self._asked[key]

    async def _ask(self, backend: Backend, url: str, headers: Mapping[str, str]) -> _ProbeResponse:
        began = time.monotonic()
        timeout = aiohttp.ClientTimeout(total=self._timeout)
        try:
            async with self._session.request(
                "GET", url, backend=backend.name, request_id="probe", headers=headers, timeout=timeout, repeated=True
            ) as got:
                body = await got.content.read(_LONGEST_BODY)
                while len(body) < _LONGEST_BODY and (more := await got.content.read(_LONGEST_BODY - len(body))):
                    body += more
                elapsed = (time.monotonic() - began) * 1000
                names = {name.lower(): value for name, value in got.headers.items()}
                return _ProbeResponse(status=got.status, headers=names, body=body, latency_ms=elapsed)
        except (PrivacyError, UsageError) as error:
            return _ProbeResponse(error=error.message, refused=True)
        except TimeoutError:
            return _ProbeResponse(error=f"no response within {self._timeout:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return _ProbeResponse(error=_failure(error))


def _url(base_url: str, path: str) -> str:
    """The URL of a profile's path; a path that begins with a slash is relative to the server's root.

    The root is the base URL without `/v1`, because a proxy may serve the backend below a path.
    """
    return base_url.removesuffix("/v1") + path if path.startswith("/") else f"{base_url}/{path}"


def _shows(identity: ServerIdentity, answer: _ProbeResponse) -> bool:
    """Whether a response matches an identity.

    A gateway of batuta greets as Ollama does, for Ollama's clients. It must not take itself for its own backend.
    """
    if GATEWAY_HEADER in answer.headers:
        return False
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


def _mismatch(backend: Backend, shown: ServingBackend | None) -> str | None:
    """The error when an identified server is not this backend's; None when it is, or may be."""
    if shown is backend.kind:
        return None
    if shown is None:
        # A proxy at a configured address may hide the identity. At a default address it is another server.
        return None if backend.configured else f"the server at this address is not {backend.profile.title}"
    if backend.configured and shown.value in backend.profile.embeds:
        return None
    return f"the server at this address is {shown.profile.title}, not {backend.profile.title}"


def _status(status: int, backend: Backend) -> str:
    if 300 <= status < 400:
        return f"it answers with a redirect (HTTP {status}); batuta does not follow redirects"
    if status in (401, 403):
        name = backend.api_key_env
        return (
            f"it rejects the key in {name}"
            if name
            else "it requires a key: set api_key_env to the variable with the key"
        )
    return f"it answers with HTTP {status}"


def _failure(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate cannot be verified"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its host name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return os.strerror(number).lower() if number else "the connection failed"
    return "the response is not HTTP" if isinstance(error, aiohttp.ClientResponseError) else "the connection broke off"


def _entries(document: object, name: str) -> list[dict[str, Any]]:
    found = document.get(name) if isinstance(document, dict) else None
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _names(entries: Sequence[dict[str, Any]], key: str) -> tuple[str, ...]:
    return tuple(entry[key] for entry in entries if isinstance(entry.get(key), str))


def _remote(profile: Profile, names: Sequence[str], listed: object) -> tuple[str, ...]:
    """The models whose requests the server forwards, by the signs in the profile."""
    signs = profile.remote_models
    found = [name for name in names if signs.suffixes and name.endswith(signs.suffixes)]
    for entry in _entries(listed, signs.entries):
        name = entry.get(signs.name)
        forwarded = any(entry.get(key) for key in signs.fields)
        forwarded |= any(entry.get(key) == value for key, value in signs.values.items())
        forwarded |= isinstance(name, str) and bool(signs.suffixes) and name.endswith(signs.suffixes)
        if forwarded and isinstance(name, str):
            found.append(name)
    return tuple(dict.fromkeys(found))


def _gauges(answer: _ProbeResponse, names: Sequence[str]) -> int | None:
    """The sum of gauges in Prometheus text, over all labels; None when there are no such gauges."""
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
    """The positive integer at a dotted path; None when missing or invalid."""
    found = _at(document, path)
    return found if type(found) is int and found > 0 else None


def _lacking(document: object, modalities: Mapping[str, str]) -> frozenset[Need]:
    """The kinds of content of which the server says false."""
    return frozenset(Need(name) for name, path in modalities.items() if _at(document, path) is False)


def _at(document: object, path: str) -> object:
    """The value at a dotted path, in which a number is an index of a list; None when missing."""
    for name in path.split("."):
        if isinstance(document, list) and name.isdigit():
            document = document[int(name)] if int(name) < len(document) else None
        else:
            document = document.get(name) if isinstance(document, dict) else None
    return document
