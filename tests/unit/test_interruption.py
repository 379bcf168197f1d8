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
