"""Servers that fail on purpose, a proxy that can be cut, and training runs in processes of their own."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TINY = (
    "env.id=CartPole-v1",
    "env.num_envs=4",
    "env.backend=gymnasium",
    "rollout.steps_per_iteration=128",
    "env.max_episode_steps=50",
    "checkpoint.every=2",
    "evaluation.every=2",
    "evaluation.episodes=2",
    "threads=1",
)
ENDLESS = "total_env_steps=100000000"


def closed_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextlib.contextmanager
def unauthorized_server() -> Iterator[str]:
    """Answers 401 to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def hanging_server() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as sock:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"


class CuttableProxy:
    """Passes TCP connections on to an http server; while it is cut, it drops them all."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self.target = (parts.hostname, parts.port or 80)
        self.open: list[socket.socket] = []
        self.is_cut = False
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def mend(self) -> None:
        self.is_cut = False

    def cut(self) -> None:
        self.is_cut = True
        while self.open:
            self._drop(self.open.pop())

    def close(self) -> None:
        self.cut()
        self._drop(self.listener)

    @staticmethod
    def _drop(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()

    def _accept(self) -> None:
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            if self.is_cut:
                self._drop(client)
                continue
            server = socket.create_connection(self.target)
            self.open += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


class Trainer:
    """`python -m trpo_lightning` in child processes, with W&B variables of their own."""

    def __init__(self, home: Path, **variables: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        own = {"HOME": str(home), "OMP_NUM_THREADS": "1", "WANDB_ERROR_REPORTING": "false"}
        self.environment = {**kept, **own, **variables}

    def start(self, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "trpo_lightning", *arguments],
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def call(self, *arguments: str, **variables: str) -> tuple[int, str]:
        """Exit code and what was printed."""
        process = self.start(*arguments, **variables)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def train(self, run_dir: Path, *arguments: str, **variables: str) -> tuple[int, str]:
        return self.call("train", *TINY, *arguments, "--run-dir", str(run_dir), "--quiet", **variables)

    def until(self, stop: Callable[["subprocess.Popen[str]"], None], run_dir: Path, rows: int, *arguments: str):
        """Train and call `stop` when there are so many rows; exit code and what was printed."""
        process = self.start("train", *arguments, "--quiet")
        wait_for(lambda: count_lines(run_dir / "metrics.csv") > rows or process.poll() is not None)
        stop(process)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def sync(self, *folders: Path) -> str:
        """`wandb sync`, and what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "wandb", "sync", *map(str, folders)],
            env=self.environment,
            cwd=self.environment["HOME"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr


def count_lines(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n") if path.is_file() else 0


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What `condition` returns as soon as that is true; fails after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        time.sleep(0.1)
    raise AssertionError(f"{condition} did not come true within {seconds} s")
