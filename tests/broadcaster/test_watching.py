"""Progress as server-sent events: one look for all, the newest for the slow, bounded, ended with the process."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest

from broadcaster.watching import COMMENT, TooMany, Watching
from kv import StoreUnavailable
from tests.broadcaster.process import broadcaster, operator_key
from tests.broadcaster.world import until


class Scene:
    """What is looked at."""

    def __init__(self) -> None:
        self.state = b"0"
        self.error: Exception | None = None
        self.stopping = asyncio.Event()

    async def look(self, event: str) -> bytes:
        if self.error is not None:
            raise self.error
        return event.encode() + self.state

    def watching(self, limit: int = 10) -> Watching:
        return Watching(self.look, self.stopping, limit)


async def told(stream: AsyncGenerator[bytes, None]) -> str:
    """Data of the next event."""
    async with asyncio.timeout(10):
        chunk = await anext(stream)
    head, _, data = chunk.decode().partition("\ndata: ")
    assert head == "event: progress"
    assert data.endswith("\n\n")
    return data.strip()


async def test_every_change_is_told_to_all() -> None:
    """Whoever comes gets the state at once, then each change; the looks are shared."""
    scene = Scene()
    watching = scene.watching()
    streams = [watching.stream("final") for _ in range(5)]
    assert [await told(stream) for stream in streams] == ["final0"] * 5
    looks = watching.looks
    scene.state = b"1"
    assert await asyncio.gather(*(told(stream) for stream in streams)) == ["final1"] * 5
    assert watching.looks - looks <= 2
    for stream in streams:
        await stream.aclose()
    assert watching.watchers == 0


async def test_who_is_slow_gets_the_newest() -> None:
    """What was said meanwhile is passed over."""
    scene = Scene()
    watching = scene.watching()
    slow, quick = watching.stream("final"), watching.stream("final")
    assert await told(slow) == await told(quick) == "final0"
    for n in range(1, 4):
        scene.state = str(n).encode()
        assert await told(quick) == f"final{n}"
    assert await told(slow) == "final3"
    for stream in (slow, quick):
        await stream.aclose()


async def test_silence_is_broken_by_comments() -> None:
    """Nothing new: a comment, so that the page knows that the connection lives."""
    scene = Scene()
    stream = scene.watching().stream("final", quiet=0.01)
    assert await told(stream) == "final0"
    assert await anext(stream) == COMMENT
    await stream.aclose()


async def test_a_stream_ends_after_its_life() -> None:
    """However lively or quiet it is: whoever watches on comes back and says again who they are."""
    for quiet in (0.01, 10):
        watching = Scene().watching()
        stream = watching.stream("final", quiet=quiet, life=0.05)
        assert await told(stream) == "final0"
        async with asyncio.timeout(5):
            assert {chunk async for chunk in stream} == {COMMENT}
        assert watching.watchers == 0


async def test_an_outage_ends_no_stream() -> None:
    """While the state can't be read the last one stands; then it goes on."""
    scene = Scene()
    watching = scene.watching()
    stream = watching.stream("final")
    assert await told(stream) == "final0"
    for error in (StoreUnavailable("down"), ValueError("a defect")):
        scene.error, looks = error, watching.looks
        await until(lambda: watching.looks > looks + 1)  # noqa: B023 - waited for here
    scene.error, scene.state = None, b"1"
    assert await told(stream) == "final1"
    await stream.aclose()


async def test_watchers_are_bounded() -> None:
    """One too many is refused at once; a place given back is free."""
    watching = Scene().watching(limit=1)
    first = watching.stream("final")
    await told(first)
    with pytest.raises(TooMany):
        watching.stream("other")
    assert watching.refused == 1
    await first.aclose()
    second = watching.stream("other")
    await told(second)
    await second.aclose()


async def test_stopping_ends_every_stream() -> None:
    """However long it had been quiet; no task is left."""
    scene = Scene()
    watching = scene.watching()
    streams = [watching.stream(event) for event in ("final", "final", "other")]
    for stream in streams:
        await told(stream)
    rest = [asyncio.create_task(anext(stream, b"ended")) for stream in streams]
    scene.stopping.set()
    assert await asyncio.gather(*rest) == [b"ended"] * 3
    assert watching.watchers == 0
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


def test_over_http(tmp_path: Path) -> None:
    """A real process: the stream begins with the event as it is, tells of a transition, and ends cleanly with the process."""
    key = operator_key(tmp_path)
    plan = [{"stage": "upcoming"}, {"stage": "live"}]
    with broadcaster(tmp_path) as running:
        running.until_ready()
        running.ask("POST", "/v1/events", key, {"id": "final", "title": "The final", "plan": plan})
        headers = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream"}
        url = running.url + "/v1/events/final/progress"
        with httpx.stream("GET", url, headers=headers, timeout=10, trust_env=False) as got:
            assert got.headers["content-type"].startswith("text/event-stream")
            lines = (line for line in got.iter_lines() if line.startswith("data: "))
            assert '"stage":"upcoming"' in next(lines)
            running.ask("POST", "/v1/events/final/transitions", key, {"stage": "live"})
            assert any('"seq":2,"stage":"live"' in line for line in lines)
            assert running.stop() < 2
            list(lines)
        assert running.process.returncode == 0
