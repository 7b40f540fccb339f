"""Client programs of the gateway, and the settings that point each at it: variables and options, no file of theirs.

Facts were read from the packages: Claude Code 2.1.197, Codex 0.169, opencode 1.18, aider 0.86, llm 0.36. A client's
telemetry and update checks are switched off, and variables that would lead it elsewhere are cleared. `$URL`, `$MODEL`
and `$KEY` in a setting stand for the address of the gateway, the model and the client key; `$REFERENCE` for the form in
which opencode names a variable (https://opencode.ai/docs/config/#env-vars).

A client key is never part of a setting that is shown: it stays in the variable that the user names.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from batuta_cli.config import Config
from batuta_cli.errors import UsageError
from batuta_cli.serve.backends import ServingBackend
from batuta_cli.serve.names import unknown_name

KEY_VARIABLE = "BATUTA_CLIENT_KEY"
"""The variable with the client key, unless the user names another."""

NO_KEY = "none"
"""Stands for a client key where none is needed: most clients insist on a value."""

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")  # needs no quoting in JSON and TOML strings
_URL = re.compile(r"https?://[A-Za-z0-9.\[\]:_-]+(?:/[A-Za-z0-9._/-]*)?")

_OPENCODE = {
    "share": "disabled",
    "autoupdate": False,
    "enabled_providers": ["batuta"],
    "model": "batuta/$MODEL",
    "small_model": "batuta/$MODEL",
    "provider": {
        "batuta": {
            "npm": "@ai-sdk/openai-compatible",
            "models": {"$MODEL": {}},
            "options": {"baseURL": "$URL/v1", "apiKey": "$REFERENCE"},
        }
    },
}
_LLM_MODELS = [
    {
        "model_id": "$MODEL",
        "model_name": "$MODEL",
        "api_base": "$URL/v1",
        "api_key_name": "openai",  # whose variable is OPENAI_API_KEY
        "supports_tools": True,
        "supports_schema": True,
    }
]


@dataclass(kw_only=True, frozen=True)
class ClientProgram:
    """A program that speaks one of the gateway's APIs."""

    name: str
    """The command that starts it."""
    install: str
    """The command that installs it."""
    variables: Mapping[str, str]
    arguments: tuple[str, ...] = ()
    """Options that precede the user's."""
    key_arguments: tuple[str, ...] = ()
    """Further options when there is a client key; `$NAME` is the name of its variable."""
    cleared: tuple[str, ...] = ()
    """Variables that would lead it to another service, or override these settings."""
    file: tuple[str, str] | None = None
    """A file in a directory that batuta keeps for it: its name and its text. `$DIRECTORY` is the directory."""


def _codex_options(*settings: str) -> tuple[str, ...]:
    return tuple(word for setting in settings for word in ("-c", setting))


_OPENAI_CLEARED = ("OPENAI_API_BASE", "OPENAI_BASE_URL", "OPENAI_ORGANIZATION", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID")

PROGRAMS: tuple[ClientProgram, ...] = (
    ClientProgram(
        name="claude",
        install="npm install -g @anthropic-ai/claude-code",
        variables={
            "ANTHROPIC_BASE_URL": "$URL",
            "ANTHROPIC_AUTH_TOKEN": "$KEY",
            # Without these it asks for models of Anthropic's, in the background and for subagents.
            "ANTHROPIC_MODEL": "$MODEL",
            "ANTHROPIC_DEFAULT_OPUS_MODEL": "$MODEL",
            "ANTHROPIC_DEFAULT_SONNET_MODEL": "$MODEL",
            "ANTHROPIC_DEFAULT_HAIKU_MODEL": "$MODEL",
            "CLAUDE_CODE_SUBAGENT_MODEL": "$MODEL",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_TELEMETRY": "1",
            "DISABLE_ERROR_REPORTING": "1",
            "DISABLE_AUTOUPDATER": "1",
        },
        cleared=(
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_CUSTOM_HEADERS",
            "ANTHROPIC_SMALL_FAST_MODEL",
            "ANTHROPIC_UNIX_SOCKET",
            "CLAUDE_CODE_ENABLE_TELEMETRY",
            "CLAUDE_CODE_OAUTH_TOKEN",
            "CLAUDE_CODE_USE_ANTHROPIC_AWS",
            "CLAUDE_CODE_USE_BEDROCK",
            "CLAUDE_CODE_USE_FOUNDRY",
            "CLAUDE_CODE_USE_GATEWAY",
            "CLAUDE_CODE_USE_MANTLE",
            "CLAUDE_CODE_USE_VERTEX",
        ),
    ),
    ClientProgram(
        name="codex",
        install="npm install -g @openai/codex",
        variables={},
        arguments=_codex_options(
            'model="$MODEL"',
            'model_provider="batuta"',
            'model_providers.batuta.name="batuta"',
            'model_providers.batuta.base_url="$URL/v1"',
            "analytics.enabled=false",
            "features.plugins=false",
            "check_for_update_on_startup=false",
        ),
        key_arguments=_codex_options('model_providers.batuta.env_key="$NAME"'),
        cleared=("CODEX_API_KEY", "CODEX_ACCESS_TOKEN", "OPENAI_API_KEY", *_OPENAI_CLEARED),
    ),
    ClientProgram(
        name="opencode",
        install="npm install -g opencode-ai",
        variables={
            "OPENCODE_CONFIG_CONTENT": json.dumps(_OPENCODE, separators=(",", ":")),
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_SHARE": "1",
        },
        cleared=("OPENCODE_API_KEY", "OPENCODE_AUTH_CONTENT", "OPENCODE_AUTO_SHARE", "OPENCODE_CONSOLE_TOKEN"),
    ),
    ClientProgram(
        name="aider",
        install="pip install aider-chat",
        variables={
            "OPENAI_API_BASE": "$URL/v1",
            "OPENAI_API_KEY": "$KEY",
            "AIDER_MODEL": "openai/$MODEL",
            "AIDER_WEAK_MODEL": "openai/$MODEL",
            "AIDER_EDITOR_MODEL": "openai/$MODEL",
            "AIDER_SHOW_MODEL_WARNINGS": "false",
            "AIDER_ANALYTICS": "false",
            "AIDER_CHECK_UPDATE": "false",
            "AIDER_SHOW_RELEASE_NOTES": "false",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        },
        cleared=("AIDER_API_KEY", "AIDER_OPENAI_API_BASE", "AIDER_OPENAI_API_KEY", *_OPENAI_CLEARED[1:]),
    ),
    ClientProgram(
        name="llm",
        install="pip install llm",
        variables={"LLM_USER_PATH": "$DIRECTORY", "LLM_MODEL": "$MODEL", "OPENAI_API_KEY": "$KEY"},
        cleared=_OPENAI_CLEARED,
        file=("extra-openai-models.yaml", json.dumps(_LLM_MODELS, indent=1) + "\n"),  # JSON is YAML 1.2
    ),
)

_OTHER_PROVIDER_KEYS = (
    "ANTHROPIC_AUTH_TOKEN", "AZURE_API_KEY", "CEREBRAS_API_KEY", "COHERE_API_KEY", "CO_API_KEY", "DEEPSEEK_API_KEY",
    "GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GENERATIVE_AI_API_KEY", "MISTRAL_API_KEY", "MOONSHOT_API_KEY",
    "NVIDIA_API_KEY", "OPENROUTER_API_KEY", "PERPLEXITY_API_KEY", "XAI_API_KEY", "ZAI_API_KEY",
)  # fmt: skip
"""Variables with keys of services that are no backend of their own name here."""


@dataclass(kw_only=True, frozen=True)
class ClientSettings:
    """The settings of one client for one gateway and model."""

    program: ClientProgram
    variables: dict[str, str]
    """Without the client key."""
    key_variables: tuple[str, ...]
    """The variables that get the client key's value."""
    arguments: tuple[str, ...]
    file: tuple[str, str] | None
    key_variable: str = ""
    """The variable that holds the client key; empty without one."""

    @property
    def cleared(self) -> tuple[str, ...]:
        """The variables to clear; never the one with the client key."""
        return tuple(name for name in self.program.cleared if name != self.key_variable)

    def environment(self, environ: Mapping[str, str], stripped: Iterable[str]) -> dict[str, str]:
        """The environment of the client: `environ` with these settings, without the variables `stripped`."""
        left_out = {*stripped, *self.cleared} - {self.key_variable}
        kept = {name: value for name, value in environ.items() if name not in left_out}
        return kept | self.variables | dict.fromkeys(self.key_variables, environ.get(self.key_variable, NO_KEY))


def program_named(name: str) -> ClientProgram:
    """The client called `name`. Raises `UsageError` that suggests the nearest."""
    for program in PROGRAMS:
        if program.name == name:
            return program
    raise unknown_name("client", name, [program.name for program in PROGRAMS])


def settings_for(
    program: ClientProgram, *, url: str, model: str, key_variable: str = "", directory: str = ""
) -> ClientSettings:
    """The settings of a client. Raises `UsageError` for an address or model that they cannot hold.

    `key_variable`: the variable with the client key; empty without one. `directory`: for `program.file`.
    """
    if not _URL.fullmatch(url):
        raise UsageError("the gateway's address must be like http://127.0.0.1:8484")
    if not _MODEL.fullmatch(model):
        raise UsageError("the model's name has a character that the settings of clients cannot hold")
    values = {
        "$URL": url.rstrip("/").removesuffix("/v1"),
        "$MODEL": model,
        "$REFERENCE": f"{{env:{key_variable}}}" if key_variable else NO_KEY,
        "$DIRECTORY": directory,
        "$NAME": key_variable,
    }

    def filled(text: str) -> str:
        for name, value in values.items():
            text = text.replace(name, value)
        return text

    arguments = (*program.arguments, *(program.key_arguments if key_variable else ()))
    keyed = tuple(name for name, value in program.variables.items() if value == "$KEY")
    variables = {name: filled(value) for name, value in program.variables.items() if name not in keyed}
    if not key_variable:
        variables |= dict.fromkeys(keyed, NO_KEY)
    return ClientSettings(
        program=program,
        variables=variables,
        key_variables=keyed if key_variable else (),
        arguments=tuple(map(filled, arguments)),
        file=(program.file[0], filled(program.file[1])) if program.file else None,
        key_variable=key_variable,
    )


def provider_keys(config: Config) -> frozenset[str]:
    """The variables with keys of model services, which a client behind the gateway does not need."""
    return frozenset((*_profile_keys(), *_OTHER_PROVIDER_KEYS, *_configured_keys(config)))


def _profile_keys() -> Iterator[str]:
    for kind in ServingBackend:
        yield kind.profile.auth.env
        yield from kind.profile.auth.env_headers.values()


def _configured_keys(config: Config) -> Iterator[str]:
    return (table.api_key_env for table in config.backends.values() if table.api_key_env)


def gateway_url(config: Config) -> str:
    """The address of the gateway on this machine. Raises `UsageError` when the configuration leaves the port open."""
    host, port = config.gateway.host or "127.0.0.1", config.gateway.port
    if not port:
        raise UsageError("gateway.port is 0, so the gateway's address is not known", hint="add --url URL")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - where a client on this machine connects
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def only_model(config: Config) -> str:
    """The only model in the configuration. Raises `UsageError` when it has no model or several."""
    names = sorted({name for table in config.backends.values() for name in table.models})
    if len(names) == 1:
        return names[0]
    hint = f"add --model NAME: {', '.join(names[:8])}" if names else "add --model NAME"
    raise UsageError("which model the client uses is not known", hint=hint)
