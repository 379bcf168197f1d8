"""tto info: what a file says about itself, without decoding it."""

from __future__ import annotations

from tto.cli.bars import Bars
from tto.cli.jobs import Made, Printing, Record, check_jobs, end, run_jobs
from tto.cli.naming import TTO_SUFFIX, Job, find_files
from tto.cli.options import Json, Recursive, TTOFiles
from tto.container import MODULES_FINGERPRINT, VERSION, Container, SectionType, read, section_name
from tto.models import ListedModel, how_to_get, known_model, listed_models

EPILOG = """Examples:

tto info photo.tto

tto info -r photos/ --json | jq .bpp"""
MOST_POSITIONS = 1 << 16
"""Of a mask that is read, 16 million pixels: more would take over a second."""


def info(inputs: TTOFiles, recursive: Recursive = False, as_json: Json = False) -> None:
    """Print what .tto files contain; no model is needed, and nothing is decoded."""
    found = find_files(inputs, (TTO_SUFFIX,), recursive)
    jobs, refused = check_jobs([Job(each.file) for each in found])
    printing = Printing(describe, as_json, done_word="read")
    failed = run_jobs(jobs, lambda: lambda parcel: Made(contents(parcel.data)), printing, Bars(0))
    end(refused or failed)


def contents(data: bytes) -> Record:
    """Header and sections of a .tto file. Raises `TTOError` where it is damaged."""
    container = read(data, max_pixels=None)
    header = container.header
    sections = {kind.name.lower(): len(body) for kind, body in container.sections.items()}
    sections |= {section_name(kind): len(body) for kind, body in container.unknown.items()}
    record = {
        "format_version": VERSION,
        "width": header.width,
        "height": header.height,
        "grayscale": header.grayscale,
        "alpha": "alpha" in sections,
        "bytes": len(data),
        "bpp": 8 * len(data) / (header.width * header.height),
        "model_fingerprint": header.fingerprint.hex(),
        "model": known_model(header.fingerprint),
        "quality": header.quality,
        "step_size": header.step_size,
        "native": header.native,
        "sections": sections,
    }
    # How large a latent is only its network says, and none is loaded here.
    if SectionType.COMPENSATION in container.sections and (model := listed_models().get(record["model"])):
        record |= _compensation(container, model)
    return record


def describe(record: Record) -> str:
    channels = ("gray" if record["grayscale"] else "RGB") + (" with alpha" if record["alpha"] else "")
    known = record["model"] or f"not here; {how_to_get(bytes.fromhex(record['model_fingerprint']))}"
    lines = [
        f"{record['input']}: {record['width']}x{record['height']}, {channels}",
        f"  size        {record['bytes']} bytes, {record['bpp']:.4f} bpp",
        f"  quality     {record['quality']:g}, step size {record['step_size']:.4g}",
        f"  model       {record['model_fingerprint']} ({known})",
        f"  arithmetic  {'native (this file is not portable)' if record['native'] else 'portable'}",
        *(f"  {name:<11} {length} bytes" for name, length in record["sections"].items()),
    ]
    if "codes" in record:
        lines.append(f"  mask        {100 * record['mask_share']:.1f} % of positions, {record['codes']} codes")
    return "\n".join(lines)


def _compensation(container: Container, model: ListedModel) -> dict[str, float]:
    """How many positions of the latent have a code: `codes`, and `mask_share` of all; nothing for a large picture."""
    from tto.side.codes import decode_mask

    header = container.header
    sides = (-(-side // model.stride) * model.stride for side in (header.height, header.width))
    height, width = (side // model.y_stride for side in sides)
    if height * width > MOST_POSITIONS:
        return {}
    mask = decode_mask(container.sections[SectionType.COMPENSATION][MODULES_FINGERPRINT:], (height, width))
    return {"mask_share": float(mask.mean()), "codes": int(mask.sum())}
