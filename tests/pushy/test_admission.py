"""Whose tokens are good, and what of a check is remembered."""

import random
from pathlib import Path

import pytest

from pushy.admission import REMEMBERED_MAX, Admission
from stagecast.records import Revocation
from stagecast.tokens import KeysFile, TokenError, create_keys

WALL = 1_764_000_000_000
NOW = WALL / 1000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    create_keys(tmp_path / "keys.json")
    return tmp_path / "keys.json"


def minted(admission: Admission, device: str = "tv", ttl: float = 60.0) -> str:
    return admission.keys.keys.mint("ann", device, ["final"], ttl, NOW, random.Random(1))


def test_a_check_is_remembered_until_the_token_expires(file: Path) -> None:
    """The same claims, object for object, without a second check; expired, it is checked and refused."""
    admission = Admission(KeysFile(file))
    token = minted(admission)
    claims = admission.admit(token, WALL)
    assert admission.admit(token, WALL + 50_000) is claims
    assert admission.checks == 1
    with pytest.raises(TokenError, match="expired"):
        admission.admit(token, WALL + 70_000)
    assert admission.checks == 2


def test_what_looks_almost_the_same_is_checked(file: Path) -> None:
    """A remembered check is that token's alone: one character more or another one is another token."""
    admission = Admission(KeysFile(file))
    token = minted(admission)
    admission.admit(token, WALL)
    other = "A" if token[-20] != "A" else "B"
    for spoilt in (token + "A", token[:-20] + other + token[-19:], token[1:]):
        with pytest.raises(TokenError):
            admission.admit(spoilt, WALL)
    assert admission.checks == 4


def test_a_revocation_is_looked_at_every_time(file: Path) -> None:
    """Also of a token whose check is remembered; a token minted later is good."""
    admission = Admission(KeysFile(file))
    token = minted(admission)
    admission.admit(token, WALL)
    admission.revoke([Revocation("device", "tv", WALL), Revocation("device", "tv", WALL - 5000)])
    with pytest.raises(TokenError, match="revoked"):
        admission.admit(token, WALL)
    later = admission.keys.keys.mint("ann", "tv", ["final"], 60, NOW + 1, random.Random(1))
    admission.admit(later, WALL + 1000)


def test_new_keys_forget_every_check(file: Path) -> None:
    """A key that has left the file vouches for nobody any more."""
    admission = Admission(KeysFile(file))
    token = minted(admission)
    claims = admission.admit(token, WALL)
    assert admission.holds(claims)
    file.unlink()
    create_keys(file)
    assert admission.look(1000.0)
    assert not admission.holds(claims)
    with pytest.raises(TokenError):
        admission.admit(token, WALL)


def test_equal_times_and_rights_are_kept_once(file: Path) -> None:
    """Most tokens share them with others, and a worker holds thousands."""
    admission = Admission(KeysFile(file))
    one, other = (admission.admit(minted(admission, device), WALL) for device in ("tv", "phone"))
    assert one.exp is other.exp
    assert one.iat is other.iat
    assert one.evt is other.evt
    assert one.kid is other.kid


def test_the_memory_is_bounded(file: Path) -> None:
    """The oldest check goes first."""
    admission = Admission(KeysFile(file))
    first = minted(admission, "d0", 600)
    for i in range(REMEMBERED_MAX + 1):
        admission.admit(minted(admission, f"d{i}", 600) if i else first, WALL)
    checks = admission.checks
    admission.admit(minted(admission, "d1", 600), WALL)
    assert admission.checks == checks
    admission.admit(first, WALL)
    assert admission.checks == checks + 1
