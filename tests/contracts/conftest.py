"""Runs each suite on every adapter; the adapters are in `places`."""

from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from kv import KeyValue, open_store
from stagecast.log import MessageLog, open_log
from tests.contracts.children import Children
from tests.contracts.places import LOGS, MARKS, STORES, LogPlace, StorePlace


def _params(names: Iterable[str]) -> list[object]:
    return [pytest.param(name, marks=MARKS.get(name, ())) for name in names]


@pytest.fixture
def name() -> str:
    """A key or record that no other test uses."""
    return uuid4().hex


@pytest.fixture(params=_params(LOGS))
def log_place(request: pytest.FixtureRequest, tmp_path: Path) -> LogPlace:
    return LOGS[request.param](request, tmp_path)


@pytest.fixture
async def log(log_place: LogPlace) -> AsyncIterator[MessageLog]:
    opened = await open_log(log_place.url)
    yield opened
    await opened.close()


@pytest.fixture(params=_params(STORES))
def store_place(request: pytest.FixtureRequest, tmp_path: Path) -> StorePlace:
    return STORES[request.param](request, tmp_path)


@pytest.fixture
async def store(store_place: StorePlace) -> AsyncIterator[KeyValue]:
    opened = await open_store(store_place.url)
    yield opened
    await opened.close()


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    """Starts other processes of a test, and ends them with it."""
    family = Children(tmp_path)
    yield family
    family.end()
