"""The pages' files: read once, served from memory with an ETag, so that no path of a request ever reaches the file system."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

STATIC = Path(__file__).parent / "static"
_PACKAGED = Path(__file__).parent / "sdk"
SDK = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "sdk" / "js" / "src"
"""The browser's device SDK as it is written: in an installed package a copy, in a checkout the source."""
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    body: bytes
    etag: str
    media: str

    def response(self, request: Request) -> Response:
        """The file, or 304 for who has it. Always asked again: a page never runs yesterday's module beside today's."""
        headers = {"ETag": self.etag, "Cache-Control": "no-cache"}
        held = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if self.etag in held:
            return Response(status_code=304, headers=headers)
        return Response(self.body, headers={**headers, "Content-Type": self.media})


def load_assets(folder: Path) -> dict[str, Asset]:
    """Every file of a known type in `folder`, by name; none for a folder that is not there."""
    return {
        file.name: _asset(file.read_bytes(), TYPES[file.suffix])
        for file in sorted(folder.glob("*"))
        if file.suffix in TYPES
    }


def _asset(body: bytes, media: str) -> Asset:
    return Asset(body, f'"{hashlib.sha256(body).hexdigest()[:24]}"', media)


def security_headers(connect: tuple[str, ...]) -> dict[str, str]:
    """What every answer of the console carries. Its pages talk to their own origin, and to the origins in `connect`."""
    policy = {
        "default-src": ("'none'",),
        "script-src": ("'self'",),
        "style-src": ("'self'",),
        "img-src": ("'self'", "data:"),
        "connect-src": ("'self'", *connect),
        "base-uri": ("'none'",),
        "form-action": ("'none'",),
        "frame-ancestors": ("'none'",),
        "require-trusted-types-for": ("'script'",),
        "trusted-types": ("'none'",),
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {' '.join(sources)}" for name, sources in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    }
