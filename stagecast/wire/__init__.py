"""The device protocol `stagecast.v1`: frames, their JSON, the sessions of both sides, close codes. No socket anywhere."""

SUBPROTOCOL = "stagecast.v1"
