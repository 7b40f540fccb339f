"""The connections that an audit log recorded: of one tier, since a time, and which of them left the machine."""

import datetime as dt
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batuta_cli.files import errors_named, open_regular
from batuta_cli.serve.privacy.audit_format import lines_of, read_record
from batuta_cli.serve.privacy.audit_verification import files_of_log
from batuta_cli.serve.privacy.gate import UNIX, read_address
from batuta_cli.serve.tiers import PrivacyTier


@dataclass(frozen=True, kw_only=True)
class LoggedConnection:
    """A connection that the gate allowed or refused."""

    time: dt.datetime
    request_id: str
    tier: PrivacyTier
    backend: str
    address: str
    allowed: bool
    reason: str

    @property
    def left(self) -> bool:
        """Whether it was allowed, and its address is neither the loopback nor a Unix socket."""
        if not self.allowed or self.address.startswith(UNIX):
            return False
        host = self.address.rpartition(":")[0] or self.address
        parsed = read_address(host.removeprefix("[").removesuffix("]"))
        return parsed is None or not parsed.is_loopback

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "time": self.time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "request": self.request_id,
            "tier": str(self.tier),
            "backend": self.backend,
            "address": self.address,
            "allowed": self.allowed,
            "reason": self.reason,
            "left_the_machine": self.left,
        }


def logged_connections(
    where: Sequence[Path] | None = None, *, tier: PrivacyTier, since: dt.datetime | None = None
) -> Iterator[LoggedConnection]:
    """The connections of a tier in a log that was verified before, file by file, in the order of their records.

    Raises as `verify_log`.
    """
    for path in files_of_log(where):
        with os.fdopen(open_regular(path), "rb") as file, errors_named(path):
            for line in lines_of(file):
                record, _, fault = read_record(line)
                if fault or record is None or record.get("tier") != str(tier):
                    continue
                connection = LoggedConnection(
                    time=dt.datetime.fromisoformat(record["time"]).astimezone(dt.UTC),
                    request_id=record["request"],
                    tier=tier,
                    backend=record["backend"],
                    address=record["address"],
                    allowed=record["decision"] == "allowed",
                    reason=record["reason"],
                )
                if since is None or connection.time >= since:
                    yield connection
