"""Many pictures: throughput of one process, of processes and of Ray actors, and what is lost when they are killed.

    python scripts/measure_throughput.py photos/ --out show --pictures 200 --size 96

Crops of the pictures in a folder are compressed by one process, which makes the reference, and then by every other way:
first undisturbed, then with a worker killed (SIGKILL) after a quarter of the outputs and the program itself after half,
and begun again with --skip-existing. Bytes of all outputs are compared with the reference's, and what was there before
the program was killed must not be written anew. Needs Linux (/proc). Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from PIL import Image

from tto.cli.manifest import MANIFEST
from tto.formats import PICTURE_SUFFIXES

WAYS = {
    "one process, one thread": ("--threads", "1"),
    "one process, all cores": ("--threads", "{cores}"),
    "--jobs 2": ("--jobs", "2"),
    "--ray, 1 actor": ("--ray", "--threads", "{cores}"),
    "--ray, 2 actors": ("--ray", "--threads", "{half}"),
}
KILLED = ("--jobs 2", "--ray, 2 actors")
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Run:
    """seconds: wall clock of the whole command; rate: outputs per second between the first and the last; cpu_seconds:
    of it and of processes that it waited for, which Ray's actors are not.
    """

    seconds: float
    rate: float
    cpu_seconds: float


def main() -> None:
    args = parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    crops = args.out / "pictures"
    make_crops(args.folder, crops, args.pictures, args.size)
    print(f"{args.pictures} pictures of {args.size}x{args.size}, {' '.join(args.options)}; load {load()}\n")
    runs: dict[str, list[Run]] = {way: [] for way in args.ways}
    for _ in range(args.rounds):
        for way in args.ways:
            out = args.out / slug(way)
            shutil.rmtree(out, ignore_errors=True)
            runs[way].append(measure(command(crops, out, WAYS[way], args.options), out))
            check_same(args.out / slug(args.ways[0]), out)
    print_table(runs)
    print(f"\nThe same bytes in every way. Load {load()}.\n")
    for way in filter(KILLED.__contains__, args.ways):
        folder = args.out / f"{slug(way)}-killed"
        print(f"{way}: {kill_and_resume(command(crops, folder, WAYS[way], args.options), folder, args.pictures)}")
        check_same(args.out / slug(args.ways[0]), folder)
        print("    all bytes are those of one process", flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage="%(prog)s [-h] folder [options] [-- options of tto compress]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="of pictures to cut crops from")
    parser.add_argument("--out", type=Path, default=Path("throughput"), help="folder to work in, emptied first")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--size", type=int, default=96, help="pixels a side")
    parser.add_argument("--rounds", type=int, default=1, help="each way in turn, so often; medians are printed")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="the first is the reference")
    given = sys.argv[1:]
    own = given.index("--") if "--" in given else len(given)
    args = parser.parse_args(given[:own])
    args.options = given[own + 1 :]
    if args.folder.resolve().is_relative_to(args.out.resolve()):
        parser.error(f"{args.folder} is in {args.out}, which is emptied")
    return args


def print_table(runs: dict[str, list[Run]]) -> None:
    """Medians over the rounds."""
    print("| way | pictures/s, start-up left out | seconds in all | CPU seconds |\n|---|---|---|---|")
    for way, found in runs.items():
        rate, seconds, cpu = (
            median(getattr(run, name) for run in found) for name in ("rate", "seconds", "cpu_seconds")
        )
        print(f"| {way} | {rate:.2f} | {seconds:.1f} | {cpu:.1f} |", flush=True)


def make_crops(folder: Path, out: Path, number: int, size: int) -> None:
    """As many from each picture, in a tree of one folder for each."""
    sources = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    for index in range(number):
        source, turn = sources[index % len(sources)], index // len(sources)
        with Image.open(source) as image:
            columns, rows = image.width // size, image.height // size
            x, y = turn % columns, turn // columns % rows
            place = out / source.stem / f"{turn:03d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            image.convert("RGB").crop((x * size, y * size, (x + 1) * size, (y + 1) * size)).save(place)


def command(crops: Path, out: Path, way: tuple[str, ...], options: list[str]) -> list[str]:
    cores = len(os.sched_getaffinity(0))
    told = [word.format(cores=cores, half=max(1, cores // 2)) for word in way]
    return [sys.executable, "-m", "tto", "--quiet", "compress", "-r", str(crops), "-o", str(out), *told, *options]


def measure(words: list[str], out: Path) -> Run:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, check=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    times = sorted(path.stat().st_mtime for path in outputs(out))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(seconds, (len(times) - 1) / (times[-1] - times[0]), cpu)


def kill_and_resume(words: list[str], out: Path, number: int) -> str:
    """What happened, in words. Raises SystemExit where something was lost or done twice."""
    program = subprocess.Popen(words)
    wait_for(lambda: len(outputs(out)) >= number // 4, program)
    worker = max(workers_of(program.pid))
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: len(outputs(out)) >= number // 2, program)
    left = workers_of(program.pid)
    program.kill()
    program.wait()
    wait_for(lambda: not any(map(words_of, left)))  # a zombie has none
    before = {path: path.stat().st_mtime_ns for path in outputs(out)}
    unfinished = [path for path in out.rglob("*") if path.is_file() and path not in before and path.name != MANIFEST]
    demand(not unfinished, f"half-written: {unfinished}")
    subprocess.run([*words, "--skip-existing"], check=True)
    again = [path for path, modified in before.items() if path.stat().st_mtime_ns != modified]
    demand(not again, f"written twice: {again}")
    demand(len(outputs(out)) == number, f"{len(outputs(out))} outputs of {number}")
    lines = [json.loads(line)["output"] for line in (out / MANIFEST).read_text().splitlines()[1:]]
    demand(len(set(lines)) == number, f"the manifest tells of {len(set(lines))} outputs")
    return (
        f"worker {worker} killed after {number // 4} outputs, the program after {len(before)}; a second run wrote the "
        f"other {number - len(before)}, and none anew; the manifest has {len(lines)} lines for {number} outputs"
    )


def outputs(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.tto"))


def workers_of(process: int) -> list[int]:
    """Below a process, those that spawned Python or Ray calls by a worker's name."""
    return [one for one in descendants(process) if any(name in words_of(one) for name in ("spawn_main", "ray::Server"))]


def descendants(process: int) -> Iterator[int]:
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except FileNotFoundError:
        return
    for child in children:
        yield child
        yield from descendants(child)


def words_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def wait_for(condition: Callable[[], bool], program: subprocess.Popen | None = None) -> None:
    while not condition():
        demand(program is None or program.poll() is None, "the program ended too early")
        time.sleep(POLL_SECONDS)


def check_same(reference: Path, out: Path) -> None:
    """Raises SystemExit unless both folders hold the same files."""
    places = [[path.relative_to(folder) for path in outputs(folder)] for folder in (reference, out)]
    demand(places[0] == places[1], f"{out} has other files than {reference}")
    for place in places[0]:
        demand((reference / place).read_bytes() == (out / place).read_bytes(), f"{out / place} has other bytes")


def demand(condition: bool, otherwise: str) -> None:
    if not condition:
        sys.exit(f"measure_throughput: {otherwise}")


def slug(way: str) -> str:
    return "-".join(way.replace("-", " ").replace(",", " ").split())


def load() -> str:
    return " ".join(f"{one:.1f}" for one in os.getloadavg())


if __name__ == "__main__":
    main()
