"""Writes `vectors/*.json` from the code: what every device SDK must do, whatever its language.

    python -m tests.stagecast.wire.make_vectors

`session.json` holds scenarios of the client session. Each step has its moment `at` (s), what is done (`do`, with its arguments),
the chance it draws (`draws`: numbers in [0, 1), in order; a value in lo…hi is lo + (hi − lo)·u), the `effects` that come back in
order, and the `deadline` (s, or null) and the `positions` after it. `retry.json` holds, for rows of closes, what the device does.
`closing.json` and `sampling.json` are plain tables.
"""

import random
from pathlib import Path
from typing import Any

import msgspec

from stagecast.retry import Reconnect, RenewToken, StayAway, Wait
from stagecast.wire.client_session import ClientSession
from stagecast.wire.closing import CloseCode, come_back
from stagecast.wire.effects import Effect, as_builtins
from stagecast.wire.sampling import ack_hash

FOLDER = Path(__file__).with_name("vectors")
GEN = 1764000000000
V1, V2, V3 = (f"1764000000000-{i}" for i in (1, 2, 3))
Step = dict[str, Any]


class Recorded(random.Random):
    """Draws with three decimals, so that the files stay readable, and what it drew since it was last asked."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._drawn: list[float] = []

    def random(self) -> float:
        u = int(super().random() * 1000) / 1000
        self._drawn.append(u)
        return u

    def taken(self) -> list[float]:
        drawn, self._drawn = self._drawn, []
        return drawn


# -- steps of a scenario; a step without `at` happens at the deadline


def opened(at: float) -> Step:
    return {"at": at, "do": "opened", "token": "token"}


def gets(at: float, frame: dict[str, Any]) -> Step:
    return {"at": at, "do": "receive", "frame": frame}


def expire() -> Step:
    return {"do": "expire"}


def done(at: float, what: str, **arguments: Any) -> Step:
    return {"at": at, "do": what, **arguments}


def welcome(*states: dict[str, Any], **more: Any) -> dict[str, Any]:
    base = {"t": "welcome", "sid": "s1", "now": GEN, "ping": 45, "back": [2000, 5000], "refresh": None}
    return {**base, "maps": "http://maps.example", "state": list(states), **more}


def state(seq: int, stage: str, *, gen: int = GEN, event: str = "final", **more: Any) -> dict[str, Any]:
    base = {"t": "state", "e": event, "gen": gen, "seq": seq, "stage": stage, "ts": GEN + seq, "map": None}
    return {**base, "fetch": 8000, "ack": None, **more}


def stage_map(version: str, stages: dict[str, Any], *, gen: int = GEN, **more: Any) -> dict[str, Any]:
    return {"t": "map", "e": "final", "gen": gen, "map": version, "stages": stages, "ttl": 86400, **more}


def hint(version: str, w: int) -> dict[str, Any]:
    return {"t": "hint", "e": "final", "gen": GEN, "map": version, "w": w}


ASKED = {"p": 2**32, "w": 2000}
SCENARIOS: dict[str, list[Step]] = {
    "hello, a welcome with a head, a pushed map, a stage, its ack, its census ping": [
        opened(0), gets(0.1, welcome(state(1, "upcoming", map=V1))),
        gets(1, stage_map(V1, {"live": ["t1"], "ended": []}, default=["t9"])),
        gets(2, state(2, "live", map=V1, ack=ASKED)), done(2.016, "applied", event="final"), expire(), expire(),
        gets(50, {"t": "pong", "c": 0, "now": GEN}),
    ],
    "never back: equal, older and foreign states": [
        opened(0), gets(0.1, welcome(state(5, "live"))), gets(1, state(5, "other")), gets(2, state(4, "upcoming")),
        gets(3, state(1, "upcoming", gen=GEN + 1)), gets(4, state(6, "ended")), gets(5, state(1, "x", event="semi")),
    ],
    "an equal state that asks is ignored, and says so once": [
        opened(0), gets(0.1, welcome(state(2, "live"))), gets(1, state(2, "live", ack=ASKED)),
        gets(1.5, state(2, "live", ack=ASKED)), expire(),
    ],
    "a newer state cancels a pending ack; who is not sampled does not ack": [
        opened(0), gets(0.1, welcome()), gets(1, state(1, "upcoming", ack={"p": 2**32, "w": 60000})),
        gets(2, state(2, "live", ack={"p": 3890218178, "w": 0})), gets(3, state(3, "ended", ack={"p": 1, "w": 0})),
    ],
    "own stage, own default, the cohort's, missing": [
        opened(0), gets(0.1, welcome()), gets(1, stage_map(V1, {"live": "own", "pause": None})),
        gets(2, stage_map(V2, {"extra": "cohort"}, cohort=True)), gets(3, state(1, "live")), gets(4, state(2, "pause")),
        gets(5, state(3, "extra")), gets(6, state(4, "unknown")), gets(7, stage_map(V3, {}, default="own default")),
    ],
    "maps of another gen and not newer ones are dropped": [
        opened(0), gets(0.1, welcome(state(1, "live"))), gets(1, stage_map(V2, {"live": 1})),
        gets(2, stage_map(V1, {"live": 2})), gets(3, stage_map(V2, {"live": 3})),
        gets(4, stage_map(V3, {"live": 4}, gen=GEN + 1)), gets(5, state(1, "live", gen=GEN + 1)),
    ],
    "a missing map is fetched once; its answer fills the stage and plans the refresh": [
        opened(0), gets(0.1, welcome(state(1, "live"))), expire(), gets(9, state(1, "live")),
        done(9.5, "fetched", event="final", status=200, body={**stage_map(V1, {"live": ["t1"]}), "refresh_after": 600}),
        gets(10, state(2, "ended", map=V2)), gets(11, stage_map(V2, {"ended": []})),
    ],
    "hints: held, planned, newer, and one during a fetch": [
        opened(0), gets(0.1, welcome()), gets(1, stage_map(V1, {})), gets(2, hint(V1, 4000)), gets(3, hint(V2, 4000)),
        gets(3.1, hint(V2, 4000)), expire(), gets(8, hint(V2, 4000)), gets(8.1, hint(V3, 0)),
        done(9, "fetched", event="final", status=304, body=None), expire(),
    ],
    "a failed fetch waits for the next state, or the next connect": [
        opened(0), gets(0.1, welcome(state(1, "live"))), expire(), expire(),
        done(9, "fetched", event="final", status=404, body=None), gets(10, state(2, "ended")), expire(),
        done(19, "fetch_failed", event="final"), done(20, "closed"), opened(21), gets(21.1, welcome(state(2, "ended"))),
    ],
    "a deleted event is not fetched for": [
        opened(0), gets(0.1, welcome(state(1, "live"))), gets(1, state(2, "gone", map=V1)),
    ],
    "a refused event is asked for again": [
        opened(0), gets(0.1, welcome(ping=600)),
        gets(0.2, {"t": "err", "code": "unknown_event", "e": "final", "text": "no such event"}), expire(),
        gets(61, state(1, "live")),
    ],
    "the token is renewed; one that can't be had is asked for again": [
        opened(0), gets(0.1, welcome(refresh=30)), expire(), done(31, "renewal_failed"), expire(),
        done(47, "renewed", token="token-2"),
    ],
    "no welcome": [opened(0), expire(), done(10.1, "closed")],
    "no pong": [opened(0), gets(0.1, welcome()), expire(), expire(), done(70, "closed")],
    "goaway, resume with positions": [
        opened(0), gets(0.1, welcome(state(3, "live"))), gets(1, stage_map(V1, {"live": 1, "ended": 2})),
        gets(2, {"t": "goaway", "why": "drain", "back": [1000, 9000]}), gets(2.5, state(4, "ended")),
        done(3, "closed"), opened(7), gets(7.1, welcome(state(6, "live"))),
    ],
    "what is no frame, an unknown type, a frame out of place": [
        opened(0), gets(0.1, welcome()), gets(1, {"t": "state", "e": "final"}), gets(2, {"t": "later"}), gets(3, welcome()),
    ],
    "events come and go": [
        opened(0), gets(0.1, welcome()), done(1, "follow", event="semi"), gets(1.1, state(1, "live", event="semi")),
        done(2, "unfollow", event="semi"), gets(3, state(2, "ended", event="semi")),
    ],
    "the same state once more wants a newer map: one more fetch, in the window it names": [
        opened(0), gets(0.1, welcome(state(2, "live", map=V1))), gets(1, stage_map(V1, {"live": 1})),
        gets(2, state(2, "live", map=V2, fetch=1000)), gets(2.1, state(2, "live", map=V2, fetch=1000)), expire(),
    ],
    "nothing is said on a connection that was given up": [
        opened(0), gets(0.1, welcome()), gets(1, state(1, "live", ack=ASKED)), gets(2, welcome()), done(9, "expire"),
        done(10, "closed"), opened(11),
    ],
}  # fmt: skip


def _do(session: ClientSession, step: Step, now: float) -> list[Effect]:
    match step["do"]:
        case "receive":
            return session.receive(msgspec.json.encode(step["frame"]), now)
        case "fetched":
            body = b"" if step["body"] is None else msgspec.json.encode(step["body"])
            return session.fetched(step["event"], step["status"], body, now)
        case name:
            arguments = [value for key, value in step.items() if key not in ("at", "do")]
            return getattr(session, name)(*arguments, now) or []


def _played(seed: int, what: str, steps: list[Step]) -> dict[str, Any]:
    rng = Recorded(seed)
    session = ClientSession("d1", ["final"], rng, "app/1")
    written = []
    at = 0.0
    for step in steps:
        at = step.get("at", max(at, session.deadline() or 0.0))
        effects = _do(session, step, at)
        positions = [session.position(event) for event in session.events]
        written.append(
            {
                "at": at, **step, "draws": rng.taken(), "effects": [_portable(effect) for effect in as_builtins(effects)],
                "deadline": session.deadline(), "positions": msgspec.to_builtins(positions),
            }
        )  # fmt: skip
    return {"what": what, "device": "d1", "app": "app/1", "events": ["final"], "steps": written}


def _portable(effect: dict[str, Any]) -> dict[str, Any]:
    """Without the words of an error, which each implementation finds for itself."""
    return {"type": effect["type"]} if effect["type"] in ("Dropped", "GiveUp") else effect


def _retries() -> list[dict[str, Any]]:
    rows: list[tuple[str, list[tuple[int, float]]]] = [
        ("breaks grow from hi to a minute", [(1006, 0.0)] * 7),
        ("n starts over after 30 s", [(1006, 0.0), (1006, 29.9), (4008, 30.0), (1011, 0.0)]),
        ("by plan, then a break", [(1001, 60.0), (4000, 60.0), (4001, 60.0), (1006, 0.0)]),
        ("a token twice", [(4401, 0.0), (1006, 0.0), (4401, 0.0)]),
        ("a token once, welcomed, and once more", [(4401, 0.0), (4401, 5.0)]),
    ]
    written = []
    for seed, (what, closes) in enumerate(rows):
        rng = Recorded(seed)
        again = Reconnect(rng)
        again.steer((3000, 7000))
        steps: list[dict[str, Any]] = []
        for code, stable in closes:
            if stable:
                again.welcomed()
            named = again.after(code, stable)
            steps.append({"code": code, "stable": stable, "draws": rng.taken(), **_named(named)})
        written.append({"what": what, "back": [3000, 7000], "steps": steps})
    return written


def _named(what: StayAway | Wait | RenewToken) -> dict[str, Any]:
    match what:
        case StayAway():
            return {"next": "stay away"}
        case Wait(seconds):
            return {"next": "wait", "seconds": seconds}
        case RenewToken(seconds):
            return {"next": "renew token", "seconds": seconds}


def vectors() -> dict[str, bytes]:
    """File name → content."""
    hashed = [("d1", GEN, 2), ("tv-9:living.room", GEN, 17), ("ü", 1, 1), ("d" * 64, 2**53 - 1, 2**53 - 1), ("", 0, 0)]
    tables: dict[str, Any] = {
        "session.json": [_played(seed, what, steps) for seed, (what, steps) in enumerate(SCENARIOS.items())],
        "retry.json": _retries(),
        "closing.json": {str(int(code)): come_back(code).name for code in (*CloseCode, 1005, 3000, 4999)},
        "sampling.json": [{"device": d, "gen": g, "seq": s, "hash": ack_hash(d, g, s)} for d, g, s in hashed],
    }
    return {name: msgspec.json.format(msgspec.json.encode(table), indent=1) + b"\n" for name, table in tables.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, content in vectors().items():
        (FOLDER / name).write_bytes(content)
