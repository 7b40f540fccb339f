"""A keyless bundle that was signed with the public Sigstore instance, verified offline with the package `sigstore`.

`sigstore` brings pydantic, so it is not in the environment of the tests: batuta runs in the one of model_signing, with
the packages of the tests' own in front. The trusted root is the one that `sigstore` ships.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.tour import Step, normalise, steps

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv/peers/bin/python"
BUNDLE = ROOT / "tests/pacha/oms/vectors/v1.1.0-sigstore.sig"
ISSUER, IDENTITY = "https://sigstore.verify.ibm.com/oauth2", "stefanb@us.ibm.com"

Verify = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def trusted_root() -> Path:
    [found] = (ROOT / ".venv/peers").glob("lib/*/site-packages/sigstore/_store/*sigstore.dev/trusted_root.json")
    return found


@pytest.fixture
def verify(work: Path, environment: dict[str, str]) -> Verify:
    (work / "model").mkdir()
    for name in ("signme-1", "signme-2"):
        (work / "model" / name).write_text(name)
    offline = ["unshare", "--net"] if os.getuid() == 0 else []
    packages = {"PYTHONPATH": f"{ROOT}:{sysconfig.get_path('purelib')}"}

    def run(*options: str | Path, bundle: Path | None = BUNDLE) -> "subprocess.CompletedProcess[str]":
        signature = () if bundle is None else ("--signature", bundle)
        command = [*offline, PYTHON, "-m", "batuta_cli", "pacha", "verify", "model", *signature, *options]
        words = [str(word) for word in command]
        return subprocess.run(words, cwd=work, env=environment | packages, capture_output=True, text=True, timeout=120)

    return run


def test_a_keyless_bundle_is_verified_without_a_network(verify: Verify, trusted_root: Path) -> None:
    done = verify("--trusted-root", trusted_root, "--issuer", ISSUER, "--identity", IDENTITY)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"signed by {IDENTITY} (keyless, {ISSUER} vouches)" in done.stdout


def test_the_keyless_example_of_the_documentation_gives_the_output_it_shows(
    verify: Verify, trusted_root: Path, work: Path
) -> None:
    [block] = re.findall(
        r"<!-- test: keyless -->\n```text\n(.*?)^```$", (ROOT / "docs/oms.md").read_text(), re.MULTILINE | re.DOTALL
    )
    shutil.copy(trusted_root, work / "trusted_root.json")
    shutil.copy(BUNDLE, work / "model" / "model.sig")
    examples = [step for step in steps(f"```console\n{block}```\n") if isinstance(step, Step)]
    assert len(examples) == 2
    for example in examples:
        program, group, command, model, *options = shlex.split(example.command.replace("\\\n", " "))
        assert (program, group, command, model) == ("batuta", "pacha", "verify", "model")
        done = verify(*options, bundle=None)  # it is found in the model's directory
        assert normalise(done.stdout + done.stderr) == normalise(example.shown)


def test_another_identity_or_issuer_does_not_count(verify: Verify, trusted_root: Path) -> None:
    for issuer, identity in ((ISSUER, "mallory@us.ibm.com"), ("https://accounts.google.com", IDENTITY)):
        done = verify("--trusted-root", trusted_root, "--issuer", issuer, "--identity", identity)
        assert (done.returncode, f"signed by {IDENTITY}" in done.stderr) == (4, True)


def test_another_instance_s_root_does_not_count(verify: Verify, trusted_root: Path) -> None:
    staging = trusted_root.parents[1] / "https%3A%2F%2Ftuf-repo-cdn.sigstage.dev" / "trusted_root.json"
    done = verify("--trusted-root", staging, "--issuer", ISSUER, "--identity", IDENTITY)
    assert done.returncode == 4
    done = verify("--trusted-root", BUNDLE, "--issuer", ISSUER, "--identity", IDENTITY)
    assert (done.returncode, "not a Sigstore trusted root" in done.stderr) == (2, True)


def test_a_changed_file_is_noticed(verify: Verify, trusted_root: Path, work: Path) -> None:
    (work / "model" / "signme-2").write_text("signme-3")
    done = verify("--trusted-root", trusted_root, "--issuer", ISSUER, "--identity", IDENTITY)
    assert (done.returncode, "changed: signme-2" in done.stderr) == (3, True)


def _entry(document: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = document["verificationMaterial"]["tlogEntries"][0]
    return entry


@pytest.mark.parametrize(
    ("code", "told", "change"),
    [
        (3, "invalid signature", lambda d: _entry(d).update(integratedTime="1760062341")),
        (3, "invalid root hash", lambda d: _entry(d)["inclusionProof"].update(rootHash="AAAA")),
        (2, "not a Sigstore bundle", lambda d: d["verificationMaterial"].update(tlogEntries=[])),
    ],
    ids=["another time", "another tree", "no log entry"],
)
def test_a_bundle_whose_log_entry_does_not_hold_is_refused(
    verify: Verify, trusted_root: Path, tmp_path: Path, code: int, told: str, change: Callable[[dict[str, Any]], Any]
) -> None:
    document = json.loads(BUNDLE.read_text())
    change(document)
    (tmp_path / "changed.sig").write_text(json.dumps(document))
    options = ("--trusted-root", trusted_root, "--issuer", ISSUER, "--identity", IDENTITY)
    done = verify(*options, bundle=tmp_path / "changed.sig")
    assert (done.returncode, told in done.stderr) == (code, True), done.stderr
