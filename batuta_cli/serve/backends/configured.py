"""Backends as the configuration has them: `[backends.NAME]` joined with the profile that NAME or `profile` means.

Without any, the local ones at their usual addresses are the set. Raises `ConfigError` for a name that means no
profile and for a variable of the environment that is no address.

A key is read from the environment when it is used, is never kept, and is never meant for a host that its owner did
not name: the profile's own variable counts only where the profile, or its variable for the address, says the server
is; at an address of the configuration's, only the `api_key_env` written beside it.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import SplitResult, urlsplit, urlunsplit

from batuta_cli.config import BackendSection as Table
from batuta_cli.config import Config
from batuta_cli.errors import ConfigError
from batuta_cli.serve.backends.kinds import ServingBackend
from batuta_cli.serve.backends.profile import AddressVariable, Profile

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")  # what may become a part of a host name


@dataclass(frozen=True)
class Backend:
    """A backend that requests may be sent to."""

    name: str
    """As the user calls it."""
    kind: ServingBackend
    base_urls: tuple[str, ...]
    """Tried in this order, without a slash at the end; empty when `missing` says what is needed first."""
    models: tuple[str, ...] = ()
    """Empty: whatever it says it has."""
    api_key_env: str = ""
    env_headers: tuple[tuple[str, str], ...] = ()
    """Headers and the variables that hold their values."""
    missing: tuple[str, ...] = ()
    """Variables of the environment of which one, for each entry, has to be set before it has an address."""
    configured: bool = True
    """False for one that stands in because nothing is configured."""

    @property
    def profile(self) -> Profile:
        """What is known of its kind."""
        return self.kind.profile

    def api_key(self, environ: Mapping[str, str] | None = None) -> str | None:
        """The key that its variable holds now, None when there is none. Raises `ConfigError` when it cannot be one."""
        return _secret(self.api_key_env, os.environ if environ is None else environ)

    def auth_headers(self, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        """The headers that carry its keys, made anew from the environment; for its own `base_urls` only.

        Raises `ConfigError` as `api_key`.
        """
        auth, source = self.profile.auth, os.environ if environ is None else environ
        headers = dict(auth.headers)
        if key := self.api_key(source):
            headers[auth.header] = f"{auth.scheme} {key}" if auth.scheme else key
        return headers | {header: key for header, name in self.env_headers if (key := _secret(name, source))}


def _secret(variable: str, environ: Mapping[str, str]) -> str | None:
    key = environ.get(variable, "").strip() if variable else ""  # $(cat file) may have left a line feed
    if not re.fullmatch(r"[!-~]*", key):
        raise ConfigError(f"{variable}: has characters that no key has")
    return key or None


def configured_backends(config: Config, environ: Mapping[str, str] | None = None) -> tuple[Backend, ...]:
    """The backends of the configuration, in its order; without any, the local ones. Raises `ConfigError`."""
    environ = os.environ if environ is None else environ
    if config.backends:
        return tuple(_configured(name, table, environ) for name, table in config.backends.items())
    return tuple(default_backend(kind, environ) for kind in ServingBackend if kind.is_local)


def default_backend(kind: ServingBackend, environ: Mapping[str, str] | None = None) -> Backend:
    """A backend as it is without a configuration. Raises `ConfigError` for a variable that is no address."""
    return _at_its_place(kind.value, kind, "", (), os.environ if environ is None else environ, configured=False)


def _configured(name: str, table: Table, environ: Mapping[str, str]) -> Backend:
    kind = _kind(name, table.profile)
    if not table.base_url:
        return _at_its_place(name, kind, table.api_key_env, table.models, environ)
    base_url = table.base_url.rstrip("/")
    own = _is_own(base_url, kind.profile)
    return Backend(
        name,
        kind,
        (base_url,),
        table.models,
        table.api_key_env or (kind.profile.auth.env if own else ""),
        tuple(kind.profile.auth.env_headers.items()) if own else (),
    )


def _kind(name: str, profile: str) -> ServingBackend:
    from batuta_cli.errors import UsageError

    try:
        return ServingBackend.parse(profile or name)
    except UsageError as error:
        if profile:
            raise ConfigError(f"backends.{name}.profile: {error.message}", hint=error.hint) from None
        hint = f"name the kind it is: batuta config set backends.{name}.profile LlamaCpp; {error.hint}"
        raise ConfigError(f"backends.{name}: {error.message}", hint=hint) from None


def _is_own(base_url: str, profile: Profile) -> bool:
    """Whether an address of the configuration's is one of the service that the profile's key belongs to."""
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
        missing = tuple(_missing(profile, environ))
        urls = () if missing else tuple(_filled(url, profile, environ) for url in profile.base_urls)
    headers = tuple(profile.auth.env_headers.items())
    return Backend(name, kind, urls, models, api_key_env or profile.auth.env, headers, missing, configured)


def _missing(profile: Profile, environ: Mapping[str, str]) -> Iterator[str]:
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
            raise ConfigError(f"{variable}: must have letters, digits and - only: it becomes a part of an address")
    return url.format_map(values)


def _from_variable(variable: AddressVariable, value: str) -> str:
    """The base URL that a variable such as OLLAMA_HOST means: `host`, `:port`, `host:port`, or a URL."""
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
    # What a server listens on, not where a client finds it.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    if port is None and not whole:
        port = variable.port
    location = (f"[{host}]" if ":" in host else host) + (f":{port}" if port is not None else "")
    path = parts.path.rstrip("/") or variable.path
    return urlunsplit(SplitResult(parts.scheme, location, path, "", ""))
