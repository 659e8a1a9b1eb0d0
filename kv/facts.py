"""What a store's servers say of themselves, for who checks how they are set."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """`nodes` empty: a file."""

    nodes: dict[str, int] = field(default_factory=dict)
    """Data centre → nodes, up or down."""
    down: int = 0
    home: str = ""
    """The data centre that this process talks to."""
    strategy: str = ""
    """The keyspace's replication; empty: the keyspace is missing."""
    copies: dict[str, int] = field(default_factory=dict)
    """Data centre → copies of an item."""
    version: str = ""
    clock: int | None = None
    """What the node's clock said when it answered, wall ms, and"""
    asked: int = 0
    """what ours said half-way between question and answer."""
