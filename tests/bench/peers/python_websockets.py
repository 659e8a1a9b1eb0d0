"""`websockets` on uvloop: its own broadcast(). A device's first message subscribes it."""

import asyncio
import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed


async def main() -> None:
    devices: set[ServerConnection] = set()

    async def device(connection: ServerConnection) -> None:
        try:
            async for _ in connection:
                devices.add(connection)
                await connection.send('{"t":"welcome"}')
        except ConnectionClosed:
            pass
        finally:
            devices.discard(connection)

    # Every header is answered alike: any subprotocol is fine, as with the other peers.
    async with serve(
        device,
        "127.0.0.1",
        0,
        compression=None,
        ping_interval=None,
        backlog=4096,
        select_subprotocol=lambda _, __: None,
    ) as server:
        print(f"port {server.sockets[0].getsockname()[1]}", flush=True)
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := (await reader.readline()).decode():
            broadcast(devices, line.removeprefix("send ").rstrip("\n"))


if __name__ == "__main__":
    uvloop.run(main())
