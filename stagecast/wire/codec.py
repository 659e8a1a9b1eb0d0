"""Frames to JSON and back. Decoding checks every field; what fails says how bad it is. Encoding trusts its caller."""

import msgspec
from msgspec import Struct

from stagecast.wire.frames import DeviceFrame, NodeFrame, PulledMap, StageMap


class FrameError(ValueError):
    """Not a frame of this protocol."""


class Malformed(FrameError):
    """Not one JSON object: the connection ends with 4400."""


class Invalid(FrameError):
    """A JSON object that is no valid frame: answered by `err` with `code`, and the connection goes on."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Typed(Struct):
    t: str


_UNDECODABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
_encoder = msgspec.json.Encoder()
device_frames: msgspec.json.Decoder[DeviceFrame] = msgspec.json.Decoder(DeviceFrame)
"""Raises what msgspec raises: `decode_device_frame` says what it means."""
_node: msgspec.json.Decoder[NodeFrame] = msgspec.json.Decoder(NodeFrame)
_pulled: msgspec.json.Decoder[PulledMap] = msgspec.json.Decoder(PulledMap)
_typed = msgspec.json.Decoder(_Typed)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _types(union: object) -> frozenset[str]:
    info = msgspec.inspect.type_info(union)
    assert isinstance(info, msgspec.inspect.UnionType)
    return frozenset(str(one.tag) for one in info.types if isinstance(one, msgspec.inspect.StructType))


DEVICE_TYPES = _types(DeviceFrame)
NODE_TYPES = _types(NodeFrame)


def encode(frame: DeviceFrame | NodeFrame) -> bytes:
    """The frame's JSON, UTF-8, one object."""
    return _encoder.encode(frame)


def decode_device_frame(data: bytes | str) -> DeviceFrame:
    """What a device sent. Raises Malformed, or Invalid with `unknown_type` or `bad_frame`."""
    try:
        return device_frames.decode(data)
    except _UNDECODABLE as error:
        raise _explain(data, error, DEVICE_TYPES) from error


def decode_node_frame(data: bytes | str) -> NodeFrame | None:
    """What a node sent, or None for a type this version does not know. Raises Malformed, or Invalid with `bad_frame`."""
    try:
        return _node.decode(data)
    except _UNDECODABLE as error:
        why = _explain(data, error, NODE_TYPES)
    if isinstance(why, Invalid) and why.code == "unknown_type":
        return None
    raise why


def decode_pulled_map(data: bytes, event: str) -> tuple[StageMap, float | None]:
    """The body of a pull: the event's map, and after how many seconds to ask again. Raises Malformed or Invalid."""
    try:
        pulled = _pulled.decode(data)
    except _UNDECODABLE as error:
        raise _explain(data, error, frozenset({"map"})) from error
    if pulled.e != event:
        raise Invalid("bad_frame", "a stage map of another event")
    kept = {name: getattr(pulled, name) for name in StageMap.__struct_fields__}
    return StageMap(**kept), pulled.refresh_after


def _explain(data: bytes | str, error: Exception, known: frozenset[str]) -> FrameError:
    """Why `data` failed to decode: reads it again, only as deep as it takes."""
    if isinstance(error, UnicodeError):
        return Malformed("not UTF-8")
    try:
        _object.decode(data)
    except _UNDECODABLE:
        return Malformed("not one JSON object")
    try:
        kind = _typed.decode(data).t
    except UnicodeError:
        return Malformed("not UTF-8")
    except _UNDECODABLE:
        return Invalid("bad_frame", "the frame has no type `t`")
    if kind not in known:
        return Invalid("unknown_type", f"unknown type {kind[:64]!r}")
    return Invalid("bad_frame", f"{kind}: {error}"[:256])
