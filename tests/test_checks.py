"""The checks of the compose file and of the documents find what is planted."""

from pathlib import Path

import pytest

from tests import check_compose, check_docs

COMPOSE = check_compose.ROOT / "docker-compose.yml"


def test_the_compose_file_is_fine() -> None:
    """As the real docker-compose reads it, and every command in it is one of ours."""
    assert check_compose.checked() == []


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ("condition: service_completed_successfully", "condition: service_done", "keys"),
        ("volumes: [kafka:/var/lib/kafka/data]", "volumes: [kafak:/var/lib/kafka/data]", "kafak"),
        ("depends_on: *after-servers", "depends_on: [no-such-service]", "no-such-service"),
        ("command: [broadcaster, --http,", "command: [broadcaster, --htpt,", "--htpt"),
    ],
)
def test_a_fault_in_the_compose_file_is_found(good: str, bad: str, said: str, tmp_path: Path) -> None:
    """A wrong condition, an undefined volume or service, a flag our command does not have."""
    text = COMPOSE.read_text()
    assert good in text
    planted = tmp_path / "docker-compose.yml"
    planted.write_text(text.replace(good, bad, 1))
    (problem, *_) = check_compose.checked(planted)
    assert said in problem


def test_the_documents_agree_with_the_code() -> None:
    """Tables are current and links lead somewhere."""
    assert [problem for page in check_docs.pages() for problem in check_docs.problems(page)] == []


def test_a_stale_table_is_found() -> None:
    """And made anew."""
    page = (check_docs.ROOT / "docs" / "protocol.md").read_text()
    stale = page.replace("| 4001 | lifetime |", "| 4001 | life |")
    assert stale != page
    assert check_docs.renewed(stale) == page


def test_an_unknown_table_is_an_error() -> None:
    """A name that nothing makes would stay stale for ever."""
    with pytest.raises(KeyError):
        check_docs.renewed("<!-- made: nothing -->\n<!-- end -->")


def test_a_default_of_zero_is_shown() -> None:
    """A setting whose default is 0 has a default, unlike one that is empty."""
    rows = {row.split(" | ")[0].strip("| `"): row.split(" | ")[2] for row in check_docs.settings().splitlines()}
    assert (rows["accept_burst"], rows["log"]) == ("0", "")
