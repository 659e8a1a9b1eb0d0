"""What the API's operations stand on, and how they read a request."""

import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from msgspec import structs
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from broadcaster import bodies
from broadcaster.explaining import Explaining
from broadcaster.heads import Heads
from broadcaster.metrics import Metrics
from broadcaster.planning import Planning
from broadcaster.producer import Producer, UnknownEvent
from broadcaster.publisher import Publisher
from broadcaster.receipts import Ledger
from broadcaster.recording import Curves
from broadcaster.rehearsal import Rehearsals
from broadcaster.roster import Roster
from broadcaster.schedule import upcoming
from broadcaster.series import Recorder, reached
from broadcaster.watching import Watching
from kv import KeyValue
from stagecast.access import ApiKey, Scope
from stagecast.clock import Clock
from stagecast.event import REASON_BYTES_MAX, Head
from stagecast.http import Problem
from stagecast.plan import Plan
from stagecast.receipts import Progress

READ: tuple[Scope, ...] = ("operator", "viewer", "service")
TRIGGER: tuple[Scope, ...] = ("operator", "service")
RULE: tuple[Scope, ...] = ("operator",)
NOBODY = ApiKey("", "viewer", 0)
"""The caller of an operation that asks for no key."""
PLAN_BYTES_MAX = 64 * 1024
BODY_BYTES_MAX = 4 * 1024
_KEY = re.compile(r"[ -~]{1,64}")
_EVENT = re.compile(r"[a-z0-9._-]{1,64}")

Handler = Callable[[HttpRequest, ApiKey], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the API stands on."""

    store: KeyValue
    heads: Heads
    roster: Roster
    producer: Producer
    planning: Planning
    publisher: Publisher
    ledger: Ledger
    recorder: Recorder
    curves: Curves
    watching: Watching
    rehearsals: Rehearsals
    explaining: Explaining
    metrics: Metrics
    clock: Clock
    ready: Callable[[], bodies.Readiness]

    async def head(self, http: HttpRequest) -> Head:
        """The head of the event in the request's path. Raises UnknownEvent, Damaged, StoreError."""
        event = event_of(http)
        kept = await self.heads.read(event)
        if kept is None:
            raise UnknownEvent(event)
        return kept.head

    def progress(self, head: Head) -> Progress:
        """How far this head has come, with the times its curve has told so far."""
        made = self.ledger.progress(head.event, head.gen, head.seq, self.clock.now())
        curve = self.recorder.curve(head.event, (head.gen, head.seq))
        return structs.replace(made, reached_ms=dict(curve.reached) if curve else reached((), 0))

    async def view(self, head: Head) -> bodies.EventView:
        return view_of(head, await self.heads.plan(head))


def view_of(head: Head, plan: Plan) -> bodies.EventView:
    """An event as the API shows it."""
    return bodies.EventView(
        head.event, head.title, head.gen, head.seq, head.stage, head.ts, head.map, head.revision, plan.stages, head.hold,
        upcoming(head, plan), head.armed is not None, head.armed,
    )  # fmt: skip


def event_of(http: HttpRequest) -> str:
    event: str = http.path_params["id"]
    if not is_event(event):
        raise UnknownEvent(event)
    return event


def is_event(text: str) -> bool:
    return _EVENT.fullmatch(text) is not None


def idempotency_key(http: HttpRequest) -> str:
    """The request's key, or a new one. Raises Problem 422."""
    key = http.headers.get("idempotency-key")
    if key is None:
        return secrets.token_hex(16)
    if not _KEY.fullmatch(key):
        raise wrong("Idempotency-Key", "1 to 64 printable ASCII characters")
    return key


def checked_reason(reason: str, field: str = "$.reason") -> str:
    if len(reason.encode()) > REASON_BYTES_MAX:
        raise wrong(field, f"at most {REASON_BYTES_MAX} bytes")
    return reason


def wrong(field: str, text: str) -> Problem:
    """422, naming the field."""
    return Problem(422, "Unprocessable Content", f"{field}: {text}", field=field, error=text)
