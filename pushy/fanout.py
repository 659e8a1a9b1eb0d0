"""One frame to many connections: the hot path, in C where that has been built (pushy/native.py), else in Python. Both do the
same, and what does not go whole into a socket is the connection's to finish: a stream is never broken.

A frame goes straight to the descriptors: a transport's own write puts it into a queue and takes it out again, a fifth of the
whole cost.
"""

import os
from array import array
from ctypes import addressof, c_int
from pathlib import Path
from typing import Protocol, cast

from pushy import native
from pushy.connection import Connection
from pushy.followed import Place
from pushy.hub import CHUNK, WriteAll


class Seat(Protocol):
    """A place, as it is here: its outlet is a connection."""

    @property
    def outlet(self) -> Connection: ...


def chosen(kind: str, folder: Path = native.SOURCE.parent) -> WriteAll:
    """How to write to all: "native", "python", or "auto" for native where it has been built. Raises ValueError for a kind that
    there is not, here. `folder`: where it has been built."""
    fan_out = native.load(folder) if kind in ("auto", "native") else None
    if fan_out is not None:
        return NativeLoop(fan_out)
    if kind in ("auto", "python"):
        return write_all
    raise ValueError(f"no such fan-out here: {kind}")


def write_all(frame: bytes, places: list[Place]) -> list[Place]:
    """Writes `frame` to connections that have nothing unsent; gives back the places whose frame did not all go to the kernel.

    What `Connection.write` does is spelt out here, for the call alone would cost 5 %.
    """
    size, write = len(frame), os.write
    stuck: list[Place] = []
    for place, seat in zip(places, cast("list[Seat]", places), strict=True):
        outlet = seat.outlet
        descriptor = outlet.transport.descriptor
        if descriptor < 0:  # closing
            stuck.append(place)
            continue
        try:
            sent = write(descriptor, frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            outlet.transport.abort()
            stuck.append(place)
            continue
        if sent != size and not outlet.keep(frame, sent):
            stuck.append(place)
    return stuck


class NativeLoop:
    """The same by one call into C per chunk."""

    def __init__(self, fan_out: native.FanOut) -> None:
        self._fan_out = fan_out
        self._stuck, self._sent = (c_int * CHUNK)(), (c_int * CHUNK)()
        self._at = addressof(self._stuck), addressof(self._sent)

    def __call__(self, frame: bytes, places: list[Place]) -> list[Place]:
        stuck: list[Place] = []
        for begin in range(0, len(places), CHUNK):
            self._write(frame, places[begin : begin + CHUNK], stuck)
        return stuck

    def _write(self, frame: bytes, part: list[Place], stuck: list[Place]) -> None:
        seats = cast("list[Seat]", part)
        descriptors = array("i", [seat.outlet.transport.descriptor for seat in seats])
        found = self._fan_out(descriptors.buffer_info()[0], len(part), frame, len(frame), *self._at)
        for k in range(found):
            i, sent = self._stuck[k], self._sent[k]
            outlet = seats[i].outlet
            if sent >= 0 and outlet.keep(frame, sent):
                continue
            if sent < 0 and descriptors[i] >= 0:  # else it is closing: let it
                outlet.transport.abort()
            stuck.append(part[i])
