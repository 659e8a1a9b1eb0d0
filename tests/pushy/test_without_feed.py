"""A worker whose feed is dead: it keeps its devices, takes nobody new after a while, and misses nothing from the next one."""

from pathlib import Path

from pushy.link import Follow, Joined
from pushy.worker import Options
from tests.pushy.rig import Raw, listening, refusing, update, worker


async def test_no_feed_no_new_devices(tmp_path: Path) -> None:
    """Not ready means that nobody listens; who is connected stays and is answered."""
    async with worker(tmp_path, Options(feed_absent=0.5)) as rig, await rig.device() as device:
        await rig.feed.stop()
        await refusing(rig.address)
        device.json(t="ping", c=1)
        assert (await device.until("pong"))["c"] == 1


async def test_the_next_feed_closes_the_gap(tmp_path: Path) -> None:
    """What was accepted while there was no feed comes as the head, once; devices are taken again."""
    async with worker(tmp_path, Options(feed_absent=0.5)) as rig, await rig.device() as device:
        await rig.feed.stop()
        await refusing(rig.address)
        joined = len(rig.feed.all(Joined))
        rig.feed.heads["final"] = update("final", 2, "live")
        await rig.feed.start()
        await rig.feed.until(lambda: len(rig.feed.all(Joined)) > joined)
        assert rig.feed.all(Follow)[-1].events == ["final"]
        state = await device.frame()
        assert (state["t"], state["seq"]) == ("state", 2)
        await listening(rig.address)
        async with await rig.device("d2", member="m2") as another:
            assert another.welcome["state"][0]["seq"] == 2
        device.json(t="ping", c=2)
        assert (await device.frame())["t"] == "pong"  # and no second state


async def test_a_feed_that_is_back_at_once_is_not_noticed(tmp_path: Path) -> None:
    """Within `feed_absent` the door stays open: a device that comes meanwhile is welcomed from memory."""
    async with worker(tmp_path, Options(feed_absent=30.0)) as rig, await rig.device():
        await rig.feed.stop()
        async with await rig.device("d2", member="m2") as another:
            assert another.welcome["state"][0]["seq"] == 1
        async with await Raw.connect(rig.address):
            pass
