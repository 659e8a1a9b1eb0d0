"""TCP streams of a worker over one epoll set, which the event loop sees as a single descriptor.

A stream is an `asyncio.Transport`, so that what speaks on it is an ordinary `asyncio.Protocol`; but it is a descriptor and a few
fields, where a transport of the loop is a handle, a socket object and buffers: 0.1 KB instead of 0.9, and half the time to accept
(docs/decisions/0007). Reads and accepts come in bounded batches, then the loop gets its turn.

What asyncio promises holds, with one difference: `pause_writing` comes as soon as bytes are unsent and `resume_writing` when none
are left, as with `set_write_buffer_limits(high=0)`; nothing else can be set.
"""

import asyncio
import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

EVENTS_AT_ONCE = 64
"""Streams looked at before the loop gets its turn: 6 ms if each says hello."""
ACCEPTED_AT_ONCE = 64
"""Connections accepted before the loop gets its turn: 1 ms."""
READ_BYTES = 16 * 1024
ACCEPT_AGAIN = 1.0
"""Seconds without accepting when the process is out of descriptors or memory."""
_OUT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_BROKEN = select.EPOLLHUP | select.EPOLLERR


Turn = Callable[[], None]
"""Looks at a set once: what is ready gets its call of `ready`, or what has the same effects."""


class Streams:
    """The epoll set. `close` aborts its streams; close what listens first. `turn` makes another way to look at it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, turn: "Callable[[Streams], Turn] | None" = None) -> None:
        self.loop = loop
        self._epoll = select.epoll()
        self.all: list[Stream | Listening | None] = []
        """By descriptor: a list is an eighth of a dict."""
        loop.add_reader(self.epoll, turn(self) if turn is not None else self._ready)

    @property
    def epoll(self) -> int:
        """The set's descriptor."""
        return self._epoll.fileno()

    def listen(self, listening: socket.socket, protocol: Callable[[], asyncio.BaseProtocol]) -> "Listening":
        """Accepts on a bound and listening socket, which it takes over."""
        listening.setblocking(False)
        return Listening(self, listening, protocol)

    def add(self, descriptor: int, protocol: asyncio.BaseProtocol) -> "Stream":
        """A stream over a connected, non-blocking socket, which it takes over."""
        stream = Stream(self, descriptor, protocol)
        self.watch(descriptor, stream, select.EPOLLIN)
        protocol.connection_made(stream)
        return stream

    def watch(self, descriptor: int, one: "Stream | Listening", events: int) -> None:
        if descriptor >= len(self.all):
            self.all.extend([None] * (descriptor + 64 - len(self.all)))
        self.all[descriptor] = one
        self._epoll.register(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        self._epoll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        self.all[descriptor] = None
        self._epoll.unregister(descriptor)

    def close(self) -> None:
        for one in self.all:
            if isinstance(one, Stream):
                one.abort()
        self.loop.remove_reader(self.epoll)
        self._epoll.close()

    def _ready(self) -> None:
        # An event may be older than its descriptor, when that was closed and given out again in this very batch: whatever
        # is told is tried, and EAGAIN is no news.
        for descriptor, events in self._epoll.poll(0, EVENTS_AT_ONCE):
            one = self.all[descriptor]
            if one is None:
                continue
            try:
                one.ready(events)
            except Exception as error:
                self.failed(one, error)

    def failed(self, one: "Stream | Listening", error: Exception) -> None:
        """A protocol let an exception through: its stream is aborted, the others go on."""
        context = {"message": "a stream's protocol failed", "exception": error, "transport": one}
        self.loop.call_exception_handler(context)
        if isinstance(one, Stream):
            one.abort()


class Listening:
    """A listening socket of a set."""

    def __init__(
        self, streams: Streams, listening: socket.socket, protocol: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        self._streams = streams
        self._socket = listening
        self._accept: Callable[[], tuple[int, Any]] = listening._accept  # type: ignore[attr-defined]
        """What `accept` is made of, without its socket object: a third of the time."""
        self._protocol = protocol
        self._again: asyncio.TimerHandle | None = None
        self._watch()

    def ready(self, _events: int) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                descriptor, _ = self._accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _OUT_OF:
                    continue  # of the connection that was to be accepted, not of this socket (accept(2), "Error handling")
                self.pause()
                return
            os.set_blocking(descriptor, False)
            self._streams.add(descriptor, self._protocol())

    @property
    def descriptor(self) -> int:
        return self._socket.fileno()

    def pause(self) -> None:
        """The process is out of descriptors or memory: accepts again in a while."""
        self._streams.forget(self.descriptor)
        self._again = self._streams.loop.call_later(ACCEPT_AGAIN, self._watch)

    def close(self) -> None:
        if self._again is not None:
            self._again.cancel()
        else:
            self._streams.forget(self.descriptor)
        self._socket.close()

    def _watch(self) -> None:
        self._again = None
        self._streams.watch(self.descriptor, self, select.EPOLLIN)


class Stream(asyncio.Transport):
    """One connection. See the module's head."""

    __slots__ = ("_closing", "_eof", "_lost", "_protocol", "_socket", "_streams", "_unsent", "_watched", "descriptor")

    def __init__(self, streams: Streams, descriptor: int, protocol: asyncio.BaseProtocol) -> None:
        self._streams = streams
        self._protocol: Any = protocol
        """None once lost: a cycle would wait for the garbage collector, which does not look at connections."""
        self._socket = self.descriptor = descriptor
        """`descriptor` is for those who write past the stream while nothing is unsent: -1 as soon as it is closing, for the
        number may belong to another connection next."""
        self._watched = int(select.EPOLLIN)
        self._unsent: list[memoryview] | None = None
        self._closing = self._eof = self._lost = False

    def ready(self, events: int) -> None:
        """What epoll says."""
        if self._unsent is not None and events & (select.EPOLLOUT | _BROKEN):
            self._flush()
        if self._lost:
            return
        if self._watched & select.EPOLLIN:
            if events & (select.EPOLLIN | _BROKEN):
                self._read()
        elif events & _BROKEN:  # can't be left unwatched, and nothing more can come of it
            self.lose(None)

    def _read(self) -> None:
        try:
            data = os.read(self._socket, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.lose(error)
            return
        if data:
            self._protocol.data_received(data)
        else:
            self.ended()

    def ended(self) -> None:
        """The peer sends no more."""
        if self._protocol.eof_received():
            self.pause_reading()
        else:
            self.close()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        if self._closing or not view.nbytes:
            return
        if self._unsent is not None:
            self._unsent.append(view)
            return
        try:
            sent = os.write(self._socket, view)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.lose(error)
            return
        if sent < view.nbytes:
            self._unsent = [view[sent:]]
            self._watch(self._watched | select.EPOLLOUT)
            self._protocol.pause_writing()

    def _flush(self) -> None:
        unsent = self._unsent
        assert unsent is not None
        try:
            sent = os.writev(self._socket, unsent[:64])
        except BlockingIOError:
            return
        except OSError as error:
            self.lose(error)
            return
        while unsent and sent >= unsent[0].nbytes:
            sent -= unsent.pop(0).nbytes
        if unsent:
            unsent[0] = unsent[0][sent:]
            return
        self._unsent = None
        self._watch(self._watched & ~select.EPOLLOUT)
        if self._eof:
            self._shut()
        if self._closing:
            self.lose(None)
        else:
            self._protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        return sum(view.nbytes for view in self._unsent) if self._unsent is not None else 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See the module's head."""

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self._eof or self._closing:
            return
        self._eof = True
        if self._unsent is None:
            self._shut()

    def _shut(self) -> None:
        with contextlib.suppress(OSError), _borrowed(self._socket) as borrowed:
            borrowed.shutdown(socket.SHUT_WR)

    def pause_reading(self) -> None:
        self._watch(self._watched & ~select.EPOLLIN)

    def resume_reading(self) -> None:
        if not self._closing:
            self._watch(self._watched | select.EPOLLIN)

    def is_reading(self) -> bool:
        return bool(self._watched & select.EPOLLIN)

    def _watch(self, events: int) -> None:
        if events != self._watched and not self._lost:
            self._watched = events
            self._streams.change(self._socket, events)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if self._closing:
            return
        self._closing, self.descriptor = True, -1
        if self._unsent is None:
            self.lose(None)
        else:
            self.pause_reading()

    def abort(self) -> None:
        self.lose(None)

    def lose(self, error: OSError | None) -> None:
        """It is broken, or to be cut: what is unsent is lost."""
        if self._lost:
            return
        self._closing = self._lost = True
        self.descriptor = -1
        self._unsent = None
        self._streams.forget(self._socket)
        self._streams.loop.call_soon(self._finish, error)

    def _finish(self, error: OSError | None) -> None:
        protocol, self._protocol = self._protocol, None
        try:
            protocol.connection_lost(error)
        finally:
            os.close(self._socket)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        found: asyncio.BaseProtocol = self._protocol
        return found

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name != "peername" or self._lost:
            return default
        try:
            with _borrowed(self._socket) as borrowed:
                return borrowed.getpeername()
        except OSError:
            return default


@contextlib.contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    borrowed = socket.socket(fileno=descriptor)
    try:
        yield borrowed
    finally:
        borrowed.detach()
