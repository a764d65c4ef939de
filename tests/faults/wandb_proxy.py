"""A way to a W&B server that can be taken away, made slow, or made to answer with errors."""

import contextlib
import socket
import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

PIECE = 4096
"""Bytes taken at a time where the way is narrow."""


class FaultyProxy:
    """Passes http requests on. `status`, if set, is the answer to all of them instead; `hangs` gives none.

    `delay` are seconds before each answer, `rate` the bytes a second that requests come in with.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self.target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.status: int | None = None
        self.hangs = False
        self.delay, self.rate = 0.0, float("inf")
        self._port, self._server = 0, None
        self._open: set[socket.socket] = set()
        self.mend()
        self.url = f"http://127.0.0.1:{self._port}"

    def cut(self) -> None:
        """Refuse connections, and drop those that are open."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Pass all on, at once."""
        self.status, self.hangs, self.delay, self.rate = None, False, 0.0, float("inf")
        if self._server is None:
            handler = type("Handler", (_Handler,), {"proxy": self})
            self._server = _Server(("127.0.0.1", self._port), handler)
            self._port = self._server.server_address[1]
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    close = cut


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def setup(self) -> None:
        super().setup()
        self.proxy._open.add(self.connection)

    def finish(self) -> None:
        self.proxy._open.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle_request(self) -> None:
        proxy = self.proxy
        body = self._body()
        while proxy.hangs:
            time.sleep(0.1)
        time.sleep(proxy.delay)
        if proxy.status is not None:
            return self._answer(
                proxy.status, {"Content-Type": "application/json", "Retry-After": "1"}, b'{"error": ""}'
            )
        connection = HTTPConnection(*proxy.target, timeout=60)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("transfer-encoding", "connection")}
            connection.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
            answer = connection.getresponse()
            self._answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = do_PATCH = handle_request

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self._read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self._read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self.rfile.read(min(PIECE, size - len(data)))
            time.sleep(PIECE / self.proxy.rate)
        return data

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
