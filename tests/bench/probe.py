"""`python -m tests.bench.probe HOST:PORT HELLOS`: devices that ask the worker something all the time and time its answers.

A ping of RFC 6455 at a time, its sender in turns; the answer's time is the kernel's (SO_TIMESTAMPNS), as the packet came in: on
loopback that is when the worker wrote it, so it does not matter when this process gets a core. An answer that took 8 ms is a
worker that did nothing else than what it was at for 8 ms: sending to others, collecting garbage or waiting for its core.

stdin: `mark` begins anew. stdout, after `mark`: `longest MS MEDIAN COUNT` since the last mark; `ready` at first.
"""

import os
import select
import socket
import statistics
import struct
import sys
import time

SO_TIMESTAMPNS = 35
EVERY = 0.001
"""Seconds between an answer and the next ping."""
CONNECTIONS = 1000
"""Each pings less than once a second: a worker allows two."""
PING = b"\x89\x80\0\0\0\0"
PONG = b"\x8a\x00"


def main() -> None:
    host, _, port = sys.argv[1].rpartition(":")
    with open(sys.argv[2], "rb") as file:
        hellos = [next(file).rstrip(b"\n") for _ in range(CONNECTIONS)]
    open_ = [connected(host, int(port), hello) for hello in hellos]
    print("ready", flush=True)
    answers: list[float] = []
    for turn in range(sys.maxsize):
        answers.append(asked(open_[turn % CONNECTIONS]))
        if select.select([0], [], [], EVERY)[0]:
            if not os.read(0, 100):
                return
            print(f"longest {max(answers):.3f} {statistics.median(answers):.3f} {len(answers)}", flush=True)
            answers.clear()


def asked(device: socket.socket) -> float:
    """ms from a ping to its pong. States that came meanwhile are passed over."""
    drain(device)
    began = time.time_ns()
    device.sendall(PING)
    while True:
        data, ancillary, *_ = device.recvmsg(65536, 64)
        if not data:
            raise SystemExit("the worker closed a probe")
        if PONG in data:  # in no frame of text: they are ASCII
            break
    seconds, ns = struct.unpack("qq", ancillary[0][2])
    return float(seconds * 1_000_000_000 + ns - began) / 1e6


def drain(device: socket.socket) -> None:
    device.setblocking(False)
    try:
        while device.recv(65536):
            pass
    except BlockingIOError:
        pass
    device.setblocking(True)


def connected(host: str, port: int, hello: bytes) -> socket.socket:
    device = socket.create_connection((host, port))
    device.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    device.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    device.sendall(
        b"GET /ws HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: stagecast.v1\r\n\r\n"
    )
    wait_for(device, b"\r\n\r\n")
    device.sendall(b"\x81\xfe" + struct.pack(">H", len(hello)) + b"\0\0\0\0" + hello)
    wait_for(device, b'"welcome"')
    return device


def wait_for(device: socket.socket, words: bytes) -> None:
    got = b""
    while words not in got:
        data = device.recv(65536)
        if not data:
            raise SystemExit(f"the worker closed a probe: {got!r}")
        got += data


if __name__ == "__main__":
    main()
