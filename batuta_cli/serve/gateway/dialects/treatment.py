"""How a dialect treats each field of its requests: one `FieldRow` for each field of the official client's types.

A request that goes to a backend with the client's own API is sent as it came, so a row only describes the translation
to another API, and the type that the field must have:

* MAPPED: becomes a field of the gateway's own request (OpenAI's chat request).
* CARRIED: sent on unchanged, to backends whose API can take it.
* DROPPED: left out, and named in the header `X-Batuta-Dropped` and in the log.
* REFUSED: HTTP 400 with the reason.

A field without a row is carried too, with a warning in the log. `treat` applies a table to a request.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from enum import Enum
from typing import Any

from batuta_cli.serve.gateway.dialects.fields import FieldType, take, wrong


class Treatment(Enum):
    """What happens to a field when a request is translated."""

    MAPPED = "mapped"
    CARRIED = "carried"
    DROPPED = "dropped"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class FieldRow:
    """The treatment of one field."""

    treatment: Treatment
    _: KW_ONLY
    kind: FieldType
    note: str
    """MAPPED: the field of the gateway's request. REFUSED: the end of the error's sentence, which begins with the
    field's name. Otherwise the reason."""
    copied: bool = False
    """MAPPED: the value is copied to the option `note`. Otherwise the dialect's module converts it."""
    native_only: bool = False
    """CARRIED: only a backend with the client's own API may get the request, because its response depends on the field
    and no other API has it."""
    personal: bool = False
    """DROPPED: it names a user, a device or a conversation. Only the API's provider gets it."""
    harmless: tuple[Any, ...] = ()
    """Values that ask for nothing, as null does: with them the field is ignored."""
    details: Mapping[str, Any] | None = None
    """REFUSED: what the client reads by program, see `HttpError.details`."""


FieldTable = Mapping[str, FieldRow]

ANY = FieldType("a JSON value", lambda _: True)


@dataclass(frozen=True, slots=True)
class TreatedFields:
    """The fields of one request by their treatment."""

    options: dict[str, Any] = field(default_factory=dict)
    """Copied and carried fields, and those without a row: options of the gateway's request."""
    dropped: tuple[str, ...] = ()
    native_only: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    """Fields without a row."""


def option(kind: FieldType, name: str) -> FieldRow:
    """A field that becomes the option `name`, unchanged."""
    return FieldRow(Treatment.MAPPED, kind=kind, note=name, copied=True)


def mapped(kind: FieldType, target: str) -> FieldRow:
    """A field that the dialect's module converts to `target`."""
    return FieldRow(Treatment.MAPPED, kind=kind, note=target)


def carried(kind: FieldType, why: str) -> FieldRow:
    """A field that is sent on unchanged."""
    return FieldRow(Treatment.CARRIED, kind=kind, note=why)


def native_only(kind: FieldType, why: str, *harmless: Any) -> FieldRow:
    """A field that only backends with the client's own API have."""
    return FieldRow(Treatment.CARRIED, kind=kind, note=why, native_only=True, harmless=harmless)


def dropped(kind: FieldType, why: str) -> FieldRow:
    """A field that is left out of a translated request."""
    return FieldRow(Treatment.DROPPED, kind=kind, note=why)


def personal(kind: FieldType, why: str) -> FieldRow:
    """A field that only the API's provider gets."""
    return FieldRow(Treatment.DROPPED, kind=kind, note=why, personal=True)


def personal_fields(table: FieldTable) -> frozenset[str]:
    """The names of the fields that only the API's provider gets."""
    return frozenset(name for name, row in table.items() if row.personal)


def refused(why: str, *harmless: Any, details: Mapping[str, Any] | None = None) -> FieldRow:
    """A field that makes the request invalid unless it has one of the values `harmless`."""
    return FieldRow(Treatment.REFUSED, kind=ANY, note=why, harmless=harmless, details=details)


def treat(document: Mapping[str, Any], table: FieldTable) -> TreatedFields:
    """Check the fields of a request and sort them by treatment. Raises `HttpError` for a wrong or refused field."""
    options: dict[str, Any] = {}
    names: dict[str, list[str]] = {"dropped": [], "native_only": [], "unknown": []}
    for name, value in document.items():
        if value is None:
            continue
        row = table.get(name)
        if row is None:
            options[name] = value
            names["unknown"].append(name)
            continue
        take(document, name, row.kind)
        if _is_among(value, row.harmless):
            continue
        if row.treatment is Treatment.REFUSED:
            error = wrong(name, row.note, "unsupported_field")
            error.details = row.details
            raise error
        if row.treatment is Treatment.DROPPED:
            names["dropped"].append(name)
        elif row.native_only:
            names["native_only"].append(name)
        elif row.treatment is Treatment.CARRIED:
            options[name] = value
        elif row.copied:
            options[row.note] = value
    return TreatedFields(options, **{key: tuple(found) for key, found in names.items()})


def _is_among(value: Any, values: tuple[Any, ...]) -> bool:
    return any(type(value) is type(other) and value == other for other in values)  # in Python 0 == False
