"""The rows of a ledger."""

import datetime as dt

from batuta_cli.serve.budget.ledger.stored_rows import ClientDay


def test_the_sums_of_a_client_change_by_amounts_and_keep_day_and_name() -> None:
    day = dt.date(2026, 11, 26)
    changed = ClientDay(day, "ci", spent=10, forgiven=4, reserved=5).changed(spent=3, forgiven=-2, reserved=-5)
    assert changed == ClientDay(day, "ci", spent=13, forgiven=2, reserved=0)
