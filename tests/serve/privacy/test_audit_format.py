"""The lines of an audit log, checked with SHA-256 and JSON alone."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from batuta_cli.serve.privacy.audit import AuditLog, Decision
from batuta_cli.serve.privacy.audit_verification import LogReport, verify_log
from batuta_cli.serve.tiers import PrivacyTier

SOVEREIGN, PRIVATE, STANDARD = PrivacyTier.SOVEREIGN, PrivacyTier.PRIVATE, PrivacyTier.STANDARD


def decision(number: int = 1, tier: PrivacyTier = SOVEREIGN, *, allowed: bool = True, backend: str = "ll") -> Decision:
    return Decision(f"req-{number}", tier, backend, "127.0.0.1:8080", allowed, "the loopback")


def written(directory: Path, count: int = 4) -> Path:
    """The file of a log with some decisions."""
    log = AuditLog(directory)
    for number in range(count):
        log.record(decision(number, allowed=number % 2 == 0))
    log.close()
    (path,) = directory.iterdir()
    return path


def clean(report: LogReport) -> bool:
    """Nothing at all was remarked upon."""
    return report.ok and not any(file.incomplete for file in report.files)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(tmp_path_factory.mktemp("audit") / "log").read_bytes()


def test_the_chain_can_be_checked_with_sha256_alone(data: bytes) -> None:
    previous = "0" * 64
    for number, line in enumerate(data.splitlines(), 1):
        text = re.sub(rb',"hash":"[0-9a-f]{64}"\}$', b"}", line)
        record = json.loads(line)
        assert record["hash"] == hashlib.sha256(text).hexdigest()
        assert (record["sequence"], record["previous"]) == (number, previous)
        previous = record["hash"]


def test_foreign_text_in_a_decision_stays_one_ascii_line(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log")
    for text in ('x","hash":"' + "a" * 64 + '"}\n', "é\u2028\x1b[31m", "\udcff", "y" * 100_000):
        log.record(Decision(text, SOVEREIGN, text, text, False, text))
    (path,) = (tmp_path / "log").iterdir()
    assert path.read_bytes().isascii()
    assert clean(verify_log([path]))
    assert verify_log([path]).records == 4
    assert max(map(len, path.read_bytes().splitlines())) < 16_384
