"""Serve the built book on this machine, as `make serve`.

The server sends the two headers without which browsers give a page no threads (cross-origin
isolation). The page "Try it" needs them to run its network on more than one core.
"""

import argparse
import functools
import http.server
from pathlib import Path

from tools.build import HTML

HERE = "127.0.0.1"
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Sends files of a folder with `HEADERS`, and logs nothing."""

    def end_headers(self) -> None:
        """Send the headers of every answer."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *args: object) -> None:
        """Log nothing."""


def server(folder: Path, port: int = 0) -> http.server.ThreadingHTTPServer:
    """Return a server of a folder; port 0 is any free one."""
    handler = functools.partial(Handler, directory=str(folder))
    return http.server.ThreadingHTTPServer((HERE, port), handler)


def main() -> None:
    """Serve `_build/html` of the current folder until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8000)
    port = parser.parse_args().port
    if not (Path.cwd() / HTML / "index.html").exists():
        raise SystemExit("the book is not built yet; run: make book")
    try:
        serving = server(Path.cwd() / HTML, port)
    except OSError as error:
        raise SystemExit(
            f"port {port}: {error.strerror}; try: make serve PORT={port + 1}"
        ) from error
    print(f"the book is on http://localhost:{serving.server_port}; stop with Ctrl-C", flush=True)
    try:
        serving.serve_forever()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
