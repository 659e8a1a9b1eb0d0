"""Stand-ins for what is beyond prefetch: a host's admin port, and a store that can be taken away."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kv import Item, KeyValue, OutcomeUnknown, Page, Put, Removal, StoreUnavailable, Version

Answer = Callable[[dict[str, Any], int], list[tuple[str | None, int]]]
"""(entry, how often `POST /push` was called before) → (device, status) of each device."""


@dataclass
class Host:
    """What a host's admin port was asked, and where it is."""

    url: str
    answer: Answer
    calls: list[list[dict[str, Any]]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    broken: bool = False

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [entry for call in self.calls for entry in call]


@contextmanager
def host(answer: Answer) -> Iterator[Host]:
    """`POST /push` by the standard library's HTTP server: shares no code with the client under test."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            here.keys.add(self.headers["Authorization"])
            if self.path != "/push" or here.broken:
                self._say(500, b"{}")
                return
            entries = json.loads(body)
            said = [
                {"i": i, "member": entry.get("member"), "device": device, "status": status}
                for i, entry in enumerate(entries)
                for device, status in here.answer(entry, len(here.calls))
            ]
            here.calls.append(entries)
            self._say(200, json.dumps(said).encode())

        def _say(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    here = Host(f"http://127.0.0.1:{server.server_port}", answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Fickle:
    """A store in front of a real one: it can be down, and lose the answer to a compare-and-set that happened."""

    def __init__(self, store: KeyValue) -> None:
        self._store = store
        self.down = False
        self.lose_answers = 0
        self.gets = 0

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailable("down")

    async def get(self, record: str, key: str) -> bytes | None:
        self._check()
        self.gets += 1
        return await self._store.get(record, key)

    async def put(self, items: Sequence[Put]) -> None:
        self._check()
        await self._store.put(items)

    async def delete(self, record: str, keys: Sequence[str]) -> None:
        self._check()
        await self._store.delete(record, keys)

    async def remove(self, items: Sequence[Removal]) -> set[tuple[str, str]]:
        self._check()
        return await self._store.remove(items)

    async def page(self, record: str, after: str | None = None, max_bytes: int = 1 << 20) -> Page:
        self._check()
        return await self._store.page(record, after, max_bytes)

    async def read(self, record: str, key: str) -> Version | None:
        self._check()
        return await self._store.read(record, key)

    async def compare_and_set(self, record: str, key: str, value: bytes, expected: int | None) -> Version | None:
        self._check()
        done = await self._store.compare_and_set(record, key, value, expected)
        if self.lose_answers:
            self.lose_answers -= 1
            raise OutcomeUnknown("lost")
        return done

    async def close(self) -> None:
        """The real one is closed by its owner."""


__all__ = ["Answer", "Fickle", "Host", "Item", "host"]
