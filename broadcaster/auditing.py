"""The audit of an event: its accepted transitions from history and its acts, as one list by time."""

from broadcaster.bodies import AuditLine, AuditPage
from broadcaster.heads import Heads
from stagecast.audit import Act
from stagecast.event import Accepted, Head


class BadCursor(ValueError):
    """Not where a page ended."""


async def audit_page(heads: Heads, head: Head, after: str | None) -> AuditPage:
    """A page of this gen's audit, oldest first; `after` is where the previous one ended. Raises BadCursor, StoreError."""
    seq, key = _cursor(after)
    entries, more_entries = await heads.history(head, seq)
    acts, more_acts = await heads.acts(head, key)
    # A page ends where the shorter of two unfinished lists does: what comes after it is not known to be next.
    ends = [entries[-1].ts] if more_entries is not None and entries else []
    ends += [acts[-1][1].ts] if more_acts else []
    end = min(ends, default=None)
    if end is not None:
        entries = [entry for entry in entries if entry.ts <= end] or entries[: not acts]
        acts = [act for act in acts if act[1].ts <= end] or acts[: not entries]
    lines = [_transition(entry) for entry in entries] + [_act(act) for _, act in acts]
    lines.sort(key=lambda line: (line.ts, line.seq))
    if end is None:
        return AuditPage(lines, None)
    seq = entries[-1].seq if entries else seq
    key = acts[-1][0] if acts else key
    return AuditPage(lines, f"{seq}~{key or ''}")


async def whole_audit(heads: Heads, head: Head, limit: int) -> tuple[list[AuditLine], bool]:
    """The first `limit` lines, or somewhat more, and whether that is all."""
    lines: list[AuditLine] = []
    after: str | None = None
    while True:
        page = await audit_page(heads, head, after)
        lines += page.audit
        after = page.after
        if after is None or len(lines) >= limit:
            return lines, after is None


def _cursor(after: str | None) -> tuple[int, str | None]:
    if after is None:
        return 0, None
    seq, tilde, key = after.partition("~")
    if not tilde or not seq.isdecimal() or len(seq) > 16 or len(key) > 64:
        raise BadCursor(after)
    return int(seq), key or None


def _transition(entry: Accepted) -> AuditLine:
    return AuditLine(entry.ts, entry.seq, "transition", entry.stage, entry.who, entry.reason, "")


def _act(act: Act) -> AuditLine:
    return AuditLine(act.ts, act.seq, act.what, "", act.who, act.why, act.detail)
