"""The package of the gateway: the application for any ASGI server, and what must be installed for it."""

import asyncio
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.config import Config, Privacy
from batuta_cli.errors import MissingDependencyError
from batuta_cli.serve.gateway import application, check_dependencies
from batuta_cli.serve.gateway.logs import Log
from batuta_cli.serve.tiers import PrivacyTier


@pytest.mark.parametrize("module", ["aiohttp", "orjson", "prometheus_client", "uvicorn", "httptools", "uvloop"])
def test_without_a_package_of_its_extra_the_error_says_what_to_install(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_dependencies()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=f"the gateway needs {module}") as caught:
        check_dependencies()
    assert caught.value.hint == "pip install 'batuta-cli[serve]'"


def test_importing_the_package_imports_none_of_the_extra() -> None:
    program = "import sys, batuta_cli.serve.gateway; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    extra = {"aiohttp", "orjson", "prometheus_client", "uvicorn", "httptools", "uvloop"}
    assert not extra & set(done.stdout.split())


def test_an_application_has_the_settings_of_its_configuration_and_is_served_by_any_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    gateway = application(Config(privacy=Privacy(tier="private")), log=Log(io.BytesIO()))
    assert gateway._state.settings.privacy is PrivacyTier.PRIVATE
    scope = {"type": "http", "method": "GET", "path": "/health", "headers": [(b"host", b"127.0.0.1")]}
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(gateway(scope | {"client": ("127.0.0.1", 5000)}, receive, send))
    assert sent[0]["status"] == 200
    assert json.loads(sent[1]["body"]) == {"status": "ok"}
