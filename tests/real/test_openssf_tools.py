"""Bundles that go between batuta and the two OpenSSF Model Signing tools, in both directions.

The tools are the unmodified PyPI packages, `model_signing` and the fork `rh-model-signing`, in environments that
`make test` sets up.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.conftest import Run
from tests.pacha.oms.forge import (
    AUTHORITY,
    MAY_SIGN,
    Signatory,
    alternative_names,
    bundle,
    certificate,
    pem,
    resources,
    statement,
)

VENV = Path(__file__).parents[2] / ".venv"
CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}


@dataclass(frozen=True)
class Tool:
    """One of the tools. They differ in how options are spelled."""

    program: Path
    separator: str

    def run(self, *arguments: str | Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
        words = [str(a).replace("_", self.separator) if str(a).startswith("--") else str(a) for a in arguments]
        return subprocess.run([str(self.program), *words], cwd=cwd, capture_output=True, text=True, timeout=120)

    def does(self, *arguments: str | Path, cwd: Path) -> None:
        done = self.run(*arguments, cwd=cwd)
        assert done.returncode == 0, done.stdout + done.stderr


TOOLS = {
    "model_signing": Tool(VENV / "peers/bin/model_signing", "_"),
    "rh_model_signing": Tool(VENV / "rh-peers/bin/rh_model_signing", "-"),
}


@pytest.fixture(params=TOOLS)
def tool(request: pytest.FixtureRequest) -> Tool:
    tool = TOOLS[request.param]
    assert tool.program.exists(), f"{tool.program} is not there: make .venv/.peers"
    return tool


@pytest.fixture(params=("file", "directory"))
def model(request: pytest.FixtureRequest, work: Path) -> Path:
    if request.param == "file":
        (work / "m.gguf").write_bytes(b"weights" * 100_000)
        return work / "m.gguf"
    directory = work / "m"
    (directory / "sub dir").mkdir(parents=True)
    (directory / "sub dir" / "tensor:1.bin").write_bytes(b"t" * 3_000_000)
    for name, content in (("a-b", b"1"), ("a.b", b"2"), ("empty", b""), ("ünïcode", b"3")):
        (directory / name).write_bytes(content)
    return directory


def damage(model: Path) -> None:
    """Change one bit of the model."""
    path = model if model.is_file() else model / "sub dir" / "tensor:1.bin"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("curve", CURVES)
def test_what_the_tools_sign_with_a_key_is_verified(
    tool: Tool, curve: str, model: Path, work: Path, batuta: Run
) -> None:
    private, public = Signatory(CURVES[curve]).save(work)
    tool.does("sign", "key", "--private_key", private, "--signature", "x.sig", model, cwd=work)
    arguments = ("pacha", "verify", model.name, "--signature", "x.sig", "--key", public)
    assert f"{model.name}: verified, signed by" in batuta(*arguments, code=0).stdout
    _, other = Signatory(CURVES[curve]).save(work, "other")
    batuta(*arguments[:-1], other, code=4)
    damage(model)
    assert "the content is not what was signed" in batuta(*arguments, code=3).stderr


@pytest.mark.parametrize("curve", CURVES)
def test_what_batuta_signs_with_a_key_the_tools_verify(
    tool: Tool, curve: str, model: Path, work: Path, batuta: Run
) -> None:
    private, public = Signatory(CURVES[curve]).save(work)
    batuta("pacha", "sign", model.name, "--oms-key", private, code=0)
    arguments = ("verify", "key", "--public_key", public, "--signature", f"{model.name}.oms.sig", model)
    tool.does(*arguments, cwd=work)
    assert "WARNING" not in tool.run(*arguments, cwd=work).stdout  # the hint names the key as the tool does
    batuta("pacha", "verify", model.name, "--key", public, code=0)  # found beside the model
    damage(model)
    assert tool.run(*arguments, cwd=work).returncode == 1


def test_ignored_paths_mean_the_same_in_both_directions(tool: Tool, work: Path, batuta: Run) -> None:
    private, public = Signatory().save(work)
    model = work / "m"
    for name in ("logs/a", "keep/logs/b", ".git/config", "model.safetensors"):
        path = model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    tool.does(
        "sign", "key", "--private_key", private, "--signature", "x.sig", "--ignore-paths", "m/logs", "m", cwd=work
    )
    batuta("pacha", "sign", "m", "--oms-key", private, "--ignore", "logs", "--ignore", ".git", code=0)
    ours = ("verify", "key", "--public_key", public, "--signature", "m.oms.sig", "m")
    theirs = ("pacha", "verify", "m", "--signature", "x.sig", "--key", public)
    (model / "logs" / "new").write_text("not part of the model")
    tool.does(*ours, cwd=work)
    done = batuta(*theirs, code=0)
    assert "not covered by the signature: .git/config, logs/a, logs/new" in done.stdout
    (model / "keep" / "logs" / "new").write_text("part of it")  # a path, not a base name
    assert tool.run(*ours, cwd=work).returncode == 1
    assert "added: keep/logs/new" in batuta(*theirs, code=3).stderr


def test_links_are_read_only_where_the_signer_read_them(tool: Tool, work: Path, batuta: Run) -> None:
    private, public = Signatory().save(work)
    (work / "m").mkdir()
    (work / "m" / "blob").write_text("weights")
    (work / "m" / "link").symlink_to("blob")
    options = ("--allow_symlinks", "--private_key", private, "--signature", "x.sig")
    done = subprocess.run([str(tool.program), "sign", "key", *map(str, _spelled(tool, options)), "m"], cwd=work)
    assert done.returncode == 0
    batuta("pacha", "verify", "m", "--signature", "x.sig", "--key", public, code=0)
    batuta("pacha", "sign", "m", "--oms-key", private, code=2)
    batuta("pacha", "sign", "m", "--oms-key", private, "--follow-symlinks", code=0)
    tool.does("verify", "key", "--allow_symlinks", "--public_key", public, "--signature", "m.oms.sig", "m", cwd=work)
    (work / "m" / "link").unlink()
    tool.does("sign", "key", "--private_key", private, "--signature", "y.sig", "m", cwd=work)
    (work / "m" / "blob").rename(work / "elsewhere")
    (work / "m" / "blob").symlink_to("../elsewhere")
    assert "changed: blob" in batuta("pacha", "verify", "m", "--signature", "y.sig", "--key", public, code=3).stderr


def _spelled(tool: Tool, options: Sequence[str | Path]) -> list[str]:
    if tool.separator == "_":
        return [str(option) for option in options]
    return [str(o).replace("_", "-") if str(o).startswith("--") else str(o) for o in options]


SIGN_OTHERWISE = """
import pathlib, sys
from model_signing import hashing, signing
key, model, signature, algorithm, size = sys.argv[1:]
config = hashing.Config()
if int(size):
    config.use_shard_serialization(hashing_algorithm=algorithm, shard_size=int(size))
else:
    config.use_file_serialization(hashing_algorithm=algorithm)
signer = signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(config)
signer.sign(model, signature)
"""


@pytest.mark.parametrize(
    ("algorithm", "shard_size"), [("blake2", 0), ("blake3", 0), ("sha256", 1_000_000), ("blake2", 700)]
)
def test_other_hashes_and_shards_of_the_tools_are_verified(
    tool: Tool, algorithm: str, shard_size: int, model: Path, work: Path, batuta: Run
) -> None:
    private, public = Signatory().save(work)
    empty = work / "m" / "empty"
    if shard_size and model.is_dir():
        empty.unlink()
        (model / "sub dir" / "tensor:1.bin").rename(
            model / "sub dir" / "tensor1.bin"
        )  # the tools divide at every colon
        (model / "sub dir" / "tensor1.bin").write_bytes(b"t" * 50_001)
    command = [tool.program.with_name("python"), "-c", SIGN_OTHERWISE]
    arguments = [private, model, "x.sig", algorithm, str(shard_size)]
    subprocess.run([*map(str, command), *map(str, arguments)], cwd=work, check=True)
    verify = ("pacha", "verify", model.name, "--signature", "x.sig", "--key", public)
    batuta(*verify, code=0)
    if shard_size and model.is_dir():
        empty.touch()
        assert "added: empty" in batuta(*verify, code=3).stderr  # shards cannot sign it
        empty.unlink()
    path = model if model.is_file() else model / "sub dir" / ("tensor1.bin" if shard_size else "tensor:1.bin")
    with path.open("ab") as file:
        file.write(b"x")
    assert "the content is not what was signed" in batuta(*verify, code=3).stderr


def test_what_the_tools_sign_with_a_certificate_is_verified(tool: Tool, model: Path, work: Path, batuta: Run) -> None:
    authority, middle, leaf = Signatory(ec.SECP384R1()), Signatory(), Signatory()
    names = alternative_names(x509.RFC822Name("models@example.com"))
    root = certificate("Root", authority, "Root", authority, AUTHORITY)
    between = certificate("Models", middle, "Root", authority, AUTHORITY)
    own = certificate("Signer", leaf, "Models", middle, [*MAY_SIGN, names])
    private, _ = leaf.save(work)
    for name, content in (("root.pem", root), ("between.pem", between), ("own.pem", own)):
        (work / name).write_bytes(pem(content))
    arguments = ("--private_key", private, "--signing_certificate", "own.pem", "--certificate_chain", "between.pem")
    tool.does("sign", "certificate", *arguments, "--signature", "x.sig", model, cwd=work)
    tool.does("verify", "certificate", "--certificate_chain", "root.pem", "--signature", "x.sig", model, cwd=work)
    verify = ("pacha", "verify", model.name, "--signature", "x.sig")
    done = batuta(*verify, code=4)
    assert "--ca FILE --identity models@example.com" in done.stderr
    done = batuta(*verify, "--ca", "root.pem", "--identity", "models@example.com", code=0)
    assert "signed by models@example.com (certificate of CN=Models,O=Example, valid at 20" in done.stdout
    batuta(*verify, "--ca", "root.pem", "--identity", "CN=Signer,O=Example", code=0)
    batuta(*verify, "--ca", "root.pem", "--identity", "mallory@example.com", code=4)
    (work / "other.pem").write_bytes(pem(certificate("Root", leaf, "Root", leaf, AUTHORITY)))
    batuta(*verify, "--ca", "other.pem", "--identity", "models@example.com", code=4)
    damage(model)
    batuta(*verify, "--ca", "root.pem", "--identity", "models@example.com", code=3)
    shown = json.loads(batuta("pacha", "inspect", "x.sig", "--json", code=0).stdout)["result"]
    assert shown["claimed_identities"] == ["models@example.com", "CN=Signer,O=Example"]


@pytest.mark.parametrize("name", [".git/config", ".gitattributes", ".gitignore", ".github/workflow"])
def test_a_model_that_the_tools_would_not_accept_is_not_signed_for_them(work: Path, name: str, batuta: Run) -> None:
    private, public = Signatory().save(work)
    path = work / "m" / name
    path.parent.mkdir(parents=True)
    path.write_text("x")
    (work / "m" / "weights").write_text("w")
    done = batuta("pacha", "sign", "m", "--oms-key", private, code=2)
    assert not (work / "m.oms.sig").exists()
    top = name.partition("/")[0]
    assert f"--ignore {top}" in done.stderr
    batuta("pacha", "sign", "m", "--oms-key", private, "--ignore", top, code=0)
    for tool in TOOLS.values():
        tool.does("verify", "key", "--public_key", public, "--signature", "m.oms.sig", "m", cwd=work)


def test_a_link_in_an_ignored_place_is_refused_because_the_tools_refuse_it(work: Path, batuta: Run) -> None:
    signer = Signatory()
    private, public = signer.save(work)
    (work / "m" / "cache").mkdir(parents=True)
    (work / "m" / "weights").write_text("w")
    (work / "m" / "cache" / "link").symlink_to("../weights")
    done = batuta("pacha", "sign", "m", "--oms-key", private, "--ignore", "cache", code=2)
    assert "cache/link" in done.stderr
    signed = statement(resources({"weights": b"w"}), "m", ignore_paths=["cache"])
    (work / "x.sig").write_bytes(bundle(signed, signer))
    strict = TOOLS["model_signing"]  # the fork is more lenient
    done = strict.run("verify", "key", "--public_key", public, "--signature", "x.sig", "m", cwd=work)
    assert (done.returncode, "symlink" in done.stderr + done.stdout) == (1, True)
