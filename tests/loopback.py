"""A server on loopback for tests of downloads."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Handler(http.server.BaseHTTPRequestHandler):
    """Serve files, also from an offset; may stop early; records what was sent."""

    def do_GET(self):
        server = self.server
        content = server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start, status = 0, 200
        if wanted := self.headers.get("Range"):
            start, status = int(wanted.removeprefix("bytes=").removesuffix("-")), 206
            if start >= len(content):
                self.send_response(416)
                self.end_headers()
                return
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = len(content) if server.break_at is None else server.break_at
        if self.command == "GET":
            self.wfile.write(content[start:end])
            server.sent.append((start, end))

    def do_HEAD(self):
        self.do_GET()

    def log_message(self, *args):
        """Log nothing."""


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[http.server.ThreadingHTTPServer]:
    """Serve the contents of paths such as "/a.zip"; `address` of the server goes before a path."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files = files
    server.break_at, server.sent = None, []
    server.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
