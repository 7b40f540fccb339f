"""What a caller may ask of a backend: how private, how fast, how much at once, how dear."""

from batuta_cli.serve.names import NameEnum


class PrivacyTier(NameEnum):
    """How far a request may go; each tier includes the ones before it.

    SOVEREIGN: this machine, and networks that were declared local. PRIVATE: also networks declared private and the
    private clouds. STANDARD: anywhere.
    """

    SOVEREIGN = "sovereign"
    PRIVATE = "private"
    STANDARD = "standard"

    @property
    def openness(self) -> int:
        """0 for the strictest tier; a tier admits all that are not more open than itself."""
        return _OPENNESS[self]

    def admits(self, other: "PrivacyTier") -> bool:
        """Whether what belongs to the tier `other` may be used under this one."""
        return _OPENNESS[other] <= _OPENNESS[self]


_OPENNESS = {tier: number for number, tier in enumerate(PrivacyTier)}


class LatencyTier(NameEnum):
    """How soon an answer is wanted."""

    REAL_TIME = "realtime"
    INTERACTIVE = "interactive"
    BATCH = "batch"


class ThroughputTier(NameEnum):
    """How many requests at once."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class CostTier(NameEnum):
    """How much an answer may cost beside how good it is."""

    FRUGAL = "frugal"
    BALANCED = "balanced"
    PREMIUM = "premium"
