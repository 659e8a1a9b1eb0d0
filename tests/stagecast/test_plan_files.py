"""Plan files: what is written is read again; what is wrong is named with its line and field."""

from pathlib import Path
from typing import Any

import click
import pytest

from stagecast.cli.control import duration_of
from stagecast.cli.plan_files import as_json, as_toml, read_plan_file

PLAN: list[dict[str, Any]] = [
    {"stage": "upcoming"},
    {"stage": "live", "at": "2026-12-05T19:00:00Z", "armed": True},
    {"stage": "goal", "stays": "PT10S"},
    {"stage": "ended", "after": "PT7200S", "of": "live"},
]
TITLE = 'The "final" – ünder a \\ and\n a second line'


def written(folder: Path, text: str, suffix: str) -> Path:
    file = folder / f"plan{suffix}"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(("write", "suffix"), [(as_json, ".json"), (as_toml, ".toml")])
def test_what_is_exported_is_imported(tmp_path: Path, write: Any, suffix: str) -> None:
    """Title and plan come back as they were, in both formats."""
    got = read_plan_file(written(tmp_path, write(TITLE, PLAN), suffix))
    assert got["title"] == TITLE
    assert [{**stage, "at": "2026-12-05T19:00:00Z"} if "at" in stage else stage for stage in got["plan"]] == PLAN


def test_a_list_of_stages_is_a_plan(tmp_path: Path) -> None:
    """In JSON the table around it may be left out."""
    assert read_plan_file(written(tmp_path, '[{"stage": "a"}]', ".json")) == {"plan": [{"stage": "a"}]}


JSON_PLAN = """{"title": "The final",
 "plan": [
  {"stage": "upcoming"},
  {"stage": "live",
   "at": AT},
  {"stage": "half", "after": "PT45M", "of": OF},
  {"stage": "ended",
   MORE}
]}"""
TOML_PLAN = """title = "The final"

[[plan]]
stage = "upcoming"
[[plan]]
stage = "live"
at = AT
[[plan]]
stage = "half"
after = "PT45M"
of = OF
[[plan]]
stage = "ended"
MORE
"""


@pytest.mark.parametrize(
    ("change", "json_line", "toml_line", "field"),
    [
        ({"AT": '"soon"'}, 5, 7, "$.plan[1].at"),
        ({"AT": '"2026-12-05T19:00:00"'}, 5, 7, "$.plan[1].at"),
        ({"OF": '"nowhere"'}, 6, 11, "$.plan[2].of"),
        ({"MORE": '"when": 1'}, 8, 14, "$.plan[3].when"),
        ({"MORE": '"stays": "-PT1S"'}, 8, 14, "$.plan[3].stays"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, change: dict[str, str], json_line: int, toml_line: int, field: str
) -> None:
    """The line in the file, the field, and what is wrong with it."""
    values = {"AT": '"2026-12-05T19:00:00Z"', "OF": '"live"', "MORE": '"after": "PT2H"'} | change
    for text, suffix, line in ((JSON_PLAN, ".json", json_line), (TOML_PLAN, ".toml", toml_line)):
        for name, value in values.items():
            toml = suffix == ".toml" and name == "MORE"
            text = text.replace(name, value.replace('"', "", 2).replace(":", " =", 1) if toml else value)
        with pytest.raises(click.ClickException) as caught:
            read_plan_file(written(tmp_path, text, suffix))
        assert f"plan{suffix}, line {line}: {field}: " in caught.value.message


@pytest.mark.parametrize(
    ("text", "suffix", "said"),
    [
        ('{"plan": [\n {"stage": }]}', ".json", "line 2, column 12: "),
        ('title = "x"\nplan = = 1\n', ".toml", "line 2"),
        ('[\n{"stage": "a"},\n{"stage": "a"}]', ".json", "line 3: $.plan[1].stage"),
        ('{"plan": [1]}', ".json", "$.plan[0]"),
        ('{"plan": []}', ".json", "line 1: $.plan: "),
        ("7", ".json", "a list of stages"),
        ('x = 1\nplan = [{stage = "a"}, {stage = "a"}]', ".toml", "line 2: $.plan[1].stage"),
    ],
)
def test_files_that_cannot_be(tmp_path: Path, text: str, suffix: str, said: str) -> None:
    """Syntax errors and odd shapes have a line too; a plan in one line of TOML is named as a whole."""
    with pytest.raises(click.ClickException) as caught:
        read_plan_file(written(tmp_path, text, suffix))
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("+5m", 300), ("-90s", -90), ("1h30m", 5400), ("5min", 300), ("PT5M", 300), ("+PT5M", 300), ("-PT5M", -300)],
)
def test_durations(text: str, seconds: int) -> None:
    """As people write them, and as the API does."""
    assert duration_of(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "5", "soon", "5m5", "--5m"])
def test_no_durations(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(click.BadParameter):
        duration_of(text)
