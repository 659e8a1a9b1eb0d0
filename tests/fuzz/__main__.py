"""Coverage-guided fuzzing of one target with atheris: `python -m tests.fuzz frames -max_total_time=30 CORPUS …`. What follows the
target is libFuzzer's. Ends with another status than 0 when a property fails, and leaves the input in `crash-…`."""

import importlib
import sys
from typing import Any


def main() -> None:
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(
        include=[
            "pushy.handshake",
            "pushy.proxies",
            "pushy.rfc6455",
            "stagecast.wire",
            "stagecast.names",
            "tests.fuzz.properties",
        ]
    ):
        properties = importlib.import_module("tests.fuzz.properties")
    target = properties.TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
