"""The known kinds of backends, each with its profile."""

from functools import cache, cached_property

from batuta_cli.serve.backends.profile import Profile, load
from batuta_cli.serve.names import NameEnum, normalised
from batuta_cli.serve.tiers import PrivacyTier


class ServingBackend(NameEnum):
    """A kind of backend; its facts are in `profiles/<name>.toml`."""

    REALIZAR = "Realizar"
    OLLAMA = "Ollama"
    LLAMA_CPP = "LlamaCpp"
    LLAMAFILE = "Llamafile"
    CANDLE = "Candle"
    VLLM = "Vllm"
    TGI = "Tgi"
    LOCAL_AI = "LocalAI"
    GENERIC = "Generic"
    HUGGING_FACE = "HuggingFace"
    TOGETHER = "Together"
    REPLICATE = "Replicate"
    ANYSCALE = "Anyscale"
    MODAL = "Modal"
    FIREWORKS = "Fireworks"
    GROQ = "Groq"
    OPENAI = "OpenAI"
    ANTHROPIC = "Anthropic"
    AZURE_OPENAI = "AzureOpenAI"
    AWS_BEDROCK = "AwsBedrock"
    GOOGLE_VERTEX = "GoogleVertex"

    @classmethod
    def what(cls) -> str:
        return "backend"

    @cached_property
    def profile(self) -> Profile:
        """Its profile."""
        return profile(self)

    @cached_property
    def is_local(self) -> bool:
        """Whether it usually runs on the user's machine."""
        return self.profile.is_local

    @property
    def has_usual_address(self) -> bool:
        """Whether it has an address without a `base_url` in the configuration."""
        return bool(self.profile.base_urls or self.profile.address_env)

    @property
    def tier(self) -> PrivacyTier:
        """The strictest tier that allows it at its usual address. The gate judges the actual address."""
        return self.profile.tier


@cache
def profile(backend: ServingBackend) -> Profile:
    """The profile of a kind of backend."""
    return load(normalised(backend.value))


@cache
def private_hosts() -> tuple[str, ...]:
    """The patterns of host names that count as Private with a verified certificate."""
    return tuple(pattern for backend in ServingBackend for pattern in backend.profile.private_hosts)
