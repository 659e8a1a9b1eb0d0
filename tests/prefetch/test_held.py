"""A campaign in one process's hands."""

import pytest
from msgspec.structs import replace

from prefetch.campaign import Campaign
from prefetch.events import read_campaign
from prefetch.held import Held, Lost
from tests.prefetch.conftest import Site
from tests.prefetch.peers import Fickle

CAMPAIGN = Campaign("final", 1, "1764000000000-m1", "vectors", 0, None, owner="a")


async def test_the_first_failed_write_says_that_it_is_anothers(site: Site) -> None:
    """Two that read the same version: one writes, the other is told, and nothing of it is kept."""
    await Held(site.store, CAMPAIGN, None).write(lambda same: same)
    campaign, version = await read_campaign(site.store, "final")
    assert campaign == CAMPAIGN
    one, two = Held(site.store, CAMPAIGN, version), Held(site.store, CAMPAIGN, version)
    await one.write(lambda held: replace(held, owner="b"))
    with pytest.raises(Lost):
        await two.write(lambda held: replace(held, done=7))
    await one.write(lambda held: replace(held, done=1))
    campaign, _ = await read_campaign(site.store, "final")
    assert campaign is not None
    assert (campaign.owner, campaign.done) == ("b", 1)


async def test_a_lost_answer_is_looked_up(site: Site) -> None:
    """The write happened: it is found to be our own, and the next one goes on from it."""
    store = Fickle(site.store)
    held = Held(store, CAMPAIGN, None)
    store.lose_answers = 1
    await held.write(lambda same: same)
    store.lose_answers = 1
    await held.write(lambda last: replace(last, done=5))
    await held.write(lambda last: replace(last, done=6))
    campaign, version = await read_campaign(site.store, "final")
    assert campaign is not None
    assert (campaign.done, version) == (6, 3)
