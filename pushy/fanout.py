"""One frame to many connections: the hot path. The seam where a native loop over descriptors takes over from this one."""

import os

from pushy.connection import Connection
from pushy.followed import Place


def write_all(frame: bytes, places: list[Place]) -> list[Place]:
    """Writes `frame` to connections that have nothing unsent; gives back the places whose frame did not all go to the kernel.

    Straight to the descriptor: a transport's own write puts the frame into a queue and takes it out again, a fifth of the whole
    cost. What `Connection.write` does is spelt out here, for the call alone would cost 5 %.
    """
    size, write, stuck = len(frame), os.write, []
    for place in places:
        outlet = place.outlet
        assert type(outlet) is Connection
        if outlet.transport.is_closing():
            stuck.append(place)
            continue
        try:
            sent = write(outlet.descriptor, frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            outlet.transport.abort()
            stuck.append(place)
            continue
        if sent != size and not outlet.keep(frame, sent):
            stuck.append(place)
    return stuck
