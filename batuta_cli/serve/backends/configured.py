"""The backends of the configuration: each `[backends.NAME]` combined with the profile called NAME or `profile`.

A table with a `base_url` and neither of them is any server with OpenAI's API (`Generic`). Without a `base_url` too, it
has no address; requests go to the other backends.
Without configured backends, the local kinds at their default addresses are used. Raises `ConfigError` for an unknown
profile, and for an environment variable with an invalid address.

An API key is read from the environment when it is used, is not stored, and is sent only to a host that its owner chose.
The profile's key variable applies at the profile's own address and at the address in the profile's address variable. At
a `base_url` of the configuration only the `api_key_env` of the same table applies.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from urllib.parse import SplitResult, urlsplit, urlunsplit

from batuta_cli.config import BackendSection as Table
from batuta_cli.config import Config
from batuta_cli.errors import ConfigError
from batuta_cli.serve.backends.kinds import ServingBackend
from batuta_cli.serve.backends.profile import AddressVariable, Profile

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")  # a label of a host name


@dataclass(kw_only=True, frozen=True)
class Backend:
    """A backend that requests may be sent to."""

    name: str
    """The user's name for it."""
    kind: ServingBackend
    base_urls: tuple[str, ...]
    """Tried in this order, without a final slash; empty when `missing` is not."""
    models: tuple[str, ...] = ()
    """Empty: the models that the server lists."""
    api_key_env: str = ""
    env_headers: tuple[tuple[str, str], ...] = ()
    """Headers, and the variables that contain their values."""
    missing: tuple[str, ...] = ()
    """Environment variables, or a key of the configuration, that must be set before it has an address."""
    configured: bool = True
    """False for a default backend."""

    @cached_property
    def profile(self) -> Profile:
        """The profile of its kind."""
        return self.kind.profile

    def api_key(self, environ: Mapping[str, str] | None = None) -> str | None:
        """The API key in its variable; None when it is not set. Raises `ConfigError` for an invalid key."""
        return _secret(self.api_key_env, os.environ if environ is None else environ)

    def auth_headers(self, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        """The headers with its API keys, read from the environment; only for its own `base_urls`.

        Raises `ConfigError` for an invalid key.
        """
        auth, source = self.profile.auth, os.environ if environ is None else environ
        headers = dict(auth.headers)
        if key := self.api_key(source):
            headers[auth.header] = f"{auth.scheme} {key}" if auth.scheme else key
        return headers | {header: key for header, name in self.env_headers if (key := _secret(name, source))}

    def auth_headers_with(self, headers: Mapping[str, str]) -> dict[str, str]:
        """`headers`, whose names are in lower case, and the API keys; `headers` replace only fixed headers of the kind.

        Raises `ConfigError` for an invalid key.
        """
        own = self.auth_headers()
        for name in self.profile.auth.headers:
            if name.lower() in headers:  # the client's own version of the API
                own.pop(name, None)
        return {**headers, **own}


def no_address(backend: Backend) -> str:
    """Why a backend with `missing` settings cannot be reached."""
    return f"{' and '.join(backend.missing)} must be set: its address depends on it"


def _secret(variable: str, environ: Mapping[str, str]) -> str | None:
    key = environ.get(variable, "").strip() if variable else ""  # $(cat file) may leave a line feed
    if not re.fullmatch(r"[!-~]*", key):
        raise ConfigError(
            f"{variable}: the API key has an invalid character; allowed are printable ASCII characters without spaces"
        )
    return key or None


def configured_backends(config: Config, environ: Mapping[str, str] | None = None) -> tuple[Backend, ...]:
    """The backends of the configuration, in its order; without any, the local kinds. Raises `ConfigError`."""
    environ = os.environ if environ is None else environ
    if config.backends:
        return tuple(_configured(name, table, environ) for name, table in config.backends.items())
    return tuple(default_backend(kind, environ) for kind in ServingBackend if kind.is_local and kind.has_usual_address)


def default_backend(kind: ServingBackend, environ: Mapping[str, str] | None = None) -> Backend:
    """A backend of this kind without configuration. Raises `ConfigError` for an invalid address in its variable."""
    return _at_its_place(kind.value, kind, "", (), os.environ if environ is None else environ, configured=False)


def _configured(name: str, table: Table, environ: Mapping[str, str]) -> Backend:
    kind = _kind(name, table.profile)
    if not table.base_url:
        return _at_its_place(name, kind, table.api_key_env, table.models, environ)
    base_url = table.base_url.rstrip("/")
    own = _is_own(base_url, kind.profile)
    return Backend(
        name=name,
        kind=kind,
        base_urls=(base_url,),
        models=table.models,
        api_key_env=table.api_key_env or (kind.profile.auth.env if own else ""),
        env_headers=tuple(kind.profile.auth.env_headers.items()) if own else (),
    )


def _kind(name: str, profile: str) -> ServingBackend:
    from batuta_cli.errors import UsageError

    try:
        return ServingBackend.parse(profile or name)
    except UsageError as error:
        if profile:
            raise ConfigError(f"backends.{name}.profile: {error.message}", hint=error.hint) from None
        return ServingBackend.GENERIC


def _is_own(base_url: str, profile: Profile) -> bool:
    """Whether a configured address belongs to the service of the profile's key."""
    parts = urlsplit(base_url)
    hosts = {urlsplit(own).hostname for own in profile.base_urls if "{" not in own}
    known = parts.hostname in hosts or any(fnmatchcase(parts.hostname or "", p) for p in profile.private_hosts)
    return known and parts.scheme == "https" and parts.port in (None, 443)


def _at_its_place(
    name: str,
    kind: ServingBackend,
    api_key_env: str,
    models: tuple[str, ...],
    environ: Mapping[str, str],
    *,
    configured: bool = True,
) -> Backend:
    profile = kind.profile
    variable = profile.address_env
    if variable and environ.get(variable.name):
        urls: tuple[str, ...] = (_from_variable(variable, environ[variable.name]),)
        missing: tuple[str, ...] = ()
    else:
        missing = tuple(_missing(name, profile, environ))
        urls = () if missing else tuple(_filled(url, profile, environ) for url in profile.base_urls)
    headers = tuple(profile.auth.env_headers.items())
    return Backend(
        name=name,
        kind=kind,
        base_urls=urls,
        models=models,
        api_key_env=api_key_env or profile.auth.env,
        env_headers=headers,
        missing=missing,
        configured=configured,
    )


def _missing(name: str, profile: Profile, environ: Mapping[str, str]) -> Iterator[str]:
    if not profile.base_urls and not profile.address_env:
        yield f"backends.{name}.base_url"
    if not profile.base_urls and profile.address_env:
        yield profile.address_env.name
    for variables in profile.placeholders.values():
        if not any(environ.get(v) for v in variables):
            yield variables[0]


def _filled(url: str, profile: Profile, environ: Mapping[str, str]) -> str:
    values = {}
    for placeholder, variables in profile.placeholders.items():
        variable = next(v for v in variables if environ.get(v))
        values[placeholder] = environ[variable]
        if not _LABEL.fullmatch(environ[variable]):
            raise ConfigError(
                f"{variable}: must have only letters, digits and -, because it becomes part of an address"
            )
    return url.format_map(values)


def _from_variable(variable: AddressVariable, value: str) -> str:
    """The base URL in a variable such as OLLAMA_HOST: `host`, `:port`, `host:port`, or a URL."""
    example = f"http://127.0.0.1:{variable.port}" if variable.port else "https://host.example"
    wrong = ConfigError(f"{variable.name}: must be an address such as {example}")
    whole = "://" in value
    if not whole and not variable.port:
        raise wrong
    try:
        parts = urlsplit(value.strip() if whole else f"http://{value.strip()}")
        host, port = parts.hostname or "127.0.0.1", parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or parts.query or parts.fragment:
        raise wrong
    if not re.fullmatch(r"[!-~]+", value.strip()) or (whole and not parts.hostname):
        raise wrong
    # A server listens on these addresses, and a client connects to the loopback.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    if port is None and not whole:
        port = variable.port
    location = (f"[{host}]" if ":" in host else host) + (f":{port}" if port is not None else "")
    path = parts.path.rstrip("/") or variable.path
    return urlunsplit(SplitResult(parts.scheme, location, path, "", ""))
