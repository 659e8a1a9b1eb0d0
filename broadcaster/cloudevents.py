"""Transitions asked for by CloudEvents 1.0 (JSON format, structured mode), as schedulers and scoreboards send them. Pure."""

import hashlib
import re

from broadcaster.bodies import CloudEvent
from stagecast.event import Request

MEDIA = "application/cloudevents+json"
BYTES_MAX = 64 * 1024
"""Of one event: CloudEvents asks intermediaries to take as much (§5)."""
_PLAIN = re.compile(r"[!-~]+ [!-~]+")
_KEY_MAX = 64


def is_cloud_event(content_type: str | None) -> bool:
    return (content_type or "").partition(";")[0].strip().lower() == MEDIA


def key_of(event: CloudEvent) -> str:
    """The idempotency key: `source id` where that is a key, else its digest. A source with a space in it is no URI reference, and
    gets the digest, so that two events never share a key."""
    plain = f"{event.source} {event.id}"
    if len(plain) <= _KEY_MAX and _PLAIN.fullmatch(plain):
        return plain
    return "ce-" + hashlib.sha256(f"{event.source}\0{event.id}".encode()).hexdigest()[:48]


def request_of(event: CloudEvent, who: str) -> Request:
    data = event.data
    return Request(
        key_of(event), data.stage, who, data.reason or event.type[:100], data.if_gen, data.if_seq, data.urgent
    )
