"""The properties on the corpus, and with atheris on what it makes of the corpus for some seconds per target."""

import asyncio
import importlib.util
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest

from pushy.rfc6455 import FrameReader, Limits
from tests.fuzz.properties import KEPT_MAX, LIMITS, TARGETS, held

CORPUS = Path(__file__).with_name("corpus")
SECONDS = 4
"""Of fuzzing per target."""
INPUTS_MIN = 1000


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus(target: str) -> None:
    """Every input of the corpus, and each cut short anywhere, has the properties."""
    inputs = sorted((CORPUS / target).iterdir())
    assert inputs
    for file in inputs:
        data = file.read_bytes()
        for size in range(len(data) + 1):
            TARGETS[target](data[:size])


def test_what_the_bound_means() -> None:
    """The measure sees what a reader keeps: one that took ten times the message would be over the bound."""
    reader = FrameReader(Limits(LIMITS.message * 10))
    reader.receive(b"\x81\xfe\x17\x70\0\0\0\0" + b"a" * 5990)
    assert held(reader) > KEPT_MAX


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris (the fuzzer) is not installed")
@pytest.mark.parametrize("target", TARGETS)
async def test_fuzzing(target: str, tmp_path: Path) -> None:
    """Some seconds of coverage-guided inputs find no exception and no broken property."""
    command = [
        sys.executable, "-m", "tests.fuzz", target, f"-max_total_time={SECONDS}", "-max_len=600", "-print_final_stats=1",
        f"-artifact_prefix={tmp_path}/", str(tmp_path), str(CORPUS / target),
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT)
    said = (await process.communicate())[0].decode(errors="replace")
    assert process.returncode == 0, said[-3000:]
    done = [line for line in said.splitlines() if "stat::number_of_executed_units" in line]
    assert int(done[0].split()[-1]) >= INPUTS_MIN, said[-3000:]
