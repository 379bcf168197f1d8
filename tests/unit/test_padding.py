"""Tensors of pictures: rounding, repeated edges, exact sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tto.padding import ROWS, crop, pad_to_multiple, to_tensor, to_uint8


def test_every_level_survives_the_way_to_a_tensor_and_back():
    rgb = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    x = to_tensor(rgb)
    assert x.shape == (1, 3, 16, 16) and x.dtype == torch.float32 and x.max() == 1
    assert np.array_equal(to_uint8(x), rgb)


def test_levels_are_rounded_and_clamped():
    x = torch.tensor([-1.0, 0.4, 0.6, 254.6, 300.0]).div(255).expand(1, 3, 1, 5)
    assert to_uint8(x)[0, :, 0].tolist() == [0, 0, 1, 255, 255]


def test_more_rows_than_are_converted_at_once_are_all_converted():
    rgb = np.random.default_rng(0).integers(0, 256, (2 * ROWS + 3, 2, 3), dtype=np.uint8)
    assert np.array_equal(to_uint8(to_tensor(rgb)), rgb)


def test_padding_repeats_the_right_and_bottom_edge():
    rgb = np.array([[1, 2], [3, 4]], np.uint8)[..., None]
    assert pad_to_multiple(rgb, 3)[..., 0].tolist() == [[1, 2, 2], [3, 4, 4], [3, 4, 4]]


@pytest.mark.parametrize("size", [(1, 1), (1, 130), (63, 65), (64, 128)])
def test_cropping_undoes_padding_at_any_size(size):
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    padded = to_tensor(pad_to_multiple(rgb, 64))
    assert padded.shape[-2] % 64 == 0 and padded.shape[-1] % 64 == 0
    assert padded.shape[-2] - size[0] < 64 and padded.shape[-1] - size[1] < 64
    assert np.array_equal(to_uint8(crop(padded, *size)), rgb)
