"""Pages for a browser's devices: the SDK and the demo as their files are, and the session that a page asks for.

    /demo/                     sdk/js/demo/index.html, and the files beside it
    /demo/sdk/{file}           sdk/js/src
    /demo/session?device=NAME  {"ws", "event", "token", "titles"}; the token is for the device NAME, null without one
    /token?device=NAME         that token alone
    /{file}                    static/ here, or what a test put into `files`

The tests' `event`, `member` and `ttl` (seconds, of the token) ride on the session's query.
"""

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from stagecast.tokens import load_keys
from tests.check_docs import ROOT
from tests.system.running import Running

SDK, DEMO, OWN = ROOT / "sdk/js/src", ROOT / "sdk/js/demo", Path(__file__).with_name("static")
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
Session = Callable[[dict[str, str]], dict[str, Any]]


def titles() -> dict[str, Any]:
    """The example's catalogue as the session carries it."""
    lines = (ROOT / "examples/final/titles.ndjson").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return {one["id"]: {"title": one["title"], "genres": one["genres"]} for one in found if "title" in one}


class Pages:
    """An HTTP server of its own origin. Ask `url`; set `stage` before a page asks for its session."""

    def __init__(self) -> None:
        self.stage: Running | None = None
        self.event = "final"
        """Of a session that names none, as the demo's."""
        self.ws: str | None = None
        """Where devices connect, if not straight to their Stagecast."""
        self.files: dict[str, str] = {}
        """Modules of a test's own, by path."""
        pages = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                media, body = pages.answer(self.path)
                self.send_response(200 if media else 404)
                for name, value in {**pages.policy(), "Content-Type": media or "text/plain"}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: a test says what it looked at."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def policy(self) -> dict[str, str]:
        """Nothing from anywhere else, no inline script, no inline style; sockets and maps of the one Stagecast."""
        there = f"{self._devices.removesuffix('/ws')} {self.stage.http}" if self.stage else ""
        return {
            "Cache-Control": "no-store",
            "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
            f"connect-src 'self' {there}; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'",
        }

    def answer(self, path: str) -> tuple[str, bytes]:
        """Media type and body; "" when there is no such page."""
        split = urlsplit(path)
        if split.path == "/demo/session":
            query = {name: values[0] for name, values in parse_qs(split.query).items()}
            return "application/json", json.dumps(self._session(query)).encode()
        if split.path == "/token":
            return "text/plain", str(self._session({"device": parse_qs(split.query)["device"][0]})["token"]).encode()
        if split.path in self.files:
            return TYPES[Path(split.path).suffix], self.files[split.path].encode()
        name = split.path.removeprefix("/demo/sdk/").removeprefix("/demo/").removeprefix("/") or "index.html"
        folder = SDK if split.path.startswith("/demo/sdk/") else DEMO if split.path.startswith("/demo/") else OWN
        file = folder / name
        if file.suffix not in TYPES or not file.is_file():
            return "", b"no such page"
        return TYPES[file.suffix], file.read_bytes()

    @property
    def _devices(self) -> str:
        assert self.stage is not None
        return self.ws or self.stage.ws

    def _session(self, query: dict[str, str]) -> dict[str, Any]:
        assert self.stage is not None
        event, device = query.get("event", self.event), query.get("device", "")
        token = None
        if device:
            keys = load_keys(self.stage.data / "keys.json")
            ttl = float(query.get("ttl", "3600"))
            token = keys.mint(query.get("member", "demo"), device, [event], ttl, time.time(), random.Random())
        return {"ws": self._devices, "event": event, "token": token, "titles": titles()}

    @contextlib.contextmanager
    def serving(self) -> Iterator["Pages"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join(5)
