"""`python -m tests.model [WORD]`: runs the scenarios (whose name holds WORD) and prints what came of each."""

import sys
import time

from tests.model.scenarios import SCENARIOS


def main(word: str = "") -> int:
    wrong = total = 0
    for scenario in SCENARIOS:
        if word not in scenario.name:
            continue
        began = time.perf_counter()
        result = scenario.run()
        total += result.states
        fine = result.promise == scenario.expected
        wrong += not fine
        said = result.broken or "holds"
        print(
            f"{'  ' if fine else '!!'} {scenario.name}: {said}  [{result.states} states, {result.quiescent} quiescent, "
            f"{time.perf_counter() - began:.1f} s]",
            flush=True,
        )
        for number, step in enumerate(result.trace, 1):
            print(f"      {number:2} {step}")
    print(f"{total} states, {wrong} not as expected")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
