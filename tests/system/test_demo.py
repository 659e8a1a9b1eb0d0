"""`stagecast demo --once`: the whole way, played to its end by real processes."""

import asyncio
from pathlib import Path

from tests.system.running import CLI

WITHIN = 90.0
"""Seconds; about 20 on a machine with nothing else to do."""


async def test_every_device_ends_on_the_right_stage(tmp_path: Path) -> None:
    """Status 0, and it says so: all devices at the last stage, no server asked, the one that was away caught up."""
    words = ["demo", "--once", "--devices", "20", "--speed", "20", "--data", str(tmp_path)]
    demo = await asyncio.create_subprocess_exec(
        *CLI, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(WITHIN):
            out, _ = await demo.communicate()
    finally:
        if demo.returncode is None:
            demo.terminate()
            await demo.wait()
    said = out.decode()
    assert demo.returncode == 0, said
    assert "all 20 devices hold their stage map" in said
    assert "20 of 20 devices ended on 'ended'" in said
