"""One picture through the codec and back."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

import tto
import tto.codec
from base_models import create_model
from base_models.tiles import Chain
from tto.codec import Codec, rd_cost
from tto.container import Container, Header, SectionType, join_y, read, write
from tto.errors import BadArgument, BadCheckpoint, CorruptFile, LimitExceeded, WrongModel
from tto.latent_coding import TABLES_KEPT
from tto.memory import Room
from tto.refine.distortion import SquaredError
from tto.request import MAX_LAMBDA
from tto.side.weights import SideConfig, SideModules


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


@pytest.mark.parametrize("size", [(1, 1), (300, 1), (63, 65), (127, 129), (64, 64)])
def test_every_size_round_trips_to_the_encoders_own_pixels(small_codec, size, photograph):
    result = small_codec.compress(photograph(*size), quality=3)
    decoded = small_codec.decompress(result.data)
    assert decoded.size == size
    assert np.array_equal(pixels(decoded), pixels(result.image))


@pytest.fixture
def tiled(small_codec, monkeypatch) -> Callable[[], AbstractContextManager[list[int]]]:
    """`tiled()`: within it the codec has room for tiles only. Gives how many tiles each run had."""

    @contextmanager
    def arrange() -> Iterator[list[int]]:
        counts, tiles = [], Chain.tiles
        with monkeypatch.context() as patch:
            patch.setattr(Chain, "tiles", lambda chain, *of: counts.append(len(found := tiles(chain, *of))) or found)
            patch.setattr("tto.memory.WHOLE", 0)
            for owner, name in ((small_codec, "room"), (small_codec.latent_coder, "_room")):
                patch.setattr(owner, name, Room(2.5e6))
            yield counts

    return arrange


def test_file_made_over_tiles_decodes_whole_and_the_other_way_round(small_codec, tiled, photograph):
    """What differs is rounding: at most one level of 255, at tiles' borders as elsewhere."""
    picture = photograph(256, 128)
    whole = small_codec.compress(picture)
    with tiled() as counts:
        over_tiles = small_codec.compress(picture)
        counts.clear()
        decoded_over_tiles = pixels(small_codec.decompress(whole.data))
        assert max(counts) > 1
    assert over_tiles.bytes == pytest.approx(whole.bytes, abs=8)
    decoded_whole = pixels(small_codec.decompress(over_tiles.data))
    for decoded, expected in ((decoded_over_tiles, whole.array), (decoded_whole, over_tiles.array)):
        assert np.abs(decoded.astype(int) - expected).max() <= 1 and (decoded != expected).mean() < 1e-3


def test_refinement_over_tiles_ends_where_that_of_the_whole_does(small_codec, tiled, photograph):
    picture = photograph(128, 128)
    whole = small_codec.compress(picture, steps=3)
    with tiled() as counts:
        over_tiles = small_codec.compress(picture, steps=3)
    assert max(counts) > 1
    assert pytest.approx(whole.J, rel=1e-3) == over_tiles.J
    assert over_tiles.base_J > over_tiles.J


@pytest.mark.parametrize("reduced", [False, True])
def test_gradients_are_in_bfloat16_where_the_machine_multiplies_it_and_files_are_right(
    small_model, photograph, monkeypatch, reduced
):
    monkeypatch.setattr("tto.codec.descends_in_bfloat16", lambda device: reduced)
    codec, types, refine = Codec(small_model, "cpu"), set(), tto.codec.refine

    def listening(problem, *arguments):
        types.update(weights.dtype for weights in (problem.lowered or problem.model).parameters())
        return refine(problem, *arguments)

    monkeypatch.setattr("tto.codec.refine", listening)
    result = codec.compress(photograph(64, 64), steps=3)
    assert (torch.bfloat16 in types) == reduced
    assert result.steps == 3 and result.base_J > result.J
    assert np.array_equal(pixels(codec.decompress(result.data)), result.array)


@pytest.mark.parametrize("switched_off", [torch.no_grad, torch.inference_mode])
def test_gradients_that_the_caller_switched_off_are_there_for_refinement(small_codec, photograph, switched_off):
    picture = photograph(70, 50)
    with switched_off():
        found = small_codec.compress(picture, quality=3, steps=12)
    assert found.data == small_codec.compress(picture, quality=3, steps=12).data and found.base_J > found.J


@pytest.mark.parametrize("steps", [0, 2])
def test_latents_are_gone_before_the_file_is_decoded(small_codec, photograph, monkeypatch, steps):
    latents, decode = [], small_codec._decode

    def analyse(rgb, quality):
        found = Codec.analyse(small_codec, rgb, quality)
        latents.extend(map(weakref.ref, found))
        return found

    def decode_alone(data, **options):
        assert len(latents) == 2 and all(latent() is None for latent in latents)
        return decode(data, **options)

    monkeypatch.setattr(small_codec, "analyse", analyse)
    monkeypatch.setattr(small_codec, "_decode", decode_alone)
    small_codec.compress(photograph(64, 64), steps=steps)


def test_container_adds_at_most_64_bytes_to_the_range_coded_payload(small_codec, photograph):
    result = small_codec.compress(photograph(128, 96), quality=4)
    sections = read(result.data).sections
    checksums = 4 * small_codec.model.slices
    payload = len(sections[SectionType.Z]) + len(sections[SectionType.Y]) - checksums
    assert result.bytes - payload <= 64


def test_figures_are_those_of_bytes_and_decoded_pixels(small_codec, photograph):
    original = photograph(100, 80)
    result = small_codec.compress(original, quality=2, lambda_=0.01)
    mse = np.mean((pixels(original).astype(float) - pixels(small_codec.decompress(result.data))) ** 2)
    assert result.bytes == len(result.data)
    assert result.bpp == pytest.approx(8 * len(result.data) / 8000)
    assert result.psnr == pytest.approx(10 * np.log10(255**2 / mse))
    assert pytest.approx(result.bpp + 0.01 * mse) == result.J
    assert result.base_bytes == result.bytes
    assert (result.base_psnr, result.base_J) == (result.psnr, result.J)


def test_rate_rises_with_quality_and_decimals_are_between(small_codec, photograph):
    sizes = [small_codec.compress(photograph(192, 128), quality=q).bytes for q in (1, 4, 4.5, 5, 8)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == len(sizes)


def test_native_files_say_so_and_round_trip(small_codec, photograph):
    result = small_codec.compress(photograph(100, 80), quality=4, native=True)
    assert read(result.data).header.native
    assert np.array_equal(pixels(small_codec.decompress(result.data)), pixels(result.image))


def test_gray_stays_gray_and_alpha_stays_exact(small_codec, photograph):
    gray = photograph(70, 50).convert("L")
    assert small_codec.compress(gray, quality=3).image.mode == "L"
    rgba = photograph(70, 50).convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize((70, 50)))
    decoded = small_codec.decompress(small_codec.compress(rgba, quality=3).data)
    assert decoded.mode == "RGBA"
    assert np.array_equal(pixels(decoded)[..., 3], pixels(rgba)[..., 3])


def test_published_models_of_one_rate_have_one_quality(photograph):
    from base_models import create_model

    torch.manual_seed(0)
    model = create_model("dcae-small", lambdas=(0.013,))
    model.init_from_images(torch.rand(2, 3, 64, 64))
    model.update_tables()
    codec = Codec(model.eval().requires_grad_(False), device="cpu")
    assert codec.qualities == 1
    result = codec.compress(photograph(64, 64), quality=1)
    assert np.array_equal(pixels(codec.decompress(result.data)), pixels(result.image))
    with pytest.raises(BadArgument):
        codec.compress(photograph(64, 64), quality=2)


def test_file_of_another_model_is_refused(small_codec, small_model, photograph):
    import copy

    other = copy.deepcopy(small_model)
    with torch.no_grad():
        other.g_s[0].bias[0] += 1e-3
    data = small_codec.compress(photograph(64, 64), quality=3).data
    with pytest.raises(WrongModel):
        Codec(other, device="cpu").decompress(data)
    with pytest.raises(WrongModel):
        tto.decompress(data)


@pytest.mark.parametrize("quality", [0, 0.99, 8.01, float("nan"), float("inf")])
def test_quality_out_of_range_is_refused(small_codec, quality, photograph):
    with pytest.raises(BadArgument):
        small_codec.compress(photograph(64, 64), quality=quality)


@pytest.mark.parametrize("lambda_", [0, -1, float("nan"), float("inf"), 1e300, "1", True])
def test_senseless_lambda_is_refused(small_codec, lambda_, photograph):
    with pytest.raises(BadArgument):
        small_codec.compress(photograph(64, 64), lambda_=lambda_)


def test_pixel_limit_is_the_callers_to_raise(small_codec, photograph):
    data = small_codec.compress(photograph(64, 64), quality=3).data
    with pytest.raises(LimitExceeded):
        small_codec.decompress(data, max_pixels=4095)
    assert small_codec.decompress(data, max_pixels=4096).size == (64, 64)


def test_rd_cost_is_rate_plus_weighted_squared_error():
    original = np.zeros((2, 4, 3), np.uint8)
    decoded = original.copy()
    decoded[0, 0, 0] = 12
    assert rd_cost(5, SquaredError(original), decoded, 0.5) == pytest.approx(8 * 5 / 8 + 0.5 * 144 / 24)


@pytest.mark.parametrize("quality", ["4", [4], True])
def test_a_quality_that_is_no_number_is_refused(small_codec, photograph, quality):
    with pytest.raises(BadArgument, match="quality must be a number"):
        small_codec.compress(photograph(64, 64), quality)


def test_the_largest_lambda_is_still_refined(small_codec, photograph):
    result = small_codec.compress(photograph(64, 64), lambda_=MAX_LAMBDA, steps=3)
    assert result.steps == 3 and result.base_J > result.J


def test_refused_files_leave_nothing_behind():
    """Each has another quality and step, for which a factorized prior has tables of its own."""
    model = create_model("bmshj2018-factorized", N=8, M=8).eval()
    model.update_tables()
    codec = Codec(model, "cpu")
    for number in range(20):
        header = Header(16, 16, codec.fingerprint, 1.0, number)
        with pytest.raises(CorruptFile):
            codec.decompress(write(Container(header, {SectionType.Z: b"", SectionType.Y: join_y([0], b"")})))
    assert codec.latent_coder._y_tables.cache_info().currsize <= TABLES_KEPT


def test_a_z_that_the_model_does_not_have_is_refused():
    model = create_model("bmshj2018-factorized", N=8, M=8).eval()
    model.update_tables()
    codec = Codec(model, "cpu")
    made = read(codec.compress(np.zeros((16, 16, 3), np.uint8), 1).data)
    assert made.sections[SectionType.Z] == b""
    for kind, body in ((SectionType.Z, b"more"), (SectionType.SCALE_QP, b"\x80"), (SectionType.INDEX_LIST, b"\0")):
        with pytest.raises(CorruptFile):
            codec.decompress(write(Container(made.header, {**made.sections, kind: body})))


def test_side_modules_of_another_network_are_refused(small_codec):
    with pytest.raises(BadCheckpoint, match="side modules for 8 channels of y"):
        Codec(small_codec.model, "cpu", SideModules(SideConfig(8, 4, 8)))
