"""The scenarios as tests: each small world is exhausted, each mutation is caught by the promise that guards its rule."""

import pytest

from tests.model.scenarios import HOLDS, MUTATIONS, Scenario


@pytest.mark.parametrize("scenario", HOLDS, ids=lambda one: one.name)
def test_the_promises_hold(scenario: Scenario) -> None:
    """In every state that the faults of this scenario lead to, in every order."""
    result = scenario.run()
    assert result.broken is None, "\n".join((str(result.broken), *result.trace))
    assert result.quiescent


@pytest.mark.parametrize("scenario", MUTATIONS, ids=lambda one: one.name)
def test_a_rule_taken_away_is_caught(scenario: Scenario) -> None:
    """Without the rule the promise breaks: the check is not vacuous, and the rule is needed."""
    result = scenario.run()
    assert result.promise == scenario.expected, result
    assert result.trace
