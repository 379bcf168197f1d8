"""Do files decode wherever they go? Encodes pictures once, decodes each in separate processes that compute differently.

    python scripts/check_portability.py ../kodak --quality 2 4 6 --out portability.csv
    python scripts/check_portability.py ../kodak --quality 1 --crop 256 --model elic.safetensors tcm.safetensors
    python scripts/check_portability.py ../kodak --quality 1 --crop 256 --random mbt2018-mean tcm-small elic-small

Networks after `--random` are made anew, of one rate and with random weights that give latents of natural scales.

Variants of the decoding process: the encoder's own settings, one thread instead of two, oneDNN off, weights of the
synthesis channels-last (the walk in float64 has matrix products alone), and the picture as second of a batch of two. A
row counts index mismatches (symbols with other tables, or a file that does not decode; must be 0) and how many 8-bit
samples differ from the encoder's own reconstruction, and by how much.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from compare_speed import with_natural_latents

from base_models import create_model, list_models, save_checkpoint
from tto.codec import Codec, load_codec
from tto.container import Container, read
from tto.errors import CorruptFile
from tto.image import central, load_picture
from tto.models import DEFAULT_LAMBDA
from tto.table_choice import ByChannel

ENCODER_THREADS = 2


@dataclass(frozen=True)
class Variant:
    """How a decoding process computes."""

    name: str
    threads: int = ENCODER_THREADS
    onednn: bool = True
    channels_last: bool = False
    batch: bool = False


VARIANTS = (
    Variant("same settings"),
    Variant("one thread", threads=1),
    Variant("oneDNN off", onednn=False),
    Variant("channels-last", channels_last=True),
    Variant("in a batch", batch=True),
)


def save_random(name: str, picture: Path, folder: Path) -> str:
    """The path of a checkpoint of a new network of one rate, its latents scaled for a picture."""
    torch.manual_seed(0)
    model = with_natural_latents(create_model(name, lambdas=(DEFAULT_LAMBDA,)), picture).eval()
    model.update_tables(fit_quantiles=True)
    path = folder / f"{name}.safetensors"
    save_checkpoint(model, path)
    return str(path)


def encode(paths: list[Path], crop: int, qualities: list[float], model: str, folder: Path) -> list[Path]:
    """A .tto file and the encoder's own pixels (.npy) for every picture and quality."""
    folder.mkdir()
    torch.set_num_threads(ENCODER_THREADS)
    codec = load_codec(model, "cpu")
    files = []
    for path in paths:
        rgb = central(load_picture(path).rgb, crop)
        for quality in qualities:
            result = codec.compress(rgb, quality)
            files.append(folder / f"{path.stem}-q{quality:g}.tto")
            files[-1].write_bytes(result.data)
            np.save(files[-1].with_suffix(".npy"), np.asarray(result.image))
    return files


def decode_all(variant: Variant, files: list[Path], model: str) -> list[dict]:
    """Decodes all files in this process as `variant` says and compares with the encoder's pixels."""
    torch.set_num_threads(variant.threads)
    codec = load_codec(model, "cpu")
    if variant.channels_last:
        codec.model.to(memory_format=torch.channels_last)
        codec.latent_coder.portable_walker.to(memory_format=torch.channels_last)
    rows = []
    with torch.backends.mkldnn.flags(enabled=variant.onednn):
        for file in files:
            data = file.read_bytes()
            mismatches, differing, largest = 0, 0, 0
            try:
                if variant.batch:
                    mismatches = batch_mismatches(codec, data)
                else:
                    decoded = np.asarray(codec.decompress(data)).astype(int)
                    difference = np.abs(decoded - np.load(file.with_suffix(".npy")))
                    differing, largest = int((difference > 0).sum()), int(difference.max())
            except CorruptFile:
                mismatches = 1
            rows.append({
                "model": Path(model).stem, "variant": variant.name, "file": file.stem, "index_mismatches": mismatches,
                "differing_samples": differing, "largest_difference": largest,
            })  # fmt: skip
    return rows


@torch.inference_mode()
def batch_mismatches(codec: Codec, data: bytes) -> int:
    """Symbols whose tables change when the picture's latent is the second of a batch of two, those excepted that a file
    lists because they lie at a boundary. For a file without a step size of its own.
    """
    container, coder = read(data), codec.latent_coder
    if isinstance(coder.choice, ByChannel):
        return 0  # tables do not depend on what the network computes
    header, walker = container.header, coder.portable_walker
    z_hat, parts = decoded_parts(codec, container)
    wrong = 0

    def replay(i: int, mu: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        nonlocal wrong
        values, expected = parts[i]
        found, near = tables_of(codec, mu[1], sigma[1])
        wrong += int(((found != expected) & ~near).any(0).sum())
        around = 0.0 if walker.grid == "integer" else mu
        return torch.cat([values.flip(-1), values]) + around

    walker.walk(torch.cat([z_hat.flip(-1), z_hat]), header.quality, replay)
    return wrong


def tables_of(codec: Codec, mu: torch.Tensor, sigma: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """What symbols are centred on and which tables code them, int64 [2, n], and where either is at a boundary [n]."""
    choice = codec.latent_coder.choice
    centre = choice.centre(mu.reshape(-1).numpy(), None)
    indexes, near = choice.indexes(sigma.reshape(-1).numpy(), centre)
    return np.stack([centre.shift, indexes]), near


def decoded_parts(codec: Codec, container: Container) -> tuple[torch.Tensor, list[tuple[torch.Tensor, np.ndarray]]]:
    """ẑ of a file, and of each part ŷ less what it is rounded around and `tables_of` it."""
    coder = codec.latent_coder
    walker, parts, z_hats = coder.portable_walker, [], []
    code_all = walker.code

    def listening(z_hat, quality, code_part, **options):
        z_hats.append(z_hat)

        def code(i, mu, sigma):
            y_hat = code_part(i, mu, sigma)
            values = y_hat if walker.grid == "integer" else (y_hat - mu).round()
            parts.append((values, tables_of(codec, mu[0], sigma[0])[0]))
            return y_hat

        return code_all(z_hat, quality, code, **options)

    walker.code = listening
    try:
        header = container.header
        coder.decode(container.sections, codec.latent_shapes(header), header.quality, header.qp, header.native)
    finally:
        del walker.code
    return z_hats[0], parts


def summary(variant: Variant, rows: list[dict]) -> str:
    mismatches, differing = (sum(row[name] for row in rows) for name in ("index_mismatches", "differing_samples"))
    largest = max(row["largest_difference"] for row in rows)
    return (
        f"{variant.name:15} {len(rows)} files, {mismatches} index mismatches, "
        f"{differing} samples differ, by at most {largest}"
    )


def write(rows: list[dict], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quality", type=float, nargs="+", default=[2, 4, 6])
    parser.add_argument("--model", nargs="+", help="dcae-small if no network is named")
    parser.add_argument("--random", nargs="+", default=[], choices=list_models(), metavar="NAME")
    parser.add_argument("--crop", type=int, default=0, help="side of the central square to use, 0 for all")
    parser.add_argument("--pictures", type=int, help="how many of the folder's to use, all if not given")
    parser.add_argument("--out", type=Path, help="CSV with one row per file and variant")
    arguments = parser.parse_args()
    paths = sorted(path for path in arguments.folder.iterdir() if path.suffix.lower() in (".png", ".jpg"))
    paths, rows = paths[: arguments.pictures], []
    with tempfile.TemporaryDirectory() as folder:
        models = arguments.model or ([] if arguments.random else ["dcae-small"])
        models += [save_random(name, paths[0], Path(folder)) for name in arguments.random]
        files = {
            model: encode(paths, arguments.crop, arguments.quality, model, Path(folder) / str(i))
            for i, model in enumerate(models)
        }
        for variant in VARIANTS:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                for model in models:
                    found = process.submit(decode_all, variant, files[model], model).result()
                    rows += found
                    print(f"{Path(model).stem:24} {summary(variant, found)}", flush=True)
                    if arguments.out:
                        write(rows, arguments.out)
    return int(any(row["index_mismatches"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
