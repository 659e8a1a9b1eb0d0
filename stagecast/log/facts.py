"""What a log's servers say of themselves, for who checks how they are set."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """A topic. `settings` by Kafka's own names; None where this user may not read them."""

    name: str
    partitions: int
    replicas: int
    """Of the partition that has fewest."""
    settings: dict[str, str] | None


@dataclass(frozen=True, slots=True)
class LogFacts:
    """`brokers` 0: a file. Topics that are missing are not in `topics`."""

    brokers: int
    topics: tuple[TopicFacts, ...] = field(default=())
