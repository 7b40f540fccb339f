"""The requirements of a request: privacy, latency, throughput and cost."""

from batuta_cli.serve.names import NameEnum


class PrivacyTier(NameEnum):
    """Where a request may be sent. Each tier includes the ones before it.

    SOVEREIGN: this machine and the configured local networks. PRIVATE: also the configured private networks and the
    private clouds. STANDARD: any address.
    """

    SOVEREIGN = "sovereign"
    PRIVATE = "private"
    STANDARD = "standard"

    @property
    def openness(self) -> int:
        """0 for the strictest tier. A tier admits every tier that is not more open than itself."""
        return _OPENNESS[self]

    def admits(self, other: "PrivacyTier") -> bool:
        """Whether a backend of the tier `other` may be used under this tier."""
        return _OPENNESS[other] <= _OPENNESS[self]


_OPENNESS = {tier: number for number, tier in enumerate(PrivacyTier)}


class LatencyTier(NameEnum):
    """How soon the response is needed."""

    REAL_TIME = "realtime"
    INTERACTIVE = "interactive"
    BATCH = "batch"


class ThroughputTier(NameEnum):
    """How many requests run at once."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class CostTier(NameEnum):
    """How price is weighed against quality."""

    FRUGAL = "frugal"
    BALANCED = "balanced"
    PREMIUM = "premium"
