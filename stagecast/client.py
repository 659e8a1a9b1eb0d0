"""The device SDK for Python: a device that connects, follows events and switches its stages.

    async with Device("ws://127.0.0.1:8081/ws", token, device="tv-1", events=["final"]) as device:
        async for change in device.stages():
            show(change.stage, change.payload)

What it decides is `stagecast.wire.client_session` (the protocol) and `stagecast.retry` (coming back); this module only moves
bytes. It holds one timer and one reading task per device, and so stays cheap for hundreds of devices in one process.
"""

import asyncio
import inspect
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, assert_never

import httpx
import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from stagecast.changes import Change, Connected, DeviceError, Disconnected, Dismissed, Notice, TokenRefused
from stagecast.clock import Clock, SystemClock
from stagecast.mailbox import Mailbox
from stagecast.names import DeviceId, EventId
from stagecast.retry import Reconnect, RenewToken, StayAway
from stagecast.transport import NoAnswer, Unreachable, check_url, close_of, dial, http_client, pull
from stagecast.wire.client_session import ClientSession
from stagecast.wire.closing import CloseCode
from stagecast.wire.codec import encode
from stagecast.wire.effects import (
    Dropped,
    Effect,
    FetchDue,
    Filled,
    GiveUp,
    Leaving,
    MapHeld,
    Message,
    Refused,
    Send,
    Switched,
    TokenDue,
    Welcomed,
)
from stagecast.wire.frames import EVENTS_MAX, AckResult, Payload, Position, StageMap, State

TOKEN_WITHIN = 30.0
"""Seconds for the token callback."""
NOTICES_MAX = 64
OUTBOX_MAX = 64
"""Frames waiting to be sent; a node that lets more pile up is given up."""

TokenSource = str | Callable[[], str | Awaitable[str]]
"""A token, or where to get a fresh one."""
_log = logging.getLogger("stagecast.device")


@dataclass(frozen=True, slots=True)
class _End:
    """How one connection ended."""

    code: int
    why: str
    stable: float = 0.0
    at_least: float = 0.0


class Device:
    """One device. `token` is its JWT, or a function (plain or async) that gives a fresh one; it is called before the first
    connection, when the node says that the token is due, and once after it was refused. `http` shares one client among many
    devices; it is not closed here. Raises ValueError for names that the protocol does not take."""

    def __init__(
        self,
        url: str,
        token: TokenSource,
        *,
        device: str,
        events: Iterable[str],
        app: str = "",
        http: httpx.AsyncClient | None = None,
    ) -> None:
        check_url(url)
        self.url = url
        self.fetches = 0
        """Stage maps asked for by HTTP."""
        self.connections = 0
        """Times a node welcomed the device."""
        self.dropped = 0
        """Frames from the node that were none of the protocol's."""
        self.trouble: str | None = None
        """Why there is no connection; None while there is one."""
        self._source = token
        self._token = token if isinstance(token, str) else None
        self._clock: Clock = SystemClock()
        rng = random.SystemRandom()  # holds no state: nothing to seed, nothing that a fork could double
        self._session = ClientSession(
            _checked(device, DeviceId), [_checked(event, EventId) for event in events], rng, app
        )
        self._reconnect = Reconnect(rng)
        self._changes: Mailbox[Change] = Mailbox(EVENTS_MAX)
        self._notices: Mailbox[Notice] = Mailbox(NOTICES_MAX)
        self._noticed = 0
        self._http = http
        self._own_http: httpx.AsyncClient | None = None
        self._ws: ClientConnection | None = None
        self._gave_up: str | None = None
        self._up = asyncio.Event()
        self._welcomed_at: float | None = None
        self._outbox: deque[bytes] = deque()
        self._flushing = False
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None
        self._run_task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # -- what an application uses

    async def __aenter__(self) -> Self:
        """Starts connecting; does not wait for it."""
        self._run_task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """Whether a node has welcomed the device on the connection that is open now."""
        return self._up.is_set()

    async def until_connected(self) -> None:
        """Returns when a node has welcomed the device. Raises DeviceError if the device ends before."""
        assert self._run_task, "use `async with`"
        waiting = asyncio.ensure_future(self._up.wait())
        try:
            await asyncio.wait({waiting, self._run_task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if not self.connected:
            raise self._changes.error or DeviceError("the device is closed")

    async def stages(self, *, late: bool = False) -> AsyncIterator[Change]:
        """Every switch of this device, for one reader: also those a welcome brings, never an equal or older state. A reader that
        is slow gets the newest per event (`overtaken` counts the others). With `late`, also payloads that were missing at the
        switch and came after it. Ends when the device is closed, raises DeviceError when it ends for another reason."""
        while (change := await self._changes.get()) is not None:
            if late or not change.late:
                yield change

    async def notices(self) -> AsyncIterator[Notice]:
        """What happens beside the stages, for one reader: connections, refused events, messages to this device alone. At most 64
        are kept unread; then the oldest goes (`notices_lost`)."""
        while (notice := await self._notices.get()) is not None:
            yield notice

    @property
    def overtaken(self) -> int:
        """Changes that were replaced by a newer one of their event before anybody read them."""
        return self._changes.overtaken

    @property
    def notices_lost(self) -> int:
        return self._notices.overtaken

    @property
    def events(self) -> list[str]:
        """The events it follows."""
        return self._session.events

    def position(self, event: str) -> Position:
        """Where it is in an event; KeyError for one it does not follow."""
        return self._session.position(event)

    def state(self, event: str) -> State | None:
        """The newest state it took; KeyError for an event it does not follow."""
        return self._session.followed(event).state

    def stage_map(self, event: str) -> StageMap | None:
        """The stage map in use, its own or its cohort's; KeyError for an event it does not follow."""
        return self._session.followed(event).map

    def hold(self, stage_map: StageMap) -> None:
        """Takes a stage map that the application has from elsewhere, as if it had been pushed; one no newer than what it
        holds, or of an event that it does not follow, changes nothing."""
        self._do(self._session.given(stage_map, self._now()))

    def showing(self, event: str) -> Payload:
        """What its current stage shows now, or None; KeyError for an event it does not follow."""
        return self._session.followed(event).payload()[1]

    async def follow(self, event: str) -> None:
        """Follows one more event. Raises ValueError over 8, or for no event id."""
        self._do(self._session.follow(_checked(event, EventId), self._now()))
        await self._flush()

    async def unfollow(self, event: str) -> None:
        """Follows it no longer and forgets what it holds of it."""
        self._do(self._session.unfollow(event, self._now()))
        await self._flush()

    def cut(self) -> None:
        """Breaks the TCP connection, as a fault of the network would. The device comes back by itself."""
        if self._ws:
            self._ws.transport.abort()

    async def close(self) -> None:
        """Ends it for good: closes with 1000, at most 1 s."""
        self._closing = True
        self._changes.end()
        self._notices.end()
        if self._ws:
            await self._ws.close()
        tasks = [*self._tasks, *([self._run_task] if self._run_task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._disarm()
        if self._own_http:
            await self._own_http.aclose()
            self._own_http = None

    # -- one task: connect, read, come back

    async def _run(self) -> None:
        error: Exception | None = None
        try:
            await self._keep_connected()
        except Exception as why:
            error = why
            if not isinstance(why, DeviceError):
                _log.exception("%s: the device ended", self.url)
        finally:
            self._disarm()
            self._changes.end(error)
            self._notices.end()

    async def _keep_connected(self) -> None:
        """Returns after a clean close by the node. Raises DeviceError when the device must not come back."""
        while True:
            end = await self._one_connection()
            if self._closing:
                return
            self.trouble = end.why
            what = self._reconnect.after(end.code, end.stable, end.at_least)
            if isinstance(what, StayAway):
                if end.code == CloseCode.NORMAL:
                    return
                if end.code == CloseCode.UNAUTHORIZED:
                    raise TokenRefused(f"the node refused a fresh token too: {end.why}")
                raise Dismissed(end.code, end.why)
            if isinstance(what, RenewToken):
                if isinstance(self._source, str):
                    raise TokenRefused(f"the node refused the token: {end.why}")
                self._token = None
            self._notice(Disconnected(end.code, end.why, what.seconds))
            await asyncio.sleep(what.seconds)

    async def _one_connection(self) -> _End:
        """Connects and reads until the connection ends."""
        if self._token is None:
            try:
                self._token = await self._fresh_token()
            except Exception as error:
                _log.warning("no token: %r", error)
                return _End(CloseCode.ABNORMAL, f"no token to be had: {error!r}")
        try:
            ws = await dial(self.url)
        except Unreachable as error:
            return _End(CloseCode.ABNORMAL, str(error), at_least=error.retry_after)
        self._ws, self._gave_up = ws, None
        try:
            return await self._read(ws, self._token)
        finally:
            ws.transport.abort()  # it is over; a no-op after a close
            self._ws, self._welcomed_at = None, None
            self._outbox.clear()
            self._up.clear()
            self._session.closed(self._now())

    async def _read(self, ws: ClientConnection, token: str) -> _End:
        self._do(self._session.opened(token, self._now()))
        try:
            while True:
                await self._flush()
                message = await ws.recv()
                self._do(self._session.receive(message, self._now()))
        except ConnectionClosed as closed:
            stable = self._now() - self._welcomed_at if self._welcomed_at is not None else 0.0
            end = close_of(closed)
            return _End(end.code, self._gave_up or end.reason, stable)

    async def _fresh_token(self) -> str:
        if isinstance(self._source, str):
            return self._source  # there is no other
        async with asyncio.timeout(TOKEN_WITHIN):
            got = self._source()
            return await got if inspect.isawaitable(got) else got

    # -- effects

    def _do(self, effects: list[Effect]) -> None:  # noqa: C901 - one case per effect, none with a decision
        caught_up = any(isinstance(effect, Welcomed) for effect in effects)
        for effect in effects:
            match effect:
                case Send(frame):
                    self._outbox.append(encode(frame))
                case Welcomed(sid, back):
                    self._welcome(sid, back)
                case Leaving(_, back):
                    if back:
                        self._reconnect.steer(back)
                case Switched(state, result, payload):
                    self._changes.put(state.e, _change(state, result, payload, self._clock.now(), caught_up))
                    self._session.applied(state.e, self._now())
                case Filled(state, payload):
                    self._filled(_change(state, "switched", payload, self._clock.now(), False))
                case FetchDue():
                    self._spawn(self._fetch(effect))
                case TokenDue():
                    if not isinstance(self._source, str):
                        self._spawn(self._renew())
                case Refused() | Message():
                    self._notice(effect)
                case MapHeld():
                    pass
                case Dropped(why):
                    self.dropped += 1
                    _log.warning("a frame from %s was dropped: %s", self.url, why)
                case GiveUp(why):
                    self._give_up(why)
                case _:
                    assert_never(effect)
        if len(self._outbox) > OUTBOX_MAX:
            self._give_up("the node does not read")
        self._arm()

    def _welcome(self, session: str, back: tuple[int, int]) -> None:
        self._reconnect.steer(back)
        self._reconnect.welcomed()
        self._welcomed_at = self._now()
        self.trouble = None
        self.connections += 1
        self._up.set()
        self._notice(Connected(session))

    def _give_up(self, why: str) -> None:
        self._gave_up = why
        self.cut()

    def _filled(self, change: Change) -> None:
        """A late payload joins its switch, if nobody has read that yet."""
        unread = self._changes.peek(change.event)
        if unread and not unread.late:
            self._changes.amend(change.event, replace(unread, result=change.result, payload=change.payload))
        else:
            self._changes.put(change.event, replace(change, late=True))

    def _notice(self, notice: Notice) -> None:
        self._noticed += 1
        self._notices.put(self._noticed, notice)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _flush(self) -> None:
        """Sends what waits, in order; one flush at a time."""
        if self._flushing:
            return
        self._flushing = True
        try:
            while self._outbox and self._ws:
                await self._ws.send(self._outbox.popleft(), text=True)
        except ConnectionClosed:
            pass  # the reader sees it too
        finally:
            self._flushing = False

    async def _renew(self) -> None:
        try:
            self._token = await self._fresh_token()
        except Exception as error:
            _log.warning("no token: %r", error)
            self._session.renewal_failed(self._now())
            self._arm()
            return
        self._do(self._session.renewed(self._token, self._now()))
        await self._flush()

    async def _fetch(self, due: FetchDue) -> None:
        client = self._http or self._own_http
        if client is None:
            client = self._own_http = http_client()
        self.fetches += 1
        try:
            status, body = await pull(client, due.url, self._token or "", due.etag)
        except NoAnswer as error:
            _log.warning("%s", error)
            self._session.fetch_failed(due.event, self._now())
            self._arm()
        else:
            self._do(self._session.fetched(due.event, status, body, self._now()))
            await self._flush()

    # -- the one timer

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _arm(self) -> None:
        """Sees to it that the timer fires no later than the deadline; one that fires too early does no harm."""
        deadline = self._session.deadline()
        if deadline is None or (self._timer and self._timer.when() <= deadline):
            return
        self._disarm()
        self._timer = asyncio.get_running_loop().call_at(deadline, self._expire)

    def _disarm(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        # The loop fires a timer up to its clock's resolution early: taken at its word, it would be armed again at once.
        deadline = self._session.deadline()
        now = self._now() if deadline is None else max(self._now(), min(deadline, self._now() + 0.001))
        self._do(self._session.expire(now))
        if self._outbox and not self._flushing:
            self._spawn(self._flush())


def _checked(name: str, kind: Any) -> str:
    try:
        good: str = msgspec.convert(name, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{name!r}: {error}") from error
    return good


def _change(state: State, result: AckResult, payload: Payload, now: int, caught_up: bool) -> Change:
    return Change(state.e, state.gen, state.seq, state.stage, result, payload, state.ts, now, caught_up)


__all__ = [
    "Change",
    "Connected",
    "Device",
    "DeviceError",
    "Disconnected",
    "Dismissed",
    "Message",
    "Notice",
    "Refused",
    "TokenRefused",
    "TokenSource",
]
