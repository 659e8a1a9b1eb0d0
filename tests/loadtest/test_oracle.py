"""The oracle passes a run only if every connection ended where it belongs."""

import pytest

from loadtest.oracle import Ended, Order, Verdict, judge

LEDGER = [(5, 1), (5, 2), (6, 1)]


def ended(at: Order, connected: bool = True, went_back: int = 0, seen: frozenset[Order] = frozenset()) -> Ended:
    return Ended("d", connected, at, went_back, seen)


def test_all_at_the_last_accepted_stage_pass() -> None:
    """The greatest by (gen, seq), wherever it stands in the ledger."""
    verdict = judge(LEDGER, [ended((6, 1)), ended((6, 1), seen=frozenset(LEDGER))])
    assert (verdict.passed, verdict.right) == (True, 2)


@pytest.mark.parametrize(
    ("one", "what"),
    [
        (ended((5, 2)), "behind"),
        (ended((6, 1), connected=False), "unwelcomed"),
        (ended((6, 1), went_back=1), "went_back"),
        (ended((6, 1), seen=frozenset([(6, 9)])), "invented"),
    ],
)
def test_one_wrong_connection_fails_the_run(one: Ended, what: str) -> None:
    """And is named."""
    verdict = judge(LEDGER, [ended((6, 1)), one])
    assert not verdict.passed
    assert getattr(verdict, what) == 1
    assert what.replace("_", " ") in str(verdict)


def test_no_connection_is_no_success() -> None:
    """A run that connected nobody has shown nothing."""
    assert not judge(LEDGER, []).passed


def test_verdicts_add_up() -> None:
    """Of several swarms, or workers."""
    whole = Verdict()
    for part in (judge(LEDGER, [ended((6, 1))]), judge(LEDGER, [ended((5, 1))])):
        whole.add(part)
    assert (whole.connections, whole.right, whole.behind, len(whole.examples)) == (2, 1, 1, 1)
