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
from tto.interruption import held_back

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


class Worker(Protocol[ItemIn, Outcome]):
    """Starts once, then does one item at a time. Futures raise `WorkerDied`."""

    def start(self) -> Future[None]:
        """Raises what `start` raised, too."""
        ...

    def submit(self, item: ItemIn) -> Future[Outcome | Exception]:
        """The outcome, or what `start`'s function raised."""
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

    An item is drawn when there is a place for it. What a worker that died was doing is done by another one, and after
    `TRIES` of them has `WorkerLost` as its outcome. When the iterator is closed, all workers end at once. Raises what
    `start` raised, and `WorkerLost` where workers die while they start.
    """
    crew, source, waiting = _Crew(workforce.prepare(start), workforce.number), iter(items), deque[_Errand]()
    try:
        while True:
            while len(waiting) < crew.places_left and (errand := next(map(_Errand, source), None)):
                waiting.append(errand)
            crew.take(waiting)
            if not crew.busy and not waiting:
                return
            errand, future = crew.wait()
            if errand is None:
                continue
            try:
                outcome = future.result()
            except WorkerDied as death:
                errand.deaths += 1
                if errand.deaths < TRIES:
                    LOGGER.warning("%s; another does its work", death)
                    waiting.append(errand)
                    continue
                outcome = WorkerLost(f"{TRIES} workers that worked on it died (out of memory?)")
            yield errand.item, outcome
    finally:
        crew.stop()


@dataclass
class _Errand:
    """An item on its way. deaths: of workers that had it."""

    item: Any
    deaths: int = 0


class _Crew:
    """Places, each of which is vacant, starting, free or busy. A worker that never comes (on a full cluster) holds up
    nothing.
    """

    def __init__(self, hire: Callable[[int], Worker], number: int):
        self._hire, self._number = hire, number
        self._workers: dict[int, Worker] = {}
        self._vacant, self._free = deque(range(number)), deque[int]()
        self._starting: dict[Future, int] = {}
        self._died_early = 0
        self.busy: dict[Future, tuple[int, _Errand]] = {}

    @property
    def places_left(self) -> int:
        return self._number - len(self.busy)

    def take(self, waiting: deque[_Errand]) -> None:
        """Send free workers on errands, and hire as many as are missing."""
        while self._free and waiting:
            place, errand = self._free.popleft(), waiting.popleft()
            self.busy[self._workers[place].submit(errand.item)] = place, errand
        while self._vacant and len(self._starting) < len(waiting):
            place = self._vacant.popleft()
            with held_back():  # else a signal could leave a worker that nobody ends
                self._workers[place] = self._hire(place)
            self._starting[self._workers[place].start()] = place

    def wait(self) -> tuple[_Errand | None, Future]:
        """An errand that came to its end, or None where a worker has started, or died while it did."""
        future = next(iter(wait([*self.busy, *self._starting], return_when=FIRST_COMPLETED).done))
        death = future.exception()
        is_dead = isinstance(death, WorkerDied)
        place, errand = self.busy.pop(future) if future in self.busy else (self._starting.pop(future), None)
        if is_dead:
            self._workers.pop(place).stop()
        (self._vacant if is_dead else self._free).append(place)
        if errand is None:
            self._count_start(death if is_dead else None)
            if not is_dead:
                future.result()
        return errand, future

    def stop(self) -> None:
        for worker in self._workers.values():
            worker.stop()

    def _count_start(self, death: BaseException | None) -> None:
        self._died_early = 0 if death is None else self._died_early + 1
        if self._died_early == TRIES:
            raise WorkerLost(f"{TRIES} workers in a row died while they started (out of memory?): {death}")


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

    def start(self) -> Future[None]:
        return _done(None)

    def submit(self, item: Item) -> Future[Outcome | Exception]:
        return _done(_attempt(self._work, item))

    def stop(self) -> None:
        pass


class _Thread(Generic[Item, Outcome]):
    def __init__(self, work: Callable[[Item], Outcome]):
        self._work, self._thread = work, ThreadPoolExecutor(1)

    def start(self) -> Future[None]:
        return _done(None)

    def submit(self, item: Item) -> Future[Outcome | Exception]:
        return self._thread.submit(_attempt, self._work, item)

    def stop(self) -> None:
        self._thread.shutdown()


def _done(outcome: Any) -> Future[Any]:
    future = Future()
    future.set_result(outcome)
    return future


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
        self._thread = ThreadPoolExecutor(1)

    @abstractmethod
    def ask(self, item: tuple[Item] | None) -> Answer:
        """The answer of `Server.work` to an item, or of `Server.start` to None. Raises `WorkerDied`."""

    def start(self) -> Future[None]:
        return self._thread.submit(self._begin)

    def submit(self, item: Item) -> Future[Outcome | Exception]:
        return self._thread.submit(self._heard, (item,))

    def stop(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> None:
        if (error := self._heard(None)) is not None:
            raise error

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
