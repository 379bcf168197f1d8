"""Latents to sections and back: one walk, whatever the threads, layout or batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from base_models import LatentShapes, create_model
from tto.container import NEUTRAL_QP, SectionType, join_y, section_size, split_y
from tto.entropy_coding import SymbolEncoder, scale_indexes
from tto.errors import BadCheckpoint, CorruptFile, IndexMismatch, WrongLength
from tto.latent_coding import LatentCoder

QUALITY = 5.5
SHAPES = LatentShapes((160, 8, 12), (48, 2, 3))


@pytest.fixture(scope="module")
def coder(small_model):
    return LatentCoder(small_model)


@pytest.fixture(scope="module")
def latents(small_model):
    x = torch.rand(1, 3, 128, 192, generator=torch.Generator().manual_seed(1))
    y = small_model.analysis(x, QUALITY)
    return y, small_model.hyper_analysis(y, QUALITY)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("qp", [NEUTRAL_QP, NEUTRAL_QP - 20, NEUTRAL_QP + 40])
def test_decoder_gets_the_encoders_latent_exactly(coder, latents, qp, native):
    sections, y_hat = coder.encode(*latents, QUALITY, qp, native)
    decoded = coder.decode(sections, SHAPES, QUALITY, qp, native)
    assert torch.equal(decoded, y_hat)
    assert decoded.dtype == torch.float32


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("qp", [NEUTRAL_QP + 8, NEUTRAL_QP - 5])
def test_both_sides_have_the_same_fractions_of_means_to_the_last_bit(qp, native, monkeypatch):
    """They choose tables on the integer grid; a bit near a boundary is another table."""
    torch.manual_seed(0)
    model = create_model("mbt2018-mean", N=8, M=12).eval()
    model.update_tables()
    coder, seen = LatentCoder(model), []
    centre = type(coder.choice).centre
    monkeypatch.setattr(type(coder.choice), "centre", lambda self, mu, of: (seen.append(mu), centre(self, mu, of))[1])
    y, z = 3 * torch.randn(1, 12, 8, 12), torch.randn(1, 8, 2, 3)
    sections, _ = coder.encode(y, z, 1.0, qp, native)
    encoded, seen[:] = list(seen), []
    coder.decode(sections, LatentShapes((12, 8, 12), (8, 2, 3)), 1.0, qp, native)
    assert encoded and all(np.array_equal(one, other) for one, other in zip(encoded, seen, strict=True))


def test_parts_are_coded_as_they_come(coder, latents, monkeypatch):
    """None is kept, so memory grows with one part at a time."""
    events = []

    def note(owner: type, name: str) -> None:
        method = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *arguments: (events.append(name), method(*arguments))[1])

    note(SymbolEncoder, "encode")
    note(type(coder.choice), "centre")
    coder.encode(*latents, QUALITY, NEUTRAL_QP)
    assert events == ["encode", *["centre", "encode"] * coder.num_slices]  # z, then part by part


def test_layout_of_latents_does_not_change_a_bit_of_what_is_decoded(coder, latents):
    """Refined latents are channels-last; convolutions of another layout round otherwise, which can cost a pixel."""
    y, z = (latent.to(memory_format=torch.channels_last) for latent in latents)
    sections, y_hat = coder.encode(y, z, QUALITY, NEUTRAL_QP)
    assert torch.equal(coder.decode(sections, SHAPES, QUALITY, NEUTRAL_QP, False), y_hat)


@pytest.mark.parametrize("native", [False, True])
def test_fitted_scales_save_bytes_and_give_the_same_latent(coder, latents, native):
    """The small model is not trained: its σ is far from what its latents need."""
    plain, y_hat = coder.encode(*latents, QUALITY, NEUTRAL_QP, native)
    fitted, same = coder.encode(*latents, QUALITY, NEUTRAL_QP, native, fit_scales=True)
    assert torch.equal(same, y_hat)
    assert torch.equal(coder.decode(fitted, SHAPES, QUALITY, NEUTRAL_QP, native), y_hat)
    assert SectionType.SCALE_QP not in plain
    assert len(fitted[SectionType.SCALE_QP]) == coder.num_slices
    saved = len(plain[SectionType.Y]) - len(fitted[SectionType.Y])
    assert saved > section_size(fitted[SectionType.SCALE_QP])


def test_scales_stay_the_steps_own_where_a_section_would_cost_more(coder, latents, monkeypatch):
    monkeypatch.setattr("tto.latent_coding.section_size", lambda body: 10**9)
    assert SectionType.SCALE_QP not in coder.encode(*latents, QUALITY, NEUTRAL_QP, fit_scales=True)[0]


@pytest.mark.parametrize("body", [b"", b"\x80", bytes([128]) * 100])
def test_scale_section_of_another_length_is_refused(coder, latents, body):
    sections, _ = coder.encode(*latents, QUALITY, NEUTRAL_QP)
    with pytest.raises(WrongLength, match="scale_qp"):
        coder.decode({**sections, SectionType.SCALE_QP: body}, SHAPES, QUALITY, NEUTRAL_QP, False)


def test_other_scales_than_the_encoders_are_noticed(coder, latents):
    sections, _ = coder.encode(*latents, QUALITY, NEUTRAL_QP)
    wrong = {**sections, SectionType.SCALE_QP: bytes([NEUTRAL_QP + 40] * coder.num_slices)}
    with pytest.raises(IndexMismatch):
        coder.decode(wrong, SHAPES, QUALITY, NEUTRAL_QP, False)


def test_larger_step_costs_fewer_bytes(coder, latents):
    sizes = [len(coder.encode(*latents, QUALITY, qp)[0][SectionType.Y]) for qp in (108, 128, 148)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_threads_do_not_change_a_byte(coder, latents):
    one = coder.encode(*latents, QUALITY, NEUTRAL_QP)[0]
    torch.set_num_threads(2)
    try:
        two = coder.encode(*latents, QUALITY, NEUTRAL_QP)[0]
    finally:
        torch.set_num_threads(1)
    assert one == two


def test_batch_and_memory_layout_do_not_change_an_index(small_model, coder, latents):
    """float64 walks of one image alone, in a batch, and channels-last choose the same tables."""
    walker = small_model.entropy_walker()
    y, z = (latent.double() for latent in latents)
    z_hat = z.round()

    def indexes(y, z_hat):
        chosen = []

        def note(i, mu, sigma):
            chosen.append(scale_indexes(sigma[0].reshape(-1).numpy(), coder.choice.scale_table)[0])
            y_i = small_model.split_y(y)[i]
            return (y_i - mu).round() + mu

        with torch.inference_mode():
            walker.walk(z_hat, QUALITY, note)
        return np.concatenate(chosen)

    alone = indexes(y, z_hat)
    batch = indexes(torch.cat([y, y.flip(-1)]), torch.cat([z_hat, z_hat.flip(-1)]))
    last = {"memory_format": torch.channels_last}
    assert np.array_equal(alone, batch)
    assert np.array_equal(alone, indexes(y.contiguous(**last), z_hat.contiguous(**last)))


def test_wrong_checksum_names_the_slice(coder, latents):
    sections, _ = coder.encode(*latents, QUALITY, NEUTRAL_QP)
    checksums, payload = split_y(sections[SectionType.Y], 4)
    wrong = {**sections, SectionType.Y: join_y((*checksums[:2], checksums[2] ^ 1, checksums[3]), payload)}
    with pytest.raises(IndexMismatch, match="slice 2"):
        coder.decode(wrong, SHAPES, QUALITY, NEUTRAL_QP, False)


def test_listed_indexes_are_obeyed_and_checked(coder, latents, monkeypatch):
    """With a wide margin many indexes are listed; the decoder must take them and refuse impossible ones."""
    monkeypatch.setattr("tto.entropy_coding.BOUNDARY_MARGIN", 1e-3)
    sections, y_hat = coder.encode(*latents, QUALITY, NEUTRAL_QP)
    assert SectionType.INDEX_LIST in sections

    def fall_on_the_other_side(sigma, scale_table):
        indexes, near = scale_indexes(sigma, scale_table)
        return np.where(near, indexes ^ 1, indexes), near

    monkeypatch.setattr("tto.table_choice.scale_indexes", fall_on_the_other_side)
    assert torch.equal(coder.decode(sections, SHAPES, QUALITY, NEUTRAL_QP, False), y_hat)
    impossible = {**sections, SectionType.INDEX_LIST: b"\x01\x00\x40\x00\x00\x00"}
    with pytest.raises(CorruptFile, match="out of range"):
        coder.decode(impossible, SHAPES, QUALITY, NEUTRAL_QP, False)


def test_latents_that_are_not_finite_are_refused(coder, latents):
    y, z = latents
    with pytest.raises(BadCheckpoint):
        coder.encode(y * torch.nan, z, QUALITY, NEUTRAL_QP)
    with pytest.raises(BadCheckpoint):
        coder.encode(y, z * torch.inf, QUALITY, NEUTRAL_QP)


@pytest.mark.parametrize("absurd", [1e12, float("nan")])
def test_a_network_whose_means_are_absurd_is_refused(absurd):
    """Also on the integer grid, where it is not y that is out of range."""
    model = create_model("mbt2018", N=8, M=8).eval().requires_grad_(False)
    model.update_tables(fit_quantiles=True)
    model.entropy_parameters[-1].bias.fill_(absurd)
    with pytest.raises(BadCheckpoint):
        LatentCoder(model).encode(torch.zeros(1, 8, 4, 4), torch.zeros(1, 8, 1, 1), 1.0, NEUTRAL_QP)
