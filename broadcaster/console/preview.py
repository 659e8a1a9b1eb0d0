"""What the preview panel needs to be a viewer's device: where devices connect, and a short-lived token for one event."""

import random
from typing import Annotated

import structlog
from msgspec import Meta, Struct

from stagecast.clock import Clock
from stagecast.names import EventId
from stagecast.settings import Settings
from stagecast.tokens import KeysError, KeysFile

TTL = 300.0
"""Seconds, ± 10 %; the panel asks for a new one when it is due."""
MEMBER = "console"
PreviewDevice = Annotated[str, Meta(pattern=r"\Aconsole-[A-Za-z0-9._:-]{1,56}\Z")]
_log = structlog.get_logger()


class PreviewBody(Struct, frozen=True, forbid_unknown_fields=True):
    event: EventId
    device: PreviewDevice
    """One of the console's own: an operator's browser can't pass for a viewer's device."""


class PreviewPass(Struct, frozen=True):
    """What lets a page be a device."""

    ws: str
    token: str


class Preview:
    """Gives out passes, where this service knows the devices' URL and holds a key that signs."""

    def __init__(self, settings: Settings, clock: Clock, rng: random.Random) -> None:
        self._ws = settings.device_url
        self._clock = clock
        self._rng = rng
        self._keys = _keys(settings) if self._ws else None

    @property
    def possible(self) -> bool:
        return self._keys is not None and any(
            key.signing is not None for key in self._keys.look(self._clock.monotonic()).by_kid.values()
        )

    def grant(self, body: PreviewBody) -> PreviewPass | None:
        """A pass for one device and one event; None where there is no key that signs."""
        if self._keys is None or not self.possible:
            return None
        token = self._keys.keys.mint(
            MEMBER, body.device, [body.event], TTL, self._clock.now() / 1000, self._rng
        )  # fmt: skip
        return PreviewPass(self._ws, token)


def _keys(settings: Settings) -> KeysFile | None:
    if not settings.keys_file.exists():
        return None
    try:
        return KeysFile(settings.keys_file)
    except KeysError as error:
        _log.warning("the console shows no preview", error=str(error))
        return None
