"""The profiles of the kinds of backends: one file `profiles/<name>.toml` each, and their typed loader.

A profile is data: addresses, authentication, wire format, the server's identity on a shared port, health and load
endpoints, and the continuation of an interrupted text. `profiles/README.md` shows how to add one.

`parse` raises `ConfigError`, which names file and key, for an unknown key, a missing key and a value of another type.
"""

import tomllib
from collections.abc import Callable, Collection
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cache
from importlib import resources
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from batuta_cli.errors import ConfigError
from batuta_cli.files import display
from batuta_cli.serve.backends.wire_formats import OF_SERVERS, ClientApi, Need, WireFormat
from batuta_cli.serve.tiers import PrivacyTier, ThroughputTier

T = TypeVar("T")


@dataclass(frozen=True)
class AddressVariable:
    """An environment variable with the server's address: `host`, `host:port`, or a URL."""

    name: str
    path: str = "/v1"
    """Appended when the address has no path."""
    port: int = 0
    """Used when the address has neither scheme nor port; 0 when it must be a URL."""


@dataclass(kw_only=True, frozen=True)
class Auth:
    """The authentication headers."""

    env: str = ""
    """The environment variable with the API key; empty when the server usually needs none."""
    header: str = "Authorization"
    scheme: str = "Bearer"
    """Precedes the key, with a space; empty for the key alone."""
    headers: dict[str, str] = field(default_factory=dict)
    """Other headers of every request."""
    env_headers: dict[str, str] = field(default_factory=dict)
    """Other headers, and the environment variables with their values."""


@dataclass(kw_only=True, frozen=True)
class ServerIdentity:
    """A test that identifies the server: GET `path`, then every given condition must hold.

    `path` is relative to the root of the server. Conditions on JSON need a response of status 200.
    """

    path: str
    header: str = ""
    """A response header."""
    begins: str = ""
    """The prefix of the header's value; of the body when `header` is empty."""
    has: tuple[str, ...] = ()
    """Keys that the JSON object has."""
    owned_by: str = ""
    """The `owned_by` of an entry of the JSON object's `data`."""


@dataclass(frozen=True)
class LoadSignal:
    """The endpoints that report the queue depth. Paths are relative to the root of the server."""

    metrics: str = ""
    """Prometheus metrics; the sum of `gauges` is the number of running and waiting requests."""
    gauges: tuple[str, ...] = ()
    slots: str = ""
    """A JSON list, in which `is_processing` marks busy slots; read when there are no metrics."""


@dataclass(frozen=True)
class Describe:
    """The endpoint that reports the server's capacity; dotted names are paths in its JSON object."""

    path: str
    slots: str = ""
    context_length: str = ""
    modalities: dict[str, str] = field(default_factory=dict)
    """Content beside text, by the names of `Profile.carries`, and where the server says whether its model takes it."""


@dataclass(frozen=True)
class CountRoutes:
    """The routes by which the server counts a prompt. Paths are relative to the root of the server."""

    tokenize: str
    """POST; returns `tokens` or `count`."""
    render: str = ""
    """POST; returns the `prompt` for messages, which `tokenize` then takes. Empty when `tokenize` takes messages."""


@dataclass(frozen=True)
class NativeCount:
    """The route that counts a request of a client API as it came."""

    api: ClientApi
    path: str
    """POST; relative as `Profile.health`. Returns `input_tokens`."""
    exact: bool = True
    """Whether it is the number that the server reports as usage. Anthropic calls its own count an estimate
    (https://docs.anthropic.com/en/docs/build-with-claude/token-counting)."""


@dataclass(kw_only=True, frozen=True)
class RemoteModels:
    """The signs that the server sends a model's requests to another host; one of them suffices."""

    path: str = ""
    """The path of a JSON object that lists the models, relative to the root of the server."""
    entries: str = "models"
    name: str = "name"
    fields: tuple[str, ...] = ()
    """Fields of an entry that are present and not empty only for a remote model."""
    values: dict[str, str] = field(default_factory=dict)
    """Fields of an entry, with the value that marks a remote model."""
    suffixes: tuple[str, ...] = ()
    """Suffixes of remote models' names."""

    def has(self, model: str, remote: Collection[str]) -> bool:
        """Whether `model` may be one of the models `remote` that the server sends to another host.

        Ollama accepts several names of one model: `mine`, `Mine:latest`, `registry.ollama.ai/library/mine`. So names
        are compared without case, path and digest. This also refuses another owner's model of the same name.
        """
        name = _bare(model)
        return (bool(self.suffixes) and name.endswith(self.suffixes)) or any(name == _bare(other) for other in remote)


class ContinuationMethod(Enum):
    """How a backend continues the text of another backend."""

    FIELDS = "fields"  # a trailing assistant message, and fields in the body
    TRAILING = "trailing"  # a trailing assistant message alone
    COMPLETION = "completion"  # the completions endpoint, with a prompt rendered by batuta
    NONE = "none"


@dataclass(kw_only=True, frozen=True)
class Continuation:
    """Whether and how the backend continues a text exactly."""

    method: ContinuationMethod = ContinuationMethod.NONE
    format: WireFormat = WireFormat.COMPLETIONS
    """The wire format of a rendered prompt, for COMPLETION."""
    body: dict[str, Any] = field(default_factory=dict)
    """Fields to add to the request."""
    models: tuple[str, ...] = ("*",)
    """Shell patterns of the models that can continue a text."""
    trims_space: bool = False
    """The server drops white space at the end of the prefix, so the splice restores it."""
    echoes: bool = False
    """The response may repeat the prefix, which the splice removes."""


@dataclass(kw_only=True, frozen=True, eq=False)
class Profile:
    """The facts about a kind of backend."""

    name: str
    """The value in `ServingBackend`."""
    title: str
    tier: PrivacyTier
    """The strictest privacy tier that allows it at its usual address. The gate judges the actual address."""
    wire: WireFormat
    cost_rank: int
    """0: free. Otherwise its rank among the hosted kinds, the cheapest first: by the list price of Llama 3.3 70B in
    data/prices.json (a router's dearest price); kinds that do not sell it by the token come last."""
    throughput: ThroughputTier
    """Its capacity for concurrent requests."""
    base_urls: tuple[str, ...] = ()
    """The default addresses, tried in this order; `{name}` is replaced from `placeholders`."""
    address_env: AddressVariable | None = None
    """Overrides `base_urls`."""
    output_limit: str = "max_tokens"
    """The field of OpenAI's format that limits the output; OpenAI's newer models refuse `max_tokens`."""
    speaks: tuple[ClientApi, ...] = ()
    """Client APIs that its servers speak beside the one of `wire`. A request in one of them is sent on as it came."""
    provides: tuple[ClientApi, ...] = ()
    """Client APIs whose provider it is: fields that name a user go only there."""
    carries: tuple[Need, ...] = ()
    """Content beside text that its servers take, and hosted tools. Whether a model takes them is not known here."""
    extensions: bool = True
    """Whether it takes what local servers add to OpenAI's API: options such as `top_k`, reasoning of earlier turns."""
    image_tokens: int = 16_384
    """The most tokens of one image. The default is that of Qwen2-VL, the highest of the open models."""
    placeholders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """For each placeholder, environment variables; the first one that is set counts."""
    note: str = ""
    """A note for users who configure it."""
    auth: Auth = field(default_factory=Auth)
    health: str = ""
    """The endpoint that returns 200 when ready and 503 while loading; relative to the base URL, or to the root with a
    leading slash."""
    models: str = ""
    """The endpoint that lists the models; relative as `health`."""
    identity: tuple[ServerIdentity, ...] = ()
    """Tests of which one must succeed; empty for a service that its certificate identifies."""
    embeds: tuple[str, ...] = ()
    """Other kinds whose server this kind may contain. Their identities are accepted too."""
    load: LoadSignal = field(default_factory=LoadSignal)
    describe: Describe | None = None
    count: CountRoutes | None = None
    count_native: NativeCount | None = None
    remote_models: RemoteModels = field(default_factory=RemoteModels)
    continuation: Continuation = field(default_factory=Continuation)
    private_hosts: tuple[str, ...] = ()
    """Host names that count as Private over https with a verified certificate; `*` is a part of one label."""

    def takes(self, api: ClientApi | None) -> bool:
        """Whether its servers take requests in a client API as they are."""
        return api is not None and (api is self.wire.api or api in self.speaks)

    def carried(self, *, native: bool = False) -> frozenset[Need]:
        """What a request to it may have beside text. `native`: a request in a client API that its servers speak."""
        format_has = frozenset(Need) if native else self.wire.carries
        return (format_has - OF_SERVERS) | (format_has & frozenset(self.carries))

    @property
    def is_local(self) -> bool:
        """Whether it usually runs on the user's own machine."""
        return self.tier is PrivacyTier.SOVEREIGN


def _bare(model: str) -> str:
    return model.strip().casefold().rpartition("/")[2].partition("@")[0].removesuffix(":latest")


def parse(text: str, file: str) -> Profile:
    """A profile from TOML. Raises `ConfigError` that names `file` and the key."""
    try:
        document = tomllib.loads(text)
    except ValueError as error:
        raise ConfigError(f"{display(file)}: not TOML: {display(error)}") from None
    return _build(Profile, document, f"{file}: ")


@cache
def load(stem: str) -> Profile:
    """The profile `profiles/<stem>.toml` of this package."""
    path = resources.files("batuta_cli.serve.backends") / "profiles" / f"{stem}.toml"
    return parse(path.read_text(encoding="utf-8"), path.name)


def _build(kind: type[T], table: object, where: str) -> T:
    if not isinstance(table, dict):
        raise ConfigError(f"{display(where.rstrip('.: '))}: must be a table")
    hints = get_type_hints(kind)
    declared = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
    for name in table:
        if name not in declared:
            from batuta_cli.config.kinds import did_you_mean

            raise ConfigError(f"{display(where + name)}: unknown key{did_you_mean(name, declared)}")
    for name, each in declared.items():
        if name not in table and each.default is MISSING and each.default_factory is MISSING:
            raise ConfigError(f"{display(where + name)}: is missing")
    return kind(**{name: _value(hints[name], value, where + name) for name, value in table.items()})


def _value(hint: Any, value: object, where: str) -> Any:
    if isinstance(hint, UnionType):  # X | None: a value in a file is an X
        hint = get_args(hint)[0]
    if is_dataclass(hint):
        return _build(hint, value, where + ".")  # type: ignore[arg-type]
    origin = get_origin(hint)
    for matches, read in _READERS:
        if matches(hint, origin):
            return read(hint, value, where)
    if type(value) is not hint:
        raise ConfigError(f"{display(where)}: must be {_TYPES[hint]}")
    return value


def _tuple(hint: Any, value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{display(where)}: must be a list")
    return tuple(_value(get_args(hint)[0], item, f"{where}[{number}]") for number, item in enumerate(value, 1))


def _dict(hint: Any, value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{display(where)}: must be a table")
    inner = get_args(hint)[1]
    return {key: item if inner is Any else _value(inner, item, f"{where}.{key}") for key, item in value.items()}


def _word(hint: Any, value: object, where: str) -> Any:
    choices = get_args(hint) or [member.value for member in hint]
    if value not in choices:
        raise ConfigError(f"{display(where)}: must be one of {', '.join(choices)}")
    return hint(value) if isinstance(hint, type) else value


_READERS: tuple[tuple[Callable[[Any, Any], bool], Callable[[Any, object, str], Any]], ...] = (
    (lambda hint, origin: origin is tuple, _tuple),
    (lambda hint, origin: origin is dict, _dict),
    (lambda hint, origin: origin is Literal or (isinstance(hint, type) and issubclass(hint, Enum)), _word),
)
_TYPES = {str: "text", int: "a whole number", bool: "true or false"}
