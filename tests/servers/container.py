"""A server as a container, where a Docker engine answers."""

import gc
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

from docker.errors import APIError, DockerException
from docker.models.containers import Container
from testcontainers.core.container import DockerContainer

from tests.servers.server import HOST, Process


class ContainerProcess:
    """Runs a shell `script` as root in `image`; it sees `folder` (configuration, certificates) at the same path, read-only.

    `port` is published on loopback only, under its own number: a server tells its clients an address, and a restarted
    container keeps only a port that was chosen for it. Data lives inside the container, so it survives a kill and a start.
    """

    def __init__(self, image: str, script: str, folder: Path, port: int, environment: dict[str, str]) -> None:
        made = DockerContainer(image, env=environment).with_command(["-c", script])
        made.with_kwargs(entrypoint="bash", user="root")
        made.with_volume_mapping(folder, str(folder))
        made.ports[f"{port}/tcp"] = (HOST, port)  # type: ignore[assignment]  # the engine's client takes it; its annotation doesn't
        self._made = made
        self._started = False

    @property
    def _container(self) -> Container:
        return self._made.get_wrapped_container()

    @property
    def pid(self) -> int | None:
        if not self._started:
            return None
        self._container.reload()
        state = self._container.attrs["State"]
        return int(state["Pid"]) if state["Running"] else None

    def launch(self) -> None:
        if self._started:
            self._container.start()
        else:
            self._made.start()
            self._started = True

    def signal(self, number: signal.Signals) -> None:
        if not self._started:
            return
        try:
            self._container.kill(signal=number.name)
        except APIError as refused:
            if refused.status_code != 409:  # 409: it does not run
                raise

    def output(self) -> str:
        return bytes(self._container.logs()).decode(errors="replace")

    def remove(self) -> None:
        self._made.stop()


def launched(in_container: Callable[[], Process], on_jvm: Callable[[], Process]) -> Process:
    """The server launched in a container if a Docker engine answers and has the image, else on a JVM of this machine.

    A docker client on the PATH proves no engine: only an attempt does.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ResourceWarning
        )  # without an engine the docker client leaves a socket to the collector
        if process := _launched(in_container):
            return process
        gc.collect()
    process = on_jvm()
    process.launch()
    return process


def _launched(in_container: Callable[[], Process]) -> Process | None:
    try:
        process = in_container()
        process.launch()
    except DockerException:
        return None
    return process
