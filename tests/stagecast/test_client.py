"""The device SDK against a node that never saw its code."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from websockets.exceptions import ConnectionClosed

from stagecast.client import (
    Change,
    Connected,
    Device,
    DeviceError,
    Disconnected,
    Dismissed,
    Message,
    Refused,
    TokenRefused,
)
from stagecast.http import serving
from stagecast.wire.frames import StageMap
from tests.stagecast.peer import GEN, WITHIN, Node, Session, running_node, stage_map, state

V1 = "1764000000000-1"


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with running_node() as started:
        yield started


def device_of(node: Node, token: Any = "token-1", **more: Any) -> Device:
    return Device(node.url, token, device="d1", events=["final"], **more)


async def soon(awaitable: Awaitable[Any]) -> Any:
    async with asyncio.timeout(WITHIN):
        return await awaitable


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what other tasks are about to bring about."""
    async with asyncio.timeout(WITHIN):
        while not condition():  # noqa: ASYNC110 - a look at values, without a hook in the product for tests
            await asyncio.sleep(0.002)


def closing(code: int, reason: str = "") -> Callable[[Session], Awaitable[bool]]:
    async def greet(session: Session) -> bool:
        await session.ws.close(code, reason)
        return False

    return greet


async def next_change(changes: AsyncIterator[Change]) -> Change:
    change = await soon(anext(changes))
    assert isinstance(change, Change)
    return change


# -- hello, stages, maps, acks


async def test_a_device_says_hello_and_takes_the_welcomes_state(node: Node) -> None:
    """The first frame is hello with its token, name and positions; a newer state in the welcome is a switch, and a catch-up."""
    node.states = [state(3, "live")]
    async with device_of(node, app="test/1") as device:
        session = await node.session()
        position = {"e": "final", "gen": 0, "seq": 0, "map": None}
        expected = {"t": "hello", "token": "token-1", "device": "d1", "app": "test/1", "at": [position]}
        assert session.hello == expected
        change = await next_change(device.stages())
        assert (change.event, change.gen, change.seq, change.stage, change.ts) == ("final", GEN, 3, "live", GEN + 3)
        assert (change.result, change.payload, change.caught_up) == ("missing", None, True)
        assert device.connected
        assert device.position("final").seq == 3


async def test_a_pushed_map_then_a_switch(node: Node) -> None:
    """A device switches to what it already holds, and asks no server for anything."""
    node.states = [state(1, "upcoming")]
    async with device_of(node) as device:
        session, changes = await node.session(), device.stages()
        await next_change(changes)
        await session.send(stage_map("1", {"live": ["t1", "t2"]}, default=["t9"]), state(2, "live", map=V1))
        change = await next_change(changes)
        assert (change.stage, change.result, change.payload, change.caught_up) == (
            "live",
            "switched",
            ["t1", "t2"],
            False,
        )
        await session.send(state(3, "overtime"))
        assert (await next_change(changes)).payload == ["t9"]
        assert device.fetches == 0
        assert device.position("final").map == V1
        held = device.stage_map("final")
        assert held is not None
        assert held.stages == {"live": ["t1", "t2"]}


async def test_equal_and_older_states_change_nothing(node: Node) -> None:
    """Only a greater (gen, seq) is a change; a greater gen wins over any seq."""
    async with device_of(node) as device:
        session, changes = await node.session(), device.stages()
        old, new = state(9, "ended"), state(1, "upcoming", gen=GEN + 1)
        await session.send(state(2, "live"), state(2, "other"), state(1, "upcoming"), old, new, old)
        await until(lambda: device.position("final").gen == GEN + 1)
        await session.send(state(2, "last", gen=GEN + 1))
        seen: list[Change] = []
        while not seen or seen[-1].stage != "last":
            seen.append(await next_change(changes))
        orders = [(change.gen, change.seq) for change in seen]
        assert orders == sorted(set(orders))
        assert {change.stage for change in seen} <= {"live", "ended", "upcoming", "last"}


async def test_a_slow_reader_gets_the_newest(node: Node) -> None:
    """Nobody reads: the newest state per event is kept, the overtaken ones are counted."""
    async with device_of(node) as device:
        session = await node.session()
        await session.send(*(state(seq, f"s{seq}") for seq in range(1, 6)))
        await until(lambda: device.position("final").seq == 5)
        assert (await next_change(device.stages())).stage == "s5"
        assert device.overtaken == 4


async def test_an_ack_when_asked(node: Node) -> None:
    """p = 2^32 asks every device; a welcome asks none."""
    async with device_of(node) as device:
        session = await node.session()
        await session.send(state(1, "live", ack={"p": 2**32, "w": 0}))
        ack = await session.expect("ack")
        assert {**ack, "ms": 0} == {"t": "ack", "e": "final", "gen": GEN, "seq": 1, "r": "missing", "ms": 0}
        assert device.connected


async def test_pings_carry_the_census(node: Node) -> None:
    """A device pings at the node's interval, with its positions after something was applied and without them when nothing was."""
    node.welcome["ping"] = 0.05
    async with device_of(node) as device:
        session = await node.session()
        assert "at" not in await session.expect("ping")
        await session.send(state(4, "live"))
        while "at" not in (ping := await session.expect("ping")):
            pass
        assert ping["at"] == [{"e": "final", "gen": GEN, "seq": 4, "map": None}]
        assert "at" not in await session.expect("ping")
        assert device.connected


# -- coming back


async def test_it_resumes_with_its_positions_after_a_cut(node: Node) -> None:
    """A cut connection is made anew, the hello says where the device is, and what it missed is one change."""
    node.states = [state(1, "upcoming")]
    async with device_of(node) as device:
        changes = device.stages()
        await node.session()
        await next_change(changes)
        node.states = [state(5, "round-3")]
        device.cut()
        session = await node.session()
        assert session.hello["at"] == [{"e": "final", "gen": GEN, "seq": 1, "map": None}]
        change = await next_change(changes)
        assert (change.seq, change.caught_up) == (5, True)
        assert device.connections == 2


async def test_an_equal_welcome_is_no_change(node: Node) -> None:
    """A reconnect without news gives no change."""
    node.states = [state(1, "upcoming")]
    async with device_of(node) as device:
        changes = device.stages()
        await node.session()
        await next_change(changes)
        device.cut()
        session = await node.session()
        await session.send(state(2, "live"))
        assert (await next_change(changes)).stage == "live"


async def test_it_survives_a_killed_host(node: Node) -> None:
    """Refused connections are backed off from until the host is there again; then the device catches up."""
    async with device_of(node) as device:
        notices = device.notices()
        await node.session()
        assert isinstance(await soon(anext(notices)), Connected)
        await node.kill()
        lost = await soon(anext(notices))
        assert isinstance(lost, Disconnected)
        assert lost.code == 1006
        refused = await soon(anext(notices))
        assert isinstance(refused, Disconnected)
        assert "unreachable" in refused.why
        assert not device.connected
        node.states = [state(7, "live")]
        await node.start()
        assert (await next_change(device.stages())).seq == 7
        assert device.trouble is None


@pytest.mark.parametrize("code", [1001, 4000, 4001])
async def test_a_goaway_steers_the_return(node: Node, code: int) -> None:
    """A planned close brings the device back within `back` of the goaway, not before."""
    node.welcome["back"] = [0, 0]
    async with device_of(node) as device:
        notices = device.notices()
        session = await node.session()
        await soon(anext(notices))
        await session.send({"t": "goaway", "why": "drain", "back": [40, 50]})
        await session.ws.close(code)
        lost = await soon(anext(notices))
        assert isinstance(lost, Disconnected)
        assert lost.code == code
        assert 0.04 <= lost.again_in <= 0.05
        await node.session()


async def test_a_refused_token_is_renewed_once(node: Node) -> None:
    """4401: the callback is asked for a new token, and the device is back with it."""
    tokens = iter(["old", "new"])

    async def fresh() -> str:
        return next(tokens)

    async def greet(session: Session) -> bool:
        if session.hello["token"] == "old":
            await session.ws.close(4401, "expired")
            return False
        return True

    node.greet, node.welcome["back"] = greet, [0, 10]
    async with device_of(node, fresh) as device:
        device._reconnect.steer((0, 10))  # before a welcome, `back` is 2 to 5 s
        await soon(device.until_connected())
        await node.session()
        assert (await node.session()).hello["token"] == "new"


async def test_a_token_refused_twice_ends_it(node: Node) -> None:
    """A second 4401 in a row: no third try, and the reader is told why."""
    node.greet = closing(4401, "revoked")
    async with device_of(node, lambda: "t") as device:
        device._reconnect.steer((0, 10))
        with pytest.raises(TokenRefused, match="revoked"):
            await soon(anext(device.stages()))
        assert node.handshakes == 2


async def test_a_fixed_token_refused_ends_it_at_once(node: Node) -> None:
    """Where no other token is to be had, none is tried."""
    node.greet = closing(4401, "expired")
    async with device_of(node) as device:
        with pytest.raises(TokenRefused, match="expired"):
            await soon(device.until_connected())
        assert node.handshakes == 1


@pytest.mark.parametrize("code", [4400, 4403, 4409, 1008])
async def test_its_own_fault_keeps_it_away(node: Node, code: int) -> None:
    """A device does not come back by itself from its own fault."""
    node.greet = closing(code, "because")
    async with device_of(node) as device:
        with pytest.raises(Dismissed, match="because") as caught:
            await soon(anext(device.stages()))
        assert caught.value.code == code
        assert node.handshakes == 1
        assert isinstance(caught.value, DeviceError)


async def test_a_normal_close_ends_the_stages(node: Node) -> None:
    """1000 from the node: the device stays away, and the reader's loop just ends."""
    async with device_of(node) as device:
        session = await node.session()
        await session.ws.close(1000)
        assert [change async for change in device.stages()] == []


async def test_a_host_at_its_limit_is_backed_off_from(node: Node) -> None:
    """503 with Retry-After: not before that many seconds."""
    node.refuse = 503, {"Retry-After": "7"}
    async with device_of(node) as device:
        refused = await soon(anext(device.notices()))
        assert isinstance(refused, Disconnected)
        assert 7 <= refused.again_in <= 12
        assert "HTTP 503" in refused.why


async def test_a_node_out_of_step_is_given_up(node: Node) -> None:
    """A second welcome is the node's error: the connection is broken off with a reason, and made anew."""
    async with device_of(node) as device:
        notices = device.notices()
        session = await node.session()
        await soon(anext(notices))
        await session.send({"t": "welcome", "sid": "s", "now": GEN, "state": [], **node.welcome})
        lost = await soon(anext(notices))
        assert isinstance(lost, Disconnected)
        assert (lost.code, lost.why) == (1006, "a welcome while open")
        await node.session()


async def test_a_frame_over_64_kib_is_the_nodes_fault(node: Node) -> None:
    """The device closes, and comes back: the 1009 is its own."""
    async with device_of(node) as device:
        notices = device.notices()
        session = await node.session()
        await soon(anext(notices))
        with contextlib.suppress(ConnectionClosed):
            await session.send({"t": "msg", "id": "m", "kind": "k", "body": "x" * 70_000})
        lost = await soon(anext(notices))
        assert isinstance(lost, Disconnected)
        assert lost.code == 1006
        await node.session()


async def test_an_endpoint_without_the_protocol(node: Node) -> None:
    """A WebSocket server that does not choose the subprotocol is no node."""
    node.subprotocols = None
    await node.kill()
    await node.start()
    async with device_of(node) as device:
        refused = await soon(anext(device.notices()))
        assert isinstance(refused, Disconnected)
        assert "does not speak stagecast.v1" in refused.why


async def test_a_token_callback_that_fails_is_asked_again(node: Node) -> None:
    """No token, no connection yet; the reason is told."""

    def broken() -> str:
        raise OSError("the vault is shut")

    async with device_of(node, broken) as device:
        refused = await soon(anext(device.notices()))
        assert isinstance(refused, Disconnected)
        assert "the vault is shut" in refused.why
        assert node.handshakes == 0


async def test_close_says_1000(node: Node) -> None:
    """Leaving the context closes cleanly and ends the reader."""
    async with device_of(node) as device:
        session = await node.session()
        reader = asyncio.ensure_future(anext(device.stages(), None))
        await soon(device.until_connected())
    assert await soon(reader) is None
    assert await session.ended() == 1000
    assert not device.connected


async def test_close_while_nothing_answers() -> None:
    """A device without a node closes at once."""
    async with Device("ws://127.0.0.1:1/ws", "t", device="d1", events=["final"]) as device:
        await soon(anext(device.notices()))
    assert device.trouble is not None


# -- the token, events, messages


async def test_a_due_token_is_sent_on_the_open_connection(node: Node) -> None:
    """`refresh` says when: the device gets a fresh token and sends `auth`; the connection stays."""
    tokens = iter(["t1", "t2"])
    node.welcome["refresh"] = 0.01
    async with device_of(node, lambda: next(tokens)) as device:
        session = await node.session()
        assert session.hello["token"] == "t1"
        assert (await session.expect("auth"))["token"] == "t2"
        assert device.connections == 1


async def test_follow_and_unfollow(node: Node) -> None:
    """Events come and go on the open connection; a refused one is a notice."""
    async with device_of(node) as device:
        session, notices = await node.session(), device.notices()
        await device.follow("semi")
        assert (await session.expect("sub"))["at"] == [{"e": "semi", "gen": 0, "seq": 0, "map": None}]
        await session.send({"t": "err", "code": "unknown_event", "e": "semi", "text": "no such event"})
        await soon(anext(notices))
        assert await soon(anext(notices)) == Refused("semi", "unknown_event", "no such event")
        await device.unfollow("semi")
        assert (await session.expect("unsub"))["e"] == ["semi"]
        assert device.events == ["final"]


async def test_messages_reach_the_application(node: Node) -> None:
    """A `msg` is a notice; unknown types and fields are passed over, frames that are none are counted."""
    async with device_of(node) as device:
        session, notices = await node.session(), device.notices()
        await session.send({"t": "later", "x": 1}, {"t": "map"})
        await session.send({"t": "msg", "id": "m1", "kind": "note", "body": {"a": 1}, "new": 2})
        await soon(anext(notices))
        assert await soon(anext(notices)) == Message("m1", "note", {"a": 1})
        assert device.dropped == 1


async def test_names_that_the_protocol_does_not_take() -> None:
    """Wrong names are the caller's error, at once."""
    with pytest.raises(ValueError, match="Final!"):
        Device("ws://h/ws", "t", device="d", events=["Final!"])
    with pytest.raises(ValueError, match="a b"):
        Device("ws://h/ws", "t", device="a b", events=[])
    with pytest.raises(ValueError, match="http"):
        Device("http://h/ws", "t", device="d", events=[])
    with pytest.raises(ValueError, match="ws://"):
        Device("ws://", "t", device="d", events=[])


# -- the pull


class Maps:
    """The stage-map API as the protocol's "Pull" says, over real HTTP."""

    def __init__(self) -> None:
        self.map = {**stage_map("1", {"live": ["t1"]}), "refresh_after": 3600}
        self.status = 200
        self.asked: list[dict[str, str]] = []

    async def answer(self, request: Request) -> Response:
        wanted = ("authorization", "if-none-match")
        headers = {name: request.headers[name] for name in wanted if name in request.headers}
        self.asked.append({"path": request.url.path, **headers})
        etag = f'"{self.map["map"]}"'
        if self.status != 200 or request.headers.get("if-none-match") == etag:
            return Response(status_code=304 if self.status == 200 else self.status)
        return Response(json.dumps(self.map), headers={"ETag": etag}, media_type="application/json")


@contextlib.asynccontextmanager
async def maps_at(node: Node) -> AsyncIterator[Maps]:
    maps = Maps()
    app = Starlette(routes=[Route("/v1/stage-maps/{event}", maps.answer)])
    async with serving(app, "127.0.0.1:0") as base:
        node.welcome["maps"] = base
        yield maps


async def test_a_missing_map_is_fetched_once(node: Node) -> None:
    """Without a map: one GET with the device's token; the late payload joins its switch when nobody has read that yet."""
    node.states = [state(1, "live", fetch=0)]
    async with maps_at(node) as maps, device_of(node) as device:
        await until(lambda: device.stage_map("final") is not None)
        assert [ask["path"] for ask in maps.asked] == ["/v1/stage-maps/final"]
        assert maps.asked[0]["authorization"] == "Bearer token-1"
        assert "if-none-match" not in maps.asked[0]
        change = await next_change(device.stages())
        assert (change.seq, change.result, change.payload) == (1, "switched", ["t1"])
        assert device.fetches == 1


async def test_a_late_payload_is_told_to_who_asks(node: Node) -> None:
    """`stages(late=True)` tells what came after its switch; `showing` knows it in any case."""
    node.states = [state(1, "live")]
    async with device_of(node) as device:
        session, changes = await node.session(), device.stages(late=True)
        assert (await next_change(changes)).result == "missing"
        await session.send(stage_map("1", {"live": ["t1"]}))
        change = await next_change(changes)
        assert (change.late, change.seq, change.payload) == (True, 1, ["t1"])
        assert device.showing("final") == ["t1"]


async def test_a_hint_is_fetched_with_the_etag(node: Node) -> None:
    """A hint not newer than the held map is ignored; a newer one is one fetch with If-None-Match. 304 leaves the map."""
    async with maps_at(node) as maps, httpx.AsyncClient(trust_env=False) as http, device_of(node, http=http) as device:
        session = await node.session()
        hint = {"t": "hint", "e": "final", "gen": GEN, "map": V1, "w": 0}
        await session.send(state(1, "live"), stage_map("1", {"live": ["t1"]}), hint, {**hint, "map": "1764000000000-2"})
        await until(lambda: device.fetches == 1 and len(maps.asked) == 1)
        assert maps.asked[0]["if-none-match"] == f'"{V1}"'
        await until(lambda: device._session.followed("final").in_flight is None)
        assert device.position("final").map == V1
        maps.map = {**stage_map("3", {"live": ["t3"]}), "refresh_after": 3600}
        await session.send({**hint, "map": "1764000000000-3"})
        await until(lambda: device.position("final").map == "1764000000000-3")
        assert device.fetches == 2


@pytest.mark.parametrize("status", [401, 403, 404, 500])
async def test_a_failed_fetch_is_not_repeated(node: Node, status: int) -> None:
    """One fetch per state: an error is no reason to come again by itself; the next state is."""
    node.states = [state(1, "live", fetch=0)]
    async with maps_at(node) as maps, device_of(node) as device:
        maps.status = status
        session = await node.session()
        await until(lambda: len(maps.asked) == 1)
        await until(lambda: device._session.followed("final").in_flight is None)
        assert device._session.followed("final").fetch is None
        maps.status = 200
        await session.send(state(2, "live", fetch=0))
        await until(lambda: device.showing("final") == ["t1"])
        assert device.fetches == 2


async def test_an_api_that_is_not_there_harms_nothing(node: Node) -> None:
    """Nobody answers the pull: the device stays connected and switches on."""
    node.states, node.welcome["maps"] = [state(1, "live", fetch=0)], "http://127.0.0.1:1"
    async with device_of(node) as device:
        session, changes = await node.session(), device.stages()
        assert (await next_change(changes)).result == "missing"
        await until(lambda: device.fetches == 1 and device._session.followed("final").in_flight is None)
        await session.send(state(2, "ended"))
        assert (await next_change(changes)).stage == "ended"
        assert device.connected


# -- many


async def test_many_devices_are_cheap(node: Node) -> None:
    """A hundred devices in one process all switch; each has one task of ours, and an idle one wakes nobody."""
    async with contextlib.AsyncExitStack() as stack:
        devices = [
            await stack.enter_async_context(Device(node.url, "t", device=f"d{i}", events=["final"])) for i in range(100)
        ]
        sessions = [await node.session() for _ in devices]
        for session in sessions:
            await session.send(state(1, "live"))
        for device in devices:
            assert (await next_change(device.stages())).stage == "live"
        assert all(not device._tasks for device in devices)


async def test_a_map_from_elsewhere_is_held_as_a_pushed_one() -> None:
    """For the event's gen and if it is newer; of an event that it does not follow it is passed over."""
    device = Device("ws://127.0.0.1:1/ws", "token", device="tv-1", events=["final"])
    made = StageMap("final", GEN, "1764000000000-1", {"live": ["t1"]})
    device.hold(made)
    device.hold(StageMap("final", GEN, "1763000000000-1", {}))
    device.hold(StageMap("other", GEN, "1764000000000-1", {}))
    assert device.stage_map("final") == made
    await device.close()
