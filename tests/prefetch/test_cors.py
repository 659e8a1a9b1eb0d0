"""Which Origins may pull."""

from prefetch.cors import Origins

ORIGINS = Origins(["https://tv.example"])


def test_no_origin_needs_no_headers() -> None:
    """Devices that are no browsers."""
    assert ORIGINS.headers(None, "maps.example") == {}


def test_a_named_origin_and_the_own_host_are_allowed() -> None:
    """And are named in the answer, with the ETag to be read."""
    for origin, host in (("https://tv.example", "maps.example"), ("http://127.0.0.1:8080", "127.0.0.1:8080")):
        headers = ORIGINS.headers(origin, host)
        assert headers is not None
        assert headers["Access-Control-Allow-Origin"] == origin
        assert "ETag" in headers["Access-Control-Expose-Headers"]


def test_others_are_not() -> None:
    """Nor what merely looks alike, nor an opaque origin."""
    for origin in ("https://tv.example.evil", "http://tv.example", "null", "http://127.0.0.1:8081", ""):
        assert ORIGINS.headers(origin, "127.0.0.1:8080") is None
    assert ORIGINS.headers("null", "") is None
