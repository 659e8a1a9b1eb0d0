"""A campaign: one sweep over an event's members, paced to be over before the event. Pure: `now` is an argument.

The campaign is one item, changed by compare-and-set alone; whoever's `owner` stands in it while its `lease` runs works on it. A
process that lost it learns so at its next write, which fails, and stops: until then (less than a lease) both store and push the
same maps, which is harmless.

    from      to       when
    --------  -------  ---------------------------------------------------------
    -         running  begun by an operator
    running   done     every member has its map: devices are asked to hold it
    running   frozen   ten minutes before the event: the rest pull, and get cohort maps
    running   failed   the recommender can't, or the event is gone or of a new gen
    done …    running  begun again: a new map version
"""

from typing import Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from stagecast.names import Millis

Phase = Literal["running", "done", "frozen", "failed"]

FREEZE_MS = 10 * 60 * 1000
"""Before the event: from here on nothing is computed."""
LEASE_MS = 5_000
"""How long a killed owner's campaign waits for another."""
LINGER_MS = 90_000
"""The lease of a campaign that is over but for its hints, which come every 60 s."""
BUDGET = 5_000.0
"""Members per second at most, unless the operator says otherwise: what a recommender and a store are asked for."""
FLOOR = 500.0
"""Members per second below which spreading out relieves nobody: a small audience is done at once, days ahead or not."""
HINT_PERIOD_MS = 60_000
WINDOW_MIN_MS = 2_000
WINDOW_MAX_MS = 600_000


class Cursor(Struct, frozen=True):
    """Where a sweep is: the shard, and the last key done in it."""

    shard: int = 0
    after: str | None = None


class Stamp(NamedTuple):
    """What a campaign's maps are made with, and marked by."""

    event: str
    gen: int
    map: str
    recommender: str


class Campaign(Struct, frozen=True):
    """Its state, as kept and resumed."""

    event: str
    gen: int
    map: str
    recommender: str
    started: Millis
    freeze: Millis | None
    budget: float = BUDGET
    phase: Phase = "running"
    total: int = 0
    """Members to do; estimated for large audiences, exact once done."""
    done: int = 0
    pushed: int = 0
    """Devices that have it by push."""
    busy: int = 0
    """Devices that were behind each time: they pull."""
    absent: int = 0
    """Members with no device connected (or whose host did not answer): they pull."""
    skipped: int = 0
    """Members that the recommender knows nothing for: they get the cohort's map."""
    rate: float = 0.0
    """Members per second, aimed at now."""
    cursor: Cursor = Cursor()
    owner: str = ""
    lease: Millis = 0
    epoch: int = 0
    """+1 whenever another process takes it up."""
    window: Millis = 0
    """In which devices fetch when hinted, ms; 0: not hinted yet."""
    over: bool = False
    """Nothing is left to do, hints included."""
    finished: Millis | None = None
    error: str = ""

    @property
    def stamp(self) -> Stamp:
        return Stamp(self.event, self.gen, self.map, self.recommender)


class Counts(Struct, frozen=True):
    """What a batch came to."""

    done: int = 0
    pushed: int = 0
    busy: int = 0
    absent: int = 0
    skipped: int = 0


def begin(campaign: Campaign, before: Campaign | None, owner: str, now: Millis) -> Campaign:
    """The new campaign under its owner's lease, after the one `before`."""
    return replace(campaign, owner=owner, lease=now + LEASE_MS, epoch=before.epoch + 1 if before else 1)


def claimable(campaign: Campaign, owner: str, now: Millis) -> bool:
    """Whether `owner` may take it up: it is nobody's any more, or its own already."""
    return not campaign.over and (campaign.owner == owner or campaign.lease <= now)


def claim(campaign: Campaign, owner: str, now: Millis) -> Campaign:
    return replace(campaign, owner=owner, lease=now + LEASE_MS, epoch=campaign.epoch + 1)


def renew(campaign: Campaign, now: Millis) -> Campaign:
    return replace(campaign, lease=now + (LEASE_MS if campaign.phase == "running" else LINGER_MS))


def release(campaign: Campaign, owner: str, now: Millis) -> Campaign:
    """Its owner goes: another may go on at once. One that `owner` had not got hold of stays as it is."""
    return replace(campaign, lease=now) if campaign.owner == owner else campaign


def advance(campaign: Campaign, cursor: Cursor, counts: Counts, rate: float, now: Millis) -> Campaign:
    """A batch is done: its maps are stored, and were pushed where devices are."""
    done = campaign.done + counts.done
    return replace(
        renew(campaign, now),
        cursor=cursor,
        done=done,
        total=max(campaign.total, done),
        pushed=campaign.pushed + counts.pushed,
        busy=campaign.busy + counts.busy,
        absent=campaign.absent + counts.absent,
        skipped=campaign.skipped + counts.skipped,
        rate=rate,
    )


def finish(campaign: Campaign, serving_rate: float, now: Millis) -> Campaign:
    """Every member is done. `serving_rate`: maps per second that the pull serves, for the hint's window."""
    ended = replace(campaign, phase="done", total=campaign.done, finished=now, rate=0.0)
    return replace(ended, window=hint_window(ended, serving_rate))


def freeze(campaign: Campaign, serving_rate: float, now: Millis) -> Campaign:
    ended = replace(campaign, phase="frozen", finished=now, rate=0.0)
    return replace(ended, window=hint_window(ended, serving_rate))


def fail(campaign: Campaign, why: str, now: Millis) -> Campaign:
    return replace(campaign, phase="failed", finished=now, rate=0.0, error=why, over=True)


def frozen(campaign: Campaign, now: Millis) -> bool:
    """Whether nothing may be computed for this event any more: those without a map get their cohort's."""
    return campaign.phase == "frozen" or (campaign.freeze is not None and now >= campaign.freeze)


def freeze_for(starts: Millis | None, now: Millis) -> Millis | None:
    """When a campaign begun now freezes. One begun in the last ten minutes does not: an operator asked for it."""
    return starts - FREEZE_MS if starts is not None and starts - FREEZE_MS > now else None


def pace(campaign: Campaign, now: Millis) -> float:
    """Members per second: remaining / time to freeze, at least FLOOR, at most the budget."""
    if campaign.freeze is None:
        return campaign.budget
    left = max((campaign.freeze - now) / 1000, 1.0)
    remaining = max(campaign.total - campaign.done, 0)
    return min(max(remaining / left, FLOOR), campaign.budget)


def hint_window(campaign: Campaign, serving_rate: float) -> Millis:
    """Time (ms) for those that push did not reach to fetch, at half of what the pull serves."""
    unreached = max(campaign.total - campaign.pushed, 0)
    return int(min(max(2000 * unreached / serving_rate, WINDOW_MIN_MS), WINDOW_MAX_MS))
