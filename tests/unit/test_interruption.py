"""Signals while something is done."""

from __future__ import annotations

import signal

import pytest

from tto.interruption import Interruption, held_back, termination_raised


@pytest.mark.parametrize("inside", [Interruption().caught, held_back, termination_raised])
def test_a_handler_that_python_did_not_set_is_the_default_afterwards(inside, monkeypatch):
    set_handlers, handle = [], signal.signal

    def foreign(number, handler):
        set_handlers.append((number, handler))
        handle(number, handler)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(signal, "signal", foreign)
    try:
        with inside():
            began = len(set_handlers)
        assert {handler for _, handler in set_handlers[began:]} == {signal.SIG_DFL}
    finally:
        for number, handler in before.items():
            handle(number, handler)


def test_a_second_ctrl_c_acts_as_usual():
    interruption = Interruption()
    with pytest.raises(KeyboardInterrupt), interruption.caught():
        signal.raise_signal(signal.SIGINT)
        assert interruption.number == signal.SIGINT
        signal.raise_signal(signal.SIGINT)


def test_a_sigterm_that_comes_twice_at_once_is_one(monkeypatch):
    """As from a launcher and from the system that ended it."""
    now, ended = [100.0], []
    monkeypatch.setattr("tto.interruption.time.monotonic", lambda: now[0])
    before = signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    try:
        interruption = Interruption()
        with interruption.caught():
            for seconds in (0, 1, 5):
                now[0] = 100.0 + seconds
                signal.raise_signal(signal.SIGTERM)
                assert interruption.number == signal.SIGTERM and bool(ended) == (seconds == 5)
    finally:
        signal.signal(signal.SIGTERM, before)
