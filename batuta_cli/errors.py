"""Every error a user can meet: a type, an exit code, a message that names the thing, a hint that says what to type.

Core modules raise these; only `cli/` turns them into text, JSON and an exit status. The exit codes are part of
the interface (docs/cli.md#exit-status): scripts branch on them, so a class never changes its code.

Messages are lower case, without a final full stop, and never carry a secret.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

_SEVERITY = (3, 4, 2, 1, 0)  # exit codes, worst first (docs/cli.md#exit-status)


class BatutaError(Exception):
    """Base of all errors that batuta raises on purpose.

    `message` names what was wrong and where; `hint` is the next thing to type; `result` is what is worth telling
    in spite of the failure (which files changed, what is missing), as JSON-ready data.
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str | None = None, result: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.result = result


class OperationError(BatutaError):
    """It could not be done: input or output failed, a server answered with an error. Exit 1."""

    kind = "operation_failed"


class NotFoundError(OperationError):
    """A named input does not exist. Exit 1."""

    kind = "not_found"


class TokenizeError(OperationError):
    """A tokenizer cannot process a text, such as a run of millions of spaces. Exit 1."""

    kind = "cannot_tokenize"


class DamagedStateError(OperationError):
    """A file of batuta's own (trust store, config, object store) cannot be relied upon. Exit 1."""

    kind = "damaged_state"


class ChangedWhileReadError(OperationError):
    """An input changed while it was being read, so nothing can be said of its content. Exit 1."""

    kind = "changed_while_read"


class UsageError(BatutaError):
    """The command or call was wrong. Exit 2."""

    exit_code = 2
    kind = "usage"


class InvalidInputError(UsageError):
    """An input is not what it should be: a malformed signature, header, key or name. Exit 2."""

    kind = "invalid_input"


class OutputExistsError(UsageError):
    """The output is already there and `--force` was not given. Exit 2."""

    kind = "output_exists"


class UnsafeFileError(UsageError):
    """A private file can be read by others. Exit 2."""

    kind = "unsafe_permissions"


class ConfigError(UsageError):
    """The configuration has a key or a value that batuta does not know. Exit 2."""

    kind = "invalid_config"


class VerificationError(BatutaError):
    """The content is not what was signed, or there is no valid signature. Exit 3."""

    exit_code = 3
    kind = "verification_failed"


class DecryptionError(BatutaError):
    """Wrong password or damaged ciphertext; which of the two cannot be told. Exit 3."""

    exit_code = 3
    kind = "decryption_failed"


class SignerError(BatutaError):
    """The signature is good, the signer is not acceptable here. Exit 4."""

    exit_code = 4
    kind = "untrusted_signer"


class UnknownSignerError(SignerError):
    """No trusted key made this signature. Exit 4."""

    kind = "unknown_signer"


class RevokedSignerError(SignerError):
    """The key that signed has been revoked. Exit 4."""

    kind = "revoked_signer"


class ExpiredSignatureError(SignerError):
    """The signature or the signer's key is no longer, or not yet, valid. Exit 4."""

    kind = "not_valid_now"


class WrongSignerError(SignerError):
    """The signer is not the one who was asked for, or not the one the file claims. Exit 4."""

    kind = "wrong_signer"


class MissingDependencyError(UsageError):
    """An optional dependency is not installed; the hint is the line that brings it. Exit 2."""

    kind = "missing_dependency"


class TemplateError(UsageError):
    """A chat template cannot be rendered, or cannot express these messages. Exit 2."""

    kind = "template"


class InjectionError(UsageError):
    """Control tokens stand in user or tool text, and they were asked to be an error. Exit 2."""

    kind = "control_tokens"


class LedgerError(DamagedStateError):
    """The ledger cannot be used, so nothing paid for may be sent: it is locked, damaged, or newer.

    Exit 1.
    """

    kind = "ledger"


class MissingLedgerError(LedgerError):
    """The ledger's file is missing, and one was kept there before. Exit 1."""


class AuditError(OperationError):
    """A decision cannot be written to the audit log, so a sovereign or private request is not sent. Exit 1."""

    kind = "audit"


class CostError(BatutaError):
    """The budget refuses. Exit 5."""

    exit_code = 5
    kind = "budget"


class RequestTooExpensive(CostError):
    """A single request would cost more than one may. Exit 5."""

    kind = "request_too_expensive"


class DailyBudgetExceeded(CostError):
    """The request does not fit what is left of the day's budget. Exit 5."""

    kind = "daily_budget_exceeded"


class UnknownPriceError(CostError):
    """What a request costs at this backend is not known, so it is not sent. Exit 5."""

    kind = "unknown_price"


class PrivacyError(BatutaError):
    """The privacy tier forbids it. Exit 6."""

    exit_code = 6
    kind = "privacy"


class NoBackendError(BatutaError):
    """No backend can take the request: none is there, or none answers. Exit 7.

    `retry_after`: seconds after which it may be worth another try; None when nobody knows.
    """

    exit_code = 7
    kind = "no_backend"

    def __init__(
        self, message: str, *, hint: str | None = None, result: Any = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message, hint=hint, result=result)
        self.retry_after = retry_after


class QueueFullError(NoBackendError):
    """Every backend that may take the request has a full queue. Exit 7."""

    kind = "queue_full"


class ContextOverflowError(BatutaError):
    """The messages do not fit the context window. Exit 8."""

    exit_code = 8
    kind = "context_overflow"


def worst(errors: Iterable[BatutaError]) -> BatutaError:
    """The error that decides the exit code, in the order 3, 4, 2, 1; the first of equals."""
    return min(errors, key=lambda e: _SEVERITY.index(e.exit_code) if e.exit_code in _SEVERITY else -1)
