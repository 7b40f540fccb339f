"""The errors of batuta, with the exit code of each (docs/cli.md#exit-status):

    BatutaError                     1
      OperationError                1
        NotFoundError               1
        DamagedStateError           1
          LedgerError               1
            MissingLedgerError      1
        ChangedWhileReadError       1
        AuditError                  1
      UsageError                    2
        InvalidInputError           2
        OutputExistsError           2
        UnsafeFileError             2
        ConfigError                 2
        MissingDependencyError      2
        TemplateError               2
        InjectionError              2
        ModelNotAllowedError        2
      VerificationError             3
      DecryptionError               3
      TemplateFaultsError           3
      TemplatesDifferError          3
      SignerError                   4
        UnknownSignerError          4
        RevokedSignerError          4
        ExpiredSignatureError       4
        WrongSignerError            4
      CostError                     5
        RequestTooExpensive         5
        DailyBudgetExceeded         5
          BudgetReservedError       5
        UnknownPriceError           5
        UnboundedCostError          5
      PrivacyError                  6
      NoBackendError                7
        QueueFullError              7
      ContextOverflowError          8
      ProgramNotStartedError        126
      ProgramNotFoundError          127

Core modules raise them; only `cli/` and `serve/gateway/` turn them into text, JSON, exit codes and HTTP statuses.
Scripts depend on the exit codes, so the exit code of a class never changes. Messages are lower case, end without a full
stop, and contain no secret.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

_SEVERITY = (3, 4, 2, 1, 0)  # exit codes, worst first (docs/cli.md#exit-status)


class BatutaError(Exception):
    """Base of all errors that batuta raises on purpose.

    `message` names the fault and its place. `hint` says what to type next. `result` is JSON-ready data that is useful
    despite the failure, such as the files that changed.
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str | None = None, result: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.result = result


class OperationError(BatutaError):
    """Input or output failed, or a server returned an error. Exit 1."""

    kind = "operation_failed"


class NotFoundError(OperationError):
    """A named input does not exist. Exit 1."""

    kind = "not_found"


class TokenizeError(OperationError):
    """A tokenizer cannot process a text, such as a run of millions of spaces. Exit 1."""

    kind = "cannot_tokenize"


class DamagedStateError(OperationError):
    """A file of batuta's own (trust store, config, object store) is damaged. Exit 1."""

    kind = "damaged_state"


class ChangedWhileReadError(OperationError):
    """An input changed while it was read, so its content was not judged. Exit 1."""

    kind = "changed_while_read"


class UsageError(BatutaError):
    """The command or call was wrong. Exit 2."""

    exit_code = 2
    kind = "usage"


class InvalidInputError(UsageError):
    """An input is malformed: a signature, header, key or name. Exit 2."""

    kind = "invalid_input"


class OutputExistsError(UsageError):
    """The output exists and `--force` was not given. Exit 2."""

    kind = "output_exists"


class UnsafeFileError(UsageError):
    """A private file is readable by group or others. Exit 2."""

    kind = "unsafe_permissions"


class ConfigError(UsageError):
    """The configuration has an unknown key or an invalid value. Exit 2."""

    kind = "invalid_config"


class VerificationError(BatutaError):
    """The content differs from what was signed, or there is no valid signature. Exit 3."""

    exit_code = 3
    kind = "verification_failed"


class DecryptionError(BatutaError):
    """The password is wrong or the ciphertext is damaged; the two cannot be told apart. Exit 3."""

    exit_code = 3
    kind = "decryption_failed"


class TemplateFaultsError(BatutaError):
    """A chat template has faults. Exit 3."""

    exit_code = 3
    kind = "template_faults"


class TemplatesDifferError(BatutaError):
    """Two chat templates write different prompts. Exit 3."""

    exit_code = 3
    kind = "templates_differ"


class SignerError(BatutaError):
    """The signature verifies, but its signer is not accepted. Exit 4."""

    exit_code = 4
    kind = "untrusted_signer"


class UnknownSignerError(SignerError):
    """The signature was not made by a trusted key. Exit 4."""

    kind = "unknown_signer"


class RevokedSignerError(SignerError):
    """The key that signed has been revoked. Exit 4."""

    kind = "revoked_signer"


class ExpiredSignatureError(SignerError):
    """The signature or the signer's key is not valid at this time. Exit 4."""

    kind = "not_valid_now"


class WrongSignerError(SignerError):
    """The signer is not the required one, or not the one named in the file. Exit 4."""

    kind = "wrong_signer"


class MissingDependencyError(UsageError):
    """An optional dependency is not installed. The hint is the `pip install` line. Exit 2."""

    kind = "missing_dependency"


class TemplateError(UsageError):
    """A chat template cannot be rendered, or cannot express these messages. Exit 2."""

    kind = "template"


class InjectionError(UsageError):
    """User or tool text contains control tokens, and the caller made that an error. Exit 2."""

    kind = "control_tokens"


class LedgerError(DamagedStateError):
    """The ledger is locked, damaged or too new, so no paid request may be sent. Exit 1."""

    kind = "ledger"


class MissingLedgerError(LedgerError):
    """The ledger that was used here is gone: its file, or its rows in Redis. Exit 1."""


class OtherLedgerError(MissingLedgerError):
    """The ledger in Redis is not the one that was used here, or has lost writes. Exit 1."""


class AuditError(OperationError):
    """The audit log cannot be written, so a sovereign or private request is not sent. Exit 1."""

    kind = "audit"


class CostError(BatutaError):
    """The budget refuses the request. Exit 5."""

    exit_code = 5
    kind = "budget"


class RequestTooExpensive(CostError):
    """The request may cost more than the limit of one request. Exit 5."""

    kind = "request_too_expensive"


class DailyBudgetExceeded(CostError):
    """The request may cost more than the rest of the day's budget. Exit 5."""

    kind = "daily_budget_exceeded"


class BudgetReservedError(DailyBudgetExceeded):
    """The request fits the day's unspent money, but running requests have reserved it. Exit 5.

    `retry_after`: seconds after which a retry may succeed. `of_client`: the budget is that of the client key.
    """

    kind = "budget_reserved"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        result: Any = None,
        retry_after: float = 1.0,
        of_client: bool = False,
    ) -> None:
        super().__init__(message, hint=hint, result=result)
        self.retry_after = retry_after
        self.of_client = of_client


class UnknownPriceError(CostError):
    """The price of the model at this backend is unknown, so the request is not sent. Exit 5."""

    kind = "unknown_price"


class UnboundedCostError(CostError):
    """Nothing bounds the cost of the request at this backend, so it is not sent. Exit 5."""

    kind = "unbounded_cost"


class PrivacyError(BatutaError):
    """The privacy tier forbids the request. Exit 6."""

    exit_code = 6
    kind = "privacy"


class ModelNotAllowedError(UsageError):
    """The client key may not use the model. Exit 2."""

    kind = "model_not_allowed"


class NoBackendError(BatutaError):
    """No backend can take the request: none is configured, or none responds. Exit 7.

    `retry_after`: seconds after which a retry may succeed; None when unknown.
    """

    exit_code = 7
    kind = "no_backend"

    def __init__(
        self, message: str, *, hint: str | None = None, result: Any = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message, hint=hint, result=result)
        self.retry_after = retry_after


class QueueFullError(NoBackendError):
    """The queues of all suitable backends are full. Exit 7."""

    kind = "queue_full"


class ContextOverflowError(BatutaError):
    """The messages do not fit the context window. Exit 8."""

    exit_code = 8
    kind = "context_overflow"


class ProgramNotStartedError(BatutaError):
    """The program that was to be started exists and cannot be executed. Exit 126, as of shells and env(1)."""

    exit_code = 126
    kind = "program_not_started"


class ProgramNotFoundError(BatutaError):
    """The program that was to be started does not exist. Exit 127, as of shells and env(1)."""

    exit_code = 127
    kind = "program_not_found"


def worst(errors: Iterable[BatutaError]) -> BatutaError:
    """The error that decides the exit code, in the order 3, 4, 2, 1; the first of equals."""
    return min(errors, key=lambda e: _SEVERITY.index(e.exit_code) if e.exit_code in _SEVERITY else -1)
