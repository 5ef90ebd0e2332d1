"""A small web server on the loopback whose responses are set by the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class WebServer:
    """What the server serves and how it fails."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Content by path."""
    statuses: dict[str, int] = field(default_factory=dict)
    """Status by path, sent instead of the file; 0 closes the connection without a response."""
    requests: list[str] = field(default_factory=list)
    address: str = ""


@contextmanager
def running_web_server() -> Iterator[WebServer]:
    """Run a server until the context is left."""
    site = WebServer()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Tests need no access log."""

        def do_GET(self) -> None:
            site.requests.append(self.path)
            status = site.statuses.get(self.path, 200 if self.path in site.files else 404)
            if status == 0:
                self.close_connection = True
                return
            body = site.files[self.path] if status == 200 else b"sorry"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
