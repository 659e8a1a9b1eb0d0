"""Why a connection ended, and whether the device comes back: the close codes of `stagecast.v1`."""

from enum import Enum, IntEnum


class ComeBack(Enum):
    """What a device does after a close."""

    NO = "stays away"
    BY_PLAN = "reconnects at U(lo, hi) of `back`"
    BACK_OFF = "backs off"
    NEW_TOKEN = "gets a new token, then once more"


class CloseCode(IntEnum):
    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    ABNORMAL = 1006
    INVALID_DATA = 1007
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    RESTART = 1012
    DRAIN = 4000
    LIFETIME = 4001
    SLOW = 4002
    SILENT = 4008
    BUSY = 4013
    RATE = 4029
    MALFORMED = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    REPLACED = 4409


_COME_BACK = {
    CloseCode.NORMAL: ComeBack.NO,
    CloseCode.GOING_AWAY: ComeBack.BY_PLAN,
    CloseCode.DRAIN: ComeBack.BY_PLAN,
    CloseCode.LIFETIME: ComeBack.BY_PLAN,
    CloseCode.UNAUTHORIZED: ComeBack.NEW_TOKEN,
    CloseCode.PROTOCOL_ERROR: ComeBack.NO,
    CloseCode.UNSUPPORTED_DATA: ComeBack.NO,
    CloseCode.INVALID_DATA: ComeBack.NO,
    CloseCode.POLICY: ComeBack.NO,
    CloseCode.TOO_BIG: ComeBack.NO,
    CloseCode.MALFORMED: ComeBack.NO,
    CloseCode.FORBIDDEN: ComeBack.NO,
    CloseCode.REPLACED: ComeBack.NO,
}


def come_back(code: int) -> ComeBack:
    """What a device does after `code`; any code not listed means that something broke."""
    try:
        return _COME_BACK.get(CloseCode(code), ComeBack.BACK_OFF)
    except ValueError:
        return ComeBack.BACK_OFF
