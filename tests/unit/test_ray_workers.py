"""Actors on a Ray of this machine: one start for all tests here, as it takes seconds."""

from __future__ import annotations

import importlib
import logging
import os
import signal
from dataclasses import replace
from functools import partial

import pytest

ray = pytest.importorskip("ray")

from ray.exceptions import RayError  # noqa: E402

from tests.many_pictures import check_all_commands, make_pictures, preparations  # noqa: E402
from tests.unit.test_workers import outcomes  # noqa: E402
from tto.cli import main  # noqa: E402
from tto.errors import BadArgument  # noqa: E402
from tto.ray_workers import RayActors, _actors, _connect, on_ray  # noqa: E402
from tto.workers import WorkerLost  # noqa: E402


def node(alive: bool = True, **resources: float) -> dict:
    return {"Alive": alive, "Resources": resources}


def test_there_is_an_actor_for_each_gpu_or_for_so_many_cores():
    nodes = [node(CPU=5, GPU=2), node(CPU=3), node(alive=False, CPU=100, GPU=8)]
    for device, threads, expected in (("auto", 1, (2, 1)), ("cuda", 4, (1, 1)), ("cpu", 1, (8, 0)), ("cpu", 2, (3, 0))):
        found = _actors(nodes, threads, device)
        assert (found.number, found.gpus, found.threads) == (*expected, threads)
        assert found.device == ("cuda" if found.gpus else "cpu")
    assert _actors([node(CPU=2)], 1, "auto").gpus == 0
    with pytest.raises(BadArgument, match="no machine of this Ray has a GPU for --device cuda"):
        _actors([node(CPU=2)], 1, "cuda")
    with pytest.raises(BadArgument, match="no machine of this Ray has 3 cores"):
        _actors([node(CPU=2), node(CPU=2)], 3, "auto")


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "127.0.0.1:99999", "nowhere.invalid:6379"])
def test_an_address_where_no_ray_is_is_refused_at_once(address):
    with pytest.raises(BadArgument, match=f"no Ray at {address}: "):
        _connect(address)


@pytest.fixture(scope="module")
def running():
    """A Ray of this machine, as if it had two cores."""
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    yield
    ray.shutdown()


def test_actors_answer_remark_fail_and_die_as_workers_here_do(running, tmp_path, caplog):
    marker = tmp_path / "killed"
    die_once = f"open({str(marker)!r}, 'x') and __import__('os').kill(__import__('os').getpid(), {signal.SIGKILL})"
    items = [
        "__import__('torch').get_num_threads()",
        "__import__('logging').getLogger('tto.x').warning('a %s', 'remark')",
        "1 / 0",
        die_once,
        "__import__('os').getpid()",
    ]
    with caplog.at_level(logging.WARNING, "tto"), on_ray("", None, "cpu") as actors:
        assert actors.number == 2
        found = outcomes(actors, items)
        with pytest.raises(ZeroDivisionError):
            outcomes(actors, ["1"], partial(eval, "1 / 0"))
    assert found[items[0]] == 1
    assert [record.getMessage() for record in caplog.records if record.name == "tto.x"] == ["a remark"]
    assert isinstance(found[items[2]], ZeroDivisionError)
    assert isinstance(found[die_once], FileExistsError)  # done anew, by another actor
    assert found[items[4]] != os.getpid()


def test_a_machine_that_lacks_a_module_is_told_of_by_its_name(running, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def start():\n    return str\n")
    monkeypatch.syspath_prepend(tmp_path)
    with on_ray("", None, "cpu") as actors, pytest.raises(WorkerLost, match="No module named 'only_here'"):
        outcomes(actors, [1], importlib.import_module("only_here").start)


def test_what_is_lost_with_a_machine_is_done_anew(running, monkeypatch):
    """Results are fetched from where they were made."""
    answers = iter([RayError("lost")])
    get = ray.get
    monkeypatch.setattr("tto.ray_workers.ray.get", lambda ref: _raised(next(answers, None)) or get(ref))
    with on_ray("", None, "cpu") as actors:
        assert outcomes(replace(actors, number=1), ["1 + 1"]) == {"1 + 1": 2}
    assert list(answers) == []


def _raised(error):
    if error is not None:
        raise error


def test_actors_do_what_one_process_does(running, capsys, photograph, tmp_path, tiny_checkpoint, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tto.ray_workers._actors", lambda *arguments: replace(_actors(*arguments), number=1))
    prepared, pictures = preparations(monkeypatch, RayActors), make_pictures(tmp_path / "pictures", photograph)
    check_all_commands(capsys, prepared, pictures, tiny_checkpoint, "--ray")


def test_actors_measure_what_one_process_measures(running, photograph, tmp_path, monkeypatch):
    from tto.bench.coders import anchor_series
    from tto.bench.datasets import open_dataset
    from tto.bench.measure import Machine, measure, plan, sources

    (tmp_path / "in").mkdir()
    photograph(192, 176).save(tmp_path / "in" / "a.png")
    found, prepared = [], preparations(monkeypatch, RayActors)
    with on_ray("", None, "cpu") as actors:
        for workforce in (None, actors):
            machine = Machine(tmp_path / str(len(found)))
            tasks = plan(sources(open_dataset(str(tmp_path / "in"))), anchor_series(["webp"]), machine)[:4]
            rows = measure(tasks, machine, workforce=workforce).rows
            found.append([(row.quality, row.bytes, row.scores["psnr"]) for row in rows])
    assert found[0] == found[1] and len(prepared) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ray", "127.0.0.1:9", "{file}"), "no Ray at 127.0.0.1:9: "),
        (("--ray=127.0.0.1:9", "{file}"), "no Ray at 127.0.0.1:9: "),
        (("--ray", "missing.tto"), "cannot read missing.tto: no such file"),
        (("missing.tto", "--ray"), "cannot read missing.tto: no such file"),
        (("--", "{file}", "--ray"), "cannot read --ray: no such file"),
    ],
)
def test_an_address_may_follow_and_only_an_address(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.setattr("tto.ray_workers.ray.is_initialized", lambda: False)
    file = tmp_path / "x.tto"
    file.write_bytes(b"no file")
    with pytest.raises(SystemExit) as ended:
        main(["verify", *(word.format(file=file) for word in words)])
    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert captured.err.startswith(f"tto: {message}") and captured.out == ""
