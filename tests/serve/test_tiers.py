"""Tiers: their names in any spelling, and which privacy tier admits which."""

import pytest

from batuta_cli.errors import BatutaError
from batuta_cli.serve import LatencyTier, PrivacyTier
from batuta_cli.serve.tiers import CostTier, ThroughputTier

SOVEREIGN, PRIVATE, STANDARD = PrivacyTier.SOVEREIGN, PrivacyTier.PRIVATE, PrivacyTier.STANDARD


@pytest.mark.parametrize(
    ("tier", "admitted"),
    [(SOVEREIGN, {SOVEREIGN}), (PRIVATE, {SOVEREIGN, PRIVATE}), (STANDARD, {SOVEREIGN, PRIVATE, STANDARD})],
)
def test_a_tier_admits_itself_and_the_stricter_ones(tier: PrivacyTier, admitted: set[PrivacyTier]) -> None:
    assert {other for other in PrivacyTier if tier.admits(other)} == admitted


@pytest.mark.parametrize("text", ["realtime", "RealTime", "real-time", "REAL_TIME"])
def test_names_are_read_in_any_case_and_with_or_without_dashes(text: str) -> None:
    assert LatencyTier.parse(text) is LatencyTier.REAL_TIME


@pytest.mark.parametrize("kind", [PrivacyTier, LatencyTier, ThroughputTier, CostTier])
def test_an_unknown_name_is_told_with_the_ones_that_exist(kind: type[PrivacyTier]) -> None:
    with pytest.raises(BatutaError) as caught:
        kind.parse("secret-ish")
    shown = f"{caught.value.message} {caught.value.hint}"
    assert caught.value.exit_code == 2
    assert all(str(tier) in shown for tier in kind)
