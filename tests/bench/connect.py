"""Connecting: the first time, and again with a token whose check is remembered; what the check alone costs, by algorithm."""

import asyncio
import base64
import json
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from stagecast.tokens import Keys, load_keys
from tests.bench.measured import cpu_ns
from tests.bench.rounds import settled
from tests.bench.table import Figure
from tests.bench.world import Bench, Server, devices, host, write_hellos

TOKENS = 1000
SETTLE = 3.0
"""Seconds in which the ends of the connections before are worked off."""


async def run(bench: Bench, options: Namespace) -> list[Figure]:
    first: list[float] = []
    again: list[float] = []
    behind: list[float] = []
    for _ in range(options.rounds):
        async with host(bench) as server:
            hellos = write_hellos(bench, server, options.connections)
            await asyncio.sleep(0.5)
            for found in (first, again):
                cost, later = await _connect(bench, server, hellos, options.connections)
                found.append(cost)
                behind.append(later)
                await asyncio.sleep(SETTLE)
                await settled(server)
    checks = {algorithm: _check(bench, algorithm) for algorithm in ("HS256", "ES256", "EdDSA", "RS256")}
    without = [cost - checks["HS256"] for cost in first]
    return [
        Figure("connect, HS256 verified: server CPU", first, "µs", "≤ 120", key="connect_cpu_jwt"),
        Figure("connect again, the check remembered: server CPU", again, "µs", "≤ 75"),
        Figure("connect, less the check: server CPU", without, "µs", "≤ 60", key="connect_cpu"),
        Figure("written behind afterwards, each time: server CPU", behind, "µs"),
        *(Figure(f"the check alone, {algorithm}", [cost], "µs") for algorithm, cost in checks.items()),
    ]


async def _connect(bench: Bench, server: Server, hellos: Path, count: int) -> tuple[float, float]:
    """µs of server CPU for a connection until all have their welcome, and after that until the registry is written."""
    before = cpu_ns(server.pids)
    async with devices(bench, server, hellos, count) as lines:
        await lines.hear("ready", 120)
        ready = cpu_ns(server.pids)
        await settled(server)
        return (ready - before) / count / 1000, (cpu_ns(server.pids) - ready) / count / 1000


def _check(bench: Bench, algorithm: str) -> float:
    """µs of CPU for one token, of many different ones."""
    keys, private = _keys(bench, algorithm)
    now = time.time()
    claims = {"evt": ["bench"], "iat": int(now), "exp": int(now) + 3600}
    tokens = [
        jwt.encode({"sub": f"m-{i}", "dev": f"d-{i}", **claims}, private, algorithm, {"kid": "k"})
        for i in range(TOKENS)
    ]
    began = time.process_time_ns()
    for token in tokens:
        keys.verify(token, now)
    return (time.process_time_ns() - began) / TOKENS / 1000


def _keys(bench: Bench, algorithm: str) -> tuple[Keys, Any]:
    secret = bytes(range(32))
    key: Any
    match algorithm:
        case "HS256":
            key, jwk = secret, {"kty": "oct", "k": base64.urlsafe_b64encode(secret).rstrip(b"=").decode()}
        case "ES256":
            key = ec.generate_private_key(ec.SECP256R1())
            jwk = json.loads(ECAlgorithm.to_jwk(key))
        case "EdDSA":
            key = ed25519.Ed25519PrivateKey.generate()
            jwk = json.loads(OKPAlgorithm.to_jwk(key))
        case _:
            key = rsa.generate_private_key(65537, 2048)
            jwk = json.loads(RSAAlgorithm.to_jwk(key))
    file = bench.fresh("keys")
    file.write_text(json.dumps({"keys": [{**jwk, "kid": "k", "alg": algorithm}]}))
    return load_keys(file), key
