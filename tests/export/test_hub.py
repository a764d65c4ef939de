"""`export --push` with the hub's own client, against a server on this machine that answers as a hub does."""

import base64
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import trpo_lightning

ROOT = Path(trpo_lightning.__file__).parents[1]
TOKEN = "hf_" + "a" * 34


class Hub(ThreadingHTTPServer):
    """Keeps what is committed; `refuses` is the status that it answers everything with."""

    def __init__(self, refuses: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refuses = refuses
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(self.path)
        if self.server.refuses or self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer({"error": "Invalid username or password."}, self.server.refuses or 401)
        elif self.path.endswith("/repos/create"):
            self._answer({"url": f"{self.server.url}/{json.loads(body)['organization']}/{json.loads(body)['name']}"})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self._answer({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif "/commit/" in self.path:
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self._answer({"commitUrl": f"{self.server.url}/me/mine/commit/1", "commitOid": "1", "success": True})
        else:
            self._answer({"errors": [], "warnings": []})

    def do_GET(self) -> None:
        self._answer({"error": "not found"}, 404)

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def hub(refuses: int = 0) -> Iterator[Hub]:
    server = Hub(refuses)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def export(policy: Path, folder: Path, url: str, home: Path) -> subprocess.CompletedProcess[str]:
    variables = {"HF_ENDPOINT": url, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "trpo_lightning", "export", str(policy), "--to", str(folder), "--push", "me/mine"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("hub") / "policy.pt"
    trpo_lightning.TRPO("CartPole-v1", policy={"hidden_sizes": [4]}, threads=1).save(file)
    return file


def test_the_hub_gets_the_folder_and_another_machine_can_load_it(policy: Path, tmp_path: Path) -> None:
    with hub() as server:
        done = export(policy, tmp_path / "mine", server.url, tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"pushed: {server.url}/me/mine/commit/1" in done.stdout
    written = {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
    assert server.files == written and "policy.safetensors" in written
    downloaded = tmp_path / "downloaded"
    downloaded.mkdir()
    for name, content in server.files.items():
        (downloaded / name).write_bytes(content)
    assert trpo_lightning.load(downloaded).act([0.0, 0.0, 0.0, 0.0]) in (0, 1)


@pytest.mark.parametrize("status", [401, 403])
def test_a_hub_that_refuses_is_a_line_and_the_folder_stays(policy: Path, tmp_path: Path, status: int) -> None:
    with hub(refuses=status) as server:
        done = export(policy, tmp_path / "mine", server.url, tmp_path)
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and line.startswith("error: --push me/mine: the hub did not take it")
    assert f"hf upload me/mine {tmp_path / 'mine'}" in line and TOKEN not in done.stderr
    assert trpo_lightning.load(tmp_path / "mine").env_steps == 0
