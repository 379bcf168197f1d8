"""Workers that start once: the same outcomes in every way, and nothing lost when one dies."""

from __future__ import annotations

import logging
import os
import signal
from collections import Counter
from concurrent.futures import Future
from functools import partial

import pytest

from tto.errors import BadArgument, CorruptFile, TTOError
from tto.interruption import Terminated, termination_raised
from tto.workers import (
    TRIES,
    Here,
    Processes,
    WorkerDied,
    WorkerLost,
    processes,
    share_of_cores,
    work_through,
)

EVALUATION = partial(partial, eval)
"""Starts what evaluates an expression: any process can import that."""


def outcomes(workforce, items, start=EVALUATION) -> dict:
    return dict(work_through(workforce, start, items))


class FakeWorkforce:
    """Tells what was hired, tried and stopped. dies(item, times): whether a worker dies with an item, tried so often;
    starts: futures of starts, one after the other, then all at once.
    """

    threads = None

    def __init__(self, number, dies=lambda item, times: False, starts=()):
        self.number, self.dies, self.starts = number, dies, iter(starts)
        self.hired, self.stopped, self.tries = [], 0, Counter()

    def prepare(self, start):
        work = start()

        def hire(place):
            self.hired.append(place)
            return FakeWorker(self, place, work)

        return hire


class FakeWorker:
    def __init__(self, workforce, place, work):
        self.workforce, self.place, self.work = workforce, place, work

    def start(self):
        return next(self.workforce.starts, None) or done(None)

    def submit(self, item):
        self.workforce.tries[item] += 1
        return dead() if self.workforce.dies(item, self.workforce.tries[item]) else done(self.work(item))

    def stop(self):
        self.workforce.stopped += 1


def done(outcome) -> Future:
    future = Future()
    future.set_result(outcome)
    return future


def dead() -> Future:
    future = Future()
    future.set_exception(WorkerDied("dead"))
    return future


@pytest.mark.parametrize("number", [1, 3])
def test_what_fails_is_an_outcome_like_any_other(number):
    found = outcomes(Here(number), ["1 + 1", "1 / 0", "2 + 2"])
    assert (found["1 + 1"], found["2 + 2"]) == (2, 4)
    assert isinstance(found["1 / 0"], ZeroDivisionError)


def test_items_are_drawn_when_a_worker_is_free():
    drawn = []

    def items():
        for number in range(5):
            drawn.append(number)
            yield number

    pairs = work_through(FakeWorkforce(2), lambda: str, items())
    assert drawn == []
    next(pairs)
    assert drawn == [0, 1]
    next(pairs)
    assert drawn == [0, 1, 2]
    pairs.close()


def test_what_a_worker_that_died_was_doing_is_done_by_another():
    force = FakeWorkforce(2, lambda item, times: item == 3 and times == 1)
    assert outcomes(force, range(6), lambda: str) == {number: str(number) for number in range(6)}
    assert force.tries == {number: 1 + (number == 3) for number in range(6)}
    assert force.stopped == len(force.hired) >= 2


def test_an_item_that_no_worker_survives_is_given_up_and_the_others_are_done():
    force = FakeWorkforce(2, lambda item, times: item == 3)
    found = outcomes(force, range(6), lambda: str)
    assert force.tries[3] == TRIES and isinstance(found.pop(3), WorkerLost)
    assert found == {number: str(number) for number in (0, 1, 2, 4, 5)}


def test_workers_that_cannot_even_start_end_it():
    force = FakeWorkforce(2, starts=[dead() for _ in range(100)])
    with pytest.raises(WorkerLost, match="while they started .out of memory.*: dead"):
        outcomes(force, range(100), lambda: str)
    assert len(force.hired) <= TRIES + 2 and not force.tries
    assert force.stopped == len(force.hired)


def test_a_worker_that_dies_while_it_starts_costs_its_item_nothing():
    force = FakeWorkforce(1, starts=[dead() for _ in range(TRIES - 1)])
    assert outcomes(force, ["a"], lambda: str.upper) == {"a": "A"}
    assert force.tries == {"a": 1}


def test_a_worker_that_never_comes_holds_up_nothing():
    """As an actor for which a cluster has no place."""
    force = FakeWorkforce(2, starts=[Future()])
    assert outcomes(force, range(5), lambda: str) == {number: str(number) for number in range(5)}
    assert force.stopped == len(force.hired) == 2


def test_workers_end_when_their_work_is_left():
    force = FakeWorkforce(3)
    pairs = work_through(force, lambda: str, range(10))
    next(pairs)
    pairs.close()
    assert force.stopped == len(force.hired) > 0


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_worker_starts_ends_that_worker_too(number):
    """Half started, a process would print a traceback and nobody would know of it."""
    force = FakeWorkforce(1)
    prepare, is_whole = force.prepare, []

    def prepare_with_a_signal(start):
        hire = prepare(start)

        def hire_with_a_signal(place):
            signal.raise_signal(number)
            is_whole.append(place)
            return hire(place)

        return hire_with_a_signal

    force.prepare = prepare_with_a_signal
    with termination_raised(), pytest.raises(KeyboardInterrupt) as ended:
        outcomes(force, ["a"], lambda: str.upper)
    assert isinstance(ended.value, Terminated) == (number == signal.SIGTERM)
    assert (is_whole, force.stopped) == ([0], 1)


def test_no_item_is_no_worker():
    force = FakeWorkforce(3)
    assert outcomes(force, [], lambda: str) == {} and force.hired == []


def test_cores_are_shared_out_and_never_less_than_one(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(12)), raising=False)
    assert [share_of_cores(number) for number in (1, 5, 20)] == [12, 2, 1]
    assert processes(1) == Here() and processes(2) == Processes(2, share_of_cores(2))


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_processes_answer_remark_fail_and_die_as_workers_here_do(tmp_path, caplog):
    marker = tmp_path / "killed"
    die_once = f"open({str(marker)!r}, 'x') and __import__('os').kill(__import__('os').getpid(), {signal.SIGKILL})"
    items = [
        "__import__('torch').get_num_threads()",
        "__import__('logging').getLogger('tto.x').warning('a %s', 'remark')",
        "1 / 0",
        "__import__('tto.files').files.read_bytes('/none')",
        die_once,
        "__import__('os').getpid()",
    ]
    with caplog.at_level(logging.WARNING, "tto"):
        found = outcomes(Processes(2, 3), items)
    assert found[items[0]] == 3
    assert [record.getMessage() for record in caplog.records if record.name == "tto.x"] == ["a remark"]
    assert isinstance(found[items[2]], ZeroDivisionError)
    assert type(found[items[3]]) is TTOError and str(found[items[3]]).startswith("cannot read /none")
    assert isinstance(found[die_once], FileExistsError)  # done anew, by another process
    assert found[items[5]] != os.getpid()


def test_errors_of_ours_keep_their_message_on_their_way():
    from tto.workers import _sendable

    error = _sendable(CorruptFile("header", "odd"))
    assert type(error) is TTOError and str(error) == "corrupt file: header: odd"
    assert str(_sendable(type("Odd", (Exception,), {})("text"))) == "Odd: text"


def test_what_starting_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        outcomes(Processes(1, 1), ["1"], partial(eval, "1 / 0"))
    with pytest.raises(BadArgument):
        outcomes(Here(), ["1"], partial(_raise, BadArgument("no")))


def _raise(error):
    raise error
