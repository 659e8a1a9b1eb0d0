"""The Autobahn cases against the real server's frame layer, by the route /echo of the device port.

The cases 12.* and 13.* are about compression, which the server never agrees to (decision 0004): they are left out. What a case
may fail with stands in `allowed.json` as `{case: reason}`; an entry that is not needed any more fails the test as well.
"""

import asyncio
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from tests.system.running import running

CASES_MIN = 301
"""All cases but 12.* and 13.*."""
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
GOOD_CLOSE = {"OK", "INFORMATIONAL"}

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        importlib.util.find_spec("kosoku") is None, reason="kosoku (the Autobahn cases) is not installed"
    ),
]


def wrong(verdicts: dict[str, list[str]], allowed: dict[str, str]) -> list[str]:
    """What keeps the run from being accepted."""
    found = [f"only {len(verdicts)} cases of {CASES_MIN} ran"] if len(verdicts) < CASES_MIN else []
    for case, (behaviour, close) in verdicts.items():
        good = behaviour in GOOD and close in GOOD_CLOSE
        if not good and case not in allowed:
            found.append(f"{case}: {behaviour}, closing: {close}")
        if good and case in allowed:
            found.append(f"{case} passes: take it out of allowed.json")
    return found + [f"{case} in allowed.json is no case" for case in allowed if case not in verdicts]


async def run_cases(url: str, *excluded: str) -> dict[str, list[str]]:
    command = [sys.executable, "-m", "tests.conformance.fuzzing", url, *excluded]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    verdicts: dict[str, list[str]] = json.loads(out)
    return verdicts


async def test_autobahn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every case passes against `stagecast dev`, or is allowed not to, with a reason."""
    allowed = json.loads(Path(__file__).with_name("allowed.json").read_text())
    async with running(tmp_path / "data", STAGECAST_TEST_ECHO="1") as stage:
        verdicts = await run_cases(stage.ws.removesuffix("/ws") + "/echo", "12.*", "13.*")
    with capsys.disabled():
        strict = sum(behaviour == "OK" for behaviour, _ in verdicts.values())
        print(f"\nAutobahn: {len(verdicts)} cases, {strict} OK, {len(verdicts) - strict} non-strict or informational")
    assert wrong(verdicts, allowed) == []


def test_the_gate_itself() -> None:
    """Too few cases, a failure, a stale allowance and one for no case are each an error; an allowed failure is none."""
    good = {str(i): ["OK", "OK"] for i in range(CASES_MIN)}
    assert wrong(good, {}) == []
    assert wrong({}, {}) == [f"only 0 cases of {CASES_MIN} ran"]
    assert wrong(good | {"1": ["FAILED", "OK"]}, {}) == ["1: FAILED, closing: OK"]
    assert wrong(good | {"1": ["OK", "UNCLEAN"]}, {}) == ["1: OK, closing: UNCLEAN"]
    assert wrong(good | {"1": ["FAILED", "OK"]}, {"1": "why"}) == []
    assert wrong(good, {"1": "why"}) == ["1 passes: take it out of allowed.json"]
    assert wrong(good, {"99.1": "why"}) == ["99.1 in allowed.json is no case"]
