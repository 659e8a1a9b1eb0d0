"""The message log: the port, and `open_log`, which alone knows the adapters."""

from urllib.parse import urlsplit

from stagecast.log.facts import LogFacts, TopicFacts
from stagecast.log.message_log import (
    LogError,
    LogGap,
    LogUnavailable,
    MessageLog,
    Positions,
    Record,
    Topic,
)

__all__ = [
    "LogError",
    "LogFacts",
    "LogGap",
    "LogUnavailable",
    "MessageLog",
    "Positions",
    "Record",
    "Topic",
    "TopicFacts",
    "log_facts",
    "open_log",
]


async def open_log(url: str, password: str | None = None) -> MessageLog:
    """The log at `url`: `sqlite:///path` or `kafka://host:port[,host:port][?user=…&tls=ca.pem]`.

    The path of a file is absolute. Creates what is missing (file, topics). `password` goes with `user`. Raises ValueError for
    a URL that names no known adapter or has an unknown option, LogUnavailable when the log does not answer within 10 s.
    """
    scheme = urlsplit(url).scheme
    if scheme == "sqlite":
        from stagecast.log.embedded import EmbeddedLog

        return await EmbeddedLog.open(url)
    if scheme == "kafka":
        from stagecast.log.kafka import KafkaLog

        return await KafkaLog.open(url, password)
    raise ValueError(f"log: {url!r} is neither sqlite:///path nor kafka://host:port")


async def log_facts(url: str, password: str | None = None) -> LogFacts:
    """How the log at `url` is set; nothing is created. Raises as `open_log`."""
    if urlsplit(url).scheme == "kafka":
        from stagecast.log.kafka import kafka_facts

        return await kafka_facts(url, password)
    log = await open_log(url, password)
    await log.close()
    return LogFacts(0)
