"""A seeded HTTP proxy in front of a real S3 server that loses, delays, refuses and damages.

    client -> FaultyS3 (draws a fault for each request) -> SeaweedFS

Faults before the server sees the request: `error` (500), `throttle` (503), `reset`, `delay`,
`flip_upload`. After it: `lost_reply` (done, and the client never learns), `timeout`, `truncate`,
`flip_download`, `stale_list` (an older answer to the same listing), `error_in_200`.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

FAULTS = (
    "error",
    "throttle",
    "reset",
    "delay",
    "flip_upload",
    "lost_reply",
    "timeout",
    "truncate",
    "flip_download",
    "stale_list",
    "error_in_200",
)


@dataclass
class FaultPlan:
    """Which faults, how often, from which seed."""

    rate: float = 0.0
    """Probability that a request meets a fault, in [0, 1]."""
    faults: tuple[str, ...] = FAULTS
    seed: int = 0
    timeout_s: float = 2.0
    """How long a `timeout` holds its reply back: longer than the client's patience."""
    refuse_with: tuple[int, str] | None = None
    """Answer every request with this status and code, e.g. (403, "ExpiredToken")."""
    met: Counter[str] = field(default_factory=Counter)
    requests: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()

    def draw(self) -> str:
        """The fault of the next request, empty for none."""
        with self._lock:
            self.requests += 1
            if self._random.random() >= self.rate:
                return ""
            return self._random.choice(self.faults)

    def place(self, size: int) -> int:
        """Where to damage `size` bytes."""
        with self._lock:
            return self._random.randrange(size)


class FaultyS3:
    """The proxy; `plan` may be exchanged while it runs."""

    def __init__(self, upstream: str) -> None:
        self.plan = FaultPlan()
        self.upstream = urlsplit(upstream)
        self.older_lists: dict[str, bytes] = {}
        proxy = self

        class Handler(_Handler):
            faulty = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    faulty: FaultyS3
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        try:
            self._serve()
        except ConnectionError:
            # The client's patience ended first.
            self.close_connection = True

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        plan = self.faulty.plan
        body = self._read_body()
        fault = self._fitting(plan.draw(), body)
        if plan.refuse_with is not None:
            self._refuse(*plan.refuse_with)
            return
        if self._fails_before(fault, plan):
            return
        if fault == "flip_upload" and body:
            body = self._flip(body, plan)
            plan.met[fault] += 1
        reply, data = self._forward(body)
        if self._fails_after(fault, plan):
            return
        self._answer(reply, self._damage(fault, data, reply, plan))

    def _fitting(self, fault: str, body: bytes) -> str:
        """The drawn fault; where this request can not meet it, the one that only its kind can."""
        reads = self.command == "GET"
        possible = {"flip_upload": bool(body), "flip_download": reads, "truncate": reads}
        if possible.get(fault, fault not in ("", "stale_list", "error_in_200")):
            return fault
        if fault and "list-type" in self.path:
            return "stale_list"
        if fault and self.command == "POST" and "uploadId" in self.path:
            return "error_in_200"
        return fault

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _forward(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        upstream = self.faulty.upstream
        link = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=60)
        try:
            # The signature covers the Host header, so the client's own goes through.
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
            link.request(self.command, self.path, body=body or None, headers=headers)
            reply = link.getresponse()
            return reply, reply.read()
        finally:
            link.close()

    def _fails_before(self, fault: str, plan: FaultPlan) -> bool:
        if fault == "delay":
            plan.met[fault] += 1
            time.sleep(0.05)
        if fault not in ("error", "throttle", "reset"):
            return False
        plan.met[fault] += 1
        if fault == "reset":
            self._hang_up()
        elif fault == "error":
            self._refuse(500, "InternalError")
        else:
            self._refuse(503, "SlowDown")
        return True

    def _fails_after(self, fault: str, plan: FaultPlan) -> bool:
        is_completion = self.command == "POST" and "uploadId" in self.path
        if fault == "error_in_200" and is_completion:
            plan.met[fault] += 1
            self._refuse(200, "InternalError")
            return True
        if fault not in ("lost_reply", "timeout"):
            return False
        plan.met[fault] += 1
        if fault == "timeout":
            time.sleep(plan.timeout_s)
        self._hang_up()
        return True

    def _damage(self, fault: str, data: bytes, reply: Any, plan: FaultPlan) -> bytes:
        if "list-type" in self.path and reply.status == 200:
            older = self.faulty.older_lists.setdefault(self.path, data)
            if fault == "stale_list" and older != data:
                plan.met[fault] += 1
                return older
        if self.command != "GET" or not data or reply.status not in (200, 206):
            return data
        if fault == "truncate":
            plan.met[fault] += 1
            return data[: plan.place(len(data))]
        if fault == "flip_download":
            plan.met[fault] += 1
            return self._flip(data, plan)
        return data

    def _flip(self, data: bytes, plan: FaultPlan) -> bytes:
        place = plan.place(len(data))
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    def _answer(self, reply: Any, data: bytes) -> None:
        self.send_response_only(reply.status, reply.reason)
        for name, value in reply.getheaders():
            is_length = name.lower() == "content-length" and self.command != "HEAD"
            if name.lower() not in _HOP_BY_HOP and not is_length:
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status: int, code: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
        self.send_response_only(status, code)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())

    def _hang_up(self) -> None:
        self.close_connection = True


_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}
