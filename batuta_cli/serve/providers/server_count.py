"""Asks a running server to count the tokens of a request with its own template and tokenizer.

llama.cpp renders the messages (`/apply-template`) and tokenizes the prompt (`/tokenize`):
https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md. vLLM tokenizes the messages at once and also
returns its context window: https://docs.vllm.ai/en/stable/serving/openai_compatible_server.html. The profile of a
backend says which of them it does. The messages are sent only to the address of that backend, through the privacy gate.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Self

import aiohttp

from batuta_cli.errors import NoBackendError, UsageError
from batuta_cli.files import display
from batuta_cli.serve.backends import Backend, ServingBackend
from batuta_cli.serve.backends.profile import CountRoutes
from batuta_cli.serve.messages import ChatMessage
from batuta_cli.serve.privacy.audit import AuditLog
from batuta_cli.serve.privacy.gate import NO_NETWORKS, Networks
from batuta_cli.serve.providers.connect import GatedSession
from batuta_cli.serve.providers.probe import probe_all
from batuta_cli.serve.providers.wire import BackendError, NativeRequest
from batuta_cli.serve.tiers import PrivacyTier
from batuta_cli.serve.tokens.request_fields import MARGINS
from batuta_cli.serve.tokens.tokenizer import TokenCount

PROMPT_FIELDS: Final = (*MARGINS, "tool_choice", "chat_template_kwargs")
"""Fields of a request that a server's template reads beside the messages."""

LARGEST_BODY: Final = 64 * 1024 * 1024
"""Bytes of a response. llama.cpp lists every token, at about 8 bytes each."""


@dataclass(frozen=True)
class ServerCount:
    """The answer of a server."""

    count: TokenCount
    window: int | None = None
    """The context window that the server reported with the count, in tokens."""


async def server_count(
    session: GatedSession,
    backend: Backend,
    base_url: str,
    model: str,
    messages: Sequence[ChatMessage],
    options: Mapping[str, Any],
    *,
    timeout: float,
    request_id: str = "",
) -> ServerCount:
    """The tokens of a request as the server at `base_url` counts them. `timeout` is in seconds, for each call.

    Raises `UsageError` for a backend that cannot count, `BackendError` when the server does not count (it fails, it
    takes longer than `timeout`, or its template refuses the messages), and `PrivacyError` and `AuditError` as the gate.
    """
    about = _count_routes(backend)
    root = base_url.removesuffix("/v1")
    caller = _Caller(session=session, backend=backend, timeout=timeout, request_id=request_id)
    chat = {"messages": [message.to_dict() for message in messages]}
    chat |= {name: options[name] for name in PROMPT_FIELDS if options.get(name)}
    if about.render:
        prompt = (await caller.post(root + about.render, chat)).get("prompt")
        if not isinstance(prompt, str):
            raise BackendError(f"{about.render} returned no prompt")
        # As in its chat completions, which add the BOS token and read control tokens.
        body: dict[str, Any] = {"content": prompt, "add_special": True, "parse_special": True}
    else:
        body = {**chat, "model": model, "add_generation_prompt": True}
    return await _counted(caller, root, body, about.render)


async def server_text_count(
    session: GatedSession,
    backend: Backend,
    base_url: str,
    model: str,
    text: str,
    *,
    timeout: float,
    request_id: str = "",
) -> ServerCount:
    """The tokens of a text to embed, with those that the model adds at its ends. Raises as `server_count`."""
    about = _count_routes(backend)
    caller = _Caller(session=session, backend=backend, timeout=timeout, request_id=request_id)
    body: dict[str, Any] = {"content": text, "add_special": True, "parse_special": True}
    if not about.render:
        body = {"model": model, "prompt": text, "add_special_tokens": True}
    return await _counted(caller, base_url.removesuffix("/v1"), body)


def _count_routes(backend: Backend) -> CountRoutes:
    if backend.profile.count is None:
        raise _cannot_count(backend)
    return backend.profile.count


async def _counted(caller: "_Caller", root: str, body: dict[str, Any], render: str = "") -> ServerCount:
    about = _count_routes(caller.backend)
    answer = await caller.post(root + about.tokenize, body)
    tokens = answer.get("count")
    if tokens is None and isinstance(answer.get("tokens"), list):
        tokens = len(answer["tokens"])
    if type(tokens) is not int or tokens < 0:
        raise BackendError(f"{about.tokenize} returned no number of tokens")
    window = answer.get("max_model_len")
    routes = " and ".join(filter(None, (render, about.tokenize)))
    method = f"counted by {caller.backend.name} at {root} ({routes})"
    return ServerCount(TokenCount(tokens, True, method), window if type(window) is int and window > 0 else None)


async def native_count(
    session: GatedSession,
    backend: Backend,
    base_url: str,
    model: str,
    native: NativeRequest,
    *,
    timeout: float,
    request_id: str,
) -> TokenCount | None:
    """The tokens of a client's request as the server counts it; None when the server has no route for its API.

    Raises as `server_count`.
    """
    about = backend.profile.count_native
    if about is None or about.api is not native.api:
        return None
    withheld = native.withheld(backend.profile)
    body = {name: value for name, value in native.document.items() if name not in withheld} | {"model": model}
    url = f"{base_url}/{about.path}"
    answer = await _Caller(
        session=session, backend=backend, timeout=timeout, request_id=request_id, headers=native.headers
    ).post(url, body)
    tokens = answer.get("input_tokens")
    if type(tokens) is not int or tokens < 0:
        raise BackendError(f"{about.path} returned no number of tokens")
    return TokenCount(tokens, about.exact, f"counted by {backend.name} ({about.path})")


@dataclass(kw_only=True, frozen=True)
class _Caller:
    session: GatedSession
    backend: Backend
    timeout: float
    request_id: str
    headers: Mapping[str, str] = field(default_factory=dict)

    async def post(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON object that the server returns."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        headers |= self.backend.auth_headers_with(self.headers)
        try:
            data = json.dumps(body, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError):
            raise BackendError("the request has a field that JSON cannot encode", retryable=False) from None
        try:
            async with self.session.request(
                "POST",
                url,
                backend=self.backend.name,
                request_id=self.request_id,
                headers=headers,
                data=data,
                timeout=aiohttp.ClientTimeout(total=self.timeout),
            ) as response:
                if response.status != 200:
                    raise BackendError(f"the server answered HTTP {response.status}", status=response.status)
                content = bytearray()
                async for chunk in response.content.iter_any():
                    content += chunk
                    if len(content) > LARGEST_BODY:
                        raise BackendError(f"the response is larger than {LARGEST_BODY:,} bytes")
        except TimeoutError:
            raise BackendError(f"no answer within {self.timeout:g} s") from None
        except (aiohttp.ClientError, OSError):  # its text may quote the request
            raise BackendError("the connection failed") from None
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise BackendError("the response is not a JSON object")
        return document


class ServerCounter:
    """Counts with one running server, for programs without an event loop. A context manager.

        with ServerCounter(backend, PrivacyTier.SOVEREIGN) as server:
            server.window, server.count("smollm2-135m", messages)

    Entering it probes the backend. Raises `NoBackendError` when the server is not ready, `UsageError` when the backend
    cannot count, and `PrivacyError` and `AuditError` as the privacy gate.
    """

    def __init__(
        self,
        backend: Backend,
        tier: PrivacyTier,
        *,
        networks: Networks = NO_NETWORKS,
        audit: AuditLog | None = None,
        proxy: str = "",
        timeout: float = 30.0,
    ) -> None:
        """`timeout` is in seconds, for each call."""
        self.window: int | None = None
        """The context window that the server reports, in tokens."""
        self.base_url = backend.base_urls[0] if backend.base_urls else ""
        self._backend = backend
        self._timeout = timeout
        self._runner = asyncio.Runner()
        self._session = GatedSession(tier, audit or AuditLog(), networks, proxy=proxy)

    def __enter__(self) -> Self:
        try:
            self._runner.run(self._probe())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._session.close())
        self._runner.close()

    def count(
        self, model: str, messages: Sequence[ChatMessage], options: Mapping[str, Any] = MappingProxyType({})
    ) -> TokenCount:
        """The tokens of a request. Raises as `server_count`."""
        return self._runner.run(self._count(model, messages, options)).count

    async def _count(self, model: str, messages: Sequence[ChatMessage], options: Mapping[str, Any]) -> ServerCount:
        return await server_count(
            self._session, self._backend, self.base_url, model, messages, options, timeout=self._timeout
        )

    async def _probe(self) -> None:
        if self._backend.profile.count is None:
            raise _cannot_count(self._backend)
        (result,) = await probe_all(self._session, [self._backend], timeout=2.0)
        if result.healthy:
            self.base_url, self.window = result.base_url, result.context_length
            return
        if result.reachable is None:  # the gate may have refused the address: then this call raises its error
            await self._count("", [], {})
        error = result.error or "it does not answer"
        raise NoBackendError(
            f"{display(self._backend.name)}: {display(error)}",
            hint="batuta serve backends --probe shows the state of each backend",
        )


def _cannot_count(backend: Backend) -> UsageError:
    able = [kind.profile.title for kind in ServingBackend if kind.profile.count is not None]
    message = f"{display(backend.name)}: servers of the kind {backend.profile.title} have no route that counts a prompt"
    return UsageError(message, hint=f"these servers count: {', '.join(able)}")
