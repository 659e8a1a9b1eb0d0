"""How commands talk to a running Stagecast: its HTTP API, with the key and address of the folder or the environment."""

import functools
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
import httpx

F = TypeVar("F", bound=Callable[..., Any])
DEV_FILE = "dev.json"
"""In a `stagecast dev`'s folder: where it listens, as its ready line says it."""
OPERATOR_KEY = "operator.key"
DEFAULT_URL = "http://127.0.0.1:8080"


class Api:
    """One caller of the HTTP API. Every failure ends the command with one clear line."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.key = key
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=15, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **query: Any
    ) -> Any:
        """The answer's JSON (None when it is empty). Raises click.ClickException with the problem's own words."""
        params = {name: value for name, value in query.items() if value is not None}
        try:
            got = self._http.request(method, path, json=body, headers=headers, params=params)
        except httpx.TransportError as error:
            raise click.ClickException(
                f"no Stagecast answers at {self.url} ({type(error).__name__}: {error}). "
                "Start one with `stagecast dev`, or set STAGECAST_URL."
            ) from error
        if got.is_error:
            raise click.ClickException(_explain(got))
        return got.json() if got.content else None

    def pages(self, path: str, of: str) -> Iterator[Any]:
        """What all pages of a list hold under `of`."""
        after: Any = None
        while True:
            page = self.call("GET", path, after=after)
            yield from page[of]
            after = page["after"]
            if after is None:
                return

    def upload(self, path: str, lines: Any, **query: Any) -> Any:
        """Streams bytes as NDJSON; the answer's JSON."""
        try:
            got = self._http.post(
                path, content=lines, params=query, timeout=None, headers={"Content-Type": "application/x-ndjson"}
            )
        except httpx.TransportError as error:
            raise click.ClickException(
                f"{self.url}: the upload broke off ({error}); run it again, it resumes"
            ) from error
        if got.is_error:
            raise click.ClickException(_explain(got))
        return got.json()


def _explain(got: httpx.Response) -> str:
    try:
        problem = got.json()
    except ValueError:
        return f"{got.status_code} {got.reason_phrase}"
    text = f"{got.status_code} {problem.get('title', got.reason_phrase)}"
    if problem.get("detail"):
        text += f": {problem['detail']}"
    head = problem.get("head")
    if head:
        text += f"\nThe event is at stage {head['stage']!r} (gen {head['gen']}, seq {head['seq']})."
    for check in problem.get("checks") or []:
        text += f"\n✗ {check['name']}: {check['text']}"
    if got.status_code == 401:
        text += "\nSet STAGECAST_KEY, or name the folder of your `stagecast dev` with --data."
    return text


def found_dev(data: Path) -> dict[str, Any] | None:
    """What the `stagecast dev` of this folder said of itself, if one has run there."""
    try:
        said: dict[str, Any] = json.loads((data / DEV_FILE).read_text())
    except (OSError, ValueError):
        return None
    return said


def spelt(data: Path) -> tuple[str, str]:
    """How a person calls this very `stagecast` from here, ready for a shell: the command, and the flag that names the folder of
    its dev, empty for the usual one."""
    command = Path(sys.executable).with_name("stagecast")
    found = shutil.which("stagecast")
    if found is not None and Path(found).absolute() == command:
        command = Path("stagecast")
    elif command.is_relative_to(Path.cwd()):
        command = command.relative_to(Path.cwd())
    flag = "" if data.absolute() == Path(".stagecast").absolute() else f" --data {shlex.quote(os.path.relpath(data))}"
    return shlex.quote(str(command)), flag


def api_options(command: F) -> F:
    """Flags --data, --url; the command gets `api: Api`."""

    @functools.wraps(command)
    def wrapped(*args: Any, data: Path, url: str | None, **kwargs: Any) -> Any:
        return command(*args, api=find_api(data, url), **kwargs)

    decorated: Any = click.option(
        "--url", envvar="STAGECAST_URL", help="base URL of the HTTP API  [STAGECAST_URL; else what DATA says]"
    )(wrapped)
    decorated = click.option(
        "--data", envvar="STAGECAST_DATA", default=".stagecast", type=click.Path(path_type=Path), show_default=True,
        help="folder of a `stagecast dev`: its address and its operator's key",
    )(decorated)  # fmt: skip
    return decorated  # type: ignore[no-any-return]


def find_api(data: Path, url: str | None = None) -> Api:
    """The API of this folder or environment. The folder's key goes to the folder's own `stagecast dev` and to nobody else."""
    said = found_dev(data)
    own = said["http"] if said else DEFAULT_URL
    url = url.rstrip("/") if url else own
    key = os.environ.get("STAGECAST_KEY") or _own_key(data, url, own)
    api = Api(url, key)
    context = click.get_current_context(silent=True)
    if context is not None:
        context.call_on_close(api.close)
    return api


def _own_key(data: Path, url: str, own: str) -> str:
    if url != own:
        raise click.ClickException(f"no API key for {url}: set STAGECAST_KEY. (The one in {data} is for {own}.)")
    try:
        return (data / OPERATOR_KEY).read_text().strip()
    except OSError as error:
        raise click.ClickException(
            f"no API key: neither STAGECAST_KEY nor {data / OPERATOR_KEY} is there. "
            "Start `stagecast dev` in this folder, or name its folder with --data."
        ) from error
