"""Exit codes are a promise to scripts: docs/cli.md lists them, and the classes keep them."""

import inspect
import re
from pathlib import Path

import pytest

from batuta_cli import errors
from batuta_cli.errors import BatutaError, worst

CLASSES = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, BatutaError)]
EXPECTED = {
    "OperationError": 1, "NotFoundError": 1, "DamagedStateError": 1, "LedgerError": 1, "AuditError": 1,
    "UsageError": 2, "InvalidInputError": 2, "OutputExistsError": 2, "UnsafeFileError": 2, "ConfigError": 2,
    "MissingDependencyError": 2, "VerificationError": 3, "DecryptionError": 3, "SignerError": 4,
    "UnknownSignerError": 4, "RevokedSignerError": 4, "ExpiredSignatureError": 4, "WrongSignerError": 4,
    "CostError": 5, "RequestTooExpensive": 5, "DailyBudgetExceeded": 5, "UnknownPriceError": 5, "PrivacyError": 6,
    "NoBackendError": 7, "QueueFullError": 7, "ContextOverflowError": 8,
}  # fmt: skip


@pytest.mark.parametrize(("name", "code"), EXPECTED.items())
def test_a_class_keeps_its_exit_code(name: str, code: int) -> None:
    assert getattr(errors, name).exit_code == code


def test_a_kind_belongs_to_one_class_and_its_subclasses_and_can_be_matched_by_programs() -> None:
    for each in CLASSES:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", each.kind)
        for other in CLASSES:
            related = issubclass(each, other) or issubclass(other, each)
            assert each.kind != other.kind or related, (each, other)


def test_every_exit_code_stands_in_the_manual() -> None:
    manual = (Path(__file__).parent.parent / "docs/cli.md").read_text()
    for code in {each.exit_code for each in CLASSES}:
        assert re.search(rf"^\| {code} \|", manual, re.MULTILINE), code


def test_of_several_errors_the_worst_counts() -> None:
    """In the order of docs/cli.md: 3, 4, 2, 1; others before them, because they end a command."""
    ordered = [
        errors.VerificationError("v"),
        errors.UnknownSignerError("s"),
        errors.UsageError("u"),
        errors.OperationError("o"),
    ]
    for start in range(len(ordered)):
        assert worst(list(reversed(ordered[start:]))) is ordered[start]


def test_message_hint_and_result_are_kept() -> None:
    error = errors.VerificationError("changed", hint="fetch it again", result={"path": "m"})
    assert (str(error), error.message, error.hint, error.result) == (
        "changed",
        "changed",
        "fetch it again",
        {"path": "m"},
    )
