"""The documented TLS proxies, started as they stand in `deploy/` with addresses and certificate of a test's own."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

from tests.check_docs import ROOT
from tests.deploy.programs import program
from tests.servers.certificates import Certificates
from tests.system.running import until

HAPROXY, NGINX = ROOT / "deploy/haproxy/haproxy.cfg", ROOT / "deploy/nginx/nginx.conf"


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """With what a deployment has to put in; a text that lost one of the places fails."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def haproxy_configuration(port: int, made: Certificates, hosts: list[tuple[str, str]]) -> str:
    """`hosts`: HOST:PORT of devices and of the admin port; two."""
    text = replaced(
        HAPROXY.read_text(),
        ("bind :443", f"bind 127.0.0.1:{port}"),
        ("/etc/haproxy/certs/tls.pem", str(made.server_pem)),
        ("maxconn 200000", "maxconn 500"),
        ("tune.ssl.cachesize 200000", "tune.ssl.cachesize 500"),
        ("check port 8082 inter 2s", "check inter 100ms"),
    )
    for old, (ws, admin) in zip(("10.0.0.11:8081", "10.0.0.12:8081"), hosts, strict=True):
        where, admin_port = admin.rsplit(":", 1)
        text = replaced(text, (old, f"{ws} addr {where} port {admin_port}"))
    return text


def nginx_configuration(port: int, made: Certificates, hosts: list[tuple[str, str]], folder: Path) -> str:
    folders = "".join(
        f"    {kind}_temp_path {folder / kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = replaced(
        NGINX.read_text(),
        ("listen 443", f"listen 127.0.0.1:{port}"),
        ("/etc/nginx/certs/tls.pem", str(made.server_pem)),
        (
            "worker_processes auto;\nworker_rlimit_nofile 200000;",
            f"pid {folder / 'pid'};\ndaemon off;\nworker_processes 1;",
        ),
        ("worker_connections 100000", "worker_connections 500"),
        ("    access_log off;\n", f"    access_log off;\n{folders}"),
    )
    for old, (ws, _) in zip(("10.0.0.11:8081", "10.0.0.12:8081"), hosts, strict=True):
        text = replaced(text, (old, ws))
    return text


@contextlib.asynccontextmanager
async def front(
    name: str, folder: Path, made: Certificates, ws: str, admin: str, second: tuple[str, str] | None = None
) -> AsyncIterator[int]:
    """A running `haproxy` or `nginx` before the host at `ws` (or two); the port it listens at."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    folder.mkdir()  # noqa: ASYNC240 - a test's own folder
    file = folder / "configuration"
    hosts = [(ws, admin), second or ("127.0.0.1:1", "127.0.0.1:1")]  # nobody listens at port 1
    if name == "haproxy":
        file.write_text(haproxy_configuration(port, made, hosts))
        command = [program("haproxy", "haproxy"), "-db", "-f", str(file)]
    else:
        file.write_text(nginx_configuration(port, made, hosts, folder))
        command = [program("nginx", "nginx-light"), "-c", str(file), "-p", str(folder), "-e", str(folder / "errors")]
    with (folder / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
    try:
        await until(lambda: _listens(port, process, folder), f"{name} listens")
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await asyncio.wait_for(process.wait(), 15)


def _listens(port: int, process: asyncio.subprocess.Process, folder: Path) -> bool:
    assert process.returncode is None, (folder / "output").read_text()
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def opened(
    port: int, made: Certificates, source: str = "127.0.0.1"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A TLS connection to the front, from a loopback address of one's own."""
    trust = ssl.create_default_context(cafile=str(made.ca))
    return await asyncio.open_connection(
        "127.0.0.1", port, ssl=trust, server_hostname="localhost", local_addr=(source, 0)
    )
