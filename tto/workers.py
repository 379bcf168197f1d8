"""Work on many items by workers that start once: here, in threads, in processes, and (`tto.ray_workers`) on Ray.

`start`, in a worker, loads what all items need and returns what is done with each. The way is the only difference:

items, drawn one by one  →  free workers  →  (item, outcome) as they are done
                                 ↑  an item whose worker died
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from tto.errors import TTOError

Item = TypeVar("Item")
ItemIn = TypeVar("ItemIn", contravariant=True)
Outcome = TypeVar("Outcome")
Start: TypeAlias = Callable[[], Callable[[Item], Outcome]]

LOGGER = logging.getLogger("tto")
TRIES = 3
"""Workers that an item may cost."""


class WorkerLost(TTOError):
    """Workers died, most often for want of memory."""


class WorkerDied(Exception):
    """One worker died; the message says which."""


class DiedEarly(WorkerDied):
    """It had not even started."""


class Worker(Protocol[ItemIn, Outcome]):
    """Does one item at a time."""

    def submit(self, item: ItemIn) -> Future[Outcome | Exception]:
        """The outcome, or what `start`'s function raised. The future raises `WorkerDied`, or what `start` raised."""
        ...

    def stop(self) -> None:
        """End it, and with it what it works on."""
        ...


class Workforce(Protocol):
    """Where work is done, by so many workers at the same time. threads: of each on the CPU, None if nobody cares."""

    @property
    def number(self) -> int: ...

    @property
    def threads(self) -> int | None: ...

    def prepare(self, start: Start[Item, Outcome]) -> Callable[[int], Worker[Item, Outcome]]:
        """What makes the worker of a place, from 0 to `number` - 1."""
        ...


def work_through(
    workforce: Workforce, start: Start[Item, Outcome], items: Iterable[Item]
) -> Generator[tuple[Item, Outcome | Exception], None, None]:
    """Each item with its outcome, or with the exception that was raised about it, as they are done.

    An item is drawn when a worker is free. What a worker that died was doing is done by another one, and after `TRIES`
    of them has `WorkerLost` as its outcome. When the iterator is closed, all workers end at once. Raises what `start`
    raised, and `WorkerLost` where workers die while they start.
    """
    hire = workforce.prepare(start)
    source, again = iter(items), deque[_Errand]()
    workers: dict[int, Worker] = {}
    free, busy = deque(range(workforce.number)), dict[Future, _Errand]()
    died_early = 0

    def send(errand: _Errand) -> None:
        errand.place = free.popleft()
        if errand.place not in workers:
            workers[errand.place] = hire(errand.place)
        busy[workers[errand.place].submit(errand.item)] = errand

    try:
        while True:
            while free and (errand := again.popleft() if again else next(map(_Errand, source), None)):
                send(errand)
            if not busy:
                return
            future = next(iter(wait(busy, return_when=FIRST_COMPLETED).done))
            errand = busy.pop(future)
            free.append(errand.place)
            try:
                outcome = future.result()
                died_early = 0
            except WorkerDied as death:
                workers.pop(errand.place).stop()
                if isinstance(death, DiedEarly):
                    died_early += 1
                    if died_early == TRIES:
                        raise WorkerLost(f"{TRIES} workers in a row died while they started (out of memory?)") from None
                else:
                    errand.deaths += 1
                if errand.deaths < TRIES:
                    LOGGER.info("%s; another does its work", death)
                    again.append(errand)
                    continue
                outcome = WorkerLost(f"{TRIES} workers that worked on it died (out of memory?)")
            yield errand.item, outcome
    finally:
        for worker in workers.values():
            worker.stop()


@dataclass
class _Errand:
    """An item on its way. place: of its worker; deaths: of workers that had it."""

    item: Any
    place: int = 0
    deaths: int = 0


def share_of_cores(number: int) -> int:
    """Threads of each of so many processes that together use the machine, and no more."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // number)


# --- in this process -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Here:
    """This process, which works on `number` items at the same time in threads; on one in the calling thread."""

    number: int = 1
    threads: int | None = None

    def prepare(self, start: Start[Item, Outcome]) -> Callable[[int], Worker[Item, Outcome]]:
        if self.threads is not None:
            from tto.device import use_threads

            use_threads(self.threads)
        work = start()
        return lambda place: _Caller(work) if self.number == 1 else _Thread(work)


class _Caller(Generic[Item, Outcome]):
    def __init__(self, work: Callable[[Item], Outcome]):
        self._work = work

    def submit(self, item: Item) -> Future[Outcome | Exception]:
        future = Future()
        future.set_result(_attempt(self._work, item))
        return future

    def stop(self) -> None:
        pass


class _Thread(Generic[Item, Outcome]):
    def __init__(self, work: Callable[[Item], Outcome]):
        self._work, self._thread = work, ThreadPoolExecutor(1)

    def submit(self, item: Item) -> Future[Outcome | Exception]:
        return self._thread.submit(_attempt, self._work, item)

    def stop(self) -> None:
        self._thread.shutdown()


def _attempt(work: Callable[[Item], Outcome], item: Item) -> Outcome | Exception:
    try:
        return work(item)
    except Exception as error:
        return error


def processes(number: int, threads: int | None = None) -> Workforce:
    """So many processes: this one, where one is enough, which then computes with as many threads as it likes."""
    return Here(threads=threads) if number == 1 else Processes(number, threads or share_of_cores(number))


# --- elsewhere -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What a worker elsewhere sends back. remarks: what was logged meanwhile."""

    outcome: Any
    remarks: list[logging.LogRecord]


@dataclass(frozen=True)
class Post:
    """One worker's place: its number, its threads on the CPU, and from which level on it logs."""

    place: int
    threads: int
    level: int


class Remarks(logging.Handler):
    """Keeps what is logged in a form that can be sent."""

    def __init__(self):
        super().__init__()
        self.kept: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args, record.exc_info, record.exc_text = record.getMessage(), None, None, None
        self.kept.append(record)


class Server(Generic[Item, Outcome]):
    """The worker's own side, where it works: starts once, then answers."""

    def __init__(self, start: Start[Item, Outcome], post: Post):
        self._start, self._post = start, post
        self._remarks = Remarks()
        LOGGER.addHandler(self._remarks)
        LOGGER.setLevel(post.level)
        LOGGER.propagate = False

    def start(self) -> Answer:
        """The exception that starting raised, or None."""
        try:
            from tto.device import use_gpu, use_threads

            use_threads(self._post.threads)
            use_gpu(self._post.place)
            self._work = self._start()
        except Exception as error:
            return self._answer(error)
        return self._answer(None)

    def work(self, item: Item) -> Answer:
        return self._answer(_attempt(self._work, item))

    def _answer(self, outcome: Any) -> Answer:
        remarks, self._remarks.kept = self._remarks.kept, []
        return Answer(_sendable(outcome) if isinstance(outcome, Exception) else outcome, remarks)


def _sendable(error: Exception) -> Exception:
    """An error that arrives as what it is to whom it is reported: pickling knows nothing of odd constructors."""
    if isinstance(error, TTOError):
        return TTOError(str(error))
    if type(error).__module__ == "builtins":
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


class RemoteWorker(ABC, Generic[Item, Outcome]):
    """This side of a worker elsewhere: a thread that waits for its answers. `ask` is the way there."""

    def __init__(self):
        self._thread, self._started = ThreadPoolExecutor(1), False

    @abstractmethod
    def ask(self, item: tuple[Item] | None) -> Answer:
        """The answer of `Server.work` to an item, or of `Server.start` to None. Raises `WorkerDied`."""

    def submit(self, item: Item) -> Future[Outcome | Exception]:
        return self._thread.submit(self._do, item)

    def stop(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _do(self, item: Item) -> Outcome | Exception:
        if not self._started:
            try:
                error = self._heard(None)
            except WorkerDied as death:
                raise DiedEarly(str(death)) from None
            if error is not None:
                raise error
            self._started = True
        return self._heard((item,))

    def _heard(self, item: tuple[Item] | None) -> Any:
        answer = self.ask(item)
        for remark in answer.remarks:
            LOGGER.handle(remark)
        return answer.outcome


# --- processes -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Processes:
    """Processes of this machine, which share out its cores and take its GPUs in turn."""

    number: int
    threads: int

    def prepare(self, start: Start[Item, Outcome]) -> Callable[[int], Worker[Item, Outcome]]:
        level = LOGGER.getEffectiveLevel()
        return lambda place: _Process(start, Post(place, self.threads, level))


class _Process(RemoteWorker[Item, Outcome]):
    def __init__(self, start: Start[Item, Outcome], post: Post):
        super().__init__()
        context = multiprocessing.get_context("spawn")  # torch and CUDA do not survive a fork
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(start, post, theirs), daemon=True)
        with _without_signals():
            self._process.start()
        theirs.close()

    def ask(self, item: tuple[Item] | None) -> Answer:
        try:
            self._ours.send(item)
            return self._ours.recv()
        except (EOFError, OSError) as error:
            raise WorkerDied(f"process {self._process.pid} died") from error

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        super().stop()


@contextmanager
def _without_signals() -> Iterator[None]:
    """What is started inside never hears of Ctrl-C, which a terminal tells everybody: who started it ends it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # starting it would let signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(start: Start[Item, Outcome], post: Post, pipe: Connection) -> None:
    """The process: it ends with the one that started it, whatever it is at."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    server = Server(start, post)
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        pipe.send(server.start() if item is None else server.work(*item))
