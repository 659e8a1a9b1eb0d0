"""Alert rules, the scrape configuration and the dashboard: read by promtool, and held against what really is exposed."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pushy.catalogue import CATALOGUE, FEED, WORKER
from tests.check_docs import ROOT
from tests.deploy.programs import program, said
from tests.system.running import running, until

PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "stagecast.json"
NAME = re.compile(r"stagecast_[a-z_]+")


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts.test.yml")],
    ids=" ".join,
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    """The configuration, the rules, and what the rules say of planted series."""
    status, text = said(program("promtool", "prometheus"), *arguments, cwd=PROMETHEUS)
    assert status == 0, text


def test_a_planted_fault_is_seen(tmp_path: Path) -> None:
    """A rule with another threshold fails its test."""
    promtool = program("promtool", "prometheus")
    shutil.copytree(PROMETHEUS, tmp_path, dirs_exist_ok=True)
    rules = (tmp_path / "alerts.yml").read_text()
    assert "log_age_seconds > 15" in rules
    (tmp_path / "alerts.yml").write_text(rules.replace("log_age_seconds > 15", "log_age_seconds > 60"))
    status, text = said(promtool, "test", "rules", "alerts.test.yml", cwd=tmp_path)
    assert status == 1
    assert "StagecastLogSilent" in text


def test_every_rule_is_tested_or_plain() -> None:
    """Each alert has a severity, a summary and what to do; each is named once."""
    rules = (PROMETHEUS / "alerts.yml").read_text()
    alerts = rules.split("- alert: ")[1:]
    names = [alert.split("\n", 1)[0] for alert in alerts]
    assert len(names) == len(set(names)) > 20
    for name, alert in zip(names, alerts, strict=True):
        assert re.search(r"severity: (page|ticket)\}", alert), name
        assert "summary:" in alert, name
        assert "description:" in alert, name


def _expressions(node: Any) -> Iterator[str]:
    """Every query of the dashboard."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "query") and isinstance(value, str):
                yield value
            else:
                yield from _expressions(value)
    elif isinstance(node, list):
        for one in node:
            yield from _expressions(one)


def _named(text: str) -> set[str]:
    """Metrics in a query or a rule; a histogram's series are its family's."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in NAME.findall(text)}


def _families(text: str) -> dict[str, str]:
    """Full name → HELP of what a page exposes."""
    found = {}
    for family in text_string_to_metric_families(text):
        found[f"{family.name}_total" if family.type == "counter" else family.name] = family.documentation
    return found


@pytest.mark.system
async def test_what_is_asked_for_is_exposed(tmp_path: Path) -> None:
    """Every metric that the rules and the dashboard name is on the pages of a real `stagecast dev`, with HELP; and a host exposes
    exactly its catalogue."""
    async with running(tmp_path / "data", "--workers", "2") as stage, httpx.AsyncClient(trust_env=False) as http:
        maps = json.loads((stage.data / "dev.json").read_text())["maps"]
        await stage.create("final", "upcoming", "live")
        async with stage.devices(4, "final") as devices:
            await stage.go("final", "live")
            assert devices

            async def both_report() -> bool:
                return 'stagecast_sessions{worker="1"}' in (await http.get(f"{stage.admin}/metrics")).text

            await until(both_report, "both workers have reported")
            host = (await http.get(f"{stage.admin}/metrics")).text
        others = [(await http.get(f"{base}/metrics")).text for base in (stage.http, maps)]
    exposed: dict[str, str] = {}
    for page in (host, *others):
        exposed |= _families(page)
    assert [name for name, text in exposed.items() if not text] == []
    asked = _named(" ".join(_expressions(json.loads(DASHBOARD.read_text()))))
    asked |= _named(re.sub(r"(summary|description):.*", "", (PROMETHEUS / "alerts.yml").read_text()))
    assert sorted(asked - exposed.keys()) == []
    assert len(asked) > 30
    assert sorted(CATALOGUE.keys() ^ _families(host).keys()) == []


def test_the_catalogue_is_whole() -> None:
    """Names by tier, counters end in _total, and only they; no name twice; every family says something."""
    assert len(CATALOGUE) == len(FEED) + len(WORKER)
    for one in CATALOGUE.values():
        assert one.name.endswith("_total") == (one.kind == "counter"), one.name
        assert one.says
        assert one.name.startswith("stagecast_feed_") == (one in FEED)


def test_the_dashboard_is_provisioned() -> None:
    """The file lies where the provider looks, panels do not overlap, and each has a query."""
    dashboard = json.loads(DASHBOARD.read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["type"] == "row" or panel["targets"], panel["title"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
