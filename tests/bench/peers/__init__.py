"""Other makers' servers, installed from their registries, in the same rounds: CPU, publish → last, connecting, memory."""

from tests.bench.peers.compared import run

__all__ = ["run"]
