"""One frame to many connections: the hot path, in C where that has been built (pushy/native), else in Python. Both do the
same, and what does not go whole into a socket is the connection's to finish: a stream is never broken.

A frame goes straight to the descriptors: a transport's own write puts it into a queue and takes it out again, a fifth of the
whole cost.
"""

import contextlib
import os
from pathlib import Path
from typing import Protocol, cast

from pushy import native
from pushy.connection import Connection
from pushy.express import prepared
from pushy.followed import Place
from pushy.hub import Loops, PythonLoops


class Seat(Protocol):
    """A place, as it is here: its outlet is a connection."""

    @property
    def outlet(self) -> Connection: ...


def chosen(kind: str, folder: Path = native.FOLDER) -> Loops:
    """How to write to all: "batched" (in C, one system call for many), "native" (in C, one for each), "python", or "auto" for the
    first of these that there is. Raises ValueError for a kind that there is not, here. `folder`: where the native path is."""
    hot = prepared(folder) if kind != "python" else None
    if hot is not None and kind in ("auto", "batched"):
        try:
            return hot.Loops(True)
        except OSError as error:
            if kind == "batched":
                raise ValueError(f"the kernel allows no io_uring here: {error.strerror}") from error
    if hot is not None and kind in ("auto", "native"):
        return hot.Loops(False)
    if kind in ("auto", "python"):
        return PythonLoops(write_all)
    raise ValueError(f"no such fan-out here: {kind}")


def way(kind: str, folder: Path = native.FOLDER) -> str:
    """Which of "batched", "native" and "python" `chosen` takes for this kind; the kind itself if there is none here."""
    for one in ("batched", "native", "python") if kind == "auto" else ():
        with contextlib.suppress(ValueError):
            chosen(one, folder)
            return one
    return kind


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
