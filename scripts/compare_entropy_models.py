"""What the papers' entropy models bring: validation loss of small networks after equal steps on equal crops.

    python scripts/compare_entropy_models.py PHOTOS OTHER_PHOTOS --seed 1 --out comparison
    python scripts/compare_entropy_models.py PHOTOS OTHER_PHOTOS --seed 2 --seed 3 --only "ELIC, own" --out comparison

Every network and seed has a run folder below `--out`. What is finished there is not trained again, and what was
interrupted goes on; a network that cannot be trained does not keep the others from it. `comparison.csv` has one row per
run by these settings, and a table of means and spreads is printed at the end. Changes are against the first network of
a group, seed by seed. The loss is R + λ·255²·MSE, bits estimated, on whole images.

Steps, crops and their order are the same for all networks; so is the noise of latents within a group, but for the
global token's, which has more of z. Networks of several predictions train by the bits of each of them, weighted in
their sum.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import measuring
import torch
import typer

from base_models import CheckpointError, load_checkpoint
from tto.bench.tables import markdown
from tto.errors import BadArgument, TTOError
from tto.interruption import Interrupted
from tto.train.recipe import Recipe
from tto.train.recipe_file import load_recipe
from tto.train.run import train_recipe
from tto.train.run_folder import RunFolder, read_metrics

RECIPE = Path(__file__).parents[1] / "recipes" / "entropy-models-small.yaml"
LAMBDA = 0.013
ALIKE = ("model", "seed", "precision", "ema_decay", "data", "stages", "validation")
"""What of a recipe decides on the figures."""


@dataclass(frozen=True)
class Network:
    """A registered model, and how its configuration differs. `weights` of its predictions' rates in the loss."""

    name: str
    config: dict[str, Any] | None = None
    weights: tuple[float, ...] | None = None

    def overrides(self, seed: int) -> list[str]:
        config = {"lambdas": [LAMBDA]} | (self.config or {})
        settings = [f"model.name={self.name}", f"model.config={config}", f"seed={seed}"]
        return settings + ([f"stages.main.loss.rate_weights={list(self.weights)}"] if self.weights else [])


THREE, TWO = (0.1, 0.1, 0.8), (0.2, 0.8)  # Qian 2021, §5.1 without its warm-up, and ours
NETWORKS: dict[str, Network] = {
    # Lu 2025, Tables 2 and 5
    "DCAE, no dictionary": Network("dcae-small", {"dict_entries": 0, "msfa_scales": 0}),
    "DCAE, dictionary": Network("dcae-small", {"msfa_scales": 0}),
    "DCAE, dictionary + aggregation": Network("dcae-small"),
    "DCAE, global token": Network("dcae-small-global-token"),
    # Lu 2025, supplement Table 1
    "ELIC, own": Network("elic-small"),
    "ELIC, dictionary": Network("elic-small-dictionary"),
    "ELIC, both": Network("elic-small-both"),
    "TCM, own": Network("tcm-small"),
    "TCM, dictionary": Network("tcm-small-dictionary"),
    "FTIC, own": Network("ftic-small"),
    "FTIC, dictionary": Network("ftic-small-dictionary"),
    # Qian 2021, Fig. 7; the first is Minnen 2018 as it was, its one network for context and hyperprior together
    "mbt2018": Network("mbt2018", {"N": 64, "M": 128}),
    "mbt2018, one after the other": Network("grm-small", {"reference": False, "gsdn": False}, TWO),
    "mbt2018, reference": Network("grm-small", {"gsdn": False}, THREE),
    "mbt2018, GSDN": Network("grm-small", {"reference": False}, TWO),
    "mbt2018, reference + GSDN": Network("grm-small", None, THREE),
}


@dataclass(frozen=True)
class Row:
    """One run. `loss`, `bpp` and `psnr` are the last validation's."""

    network: str
    seed: int
    parameters: int
    steps: int
    minutes: float
    loss: float
    bpp: float
    psnr: float


def main(
    train: Annotated[Path, typer.Argument(help="Images to train on.")],
    val: Annotated[Path, typer.Argument(help="Images to validate on.")],
    seed: Annotated[list[int], typer.Option(help="Several times.")],
    only: Annotated[list[str] | None, typer.Option(help="Names of networks, or how several begin.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Further settings of the recipe, key=value.")] = None,
    threads: int = 1,
    out: Path = Path("comparison"),
) -> None:
    torch.set_num_threads(threads)
    images = [f"data.train={train}", f"data.val={val}", *(set_ or [])]
    for asked in only or ():
        if not any(names(asked, name) for name in NETWORKS):
            raise BadArgument(f"no network {asked!r}: there are {'; '.join(NETWORKS)}")
    chosen = [name for name in NETWORKS if only is None or any(names(asked, name) for asked in only)]
    failed = False
    for number in seed:
        for name in chosen:
            try:
                train_one(NETWORKS[name], number, images, folder_of(out, name) / f"seed-{number}")
            except Interrupted:
                raise
            except TTOError as error:
                print(f"{name}, seed {number}: {error}", flush=True)
                failed = True
            write(finished(out, images), out / "comparison.csv")
    print(report(finished(out, images)), end="")
    if failed:
        raise typer.Exit(1)


def names(asked: str, name: str) -> bool:
    """Whether that network is asked for: by its name, or if none has it by how it begins."""
    return name == asked or (asked not in NETWORKS and name.startswith(asked))


def write(rows: Sequence[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(field.name for field in fields(Row))
        table.writerows(astuple(row) for row in rows)


def train_one(network: Network, seed: int, settings: Sequence[str], folder: Path) -> None:
    """Raises as `train_recipe`, also `Interrupted`, after which it can go on, and `BadArgument` where that cannot be:
    the run was begun with other settings.
    """
    run, overrides = RunFolder(folder, writes=False), [*network.overrides(seed), *settings]
    if not any(run.checkpoints.glob("step-*")):
        train_recipe(RECIPE, overrides, folder)
        return
    if not same_training(load_recipe(run.recipe), load_recipe(RECIPE, overrides)):
        raise BadArgument(f"{folder} was begun with other settings: move it away")
    if not last_validation(run):
        train_recipe(run.recipe, [], folder, resume=True)


def same_training(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes train and validate alike, whatever they log and keep."""
    return all(getattr(one, key) == getattr(other, key) for key in ALIKE)


def last_validation(run: RunFolder) -> dict | None:
    """Of a run that is at its last step and has written its network, else None."""
    if not (run.metrics.is_file() and run.model.is_file()):
        return None
    validations = [record for record in read_metrics(run.metrics) if record["kind"] == "validation"]
    steps = load_recipe(run.recipe).stages[0].steps
    return validations[-1] if validations and validations[-1]["total_steps"] == steps else None


def finished(out: Path, settings: Sequence[str]) -> list[Row]:
    """Rows of all finished runs below `out` that had these settings, in the order of `NETWORKS`."""
    rows = []
    for name, network in NETWORKS.items():
        for path in sorted(folder_of(out, name).glob("seed-*")):
            if not (found := re.fullmatch(r"seed-(\d+)", path.name)):
                continue
            run, seed = RunFolder(path, writes=False), int(found[1])
            last = last_validation(run)
            asked = load_recipe(RECIPE, [*network.overrides(seed), *settings])
            if last and same_training(load_recipe(run.recipe), asked):
                try:
                    parameters = sum(value.numel() for value in load_checkpoint(run.model).parameters())
                except CheckpointError as error:
                    print(f"{name}, seed {seed}: left out: {error}", flush=True)
                    continue
                figures = (last["total_steps"], last["seconds"] / 60, last["loss"], last["bpp"][0], last["psnr"][0])
                rows.append(Row(name, seed, parameters, *figures))
    return rows


def folder_of(out: Path, name: str) -> Path:
    return out / re.sub("[^a-zA-Z0-9]+", "-", name)


def report(rows: Sequence[Row]) -> str:
    """Of each network: size, steps, minutes, loss and its change in percent. Means and ranges are over its seeds, of
    the change over those that the first of its group has, too: a seed's crops are the same for all.
    """
    groups = {name: re.split(r"\W", name)[0] for name in NETWORKS}
    bases = {group: name for name, group in reversed(groups.items())}
    runs: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        runs[row.network][row.seed] = row
    lines = []
    for name, by_seed in runs.items():
        base, some = runs.get(bases[groups[name]], {}), [*by_seed.values()]
        changes = [100 * (row.loss / base[seed].loss - 1) for seed, row in by_seed.items() if seed in base]
        lines.append((
            name, f"{some[0].parameters / 1e6:.2f}", f"{some[0].steps}", f"{mean(row.minutes for row in some):.0f}",
            f"{mean(row.loss for row in some):.4f}", _range([row.loss for row in some], ".4f"),
            " ".join(map(str, by_seed)),
            f"{mean(changes):+.2f} %" if changes else "–",
            _range(changes, "+.2f"),
        ))  # fmt: skip
    header = ("network", "M parameters", "steps", "minutes", "loss", "range", "seeds", "change", "range")
    return markdown(header, lines)


def _range(values: Sequence[float], form: str) -> str:
    return f"{min(values):{form}} … {max(values):{form}}" if len(values) > 1 else "–"


if __name__ == "__main__":
    measuring.run(main)
