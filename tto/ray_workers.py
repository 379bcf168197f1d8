"""Workers on Ray (https://docs.ray.io): actors that load the model once, one for each GPU or for some cores."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from tto.errors import BadArgument
from tto.workers import LOGGER, Answer, Item, Outcome, Post, RemoteWorker, Server, Start, Worker, WorkerDied

CONNECT_SECONDS = 5


@dataclass(frozen=True)
class RayActors:
    """So many actors, each with so many cores, and one GPU or none."""

    number: int
    threads: int
    gpus: int

    @property
    def device(self) -> str:
        """The kind of device that they compute on."""
        return "cuda" if self.gpus else "cpu"

    def prepare(self, start: Start[Item, Outcome]) -> Callable[[int], Worker[Item, Outcome]]:
        level = LOGGER.getEffectiveLevel()
        kind = ray.remote(num_cpus=self.threads, num_gpus=self.gpus, max_restarts=0)(Server)
        return lambda place: _Actor(kind, start, Post(place, self.threads, level))


class _Actor(RemoteWorker[Item, Outcome]):
    def __init__(self, kind: Any, start: Start[Item, Outcome], post: Post):
        super().__init__()
        self._actor = kind.remote(start, post)

    def ask(self, item: tuple[Item] | None) -> Answer:
        try:
            return ray.get(self._actor.start.remote() if item is None else self._actor.work.remote(*item))
        except RayTaskError:  # ours
            raise
        except RayError as error:  # of the actor, its machine, or what it had to say
            raise WorkerDied(f"a Ray actor died: {_reason(error)}") from error

    def stop(self) -> None:
        ray.kill(self._actor)
        super().stop()


def _reason(error: RayError) -> str:
    """Of an exception that is told of as a traceback its last line, else the first of many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if any(line.startswith("Traceback") or "creation task" in line for line in lines) else lines[0]


@contextmanager
def on_ray(address: str, threads: int | None, device: str) -> Iterator[RayActors]:
    """The actors of a cluster, by its address; of the one that runs here, or else of one of this machine, by "". A
    program that is connected already stays so. Inside, `sys.stdout` is nowhere.

    Raises `BadArgument` where no Ray is, or no place for an actor.
    """
    if ray.is_initialized():
        yield _actors(ray.nodes(), threads or 1, device)
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # Ray tells there at length of workers that died
        _connect(address)
        try:
            yield _actors(ray.nodes(), threads or 1, device)
        finally:
            ray.shutdown()


def _connect(address: str) -> None:
    wanted = address or os.environ.get("RAY_ADDRESS", "")
    _refuse_silence(wanted)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # one of our own does not report home
    try:
        ray.init(
            address or None,
            logging_level=logging.ERROR,
            log_to_driver=False,
            include_dashboard=None if wanted else False,
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadArgument(f"no Ray{f' at {wanted}' if wanted else ''}: {reason}") from error


def _refuse_silence(address: str) -> None:
    """Raises `BadArgument` where nobody listens: Ray itself would try for a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadArgument(f"no Ray at {address}: {reason}") from error


def _actors(nodes: list[dict[str, Any]], threads: int, device: str) -> RayActors:
    """As many as the machines of a cluster have place for."""
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    number = sum(int(one.get("CPU", 0)) // threads for one in resources)
    if number == 0:
        raise BadArgument(f"no machine of this Ray has {threads} cores: give fewer --threads")
    gpus = sum(min(int(one.get("GPU", 0)), int(one.get("CPU", 0)) // threads) for one in resources)
    if gpus and device != "cpu":
        return RayActors(gpus, threads, 1)
    if device not in ("auto", "cpu"):
        raise BadArgument(f"no machine of this Ray has a GPU for --device {device}")
    return RayActors(number, threads, 0)
