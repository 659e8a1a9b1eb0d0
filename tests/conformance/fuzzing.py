"""Runs the Autobahn cases against a WebSocket server: `python -m tests.conformance.fuzzing URL [EXCLUDED …]` prints the verdicts
as JSON, `{case: [behaviour, behaviour on closing]}`. A process of its own: the cases' shims change `binascii` and `sys.path`.
"""

import asyncio
import importlib
import json
import os
import sys
from typing import Any


async def verdicts(url: str, excluded: list[str]) -> dict[str, tuple[str, str]]:
    """What each case came to. Four run at a time: some wait a second for the server to hang up."""
    kosoku: Any = importlib.import_module("kosoku")
    passed: list[Any] = []
    try:
        passed = await kosoku.run_fuzzingclient(url, exclude_cases=excluded, concurrency=4)
    except kosoku.FailureError as error:
        passed = error.results
    return {one.case_id: (one.behavior.value, one.behavior_close.value) for one in passed}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(verdicts(sys.argv[1], sys.argv[2:]))), flush=True)
    os._exit(0)  # the runner's threads may abort the process when the interpreter is taken down under them
