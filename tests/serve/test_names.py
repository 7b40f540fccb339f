"""Names are read the way people type them, and a misspelt one is told the nearest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batuta_cli.errors import UsageError
from batuta_cli.files import is_control
from batuta_cli.serve.names import normalised
from batuta_cli.serve.tiers import LatencyTier, PrivacyTier


@pytest.mark.parametrize("name", ["realtime", "RealTime", "real-time", "REAL_TIME", "Real Time", " realtime "])
def test_a_tier_is_read_in_any_case_with_or_without_dashes(name: str) -> None:
    assert LatencyTier.parse(name) is LatencyTier(name) is LatencyTier.REAL_TIME


def test_an_unknown_name_gets_the_nearest_and_the_list() -> None:
    with pytest.raises(UsageError) as caught:
        PrivacyTier.parse("soverain")
    assert caught.value.message == "unknown privacy tier soverain, did you mean sovereign?"
    assert caught.value.hint == "known: sovereign, private, standard"


@given(st.text())
def test_any_other_text_is_an_error_without_control_characters(name: str) -> None:
    if normalised(name) in list(PrivacyTier):
        return
    with pytest.raises(UsageError) as caught:
        PrivacyTier.parse(name)
    assert not any(map(is_control, caught.value.message))


def test_a_tier_admits_itself_and_the_stricter_ones() -> None:
    admitted = {(a, b) for a in PrivacyTier for b in PrivacyTier if a.admits(b)}
    s, p, o = PrivacyTier.SOVEREIGN, PrivacyTier.PRIVATE, PrivacyTier.STANDARD
    assert admitted == {(s, s), (p, s), (p, p), (o, s), (o, p), (o, o)}
