"""Faults of templates as SARIF 2.1.0, which code hosts show beside the lines of a repository.

Specification: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html. A fault belongs to the whole file; the
template of a name has a logical location instead of a file.
"""

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from batuta_cli import __version__
from batuta_cli.serve.templates.lint import RULES, TemplateFault
from batuta_cli.serve.templates.subject import TemplateSubject

SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def to_sarif(subject: TemplateSubject, faults: Sequence[TemplateFault]) -> dict[str, Any]:
    """Return the SARIF log of one template."""
    rules = [
        {
            "id": name,
            "shortDescription": {"text": rule.summary},
            "defaultConfiguration": {"level": rule.level.value},
        }
        for name, rule in RULES.items()
    ]
    location = _location(subject)
    results = [
        {
            "ruleId": fault.rule,
            "ruleIndex": list(RULES).index(fault.rule),
            "level": fault.level.value,
            "message": {"text": f"{RULES[fault.rule].summary} {fault.detail}"},
            "locations": [location],
        }
        for fault in faults
    ]
    driver = {"name": "batuta serve template lint", "version": __version__, "rules": rules}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _location(subject: TemplateSubject) -> dict[str, Any]:
    if subject.path:
        return {"physicalLocation": {"artifactLocation": {"uri": quote(subject.path)}}}
    return {"logicalLocations": [{"name": subject.name, "kind": "resource"}]}
