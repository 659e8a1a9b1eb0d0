"""The oracle of a load run: what was accepted, against where every connection ended. Pure.

Percentiles alone can hide a lost device for ever; a run passes only if every connection ended on the last accepted (gen, seq)
and none ever went back.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

Order = tuple[int, int]
"""(gen, seq)."""


@dataclass
class Verdict:
    """What one worker, or all together, found. Adds up."""

    connections: int = 0
    right: int = 0
    behind: int = 0
    """Ended before the last accepted transition."""
    unwelcomed: int = 0
    """Were not connected at the end."""
    went_back: int = 0
    """Times a connection was told an older state as news after a newer one. (Duplicates are free and don't count.)"""
    invented: int = 0
    """States nobody had accepted."""
    examples: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return self.connections > 0 and self.right == self.connections and not (self.went_back or self.invented)

    def add(self, other: "Verdict") -> None:
        self.connections += other.connections
        self.right += other.right
        self.behind += other.behind
        self.unwelcomed += other.unwelcomed
        self.went_back += other.went_back
        self.invented += other.invented
        self.examples = (self.examples + other.examples)[:EXAMPLES]

    def __str__(self) -> str:
        text = f"{self.right:,} of {self.connections:,} connections ended on the last accepted stage"
        for name in ("behind", "unwelcomed", "went_back", "invented"):
            if count := getattr(self, name):
                text += f"; {count:,} {name.replace('_', ' ')}"
        return "; ".join([text, *self.examples])


EXAMPLES = 5


@dataclass(frozen=True)
class Ended:
    """Where one connection ended."""

    name: str
    connected: bool
    at: Order
    went_back: int
    seen: frozenset[Order] | set[Order]


def judge(accepted: Iterable[Order], ended: Iterable[Ended]) -> Verdict:
    """Holds every connection against the ledger of accepted transitions; its greatest is where all must be."""
    ledger = set(accepted)
    last = max(ledger)
    verdict = Verdict()
    for one in ended:
        verdict.connections += 1
        verdict.went_back += one.went_back
        verdict.invented += len(one.seen - ledger)
        if not one.connected:
            verdict.unwelcomed += 1
        elif one.at >= last:
            verdict.right += 1
        else:
            verdict.behind += 1
        if len(verdict.examples) < EXAMPLES and (one.at < last or one.went_back or one.seen - ledger):
            verdict.examples.append(f"{one.name} at {one.at}, last accepted {last}")
    return verdict
