"""The names and numbers of the protocol, as types that msgspec checks: one place for their patterns and bounds."""

from typing import Annotated

from msgspec import Meta

EventId = Annotated[str, Meta(pattern=r"\A[a-z0-9._-]{1,64}\Z")]
StageName = Annotated[str, Meta(pattern=r"\A[a-z0-9._-]{1,64}\Z")]
DeviceId = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._:-]{1,64}\Z")]
MemberId = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"\A(?!cohort:)")]
"""Never a cohort's key: stage maps of members and of cohorts lie side by side in one record."""
MapVersion = Annotated[str, Meta(pattern=r"\A[0-9]{13}-[A-Za-z0-9._-]{1,48}\Z")]
"""13 decimal digits of a campaign's time in ms, `-`, a suffix. Compares as a byte string."""

WIRE_INT_MAX = 2**53 - 1
"""The largest integer every JSON implementation keeps exact."""
Count = Annotated[int, Meta(ge=0, le=WIRE_INT_MAX)]
Millis = Annotated[int, Meta(ge=0, le=WIRE_INT_MAX)]

GONE = "gone"
"""The stage of a deleted event; no plan may use it."""
