"""The message log: the port, and `open_log`, which alone knows the adapters."""

from urllib.parse import urlsplit

from stagecast.log.message_log import (
    LogError,
    LogGap,
    LogUnavailable,
    MessageLog,
    Positions,
    Record,
    Topic,
)

__all__ = ["LogError", "LogGap", "LogUnavailable", "MessageLog", "Positions", "Record", "Topic", "open_log"]


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
