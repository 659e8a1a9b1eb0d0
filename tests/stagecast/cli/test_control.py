"""The control room's commands against a real broadcaster: what an operator types and reads."""

from pathlib import Path

import msgspec

from tests.stagecast.cli.test_event import Run, run, running

__all__ = ["run", "running"]
PLAN = """title = "The final"

[[plan]]
stage = "upcoming"

[[plan]]
stage = "live"
at = 2030-12-05T19:00:00Z
armed = true

[[plan]]
stage = "half"
after = "PT2700S"
stays = "PT10S"
"""


def created(run: Run, folder: Path, event: str) -> None:
    file = folder / "plan.toml"
    file.write_text(PLAN)
    run("create", event, str(file))


def test_arming_under_no_go(run: Run, tmp_path: Path) -> None:
    """No host reports: `ready` says so and ends with 1, `arm` lists what failed and wants a reason, with one it is armed."""
    created(run, tmp_path, "c1")
    said = run("ready", "c1", ok=False).output
    assert "✗ hosts      no host has reported" in said
    assert "✓ store      the store answers" in said
    assert said.endswith("NO-GO\n")
    refused = run("arm", "c1", ok=False).output
    assert "no-go: hosts, feed, capacity" in refused
    assert "✗ hosts: no host has reported" in refused
    assert "live 2030-12-05" in run("show", "c1").output
    assert "but it has to be armed first" in run("show", "c1").output
    assert run("arm", "c1", "--override", "the venue has no network").output.startswith(
        "c1: armed for live, due 2030-12-05"
    )
    shown = run("show", "c1").output
    assert "armed for live (by " in shown
    assert "at 2030-12-05T19:00:00Z, if armed" in shown
    assert "45 min after the one before; stays 10 s" in shown
    assert run("disarm", "c1").output == "c1: not armed\n"
    audit = run("audit", "c1").output.splitlines()
    assert [line.split()[3] for line in audit] == ["upcoming", "override", "arm", "disarm"]
    assert audit[1].endswith("the venue has no network · hosts, feed, capacity")


def test_shifting(run: Run, tmp_path: Path) -> None:
    """Later and earlier; what can't move is refused with its reason."""
    created(run, tmp_path, "c2")
    assert run("shift", "c2", "+5m").output.splitlines()[0] == "c2: plan revision 2"
    assert "2030-12-05T19:05:00Z" in run("show", "c2").output
    run("shift", "c2", "-5m", "--from", "live")
    assert "2030-12-05T19:00:00Z" in run("show", "c2").output
    assert "no stage 'nix' in the plan" in run("shift", "c2", "+5m", "--from", "nix", ok=False).output
    assert "no duration" in run("shift", "c2", "soon", ok=False).output


def test_export_and_import(run: Run, tmp_path: Path) -> None:
    """What is exported, in either format, is the plan again."""
    created(run, tmp_path, "c3")
    assert run("export", "c3", "--toml").output == PLAN
    for suffix, words in ((".toml", ["--toml"]), (".json", [])):
        file = tmp_path / f"exported{suffix}"
        file.write_text(run("export", "c3", *words).output)
        run("plan", "c3", str(file))
        assert run("export", "c3", "--toml").output == PLAN


def test_a_wrong_file_names_line_and_field(run: Run, tmp_path: Path) -> None:
    """Before anything is sent."""
    file = tmp_path / "wrong.toml"
    file.write_text(PLAN.replace("PT2700S", "later"))
    said = run("create", "c4", str(file), ok=False).output
    assert "wrong.toml, line 13: $.plan[2].after: " in said
    assert "404" in run("show", "c4", ok=False).output


def test_a_report(run: Run, tmp_path: Path) -> None:
    """As a table, as JSON, and as one page."""
    created(run, tmp_path, "c5")
    run("go", "c5", "live")
    assert [line.split()[1] for line in run("report", "c5").output.splitlines()] == ["stage", "upcoming", "live"]
    got = msgspec.json.decode(run("report", "c5", "--json").output)
    assert [stage["stage"] for stage in got["stages"]] == ["upcoming", "live"]
    page = tmp_path / "out.html"
    assert run("report", "c5", "--html", str(page)).output.endswith("out.html: written\n")
    assert "<h1>The final</h1>" in page.read_text()


def test_a_rehearsal_wants_devices(run: Run, tmp_path: Path) -> None:
    """Where no device's token can be made, it says so."""
    created(run, tmp_path, "c6")
    assert "no device URL, or no key" in run("rehearse", "c6", ok=False).output
