"""Random lives of a device, as the Python session lives them: what an SDK in another language must do to the letter."""

import math
import random
from typing import Any

import msgspec

from stagecast.wire.client_session import ClientSession, Phase
from stagecast.wire.effects import as_builtins
from tests.stagecast.wire.make_vectors import (
    GEN,
    Recorded,
    Step,
    _do,
    _portable,
    done,
    gets,
    hint,
    opened,
    stage_map,
    state,
    welcome,
)

EVENTS = ["final", "final", "semi"]
VERSIONS = [f"{GEN}-{suffix}" for suffix in "123a"]
STEPS = 40


def walk(seed: int) -> dict[str, Any]:
    """One life: its steps, with the chance drawn and all that can be seen of it after each."""
    choose, drawn = random.Random(seed), Recorded(seed)
    session = ClientSession("d1", ["final"], drawn, "app/1")
    at, steps = 0.0, []
    for _ in range(STEPS):
        step = _next(choose, session, at)
        at = step["at"]
        effects = [_portable(effect) for effect in as_builtins(_do(session, step, at))]
        positions = msgspec.to_builtins([session.position(event) for event in session.events])
        seen = {"effects": effects, "deadline": session.deadline(), "positions": positions}
        steps.append({**step, "draws": drawn.taken(), "seen": seen})
    life = {"device": "d1", "app": "app/1", "events": ["final"], "steps": steps}
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(life))  # as another language reads it
    return plain


def _next(choose: random.Random, session: ClientSession, at: float) -> Step:
    """Something that may happen to this session now, the likely things more often."""
    at = round(at + choose.choice([0, 0.1, 1, 7]), 3)
    deadline, event = session.deadline(), choose.choice(EVENTS)
    options = [done(at, name, event=event) for name in ("follow", "unfollow", "applied")]
    if deadline is not None:
        due = max(at, math.ceil(deadline * 1000) / 1000)  # whole ms: two languages round a half each in its way
        options += [done(due, "expire")] * 8
    if any(session.followed(one).in_flight is not None for one in session.events):
        options += [_fetched(choose, at, event) for _ in range(5)] + [done(at, "fetch_failed", event=event)]
    if session.phase is Phase.AWAY:
        return choose.choice([*options, *[opened(at)] * 3])
    if session.phase is Phase.OPEN:
        options += [done(at, "renewed", token="token-2"), done(at, "renewal_failed")]
    options += [gets(at, _frame(choose, session)) for _ in range(20)]
    return choose.choice([*options, done(at, "closed")])


def _frame(choose: random.Random, session: ClientSession) -> dict[str, Any]:
    if session.phase is Phase.GREETING and choose.random() < 0.8:
        heads = [_state(choose) for _ in range(choose.randint(0, 2))]
        maps, refresh = choose.choice([None, "http://maps.example/"]), choose.choice([None, 5, 600])
        return welcome(*heads, ping=choose.choice([45, 10]), refresh=refresh, maps=maps)
    event = choose.choice(EVENTS)
    match choose.choice(["state"] * 6 + ["map"] * 3 + ["hint"] * 3 + ["pong"] * 3 + ["err", "msg", "goaway", "odd"]):
        case "state":
            return _state(choose)
        case "map":
            return _map(choose)
        case "hint":
            return {**hint(choose.choice(VERSIONS), choose.choice([0, 4000])), "e": event}
        case "pong":
            return {"t": "pong", "c": session._pinged, "now": GEN}
        case "err":
            return {"t": "err", "code": "unavailable", "e": choose.choice([event, None]), "text": "x"}
        case "msg":
            return {"t": "msg", "id": "1", "kind": "k", "body": [1]}
        case "goaway":
            return {"t": "goaway", "why": "drain", "back": choose.choice([None, [1, 2]])}
        case _:
            return choose.choice([welcome(), {"t": "later"}, {"t": "state", "e": "final"}, {"no": "type"}])


def _state(choose: random.Random) -> dict[str, Any]:
    asks = choose.choice([None, None, {"p": 2**32, "w": choose.choice([0, 2000])}, {"p": 2**31, "w": 500}])
    return state(
        choose.randint(0, 3), choose.choice(["live", "ended", "upcoming", "gone", "x"]),
        gen=choose.choice([GEN] * 6 + [GEN + 1, 0]), event=choose.choice([*EVENTS, "other"]),
        map=choose.choice([None, *VERSIONS]), fetch=choose.choice([0, 8000, 30000]), ack=asks,
    )  # fmt: skip


def _map(choose: random.Random) -> dict[str, Any]:
    stages = {one: [one] for one in choose.sample(["live", "ended", "upcoming"], choose.randint(0, 3))}
    more = {"default": choose.choice([None, ["d"]])} if choose.random() < 0.4 else {}
    gen, ttl = choose.choice([GEN, GEN, GEN + 1]), choose.choice([5, 60, 86400])
    made = stage_map(choose.choice(VERSIONS), stages, gen=gen, cohort=choose.random() < 0.3, **more)
    return {**made, "e": choose.choice(EVENTS), "ttl": ttl}


def _fetched(choose: random.Random, at: float, event: str) -> Step:
    status = choose.choice([200, 200, 200, 304, 404])
    body = {**_map(choose), "refresh_after": choose.choice([0, 0.5, 30, None])} if status == 200 else None
    if body and choose.random() < 0.8:
        body["e"] = event
    return done(at, "fetched", event=event, status=status, body=body)
