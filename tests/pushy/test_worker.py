"""The worker, for real: a process, a feed on a Unix socket, devices over TCP."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from pushy.fanout import chosen
from pushy.link import (
    Began,
    Counted,
    Delivered,
    Drain,
    Ended,
    Follow,
    Gauges,
    Hinted,
    Joined,
    Parcel,
    Push,
    Readiness,
    Replaced,
    Revoked,
    Sessions,
    Steer,
    Unfollow,
)
from pushy.rfc6455 import server_frame
from pushy.worker import Options
from stagecast.clock import SystemClock
from stagecast.receipts import Receipt
from stagecast.records import Revocation
from stagecast.tokens import create_keys
from tests.pushy.rig import Feed, Raw, Rig, built, listening, masked, refusing, update, worker

AT_FINAL = {"e": "final", "gen": 0, "seq": 0, "map": None}


@pytest.fixture(params=["python", "native", "batched"])
def fan_out(request: pytest.FixtureRequest) -> str:
    """Each of the ways to the sockets."""
    kind: str = request.param
    try:
        chosen(kind, built())
    except ValueError as why:
        pytest.skip(str(why))
    return kind


@pytest.fixture
async def rig(tmp_path: Path, fan_out: str) -> AsyncIterator[Rig]:
    async with worker(tmp_path, fan_out=fan_out) as one:
        yield one


def newest_receipts(feed: Feed) -> dict[tuple[str, int, int], Receipt]:
    return {(r.e, r.gen, r.seq): r for counted in feed.all(Counted) for r in counted.receipts}


def gauge(feed: Feed, name: str) -> float:
    gauges = feed.all(Gauges)
    return gauges[-1].values.get(name, 0.0) if gauges else 0.0


def sessions(feed: Feed) -> list[Began | Ended]:
    return [change for message in feed.all(Sessions) for change in message.changes]


async def test_a_device_is_welcomed_with_the_head_and_gets_what_follows(rig: Rig) -> None:
    """hello → welcome with the head, ack null; then each newer state as the feed framed it, in order."""
    async with await rig.device() as device:
        assert [(s["e"], s["seq"], s["ack"]) for s in device.welcome["state"]] == [("final", 1, None)]
        assert (device.welcome["ping"], device.welcome["back"]) == (45, [2000, 5000])
        rig.feed.send(
            update("final", 2, "live"), update("final", 2, "live"), update("final", 1), update("final", 3, "ended")
        )
        assert [(await device.frame())["seq"] for _ in range(2)] == [2, 3], "duplicates and older ones are dropped"


async def test_the_websockets_client_agrees(rig: Rig) -> None:
    """An independent client library handshakes, pings, gets states and sees the close code."""
    host, port = rig.address
    async with connect(f"ws://{host}:{port}/ws", subprotocols=["stagecast.v1"], ping_interval=None) as client:  # type: ignore[list-item]
        assert client.subprotocol == "stagecast.v1"
        await client.send(json.dumps({"t": "hello", "token": rig.token(), "device": "d1", "app": "", "at": [AT_FINAL]}))
        assert json.loads(await client.recv())["t"] == "welcome"
        await (await client.ping(b"are you there"))
        rig.feed.send(update("final", 2))
        assert json.loads(await client.recv())["seq"] == 2
        await client.send(json.dumps({"t": "ping", "c": 7}))
        assert json.loads(await client.recv())["c"] == 7
        await client.send(b"\x00")
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1003


async def test_many_hellos_are_one_follow(rig: Rig) -> None:
    """However many devices wait for an event, the feed is asked once; all are welcomed when the head comes (single flight)."""
    rig.feed.mute = True
    waiting = [await Raw.connect(rig.address) for _ in range(5)]
    for i, raw in enumerate(waiting):
        raw.hello(rig.token(f"d{i}"), f"d{i}", [AT_FINAL])
    await rig.feed.until(lambda: len(rig.feed.all(Follow)) == 1)
    rig.feed.send(update("final", 4))
    for raw in waiting:
        assert (await raw.frame())["state"][0]["seq"] == 4
        raw.sock.close()
    assert rig.feed.all(Follow) == [Follow(["final"])]


async def test_welcome_first_then_the_refusals(rig: Rig) -> None:
    """An absent event, a forbidden one and the ninth: `welcome` with the others, then an err each; the first two look alike."""
    raw = await Raw.connect(rig.address)
    raw.hello(rig.token(events=["final", "absent"]), "d1", [AT_FINAL, {"e": "absent"}, {"e": "secret"}])
    welcome = await raw.frame()
    assert [welcome["t"], *(s["e"] for s in welcome["state"])] == ["welcome", "final"]
    errors = {frame["e"]: frame for frame in [await raw.frame(), await raw.frame()]}
    assert set(errors) == {"absent", "secret"}
    assert {(e["code"], e["text"]) for e in errors.values()} == {("unknown_event", "no such event")}
    raw.sock.close()


async def test_heads_that_do_not_come_are_unavailable(tmp_path: Path) -> None:
    """A feed that does not answer does not hold a hello for ever."""
    async with worker(tmp_path, Options(head_wait=0.2)) as rig:
        rig.feed.mute = True
        raw = await Raw.connect(rig.address)
        raw.hello(rig.token(), "d1", [{"e": "other"}])
        assert (await raw.frame())["state"] == []
        assert (await raw.frame())["code"] == "unavailable"
        raw.sock.close()


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([masked(b"not json")], 4400),
        ([masked(b'{"t":"ping","c":1}')], 4400),
        ([masked(b"[" * 5000)], 4400),
        ([masked(b'"\xff"')], 1007),
        ([masked(b"x", opcode=2)], 1003),
        ([b"\x81\x05hello"], 1002),
        ([b"\xc1\x80\x00\x00\x00\x00"], 1002),
        ([b"\x81\xff\x00\x00\x01\x00\x00\x00\x00\x00"], 1009),
        ([masked(b"", fin=False), *[masked(b"", opcode=0, fin=False)] * 70], 1009),
        ([masked(b"x", opcode=9)] * 25, 4029),
        ([masked(b"", opcode=10)] * 300, 4029),
    ],
)
async def test_what_breaks_the_rules_ends_with_its_code(rig: Rig, frames: list[bytes], code: int) -> None:
    """Each violation closes with the code that PROTOCOL names, and the code arrives."""
    async with await Raw.connect(rig.address) as raw:
        raw.put(b"".join(frames))
        with contextlib.suppress(ConnectionError):
            await raw.send(bytes(100_000))  # on its way when the node closes
        assert await raw.closed() == code
        assert await asyncio.get_running_loop().sock_recv(raw.sock, 1) == b"", "an orderly end, no reset"


async def test_the_session_rules_close_with_their_codes(rig: Rig) -> None:
    """Bad token 4401, another device's 4403, a second hello 4400, more than 20 messages 4029."""
    async with await Raw.connect(rig.address) as raw:
        raw.hello("no.token.atall", "d1", [])
        assert await raw.closed() == 4401
    async with await Raw.connect(rig.address) as raw:
        raw.hello(rig.token("d1"), "d2", [])
        assert await raw.closed() == 4403
    async with await rig.device() as raw:
        raw.hello(rig.token("d1"), "d1", [])
        assert await raw.closed() == 4400
    async with await rig.device() as raw:
        for i in range(25):
            raw.json(t="ping", c=i)
        assert await raw.closed() == 4029


async def test_no_hello_and_no_request_end_in_time(tmp_path: Path) -> None:
    """A connection that upgrades and stays silent gets 4008; the deadline counts from the open and no ping extends it."""
    async with worker(tmp_path, Options(hello_deadline=0.3)) as rig, await Raw.connect(rig.address) as raw:
        raw.put(masked(b"", opcode=9))
        assert await raw.closed() == 4008


async def test_a_request_that_drips_in_is_cut(tmp_path: Path) -> None:
    """The deadline is for the whole request, however often another byte comes; others are served meanwhile."""
    async with worker(tmp_path, Options(handshake_deadline=0.3)) as rig, await Raw.open(rig.address) as slow:
        request = slow.request()
        cut = asyncio.create_task(slow.rest())
        for i in range(len(request) - 1):
            if cut.done():
                break
            with contextlib.suppress(ConnectionError):
                slow.put(request[i : i + 1])
            await asyncio.sleep(0.01)
        else:
            pytest.fail("it could go on for ever")
        assert await cut == b""
        (await rig.device()).sock.close()


async def test_silence_ends_a_connection(tmp_path: Path) -> None:
    """A node that hears nothing for 2.44 ping intervals closes with 4008."""
    async with worker(tmp_path, ping=0.2) as rig, await rig.device() as device:
        assert await device.closed() == 4008


async def test_lifetime_ends_with_goaway(tmp_path: Path) -> None:
    """At the end of its lifetime a connection gets goaway with `back`, then 4001."""
    async with worker(tmp_path, lifetime=0.5) as rig, await rig.device() as device:
        assert await device.frame() == {"t": "goaway", "why": "lifetime", "back": [2000, 5000]}
        assert await device.closed() == 4001


async def test_sigterm_says_goodbye_and_is_quick(rig: Rig) -> None:
    """SIGTERM: goaway and 1001 to every device, a goodbye receipt and the ends of the sessions to the feed, exit 0."""
    devices = [await rig.device(f"d{i}") for i in range(20)]
    rig.signal(signal.SIGTERM)
    for device in devices:
        assert (await device.frame())["t"] == "goaway"
        assert await device.closed() == 1001
        device.sock.close()
    async with asyncio.timeout(2):
        assert await rig.ended() == 0
    await rig.feed.until(lambda: [r for r in newest_receipts(rig.feed).values() if r.left])
    await rig.feed.until(lambda: sum(isinstance(change, Ended) for change in sessions(rig.feed)) == 20)


async def test_sigterm_does_not_wait_for_who_never_answers(rig: Rig) -> None:
    """Devices that never close, and one in mid-handshake, do not hold the exit up for more than 1.5 s."""
    silent = [await rig.device("a"), await Raw.open(rig.address)]
    started = asyncio.get_running_loop().time()
    rig.signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        await rig.ended()
    assert asyncio.get_running_loop().time() - started < 2, "the supervisor kills at 2 s"
    for raw in silent:
        raw.sock.close()


async def test_drain_sends_all_away_and_takes_no_more(rig: Rig) -> None:
    """Drain: goaway with its `back`, 4000; at the given rate; new connections are refused."""
    devices = [await rig.device(f"d{i}") for i in range(10)]
    rig.feed.send(Drain(1000.0, (7000, 9000)))
    for device in devices:
        assert (await device.frame())["back"] == [7000, 9000]
        assert await device.closed() == 4000
        device.sock.close()
    await refusing(rig.address)
    await rig.feed.until(lambda: gauge(rig.feed, "stagecast_connections") == 0)


async def test_drain_keeps_its_rate(rig: Rig) -> None:
    """At one a second the second device is still served after the first has gone."""
    first, second = await rig.device("a"), await rig.device("b")
    rig.feed.send(Drain(0.5, (1, 2)))
    tasks = [asyncio.create_task(raw.until("goaway")) for raw in (first, second)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=5)
    assert (len(done), len(pending)) == (1, 1)
    stayed = second if tasks[0] in done else first
    (task,) = pending
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    rig.feed.send(update("final", 2))
    assert (await stayed.frame())["seq"] == 2
    first.sock.close()
    second.sock.close()


async def test_revocation_closes_and_refuses(rig: Rig) -> None:
    """A revocation closes the device's session with 4401, and its old tokens are refused from then on, remembered or not."""
    old = rig.token("d1")
    device = await rig.device("d1")
    other = await rig.device("d2")
    rig.feed.send(Revoked([Revocation("device", "d1", SystemClock().now())]))
    assert await device.closed() == 4401
    for token in (old, rig.token("d1")):
        async with await Raw.connect(rig.address) as raw:
            raw.hello(token, "d1", [])
            assert await raw.closed() == 4401, "issued within the revocation's second, at or before it"
    rig.feed.send(Revoked([Revocation("member", "m1", SystemClock().now())]))
    assert await other.closed() == 4401
    device.sock.close()
    other.sock.close()


async def test_a_key_that_leaves_the_file_ends_its_sessions(rig: Rig) -> None:
    """The keys file is read again every 5 s; sessions of a key that has gone get 4401, and its tokens are not remembered."""
    token = rig.token("d2")
    async with await Raw.connect(rig.address) as raw:
        raw.hello(token, "d2", [])
        assert (await raw.frame())["t"] == "welcome"
    device = await rig.device("d1")
    rig.settings.keys_file.unlink()
    create_keys(rig.settings.keys_file)
    assert await device.closed() == 4401
    async with await Raw.connect(rig.address) as raw:
        raw.hello(token, "d2", [])
        assert await raw.closed() == 4401
    device.sock.close()


async def test_a_later_session_replaces_an_earlier_one(rig: Rig) -> None:
    """Same member and device: 4409 for the earlier, here or at another worker of the host; another member's is left alone."""
    first = await rig.device("d1")
    second = await rig.device("d1")
    assert await first.closed() == 4409
    start = next(c.start for c in reversed(sessions(rig.feed)) if isinstance(c, Began)) if sessions(rig.feed) else 0
    other = await rig.device("d1", member="m2")
    rig.feed.send(Replaced("m1", "d1", start - 1))
    rig.feed.send(update("final", 2))
    assert (await second.frame())["seq"] == 2, "an earlier start elsewhere replaces nothing"
    rig.feed.send(Replaced("m1", "d1", SystemClock().now() + 1000))
    assert await second.closed() == 4409
    assert (await other.frame())["seq"] == 2
    for raw in (first, second, other):
        raw.sock.close()


async def test_the_registry_hears_of_sessions(rig: Rig) -> None:
    """Began with member, device, sid and start; Ended with the same sid."""
    device = await rig.device("d1")
    await rig.feed.until(lambda: sessions(rig.feed))
    device.sock.close()
    await rig.feed.until(lambda: len(sessions(rig.feed)) == 2)
    began, ended = sessions(rig.feed)
    assert isinstance(began, Began)
    assert isinstance(ended, Ended)
    assert (
        (began.member, began.device, began.sid)
        == (ended.member, ended.device, ended.sid)
        == ("m1", "d1", device.welcome["sid"])
    )


async def test_push_reaches_whom_it_is_for(rig: Rig) -> None:
    """A parcel for a member reaches all of their devices here, one for a device that device; who is not here gives nothing;
    nobody gets a frame about an event that the token does not allow."""
    tv, phone = await rig.device("tv"), await rig.device("phone")
    frame = server_frame(b'{"t":"msg","id":"1","kind":"note"}')
    rig.feed.send(
        Push(
            7,
            [Parcel("m1", None, None, frame), Parcel(None, "tv", "final", frame), Parcel("nobody", None, None, frame)],
        )
    )
    delivered = (await rig.feed.until(lambda: rig.feed.all(Delivered)))[0]
    assert delivered.id == 7
    assert sorted(delivered.statuses) == [(0, "phone", 200), (0, "tv", 200), (1, "tv", 200)]
    assert (await tv.frame())["t"] == (await tv.frame())["t"] == (await phone.frame())["t"] == "msg"
    narrow = await Raw.connect(rig.address)
    narrow.hello(rig.token("n", "m9", ["final"]), "n", [])
    await narrow.frame()
    rig.feed.send(Push(8, [Parcel("m9", None, "other", frame)]))
    assert (await rig.feed.until(lambda: [d for d in rig.feed.all(Delivered) if d.id == 8]))[0].statuses == []
    for raw in (tv, phone, narrow):
        raw.sock.close()


async def test_hints_go_to_followers(rig: Rig) -> None:
    """A hint reaches every follower of its event."""
    device = await rig.device()
    rig.feed.send(Hinted("final", server_frame(b'{"t":"hint","e":"final","gen":1,"map":"1-a","w":5}')))
    assert (await device.frame())["t"] == "hint"
    device.sock.close()


async def stalled(rig: Rig, name: str = "slow") -> Raw:
    """A device that does not read, whose buffers are full: one message is more than all of them hold."""
    raw = await rig.device(name, member=name, receive_buffer=4096)
    filler = server_frame(json.dumps({"t": "msg", "id": "1", "kind": "x" * 60_000}).encode())
    for i in range(1000, 1200):
        rig.feed.send(Push(i, [Parcel(None, name, None, filler)]))
        found = await rig.feed.until(lambda i=i: [d for d in rig.feed.all(Delivered) if d.id == i])  # type: ignore[misc]
        if found[0].statuses == [(0, name, 503)]:
            return raw
    raise AssertionError("it took everything")


async def test_a_slow_reader_gets_the_newest_state_once_it_reads(tmp_path: Path, fan_out: str) -> None:
    """While it does not read: no map or msg (503), and of all states only the newest waits. When it reads again the partly sent
    frame is whole, then comes the newest state, then a hint: never a broken stream."""
    async with worker(tmp_path, Options(send_buffer=4096), fan_out=fan_out) as rig:
        quick, slow = await rig.device("quick"), await stalled(rig)
        for seq in range(2, 60):
            rig.feed.send(update("final", seq))
            assert (await quick.frame())["seq"] == seq, "others are not held up"
        rig.feed.send(Hinted("final", server_frame(b'{"t":"hint","e":"final","gen":1,"map":"1-a","w":1}')))
        rig.feed.send(Hinted("final", server_frame(b'{"t":"hint","e":"final","gen":1,"map":"1-a","w":2}')))
        while (await quick.frame())["w"] != 2:
            pass
        pending = await rig.feed.until(
            lambda: (r := newest_receipts(rig.feed).get(("final", 1, 59))) and r.pending == 1 and r
        )
        assert pending
        assert (pending.audience, pending.written) == (2, 1)
        states: list[int] = []
        hints: list[int] = []
        while not hints:
            frame = await slow.frame()
            if frame["t"] == "state":
                states.append(frame["seq"])
            if frame["t"] == "hint":
                hints.append(frame["w"])
        assert states == [59], "one state, the newest"
        assert hints == [2], "one hint, the newest"
        rig.feed.send(update("final", 60))
        assert (await slow.until("state"))["seq"] == 60, "live again"
        await rig.feed.until(lambda: (r := newest_receipts(rig.feed).get(("final", 1, 59))) and r.written == 2)
        assert newest_receipts(rig.feed)["final", 1, 58].superseded == 1
        quick.sock.close()
        slow.sock.close()


async def test_who_makes_no_progress_is_cut(tmp_path: Path) -> None:
    """Unsent bytes without progress for the deadline: the connection is gone, counted as 4002."""
    async with worker(tmp_path, Options(send_buffer=4096, slow_after=0.5)) as rig:
        slow = await stalled(rig)
        await rig.feed.until(lambda: gauge(rig.feed, 'stagecast_closes_total{code="4002"}') == 1)
        await rig.feed.until(lambda: gauge(rig.feed, "stagecast_connections") == 0)
        slow.sock.close()


async def test_unread_pongs_do_not_pile_up(tmp_path: Path) -> None:
    """A client that sends and never reads: the worker stops reading it, so the client's own send blocks, and memory stays."""
    async with worker(tmp_path, Options(send_buffer=4096, slow_after=60)) as rig:
        raw = await stalled(rig)
        before = resident(rig.pid)
        flood, sent = masked(json.dumps({"t": "ping", "c": 1}).encode()) * 500, 0
        with contextlib.suppress(BlockingIOError):
            while sent < 64 << 20:
                sent += raw.sock.send(flood)
        await asyncio.sleep(0)
        assert sent < 16 << 20, "the kernel's buffers are full: nobody reads"
        rig.feed.send(Push(1, []))
        await rig.feed.until(lambda: [d for d in rig.feed.all(Delivered) if d.id == 1])
        assert resident(rig.pid) - before < 2 << 20
        seen = len(rig.feed.all(Gauges))
        await rig.feed.until(lambda: len(rig.feed.all(Gauges)) > seen + 1)
        assert gauge(rig.feed, 'stagecast_closes_total{code="4029"}') == 0, "none of its messages was read"
        assert gauge(rig.feed, "stagecast_connections") == 1
        raw.sock.close()


async def test_tiny_buffers_never_break_the_stream(tmp_path: Path, fan_out: str) -> None:
    """Partial writes all the time: every frame arrives whole and in order, whatever is mixed."""
    async with worker(tmp_path, Options(send_buffer=2048), fan_out=fan_out) as rig:
        device = await rig.device(receive_buffer=2048)
        body = json.dumps({"t": "map", "fill": "y" * 30_000}).encode()
        seen: list[int] = []
        for seq in range(2, 40):
            rig.feed.send(Push(seq, [Parcel(None, "d1", None, server_frame(body))]), update("final", seq))
            frame = await device.frame()
            while frame["t"] != "state" or frame["seq"] != seq:
                if frame["t"] == "map":
                    assert frame["fill"] == "y" * 30_000
                else:
                    seen.append(frame["seq"])
                frame = await device.frame()
            seen.append(seq)
        assert seen == sorted(set(seen))
        device.sock.close()


async def test_a_feed_restart_keeps_connections(rig: Rig) -> None:
    """The feed dies: devices stay and are welcomed from memory; when it is back the worker joins, follows again, and what was
    missed comes as a head."""
    device = await rig.device("d1")
    boot = rig.feed.all(Joined)[0].boot
    await rig.feed.stop()
    late = await rig.device("d2", member="m2")
    assert late.welcome["state"][0]["seq"] == 1
    rig.feed.heads["final"] = update("final", 9)
    rig.feed.said.clear()
    await rig.feed.start()
    assert (await device.frame())["seq"] == (await late.frame())["seq"] == 9
    assert rig.feed.all(Joined)[0].boot == boot
    assert rig.feed.all(Follow) == [Follow(["final"])]
    for raw in (device, late):
        raw.sock.close()


async def test_not_ready_means_not_listening(rig: Rig) -> None:
    """Readiness(False): no new connections, the old ones stay; True: they come in again."""
    device = await rig.device()
    rig.feed.send(Readiness(False))
    await refusing(rig.address)
    rig.feed.send(update("final", 2))
    assert (await device.frame())["seq"] == 2
    rig.feed.send(Readiness(True))
    await listening(rig.address)
    device.sock.close()


async def test_steer_changes_back(rig: Rig) -> None:
    """Welcomes carry the `back` that the feed steers to."""
    rig.feed.send(Steer((4000, 60_000)))
    rig.feed.send(Push(1, []))
    await rig.feed.until(lambda: rig.feed.all(Delivered))
    device = await rig.device()
    assert device.welcome["back"] == [4000, 60_000]
    device.sock.close()


async def test_over_the_limit_is_503_before_any_token(tmp_path: Path) -> None:
    """Beyond the connections of a worker: 503 with Retry-After; one that leaves makes room."""
    async with worker(tmp_path, connections=2) as rig:
        first, second = await rig.device("a"), await rig.device("b")
        async with await Raw.open(rig.address) as third:
            third.put(third.request())
            head = await third.head()
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: " in head
            assert await third.rest() != b"", "and the answer arrives before the end"
        first.put(masked(b"\x03\xe8", opcode=8))
        assert await first.closed() == 1000
        again = await rig.device("c")
        for raw in (first, second, again):
            raw.sock.close()


async def test_connections_of_one_address_are_limited(tmp_path: Path) -> None:
    """One address over its limit gets 503, another is served; connections that went away abruptly are not counted."""
    options = Options(per_address_on_loopback=True)
    async with worker(tmp_path, options, connections_per_address=3) as rig:
        for _ in range(30):
            (await Raw.open(rig.address, source="127.0.0.5")).sock.close()
        rig.feed.said.clear()
        await rig.feed.until(lambda: any(one.values["stagecast_connections"] == 0 for one in rig.feed.all(Gauges)))
        held = [await Raw.connect(rig.address, source="127.0.0.5") for _ in range(3)]
        async with await Raw.open(rig.address, source="127.0.0.5") as over:
            over.put(over.request())
            assert (await over.head()).startswith(b"HTTP/1.1 503 ")
        async with await Raw.connect(rig.address, source="127.0.0.6"):
            pass
        for raw in held:
            raw.sock.close()


async def test_origins(tmp_path: Path) -> None:
    """Foreign Origins get 403 and no 101; none, the own host's, and a listed one are let in."""
    async with worker(tmp_path, origins=["https://tv.example"]) as rig:
        host, port = rig.address
        for origin in ("https://tv.example", f"http://{host}:{port}"):
            async with await Raw.connect(rig.address, more=f"Origin: {origin}\r\n"):
                pass
        async with await Raw.open(rig.address) as raw:
            raw.put(raw.request(more="Origin: https://tv.example.evil.com\r\n"))
            assert (await raw.head()).startswith(b"HTTP/1.1 403 ")


async def test_an_event_nobody_follows_is_let_go(tmp_path: Path) -> None:
    """When the last follower has left, and the linger passed, the feed hears Unfollow; the next device asks anew."""
    async with worker(tmp_path, Options(linger=0.1)) as rig:
        device = await rig.device()
        device.json(t="unsub", e=["final"])
        await rig.feed.until(lambda: rig.feed.all(Unfollow) == [Unfollow(["final"])])
        device.json(t="sub", at=[AT_FINAL])
        assert (await device.frame())["seq"] == 1
        assert rig.feed.all(Follow) == [Follow(["final"])] * 2
        device.sock.close()


async def test_receipts_count_acks_and_the_census(rig: Rig) -> None:
    """Audience, written, asked, switched with latency; at_or_past moves with positions; an unasked ack changes nothing."""
    one, two = await rig.device("d1"), await rig.device("d2", member="m2")
    rig.feed.send(update("final", 2))
    for device in (one, two):
        assert (await device.frame())["seq"] == 2
    for _ in range(2):
        one.json(t="ack", e="final", gen=1, seq=2, r="switched", ms=12)
    two.json(t="ack", e="final", gen=1, seq=1, r="missing", ms=12)
    two.json(t="ping", c=1, at=[{"e": "final", "gen": 1, "seq": 2, "map": None}])
    await two.frame()
    receipt = await rig.feed.until(
        lambda: (r := newest_receipts(rig.feed).get(("final", 1, 2))) and r.switched and r.at_or_past == 2 and r
    )
    assert receipt
    assert (receipt.audience, receipt.written, receipt.asked, receipt.switched, receipt.missing) == (2, 2, 2, 1, 0)
    assert (receipt.subscribed, receipt.at_or_past, receipt.holding, sum(receipt.latency.values())) == (2, 2, 2, 1)
    one.sock.close()
    two.sock.close()


async def test_the_echo_is_off_unless_asked_for(rig: Rig, tmp_path: Path) -> None:
    """/echo is 404 for devices; with the option it echoes large and fragmented messages."""
    async with await Raw.open(rig.address) as raw:
        raw.put(raw.request("/echo"))
        assert (await raw.head()).startswith(b"HTTP/1.1 404 ")
    (tmp_path / "echo").mkdir()
    async with worker(tmp_path / "echo", Options(echo=True)) as other:
        host, port = other.address
        async with connect(f"ws://{host}:{port}/echo", max_size=None, compression=None) as client:
            await client.send("ü" * 100_000)
            assert await client.recv() == "ü" * 100_000
            await client.send([b"ab", b"", b"cd"])
            assert await client.recv() == b"abcd"


def resident(pid: int) -> int:
    """Bytes of private memory of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss")


async def test_memory_of_an_idle_connection(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """1,000 welcomed devices cost less than 4 KB of user memory each, the copied pages of the fork included; the figure is
    printed. What a connection costs among 10,000 is the benchmark's to say."""
    warm = [await rig.device(f"w{i}", member=f"wm{i}") for i in range(50)]
    before, count = resident(rig.pid), 1000
    devices = [await rig.device(f"device-{i}", member=f"member-{i}") for i in range(count)]
    each = (resident(rig.pid) - before) / count
    with capsys.disabled():
        print(f"\nuser memory per idle connection: {each:.0f} bytes")
    assert each < 4000
    for raw in (*warm, *devices):
        raw.sock.close()
