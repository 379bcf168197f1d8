"""Where files are worked on: here, by --jobs in processes, by --ray on a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

from tto.cli.naming import STREAM, Job
from tto.errors import BadArgument
from tto.interruption import Interrupted, Terminated, termination_raised
from tto.models import is_name
from tto.packages import require
from tto.workers import Here, Workforce, processes


@dataclass(frozen=True)
class Workplace:
    """What --jobs, --ray, --threads and --device say; jobs and ray are None where they were not given."""

    jobs: int | None = None
    ray: str | None = None
    threads: int | None = None
    device: str = "auto"

    @property
    def is_chosen(self) -> bool:
        return self.jobs is not None or self.ray is not None

    @property
    def is_elsewhere(self) -> bool:
        """Whether other processes do the work."""
        return self.ray is not None or (self.jobs or 1) > 1

    def limited(self, files: int) -> Workplace:
        """With no more processes than there are files."""
        return self if self.jobs is None else replace(self, jobs=min(self.jobs, max(1, files)))

    @property
    def first(self) -> str:
        """What is waited for before the first file is done, where that takes long."""
        return "workers start" if self.is_elsewhere else ""

    def check(self, jobs: Sequence[Job] = (), at_once: int = 1) -> None:
        """Raises `BadArgument`, or `NotInstalled`, for what does not go together."""
        if self.ray is not None and self.jobs is not None:
            raise BadArgument("--jobs is for processes of this machine, --ray for a cluster: give one of them")
        option = "--jobs" if self.ray is None else "--ray"
        if self.is_chosen and any(STREAM in (job.input, job.output) for job in jobs):
            raise BadArgument(f"standard input and output are for one picture, {option} for many")
        if self.is_elsewhere and at_once > 1:
            raise BadArgument(f"--batch is for one process: with {option} each works on one picture at a time")
        if self.ray is not None:
            require("ray", "ray")
            if self.device.partition(":")[2]:
                raise BadArgument(f"Ray shares out the GPUs: --device {self.device.partition(':')[0]} with --ray")

    @contextmanager
    def open(self, at_once: int = 1) -> Iterator[Workforce]:
        """The workers. at_once: threads that work here, where it is here; elsewhere SIGTERM ends them as Ctrl-C does.

        Raises `TTOError` where there is no Ray.
        """
        if not self.is_elsewhere:
            yield Here(at_once, self.threads)
            return
        with self._workers() as workforce:
            try:
                with termination_raised():
                    yield workforce
            except Terminated as stop:
                raise Interrupted("what was finished is kept", stop.number) from None

    def _workers(self) -> AbstractContextManager[Workforce]:
        if self.ray is None:
            return nullcontext(processes(self.jobs or 1, self.threads))
        from tto.ray_workers import on_ray

        return on_ray(self.ray, self.threads, self.device)


def absolute(name: str) -> str:
    """The name of a file or folder so that it holds in other processes, too; another name is what it is."""
    return os.path.abspath(name) if os.path.exists(name) else name


def absolute_model(model: str) -> str:
    """The same for -m, where names of models are taken before files and folders."""
    return model if is_name(model) else absolute(model)
