"""`batuta pacha verify`: exit 0 only when everything that was asked for has been checked."""

import base64
import json
import os
import shutil
from pathlib import Path

import pytest

from batuta_cli.pacha.keys import SigningKey
from batuta_cli.pacha.signing import sign_path
from tests.cli.support import (
    answer,
    bundle,
    forget_trust,
    hints,
    names_in,
    own_key,
    resigned,
    result,
    signed_model,
    trust_file,
    trust_key,
)
from tests.conftest import Run

ALICE = "alice@example.com"


@pytest.fixture
def alice(home: Path, work: Path) -> SigningKey:
    """A trusted key, and a file `model` with its signature."""
    key = own_key(home)
    signed_model(work, key)
    return key


def test_a_good_model_is_verified_and_the_words_say_by_whom(batuta: Run, work: Path, alice: SigningKey) -> None:
    done = batuta("pacha", "verify", "model", code=0)
    key_id = alice.verifying_key.key_id
    assert done.stdout.startswith(f"model: verified, signed by {ALICE} (key {key_id}) on 20")
    assert done.stderr == ""
    [found] = result(batuta("pacha", "verify", "model", "--json", code=0))
    assert found["signers"] == [
        {"name": ALICE, "name_is_claimed": False, "key_id": key_id, "public_key": alice.verifying_key.inline}
    ]
    assert found["binds"] == ["content", "name", "identity", "time"]
    assert (found["ok"], found["warnings"], found["signature"]) == (True, [], ["model.sig"])
    quiet = batuta("pacha", "verify", "model", "--quiet", code=0)
    assert (quiet.stdout, quiet.stderr) == ("", "")


def test_a_changed_model_is_exit_3_even_when_the_signer_is_unknown_as_well(
    batuta: Run, home: Path, work: Path, alice: SigningKey
) -> None:
    for content in (b"Weights", b"weight", b"weights!", b""):
        (work / "model").write_bytes(content)
        done = batuta("pacha", "verify", "model", code=3)
        assert done.stderr == "error: model: the content is not what was signed\n"
        assert done.stdout == ""
    forget_trust(home)
    failed = answer(batuta("pacha", "verify", "model", "--json", code=3))
    assert failed["error"]["kind"] == "verification_failed"
    assert failed["result"][0]["changed"] == ["."]
    quiet = batuta("pacha", "verify", "model", "--quiet", code=3)
    assert "model: the content is not what was signed" in quiet.stderr


def test_what_is_missing_says_which_of_the_two(batuta: Run, work: Path, alice: SigningKey) -> None:
    assert "missing: no such file" in batuta("pacha", "verify", "missing", code=1).stderr
    assert "no.sig: no such file" in batuta("pacha", "verify", "model", "--signature", "no.sig", code=1).stderr
    (work / "model.sig").unlink()
    done = batuta("pacha", "verify", "model", code=3)
    assert "there is no signature, model.sig does not exist" in done.stderr
    assert "publisher" in done.stderr and "--signature FILE" in done.stderr
    assert hints(done)[-1] == "batuta pacha sign model"
    os.symlink("nowhere", work / "model.sig")
    assert "model.sig: is a link to nowhere, which does not exist" in batuta("pacha", "verify", "model", code=1).stderr


def test_all_that_differs_in_a_directory_is_told_at_once(batuta: Run, home: Path, work: Path) -> None:
    model = work / "m"
    (model / "sub").mkdir(parents=True)
    for name in ("same", "changed", "grown", "gone", "old", "sub/a\nb"):
        (model / name).write_text(name)
    sign_path(model, own_key(home)).save(work / "m.sig")
    batuta("pacha", "verify", "m", "m/", "./m", code=0)
    (model / "changed").write_text("CHANGED")
    (model / "grown").write_text("grown longer")
    (model / "gone").unlink()
    (model / "old").rename(model / "new")
    (model / "added\x1b[31m").write_text("x")
    done = batuta("pacha", "verify", "m", code=3)
    for line in ("changed: changed", "changed: grown", "missing: gone", "renamed: old is now new"):
        assert f"  {line}\n" in done.stderr
    assert "  added: added\\x1b[31m\n" in done.stderr
    [found] = result(batuta("pacha", "verify", "m", "--json", code=3))
    assert found["changed"] == ["changed", "grown"]
    assert (found["missing"], found["added"]) == (["gone"], ["added\x1b[31m"])
    assert found["renamed"] == [{"from": "old", "to": "new"}]


def test_a_file_for_a_directory_and_the_reverse_is_exit_3(batuta: Run, home: Path, work: Path) -> None:
    key = own_key(home)
    (work / "d").mkdir()
    (work / "d" / "f").write_bytes(b"x")
    sign_path(work / "d", key).save(work / "d.sig")
    signed_model(work, key)
    done = batuta("pacha", "verify", "model", "--signature", "d.sig", code=3)
    assert "a directory was signed" in done.stderr
    done = batuta("pacha", "verify", "d", "--signature", "model.sig", code=3)
    assert "a single file was signed" in done.stderr
    (work / "d" / "f").unlink()
    assert "missing: f" in batuta("pacha", "verify", "d", code=3).stderr


def test_what_was_ignored_at_signing_is_shown_and_nothing_else_is_ignored(batuta: Run, home: Path, work: Path) -> None:
    own_key(home)
    (work / "m").mkdir()
    for name in ("weights", "train.log"):
        (work / "m" / name).write_text(name)
    batuta("pacha", "sign", "m", "--ignore", "*.log", "--ignore", ".git", code=0)
    (work / "m" / "train.log").write_text("more")
    done = batuta("pacha", "verify", "m", code=0)
    assert "not covered by the signature: train.log\n" in done.stdout
    (work / "m" / ".git" / "hooks").mkdir(parents=True)
    (work / "m" / ".git" / "hooks" / "post-checkout").write_text("#!/bin/sh")
    assert result(batuta("pacha", "verify", "m", "--json"))[0]["ignored"] == [".git/hooks/post-checkout", "train.log"]
    shown = result(batuta("pacha", "inspect", "m.sig", "--json", code=0))
    assert shown["ignored"] == [".git", "train.log"]
    for name in ("other.txt", "other.log"):
        (work / "m" / name).write_text("x")
        assert f"added: {name}" in batuta("pacha", "verify", "m", code=3).stderr
        (work / "m" / name).unlink()


@pytest.mark.parametrize("glob", ["model.sig", "*.sig", "model.*", "./model.sig/", "model.si[g]"])
def test_a_name_that_is_ignored_at_the_root_hides_nothing_elsewhere(
    batuta: Run, home: Path, work: Path, glob: str
) -> None:
    own_key(home)
    (work / "m" / "sub").mkdir(parents=True)
    for name in ("weights", "sub/vocab", "model.sig"):
        (work / "m" / name).write_text(name)
    batuta("pacha", "sign", "m", "--ignore", glob, code=0)
    batuta("pacha", "verify", "m", code=0)
    for name in ("sub/model.sig/evil.py", "sub/model.sig", "other.sig", "MODEL.SIG", "x/model.sig/a"):
        added = work / "added" / name
        added.parent.mkdir(parents=True)
        added.write_text("import os")
        shutil.copytree(work / "added", work / "m", dirs_exist_ok=True)
        shutil.rmtree(work / "added")
        assert f"added: {name}" in batuta("pacha", "verify", "m", code=3).stderr
        top = work / "m" / name
        shutil.rmtree(top.parent) if top.parent.name == "model.sig" else top.unlink()
    batuta("pacha", "verify", "m", code=0)


def test_a_signature_with_patterns_by_an_earlier_version_is_read_by_the_strict_rule(
    batuta: Run, home: Path, work: Path
) -> None:
    key = own_key(home)
    (work / "m" / "sub").mkdir(parents=True)
    (work / "m" / "weights").write_text("weights")
    old = bundle(work / "m", key, identity="alice@example.com", ignore_paths=["model.sig", "*.log"])
    (work / "m.sig").write_bytes(old)
    (work / "m" / "model.sig").write_text("x")
    assert "not covered by the signature: model.sig\n" in batuta("pacha", "verify", "m", code=0).stdout
    (work / "m" / "sub" / "model.sig").write_text("x")
    (work / "m" / "run.log").write_text("x")
    done = batuta("pacha", "verify", "m", code=3)
    assert "added: run.log" in done.stderr and "added: sub/model.sig" in done.stderr
    assert "hint: the signature leaves out model.sig, *.log, which is read as a path" in done.stderr


@pytest.mark.parametrize("path", ["", ".", "..", "/etc", "a/../..", "./a", "a/", "a//b"])
def test_a_signature_that_leaves_out_anything_but_relative_paths_is_malformed(
    batuta: Run, home: Path, work: Path, path: str
) -> None:
    key = own_key(home)
    model = signed_model(work, key)
    document = json.loads((work / "model.sig").read_bytes())
    stated = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    stated["predicate"]["serialization"]["ignore_paths"] = [path]
    (work / "model.sig").write_bytes(resigned(json.dumps(stated).encode(), key))
    for command in (["verify", str(model)], ["inspect", "model.sig"]):
        assert "model.sig: predicate.serialization.ignore_paths: " in batuta("pacha", *command, code=2).stderr


def test_a_signature_over_no_file_is_malformed(batuta: Run, home: Path, work: Path) -> None:
    key = own_key(home)
    signed_model(work, key)
    (work / "m").mkdir()
    document = json.loads((work / "model.sig").read_bytes())
    stated = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    stated["predicate"]["resources"] = []
    (work / "m.sig").write_bytes(resigned(json.dumps(stated).encode(), key))
    for command in (["verify", "m"], ["inspect", "m.sig"]):
        assert "m.sig: predicate.resources: " in batuta("pacha", *command, code=2).stderr


def test_many_files_left_out_are_counted_in_the_text_and_listed_in_the_json(
    batuta: Run, home: Path, work: Path
) -> None:
    own_key(home)
    (work / "m" / "logs").mkdir(parents=True)
    (work / "m" / "weights").write_text("weights")
    names = [f"logs/{n:02}" for n in range(25)]
    for name in names:
        (work / "m" / name).write_text("")
    (work / "m" / "logs" / "link").symlink_to("/etc/passwd")
    batuta("pacha", "sign", "m", "--ignore", "logs", code=0)
    done = batuta("pacha", "verify", "m", code=0)
    assert "not covered by the signature: logs/00, " in done.stdout and ", and 16 more" in done.stdout
    assert result(batuta("pacha", "verify", "m", "--json"))[0]["ignored"] == [*names, "logs/link"]


def test_links_are_followed_only_when_the_signature_says_so(batuta: Run, home: Path, work: Path) -> None:
    own_key(home)
    (work / "m").mkdir()
    (work / "blob").write_bytes(b"x")
    os.symlink("../blob", work / "m" / "f")
    done = batuta("pacha", "sign", "m", code=2)
    assert "m/f: is a symbolic link" in done.stderr and "--follow-symlinks" in done.stderr
    batuta("pacha", "sign", "m", "--follow-symlinks", code=0)
    batuta("pacha", "verify", "m", code=0)
    (work / "blob").write_bytes(b"y")
    batuta("pacha", "verify", "m", code=3)
    (work / "m" / "f").unlink()
    (work / "m" / "f").write_bytes(b"x")
    batuta("pacha", "sign", "m", "--force", code=0)
    (work / "m" / "f").unlink()
    (work / "blob").write_bytes(b"x")
    os.symlink("../blob", work / "m" / "f")
    assert "changed: f" in batuta("pacha", "verify", "m", code=3).stderr


def test_the_digest_alone_is_compared_and_says_that_no_signature_was_checked(
    batuta: Run, work: Path, alice: SigningKey
) -> None:
    address = batuta("pacha", "hash", "model").stdout.split()[0]
    other = "blake3:" + "0" * 64
    (work / "model.sig").unlink()
    done = batuta("pacha", "verify", "model", "--digest", address, code=0)
    assert "no signature was checked" in done.stdout
    [found] = result(batuta("pacha", "verify", "model", "--digest", address, "--json", code=0))
    assert (found["signers"], found["binds"]) == ([], ["content"])
    done = batuta("pacha", "verify", "model", "--digest", other, code=3)
    assert address in done.stderr and other in done.stderr
    piped = batuta("pacha", "verify", "-", "--digest", address, input="weights", code=0)
    assert "no signature was checked" in piped.stdout
    batuta("pacha", "verify", "-", "--digest", address, input="Weights", code=3)
    for malformed in ("0" * 64, "sha512:" + "0" * 64, "blake3:" + "0" * 63, "blake3:" + "g" * 64, ""):
        batuta("pacha", "verify", "model", "--digest", malformed, code=2)


def test_a_digest_with_a_signer_asked_for_needs_both(batuta: Run, work: Path, alice: SigningKey) -> None:
    address = batuta("pacha", "hash", "model").stdout.split()[0]
    other = "blake3:" + "0" * 64
    (work / "alice.pub").write_bytes(alice.verifying_key.to_pem())
    for asked in (["--identity", ALICE], ["--key", "alice.pub"], ["--signature", "model.sig"], ["--name", "model"]):
        batuta("pacha", "verify", "model", "--digest", address, *asked, code=0)
        batuta("pacha", "verify", "model", "--digest", other, *asked, code=3)
    batuta("pacha", "verify", "model", "--digest", address, "--identity", "bob", code=4)
    batuta("pacha", "verify", "model", "--digest", address, "--require", "2", code=4)
    (work / "model.sig").unlink()
    batuta("pacha", "verify", "model", "--digest", address, "--identity", ALICE, code=3)


def test_an_empty_value_is_never_taken_for_an_option_left_out(
    batuta: Run, home: Path, work: Path, alice: SigningKey
) -> None:
    """`--digest "$DIGEST"` with a variable that is not set must not switch the check off."""
    address = batuta("pacha", "hash", "model").stdout.split()[0]
    assert batuta("pacha", "verify", "model", "--digest", "").returncode == 2
    for option in ("--key", "--identity", "--name", "--signature"):
        assert batuta("pacha", "verify", "model", option, "").returncode != 0
        assert batuta("pacha", "verify", "model", option, "", "--digest", address).returncode != 0
    for option in ("--key", "--identity", "--output", "--passphrase-env"):
        if option != "--passphrase-env":  # of no use to a key that is not encrypted
            assert batuta("pacha", "sign", "model", "--force", option, "").returncode != 0
        if option != "--key":
            assert batuta("pacha", "keygen", "--force", option, "").returncode != 0
    for option in ("--output", "--password-file", "--password-env"):
        assert batuta("pacha", "encrypt", "model", option, "", env={"MODEL_KEY": "secret"}).returncode != 0
    assert names_in(home / "data/batuta/keys") == [f"{ALICE}.key", f"{ALICE}.pub"]
    assert names_in(work) == ["model", "model.sig"]


def test_a_single_file_under_another_name_is_a_warning_that_name_makes_an_error(
    batuta: Run, work: Path, alice: SigningKey
) -> None:
    (work / "model").rename(work / "other")
    (work / "model.sig").rename(work / "other.sig")
    done = batuta("pacha", "verify", "other", code=0)
    assert "warning: other: other was signed under another name, model" in done.stderr
    batuta("pacha", "verify", "other", "--name", "model", code=0)
    done = batuta("pacha", "verify", "other", "--name", "other", code=3)
    assert "signed as model, not as other" in done.stderr
    assert result(batuta("pacha", "verify", "other", "--json"))[0]["warnings"]


def test_the_signer_asked_for_must_be_the_signer(batuta: Run, home: Path, work: Path, alice: SigningKey) -> None:
    bob = SigningKey.generate("bob")
    trust_key(home, bob, "bob")
    (work / "alice.pub").write_bytes(alice.verifying_key.to_pem())
    (work / "bob.pub").write_bytes(bob.verifying_key.to_openssh())
    batuta("pacha", "verify", "model", "--identity", ALICE, code=0)
    done = batuta("pacha", "verify", "model", "--identity", "bob", code=4)
    assert ALICE in done.stderr and "not by bob" in done.stderr
    shown = batuta("pacha", "verify", "model", "--key", "alice.pub", code=0).stdout
    # a key file has no name, so the one shown is the signer's own word
    assert f"signed by the key {alice.verifying_key.key_id}, which calls itself {ALICE}" in shown
    batuta("pacha", "verify", "model", "--key", alice.verifying_key.inline, "--identity", ALICE, code=0)
    batuta("pacha", "verify", "model", "--key", "-", input=alice.verifying_key.to_pem().decode(), code=0)
    batuta("pacha", "verify", "model", "--key", "alice.pub", "--identity", "bob", code=4)
    failed = answer(batuta("pacha", "verify", "model", "--key", "bob.pub", "--json", code=4))
    assert failed["error"]["kind"] == "wrong_signer"
    assert "missing.pub" in batuta("pacha", "verify", "model", "--key", "missing.pub", code=1).stderr
    batuta("pacha", "verify", "model", "--key", "model", code=2)
    forget_trust(home)  # a key that is given needs no trust store
    batuta("pacha", "verify", "model", "--key", "alice.pub", code=0)


def test_stdin_is_verified_against_a_named_signature(batuta: Run, work: Path, alice: SigningKey) -> None:
    batuta("pacha", "verify", "-", "--signature", "model.sig", input="weights", code=0)
    batuta("pacha", "verify", "-", "--signature", "model.sig", input="Weights", code=3)
    batuta("pacha", "verify", "-", "--signature", "model.sig", input="", code=3)
    assert "--signature FILE" in batuta("pacha", "verify", "-", code=2).stderr
    for arguments in (["-", "--signature", "-"], ["-", "-"], ["model", "--signature", "-", "--key", "-"]):
        done = batuta("pacha", "verify", *arguments, input="weights", code=2)
        assert "stdin can be read once only" in done.stderr


def test_several_models_are_all_tried_and_the_worst_decides(
    batuta: Run, home: Path, work: Path, alice: SigningKey
) -> None:
    signed_model(work, SigningKey.generate(), "stranger")
    signed_model(work, alice, "changed").write_bytes(b"x")
    (work / "model.bad").write_bytes(b"x")
    (work / "model.bad.sig").write_bytes(b"{")
    cases = [
        (["missing", "model.bad", "stranger", "changed", "model"], 3),
        (["missing", "model.bad", "stranger", "model"], 4),
        (["missing", "model.bad", "model"], 2),
        (["missing", "model"], 1),
        (["model", "./model"], 0),
    ]
    for paths, code in cases:
        done = batuta("pacha", "verify", *paths, code=code)
        assert "model: verified" in done.stdout
        if code:
            assert f"{len(paths) - 1} of {len(paths)} failed" in done.stderr
    document = answer(batuta("pacha", "verify", *cases[0][0], "--json", code=3))
    assert [row["error"] and row["error"]["exit_code"] for row in document["result"]] == [1, 2, 4, 3, None]
    assert "takes one PATH" in batuta("pacha", "verify", "model", "changed", "--signature", "model.sig", code=2).stderr


def test_two_signers_in_two_files_can_both_be_required(batuta: Run, home: Path, work: Path, alice: SigningKey) -> None:
    bob, eve = SigningKey.generate("bob"), SigningKey.generate("eve")
    trust_key(home, bob, "bob")
    for name, key in (("bob", bob), ("eve", eve), ("again", alice)):
        sign_path(work / "model", key).save(work / f"{name}.sig")

    def verify(*files: str, require: str | None = None) -> int:
        flags = [word for file in files for word in ("--signature", f"{file}.sig")]
        return batuta("pacha", "verify", "model", *flags, *(["--require", require] if require else [])).returncode

    assert verify("model", "bob") == 0
    assert verify("model", "bob", require="2") == 0
    assert verify("model", "again", require="2") == 4  # one key twice is one signer
    assert verify("model", "again", require="1") == 0
    assert verify("model", "eve") == 4
    assert verify("model", "eve", require="1") == 0
    assert verify("model", "eve", require="2") == 4
    assert verify("model", require="2") == 4
    done = batuta("pacha", "verify", "model", "--signature", "model.sig", "--signature", "bob.sig", code=0)
    assert f"signed by {ALICE}" in done.stdout and " and bob " in done.stdout
    (work / "model").write_bytes(b"x")
    assert verify("model", "bob", require="1") == 3
    assert "--require" in batuta("pacha", "verify", "model", "--require", "0", code=2).stderr


def test_an_empty_file_is_signed_and_verified(batuta: Run, home: Path, work: Path) -> None:
    own_key(home)
    (work / "empty").write_bytes(b"")
    batuta("pacha", "sign", "empty", code=0)
    batuta("pacha", "verify", "empty", code=0)
    (work / "empty").write_bytes(b"x")
    batuta("pacha", "verify", "empty", code=3)


def test_a_fifo_or_device_is_no_model(batuta: Run, work: Path, alice: SigningKey) -> None:
    os.mkfifo(work / "fifo")
    done = batuta("pacha", "verify", "fifo", "--signature", "model.sig", code=2)
    assert "fifo: is a FIFO" in done.stderr
    done = batuta("pacha", "verify", "/dev/zero", "--signature", "model.sig", code=2)
    assert "is a character device" in done.stderr


def test_the_signature_may_come_from_stdin_and_a_directory_is_none(batuta: Run, work: Path, alice: SigningKey) -> None:
    (work / "d").mkdir()
    assert "d: is a directory" in batuta("pacha", "verify", "model", "--signature", "d", code=2).stderr
    sig = bundle(work / "model", alice, identity=ALICE)
    batuta("pacha", "verify", "model", "--signature", "-", input=sig.decode(), code=0)
    batuta("pacha", "verify", "model", "--signature", "-", input="", code=2)


def test_the_rust_crates_format_is_read_only_when_asked_for(batuta: Run, work: Path, alice: SigningKey) -> None:
    batuta("pacha", "sign", "model", "--format", "pacha1", "--force", code=0)
    refused = batuta("pacha", "verify", "model", code=4)
    assert "accept it once with --allow-pacha1" in refused.stderr
    [found] = result(batuta("pacha", "verify", "model", "--allow-pacha1", "--json", code=0))
    assert found["binds"] == ["content"]
    batuta("pacha", "verify", "model", env={"BATUTA_PACHA_ALLOW_PACHA1": "true"}, code=0)
    batuta("pacha", "verify", "-", "--signature", "model.sig", input="weights", code=4)
    batuta("config", "set", "pacha.allow_pacha1", "true", code=0)
    batuta("pacha", "verify", "model", code=0)
    batuta("pacha", "verify", "model", env={"BATUTA_PACHA_ALLOW_PACHA1": "false"}, code=4)
    batuta("pacha", "verify", "model", env={"BATUTA_PACHA_ALLOW_PACHA1": "perhaps"}, code=2)
    (work / "model").write_bytes(b"Weights")
    batuta("pacha", "verify", "model", code=3)


def test_a_digest_covers_the_files_that_a_signature_leaves_out(batuta: Run, home: Path, work: Path) -> None:
    own_key(home)
    (work / "d").mkdir()
    (work / "d" / "f").write_bytes(b"weights")
    (work / "d" / "run.log").write_bytes(b"log")
    batuta("pacha", "sign", "d", "--ignore", "*.log", code=0)
    address = batuta("pacha", "hash", "d", code=0).stdout.split()[0]
    both = ["pacha", "verify", "d", "--digest", address, "--identity", ALICE]
    batuta(*both, code=0)
    (work / "d" / "run.log").write_bytes(b"evil")
    batuta("pacha", "verify", "d", code=0)
    batuta(*both, code=3)


def test_a_key_that_is_retired_here_stays_retired_when_it_is_given_by_hand(
    batuta: Run, home: Path, work: Path, alice: SigningKey
) -> None:
    batuta("pacha", "trust", "retire", ALICE, "--from", "2020-01-01", code=0)
    batuta("pacha", "verify", "model", "--key", alice.verifying_key.inline, code=4)


@pytest.mark.parametrize("character", ["\u200b", "\ufeff", "\U000e0061"])
def test_a_signature_under_a_name_with_invisible_characters_is_shown_escaped_and_is_nobody_who_is_trusted(
    batuta: Run, work: Path, alice: SigningKey, character: str
) -> None:
    name, shown = f"alice{character}@example.com", f"alice{character.encode('unicode_escape').decode()}@example.com"
    inline = alice.verifying_key.inline
    (work / "model.sig").write_bytes(bundle(work / "model", alice, identity=name))
    trusted = batuta("pacha", "verify", "model", code=4)
    given = batuta("pacha", "verify", "model", "--key", inline, code=0)
    asked = batuta("pacha", "verify", "model", "--key", inline, "--identity", ALICE, code=4)
    inspected = batuta("pacha", "inspect", "model.sig", code=0)
    batuta("pacha", "trust", "remove", ALICE, code=0)
    unknown = batuta("pacha", "verify", "model", code=4)
    for done in (trusted, given, asked, inspected, unknown):
        assert shown in done.stdout + done.stderr
        assert character not in done.stdout + done.stderr
    assert f"batuta pacha trust add NAME {inline}" in unknown.stderr


def test_a_name_with_invisible_characters_in_an_old_trust_store_matches_nothing_and_can_be_removed(
    batuta: Run, home: Path, work: Path, alice: SigningKey
) -> None:
    name = "alice\u200b@example.com"
    trust_file(home).write_text(trust_file(home).read_text().replace(ALICE, name))
    (work / "model.sig").write_bytes(bundle(work / "model", alice, identity=name))
    done = batuta("pacha", "verify", "model", code=4)
    assert r"alice\u200b@example.com" in done.stderr and "invisible characters" in done.stderr
    assert r"alice\u200b@example.com" in batuta("pacha", "trust", "list", code=0).stdout
    key_id = alice.verifying_key.key_id
    batuta("pacha", "trust", "retire", key_id, "--from", "2999-01-01", code=0)
    assert "\u200b" not in batuta("pacha", "trust", "remove", key_id, code=0).stdout
    batuta("pacha", "trust", "add", ALICE, alice.verifying_key.inline, code=0)
