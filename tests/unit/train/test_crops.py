from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.train.conftest import smooth_image
from tto.train.crops import CropPlan, CropSampler, prefetch
from tto.train.errors import DataError
from tto.train.images import ImageStore, find_images


@pytest.fixture
def store(photos) -> ImageStore:
    return ImageStore(find_images((str(photos),)), 10**7)


def test_samples_depend_on_seed_stage_and_number_only(store):
    plan = CropPlan(seed=1, stage=0, crop=64, batch=4)
    crops, positions = CropSampler(store, plan).pixels(3)
    again, positions_again = CropSampler(store, plan).pixels(3)
    np.testing.assert_array_equal(crops, again)
    np.testing.assert_array_equal(positions, positions_again)
    for other in (CropPlan(2, 0, 64, 4), CropPlan(1, 1, 64, 4)):
        assert not np.array_equal(CropSampler(store, other).pixels(3)[0], crops)


def test_processes_together_see_the_batch_of_one_process(store):
    plan = CropPlan(seed=1, stage=0, crop=64, batch=6)
    whole = CropSampler(store, plan).pixels(5)[0]
    parts = [CropSampler(store, plan, rank, 3).pixels(5)[0] for rank in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_every_image_is_seen_once_per_epoch(tmp_path):
    for number in range(5):
        smooth_image(0, 64, 64).point(lambda _, n=number: 40 * n).save(tmp_path / f"{number}.png")
    sampler = CropSampler(ImageStore(find_images((str(tmp_path),)), 10**6), CropPlan(0, 0, 64, 5))
    epochs = [sorted(sampler.pixels(epoch)[0][:, 0, 0, 0].tolist()) for epoch in range(3)]
    assert epochs == [[0, 40, 80, 120, 160]] * 3
    assert len({tuple(sampler.pixels(epoch)[0][:, 0, 0, 0]) for epoch in range(8)}) > 1


def test_crops_cover_the_image_and_are_flipped_half_the_time(tmp_path):
    ramp = np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (66, 1, 3))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    sampler = CropSampler(ImageStore(find_images((str(tmp_path),)), 10**6), CropPlan(0, 0, 64, 400))
    crops, positions = sampler.pixels(0)
    flipped = crops[:, 0, 0, 0] > crops[:, 0, -1, 0]
    assert 0.4 < flipped.mean() < 0.6
    assert set(crops.min((1, 2, 3))) == set(range(37))


def test_zoom_enlarges_half_of_the_crops(tmp_path):
    ramp = np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (200, 1, 3))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    store = ImageStore(find_images((str(tmp_path),)), 10**6)
    crops, _ = CropSampler(store, CropPlan(0, 0, 64, 400, zoom=2.0)).pixels(0)
    assert crops.shape == (400, 64, 64, 3)
    spread = np.ptp(crops[:, 0, :, 0], axis=1)  # 63 at scale 1, 31 at scale 2
    assert 0.4 < (spread == 63).mean() < 0.6
    assert 31 <= spread.min() < 34


def test_every_batch_covers_all_qualities_and_the_ends_often_enough(store):
    positions = CropSampler(store, CropPlan(0, 0, 64, 400)).pixels(0)[1]
    assert [(positions == end).mean() for end in (0, 1)] == pytest.approx([0.03 / 1.06] * 2, abs=0.005)
    np.testing.assert_allclose(np.sort(positions)[[100, 200, 300]], [0.235, 0.5, 0.765], atol=0.01)
    few = np.stack([CropSampler(store, CropPlan(0, 0, 64, 4)).pixels(step)[1] for step in range(20)])
    for column, (low, high) in enumerate([(0, 0.24), (0.23, 0.5), (0.5, 0.77), (0.76, 1)]):
        assert few[:, column].min() >= low and few[:, column].max() <= high
        assert np.ptp(few[:, column]) > 0.1


def test_unusable_images_are_replaced(tmp_path, photos):
    (tmp_path / "bad.png").write_bytes(b"bad")
    store = ImageStore(find_images((str(tmp_path), str(photos))), 10**7)
    crops, _ = CropSampler(store, CropPlan(0, 0, 64, 12)).pixels(0)
    assert crops.shape == (12, 64, 64, 3)
    assert len(store.skipped) == 1


def test_small_images_are_enlarged_where_the_recipe_says_so(tmp_path):
    smooth_image(0, 50, 30).save(tmp_path / "small.png")
    store = ImageStore(find_images((str(tmp_path),)), 10**6)
    assert CropSampler(store, CropPlan(0, 0, 64, 2, resize_small=True)).pixels(0)[0].shape == (2, 64, 64, 3)
    with pytest.raises(DataError, match="none of 1 images can be used.*50×30 is smaller than 64"):
        CropSampler(store, CropPlan(0, 0, 64, 2)).pixels(0)


def test_prefetched_batches_come_in_order_with_values_of_the_crops(store):
    sampler = CropSampler(store, CropPlan(0, 0, 64, 2))
    batches = prefetch(sampler, 7, workers=2, device=torch.device("cpu"))
    for step in (7, 8, 9):
        batch = next(batches)
        crops, positions = sampler.pixels(step)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(batch.images, torch.from_numpy(crops).permute(0, 3, 1, 2) / 255.0)
        torch.testing.assert_close(batch.position, torch.from_numpy(positions))
    batches.close()


def test_error_in_the_loader_reaches_the_trainer(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"bad")
    sampler = CropSampler(ImageStore(find_images((str(tmp_path),)), 0), CropPlan(0, 0, 64, 2))
    with pytest.raises(DataError, match="bad.png"):
        next(prefetch(sampler, 0, workers=1, device=torch.device("cpu")))
