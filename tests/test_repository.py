"""What the repository offers beside the package: workflows, hooks and examples, each run as far as it can be here."""

import ast
import configparser
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import BATUTA, Run

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
PRE_COMMIT = str(Path(sys.executable).with_name("pre-commit"))


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


# Continuous integration, templates.


def test_ci_calls_make_test_and_make_test_agents_on_every_supported_python() -> None:
    (job,) = _yaml(ROOT / ".github/workflows/ci.yml")["jobs"].values()
    runs = [step.get("run", "") for step in job["steps"]]
    local = (ROOT / ".ci/run").read_text()
    for target in ("make test", "make test-agents"):
        assert any(run.split(" PYTHON=")[0] == target for run in runs), target
        assert re.search(rf"^(exec )?{target}$", local, re.MULTILINE), target
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    classified = [c.rpartition(" ")[2] for c in project["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert job["strategy"]["matrix"]["python"] == classified
    assert project["requires-python"] == f">={classified[0]}"


@pytest.mark.parametrize("form", ["bug", "feature"])
def test_an_issue_form_has_what_github_requires(form: str) -> None:
    """https://docs.github.com/en/communities/using-templates-to-encourage-useful-issues-and-pull-requests"""
    document = _yaml(ROOT / f".github/ISSUE_TEMPLATE/{form}.yml")
    assert document["name"] and document["description"]
    ids = [item["id"] for item in document["body"] if item["type"] != "markdown"]
    assert len(ids) == len(set(ids)) > 0
    for item in document["body"]:
        assert item["type"] in ("markdown", "textarea")
        assert item["attributes"]["value" if item["type"] == "markdown" else "label"]


def test_the_changelog_has_each_section_and_each_entry_once() -> None:
    """A merge can double both."""
    unreleased = (ROOT / "CHANGELOG.md").read_text().partition("\n## Unreleased\n")[2].partition("\n## ")[0]
    lines = [line for line in unreleased.splitlines() if line.startswith(("### ", "- "))]
    assert len(lines) > 30
    assert [line for line in lines if lines.count(line) > 1] == []


# Unit tests mirror the modules.

ELSEWHERE = {
    "pacha/__init__.py": "tests/test_library.py",
    "serve/__init__.py": "tests/test_library.py",
}
"""Modules whose test file has another name: both packages offer names in the same way, and one file tests both."""


def _has_behaviour(body: list[ast.stmt]) -> bool:
    """Whether a function or method is in it that is not a Protocol's."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return True
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
            if "Protocol" not in bases and _has_behaviour(node.body):
                return True
    return False


def _test_file(module: Path) -> Path:
    """`tests/ROOM/test_MODULE.py`; of a package's `__init__.py` the module is the package."""
    if other := ELSEWHERE.get(str(module)):
        return ROOT / other
    name = module.parent.name if module.stem == "__init__" else module.stem
    return ROOT / "tests" / module.parent / f"test_{name}.py"


def test_every_module_with_behaviour_has_a_test_file_of_its_name() -> None:
    """The commands of `cli/` are tested by what they print, in `tests/cli`."""
    package = ROOT / "batuta_cli"
    modules = [path for path in sorted(package.rglob("*.py")) if path.relative_to(package).parts[0] != "cli"]
    behaving = [path.relative_to(package) for path in modules if _has_behaviour(ast.parse(path.read_text()).body)]
    assert len(behaving) > 150
    tests = {module: _test_file(module) for module in behaving}
    assert [str(module) for module, test in tests.items() if not test.is_file()] == []
    assert [str(test) for test in tests.values() if not re.search(r"^def test_", test.read_text(), re.M)] == []


# pre-commit.


@pytest.fixture
def git_environment(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """As `environment`, for git and pre-commit, with batuta in the path."""
    who = {f"GIT_{role}_{what}": "alice@example.com" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    places = {"PRE_COMMIT_HOME": str(tmp_path / "pre-commit"), "PATH": f"{Path(BATUTA).parent}:{environment['PATH']}"}
    return environment | who | places


@pytest.mark.parametrize(("check", "file"), [("config", "config"), ("manifest", "hooks")])
def test_pre_commit_accepts_the_file(check: str, file: str, git_environment: dict[str, str]) -> None:
    command = [PRE_COMMIT, f"validate-{check}", str(ROOT / f".pre-commit-{file}.yaml")]
    done = subprocess.run(command, env=git_environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_hooks_of_contributors_refuse_a_file_that_ruff_refuses(git_environment: dict[str, str], work: Path) -> None:
    tools = work / ".venv" / "bin"
    tools.mkdir(parents=True)
    (tools / "ruff").symlink_to(Path(sys.executable).with_name("ruff"))
    shutil.copy(ROOT / ".pre-commit-config.yaml", work)
    (work / "good.py").write_text("x = 1\n")
    subprocess.run(["git", "init"], env=git_environment, cwd=work, check=True, capture_output=True)

    def hooks(file: str) -> int:
        subprocess.run(["git", "add", file], env=git_environment, cwd=work, check=True)
        command = [PRE_COMMIT, "run", "--files", file]
        return subprocess.run(command, env=git_environment, cwd=work, capture_output=True).returncode

    subprocess.run(["git", "add", ".pre-commit-config.yaml"], env=git_environment, cwd=work, check=True)
    assert hooks("good.py") == 0
    (work / "unused.py").write_text("import os\n")
    assert hooks("unused.py") == 1
    (work / "spaced.py").write_text("x  =  1\n")
    assert hooks("spaced.py") == 1


def test_the_verify_hook_refuses_a_commit_with_a_model_or_a_signature_that_does_not_verify(
    batuta: Run, git_environment: dict[str, str], work: Path
) -> None:
    def git(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(["git", *arguments], env=git_environment, cwd=work, capture_output=True, text=True)

    (hook,) = _yaml(ROOT / ".pre-commit-hooks.yaml")
    # With `language: python` pre-commit would install batuta from its repository, which takes a network.
    hook |= {"language": "system", "args": ["--key", "release.pub"]}
    del hook["minimum_pre_commit_version"]
    config = {"repos": [{"repo": "local", "hooks": [hook]}]}
    (work / ".pre-commit-config.yaml").write_text(json.dumps(config))
    (work / "model.gguf").write_bytes(b"a model")
    batuta("pacha", "keygen", "--output", "../release.key", code=0)
    shutil.move(work / "../release.pub", work / "release.pub")
    batuta("pacha", "sign", "model.gguf", "--key", "../release.key", code=0)
    assert git("init").returncode == 0
    subprocess.run([PRE_COMMIT, "install"], env=git_environment, cwd=work, check=True, capture_output=True)
    git("add", ".")
    done = git("commit", "-m", "a signed model")
    assert done.returncode == 0, done.stderr

    (work / "notes.txt").write_text("nothing to verify")
    git("add", ".")
    assert git("commit", "-m", "notes").returncode == 0

    good = (work / "model.gguf.sig").read_bytes()
    (work / "model.gguf").write_bytes(b"another model")
    git("add", ".")
    done = git("commit", "-m", "a changed model")
    assert done.returncode == 1 and "model.gguf: the content is not what was signed" in done.stderr

    (work / "model.gguf").write_bytes(b"a model")
    (work / "model.gguf.sig").write_bytes(good.replace(b"sha256", b"sha512") + b"}")
    git("add", ".")
    assert git("commit", "-m", "a damaged signature").returncode == 1

    (work / "model.gguf.sig").write_bytes(good)
    (work / "unsigned.safetensors").write_bytes(b"weights")
    git("add", ".")
    assert git("commit", "-m", "an unsigned model").returncode == 1


# action.yml


class _Job:
    """A GitHub Actions job as far as a shell can be one: it runs the steps of action.yml."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.document = _yaml(ROOT / "action.yml")
        self.temp = folder / "runner-temp"
        (self.temp / "batuta" / "bin").mkdir(parents=True)
        (self.temp / "batuta" / "bin" / "batuta").symlink_to(BATUTA)
        self._folder = folder
        self._environment = environment | {"RUNNER_TEMP": str(self.temp), "GITHUB_WORKSPACE": str(folder)}

    def run(self, step: int, given: dict[str, str], **more: str) -> "subprocess.CompletedProcess[str]":
        """Run one step as the runner does, with `bash --noprofile --norc -eo pipefail`."""
        inputs = {name: str(facts.get("default", "")) for name, facts in self.document["inputs"].items()} | given
        (settings,) = [self.document["runs"]["steps"][step]]
        variables = {name: _expanded(text, inputs) for name, text in settings["env"].items()}
        assert "${{" not in settings["run"]  # an input there would be executed
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", settings["run"]],
            env=self._environment | variables | more,
            cwd=self._folder,
            capture_output=True,
            text=True,
        )


def _expanded(text: str, inputs: dict[str, str]) -> str:
    values = {f"inputs.{name}": value for name, value in inputs.items()} | {"github.action_path": str(ROOT)}
    return re.sub(r"\$\{\{ (\S+) \}\}", lambda match: values[match[1]], text)


def test_the_action_has_what_github_requires_and_each_input_is_used_once() -> None:
    """https://docs.github.com/en/actions/reference/workflows-and-actions/metadata-syntax"""
    document = _yaml(ROOT / "action.yml")
    assert document["name"] and document["description"]
    assert document["runs"]["using"] == "composite"
    used = [value for step in document["runs"]["steps"] for value in step["env"].values()]
    assert all(step["shell"] == "bash" for step in document["runs"]["steps"])
    assert sorted(used) == sorted(
        ["${{ github.action_path }}", *(f"${{{{ inputs.{name} }}}}" for name in document["inputs"])]
    )


def test_the_tour_uses_the_action_with_inputs_that_it_has() -> None:
    tour = (ROOT / "docs/tour-pacha.md").read_text()
    (example,) = re.findall(r"<!-- test: action -->\n```yaml\n(.*?)```", tour, re.DOTALL)
    (step,) = yaml.safe_load(example)
    inputs = _yaml(ROOT / "action.yml")["inputs"]
    assert set(step["with"]) <= set(inputs)
    assert {name for name, facts in inputs.items() if facts.get("required")} <= set(step["with"])


def test_the_action_installs_its_own_checkout_into_an_environment_of_its_own(
    work: Path, environment: dict[str, str]
) -> None:
    job = _Job(work, environment)
    fake = work / "python"
    pip = "#!/bin/sh\\necho pip \\$*"
    fake.write_text(
        f'#!/bin/sh\necho "python $*"\nmkdir -p "$3/bin"\nprintf "{pip}" >"$3/bin/pip"\nchmod +x "$3/bin/pip"\n'
    )
    fake.chmod(0o755)
    done = job.run(0, {"python": str(fake)})
    assert done.stdout.splitlines() == [
        f"python -m venv {job.temp}/batuta",
        f"pip install --quiet --disable-pip-version-check {ROOT}",
    ]
    assert done.returncode == 0, done.stderr


def test_the_action_verifies_each_model_and_annotates(batuta: Run, work: Path, environment: dict[str, str]) -> None:
    job = _Job(work, environment)
    batuta("pacha", "keygen", "--output", "release.key", "--identity", "release@example.com", code=0)
    for name in ("a model.gguf", "-b.gguf"):
        (work / name).write_bytes(b"a model")
        batuta("pacha", "sign", "--key", "release.key", "--identity", "release@example.com", "--", name, code=0)
    given = {"paths": "a model.gguf\n-b.gguf\n", "key": "release.pub", "identity": "other\nrelease@example.com\n"}
    good = job.run(1, given, GITHUB_STEP_SUMMARY=str(work / "summary"))
    assert (good.returncode, good.stdout.count("::notice file=")) == (0, 2), good.stderr
    assert (work / "summary").read_text().count("| verified |") == 2
    (work / "-b.gguf").write_bytes(b"another model")
    bad = job.run(1, given)
    assert (bad.returncode, bad.stdout.count("::error file=-b.gguf,")) == (3, 1)
    assert job.run(1, given | {"identity": "other"}).returncode == 3
    assert job.run(1, {"paths": "a model.gguf", "key": "release.pub", "require": "2"}).returncode == 4


def test_the_action_refuses_to_run_without_a_key_and_executes_no_input(
    batuta: Run, work: Path, environment: dict[str, str]
) -> None:
    job = _Job(work, environment)
    (work / "model").write_bytes(b"a model")
    without = job.run(1, {"paths": "model"})
    assert (without.returncode, without.stdout[:14]) == (2, "::error title=")
    hostile = "$(touch executed)`touch executed`; touch executed"
    for name in ("paths", "key", "identity", "trust", "allow-unsigned", "require"):
        assert job.run(1, {"paths": "model", "key": "k"} | {name: hostile}).returncode != 0
    assert not (work / "executed").exists()


# examples/


def _unit() -> list[tuple[str, str]]:
    """The settings of the unit's sections, in order; a name may be there several times."""
    text = (EXAMPLES / "batuta-gateway.service").read_text()
    return [tuple(line.split("=", 1)) for line in text.splitlines() if re.match(r"\w+=", line)]  # type: ignore[misc]


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    unit = tmp_path / "batuta-gateway.service"
    unit.write_text((EXAMPLES / unit.name).read_text().replace("/usr/local/bin/batuta", str(BATUTA)))
    (tmp_path / "home").mkdir()
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit],
        env={"PATH": os.environ["PATH"], "SYSTEMD_LOG_LEVEL": "warning"},
        capture_output=True,
        text=True,
    )
    ours = [line for line in done.stderr.splitlines() if "batuta" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


def _events(log: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a gateway's log."""
    for line in log.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


@contextmanager
def _gateway(command: list[str], environment: dict[str, str], cwd: Path) -> Iterator[str]:
    """Run a gateway on a free port; gives its URL. SIGTERM must end it well."""
    log = cwd / "gateway.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([*command, "--port", "0"], env=environment, cwd=cwd, stderr=stderr)
    try:
        deadline = time.monotonic() + 60
        while not (listening := [line for line in _events(log) if line.get("event") == "listening"]):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield listening[0]["url"].replace("0.0.0.0", "127.0.0.1")  # noqa: S104
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()


def _status(url: str, path: str, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_command_of_the_unit_starts_a_gateway_in_the_directories_of_the_unit(work: Path) -> None:
    settings = _unit()
    (command,) = [shlex.split(value) for name, value in settings if name == "ExecStart"]
    assert command[0] == "/usr/local/bin/batuta"
    environment = dict(value.split("=", 1) for name, value in settings if name == "Environment")
    under_work = {name: f"{work}{value}" for name, value in environment.items()}
    (work / "etc/batuta").mkdir(parents=True)
    (work / "etc/batuta/config.toml").write_text('[backends.vllm]\nmodels = ["m"]\n')
    with _gateway([str(BATUTA), *command[1:]], {"PATH": os.environ["PATH"], **under_work}, work) as url:
        assert _status(url, "/health", {}) == 200
    directories = {name: value for name, value in settings if name.endswith("Directory")}
    assert directories == {"StateDirectory": "batuta", "CacheDirectory": "batuta"}


def test_the_environment_file_of_the_unit_is_no_part_of_the_repository() -> None:
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string((EXAMPLES / "batuta-gateway.service").read_text())
    assert parser["Service"]["EnvironmentFile"] == "-/etc/batuta/environment"  # missing is no error
    assert parser["Service"]["User"] == "batuta"


def test_the_compose_file_refers_to_what_it_defines() -> None:
    document = _yaml(EXAMPLES / "compose.yaml")
    services = document["services"]
    assert set(services) == {"verify", "llamacpp", "gateway"}
    for service in services.values():
        assert ("image" in service) != ("build" in service)
        assert set(service.get("depends_on", {})) <= set(services)
        assert set(service.get("networks", [])) <= set(document["networks"])
        named = {volume.split(":")[0] for volume in service.get("volumes", [])}
        assert {name for name in named if not name.startswith(".")} <= set(document["volumes"])
    assert services["llamacpp"]["depends_on"]["verify"]["condition"] == "service_completed_successfully"
    (subnet,) = document["networks"]["models"]["ipam"]["config"]
    assert services["gateway"]["environment"]["BATUTA_PRIVACY_LOCAL_NETWORKS"] == subnet["subnet"]
    assert (EXAMPLES / services["gateway"]["build"]["context"]).resolve() == ROOT


def test_the_verify_service_of_the_compose_file_lets_only_a_model_of_the_release_key_through(
    batuta: Run, work: Path
) -> None:
    models = work / "models"
    models.mkdir()
    (models / "model.gguf").write_bytes(b"a model")
    batuta("pacha", "keygen", "--output", "release.key", code=0)
    (work / "release.pub").rename(models / "release.pub")
    batuta("pacha", "sign", "models/model.gguf", "--key", "release.key", code=0)
    words = _yaml(EXAMPLES / "compose.yaml")["services"]["verify"]["command"]
    command = [word.replace("/models", str(models)) for word in words[1:]]
    batuta(*command, code=0)
    (models / "model.gguf").write_bytes(b"another model")
    batuta(*command, code=3)


def test_the_gateway_of_the_compose_file_needs_a_key_and_serves_the_model_of_its_backend(
    batuta: Run, environment: dict[str, str], work: Path
) -> None:
    service = _yaml(EXAMPLES / "compose.yaml")["services"]["gateway"]
    assert service["command"][0] == "batuta"
    given = {name: value.replace("/state", str(work)) for name, value in service["environment"].items()}
    given["BATUTA_BACKENDS_LLAMACPP_BASE_URL"] = "http://127.0.0.1:9/v1"  # the discard port: nothing answers
    refused = batuta(*service["command"][1:], env=given, code=2)
    assert "serve keys create" in refused.stderr
    key = batuta("serve", "keys", "create", "laptop", env=given, code=0).stdout.strip()
    shown = json.loads(batuta("serve", "backends", "--json", env=given, code=0).stdout)["result"]
    assert shown["privacy"] == "sovereign"
    assert [(b["backend"], b["addresses"], b["allowed"]) for b in shown["backends"]] == [
        ("LlamaCpp", ["http://127.0.0.1:9/v1"], True)
    ]
    with _gateway([str(BATUTA), *service["command"][1:]], environment | given, work) as url:
        assert _status(url, "/v1/models", {}) == 401
        assert _status(url, "/v1/models", {"Authorization": f"Bearer {key}"}) == 200


def _server_of(name: str) -> tuple[list[str], Any]:
    """The command line of the server in an example that uses `pacha run`, and the document."""
    document = _yaml(EXAMPLES / name)
    if name.startswith("compose"):
        service = document["services"]["llamacpp"]
        entry = json.loads(service["build"]["dockerfile_inline"].partition("ENTRYPOINT ")[2])
        return [*entry, *service["command"]], document
    (container,) = document["spec"]["containers"]
    return [*container["command"], *container["args"]], document


@pytest.mark.parametrize("name", ["compose-run.yaml", "kubernetes-run.yaml"])
def test_the_server_of_an_example_gets_the_verified_plaintext_and_is_not_started_on_another(
    batuta: Run, work: Path, name: str
) -> None:
    words, _ = _server_of(name)
    assert words[0] == "/opt/batuta/bin/batuta"
    assert words[words.index("--") + 1] == "/app/llama-server"
    (work / "model.gguf").write_bytes(b"a model")
    (work / "password").write_text("correct horse")
    batuta("pacha", "keygen", "--output", "release.key", code=0)
    batuta("pacha", "sign", "model.gguf", "--key", "release.key", code=0)
    batuta("pacha", "encrypt", "model.gguf", "--password-file", "password", code=0)
    (work / "model.gguf").unlink()
    server = work / "server"
    server.write_text('#!/bin/sh\ncat "$2"; shift 2; echo " $*"\n')
    server.chmod(0o755)
    places = {"/models/": f"{work}/", "/etc/batuta/": f"{work}/", "/app/llama-server": str(server)}
    places |= {"/run/secrets/model_key": f"{work}/password", "/run/secrets/model-key/": f"{work}/"}
    command = words[1:]
    for inside, outside in places.items():
        command = [word.replace(inside, outside) for word in command]
    assert batuta(*command, code=0).stdout == "a model --alias=local --host=0.0.0.0 --port=8080\n"
    (work / "other").write_bytes(b"another model")
    batuta("pacha", "encrypt", "other", "--password-file", "password", "--output", "model.gguf.enc", "--force", code=0)
    assert batuta(*command, code=3).stdout == ""


def test_the_pod_mounts_what_it_defines_and_only_the_server_has_key_and_password() -> None:
    _, document = _server_of("kubernetes-run.yaml")
    pod = document["spec"]
    (fetch,), (server,) = pod["initContainers"], pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for each in (fetch, server) for mount in each["volumeMounts"]} == set(volumes)
    assert [mount["name"] for mount in fetch["volumeMounts"]] == ["models"]
    for container in (fetch, server):
        assert container["securityContext"]["readOnlyRootFilesystem"]
    writable = [mount["name"] for mount in server["volumeMounts"] if not mount.get("readOnly")]
    assert [volumes[name]["emptyDir"]["medium"] for name in writable] == ["Memory"]
    assert server["resources"]["limits"] == server["resources"]["requests"]  # Guaranteed: no swap


def test_the_compose_file_of_a_run_has_no_place_on_a_disk_to_write_to() -> None:
    _, document = _server_of("compose-run.yaml")
    service = document["services"]["llamacpp"]
    assert service["read_only"]
    assert all(volume.endswith(":ro") for volume in service["volumes"])
    assert set(service["secrets"]) == set(document["secrets"])
    assert (EXAMPLES / service["build"]["context"]).resolve() == ROOT


# How to add a backend, a chat format: what the guides say is done in a copy of the package.


def _blocks(guide: Path) -> dict[str, str]:
    """The blocks of a guide that are to be tried, by the name in the comment before each."""
    found = re.findall(r"^ *<!-- test: ([\w. ]+) -->\n( *)```\w+\n(.*?)^ *```$", guide.read_text(), re.M | re.S)
    return {name: re.sub(rf"^{indent}", "", body, flags=re.M) for name, indent, body in found}


def _copied(work: Path) -> Path:
    package = work / "batuta_cli"
    shutil.copytree(ROOT / "batuta_cli", package, ignore=shutil.ignore_patterns("__pycache__"))
    return package


def _batuta_of(work: Path, environment: dict[str, str], *arguments: str) -> str:
    """Run the copy, and not the installed package; its stdout."""
    program = f"import sys; sys.path.insert(0, {str(work)!r}); from batuta_cli.cli import app; "
    program += f"assert app.__file__.startswith({str(work)!r}); app.main()"
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_backend_that_is_added_as_the_guide_says_can_be_used(work: Path, environment: dict[str, str]) -> None:
    package = _copied(work)
    folder = package / "serve/backends"
    blocks = _blocks(folder / "profiles/README.md")
    (folder / "profiles/example.toml").write_text(blocks["profile example.toml"])
    kinds = (folder / "kinds.py").read_text()
    last = 'GOOGLE_VERTEX = "GoogleVertex"\n'
    assert kinds.count(last) == 1
    (folder / "kinds.py").write_text(kinds.replace(last, last + blocks["kind"]))
    given = environment | {"BATUTA_BACKENDS_EXAMPLE_MODELS": "m"}
    shown = json.loads(_batuta_of(work, given, "serve", "backends", "--json"))["result"]["backends"]
    assert [(b["backend"], b["addresses"]) for b in shown] == [("Example", ["http://127.0.0.1:7000/v1"])]


def test_a_chat_format_that_is_added_as_the_guide_says_can_be_used(work: Path, environment: dict[str, str]) -> None:
    folder = _copied(work) / "serve/templates"
    blocks = _blocks(folder / "README.md")
    (folder / "example.jinja").write_text(blocks["template example.jinja"])
    with (folder / "formats.toml").open("a") as formats:
        formats.write("\n" + blocks["format"])
    prompt = _batuta_of(work, environment, "serve", "template", "--format", "example", "--user", "Hello")
    assert prompt == "<s>[user]Hello</s>[assistant]"
