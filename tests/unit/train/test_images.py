from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.unit.train.conftest import smooth_image
from tto.train.errors import DataError
from tto.train.images import ImageStore, decode, find_images


def test_folders_are_searched_to_any_depth_in_a_fixed_order(photos):
    assert [source.path.name for source in find_images((str(photos),))] == ["0.png", "1.png", "2.png", "3.png", "9.png"]


def test_a_folder_may_have_a_name_that_looks_like_a_pattern(tmp_path, photos):
    for name in ("photos [2]", "photos 2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{len(name)}.png").write_bytes((photos / "0.png").read_bytes())
    assert [source.path.name for source in find_images((str(tmp_path / "photos [2]"),))] == ["10.png"]
    assert [source.path.name for source in find_images((str(tmp_path / "photos [12]"),))] == ["8.png"]


def test_list_file_names_paths_relative_to_itself(tmp_path, photos):
    listing = tmp_path / "images.txt"
    listing.write_text(f"{photos}/1.png\n\nown.png\n")
    assert [s.path for s in find_images((str(listing),))] == [photos / "1.png", tmp_path / "own.png"]


def test_webdataset_shard_gives_the_pixels_that_were_put_in(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    originals = [np.asarray(smooth_image(i, 70, 66)) for i in range(4)]
    for shard in range(2):
        with webdataset.TarWriter(str(tmp_path / f"set-{shard:03}.tar")) as writer:
            for i in (0, 1):
                writer.write({"__key__": f"a{shard}{i}", "png": Image.fromarray(originals[2 * shard + i]), "cls": i})
    sources = find_images((str(tmp_path / "set-*.tar"),))
    assert [source.name for source in sources] == ["a00.png", "a01.png", "a10.png", "a11.png"]
    for source, original in zip(sources, originals, strict=True):
        np.testing.assert_array_equal(decode(source), original)


def test_half_size_copies_are_bicubic_reductions(photos):
    sources = find_images((str(photos),), half_size_copies=True)
    assert len(sources) == 10
    with Image.open(sources[0].path) as image:
        expected = np.asarray(image.resize((48, 40), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(decode(sources[5]), expected)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK"])
def test_other_modes_become_rgb(tmp_path, mode):
    path = tmp_path / "image.tif"
    smooth_image(1, 70, 66).convert(mode).save(path)
    assert decode(find_images((str(path),))[0]).shape == (66, 70, 3)


def test_unreadable_images_are_named_counted_and_skipped(tmp_path, photos):
    good = (photos / "0.png").read_bytes()
    (tmp_path / "a.png").write_bytes(good)
    (tmp_path / "b.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "c.jpg").write_bytes(b"no image")
    Image.fromarray(np.zeros((70, 70), np.uint16)).save(tmp_path / "d.png")
    store = ImageStore(find_images((str(tmp_path),)), 0)
    assert [store.get(i) is not None for i in range(4)] == [True, False, False, False]
    assert [store.get(i) is not None for i in range(4)] == [True, False, False, False]
    reasons = store.newly_skipped()
    assert len(reasons) == 3
    assert all(name in reason for name, reason in zip(["b.png", "c.jpg", "d.png"], reasons, strict=True))
    assert "more than 8 bits" in reasons[2]
    assert store.newly_skipped() == []


def test_image_below_the_crop_is_skipped_only_for_that_crop(photos):
    store = ImageStore(find_images((str(photos / "1.png"),)), 10**6)
    assert store.get(0, min_side=96) is None
    assert "80×72 is smaller than 96" in store.newly_skipped()[0]
    assert store.get(0, min_side=64).shape == (72, 80, 3)


def test_cache_keeps_what_fits_and_no_more(photos):
    sources = find_images((str(photos),))
    store = ImageStore(sources, 96 * 80 * 3)
    first, second = store.get(0), store.get(1)
    assert store.get(0) is first
    assert store.get(1) is not second


@pytest.mark.parametrize("entry", ["absent", "absent/*.tar", "EMPTY"])
def test_entry_without_images_is_refused(tmp_path, entry):
    entry = str(tmp_path) if entry == "EMPTY" else str(tmp_path / entry)
    with pytest.raises(DataError, match=entry.replace("*", r"\*")):
        find_images((entry,))


def test_damaged_shard_is_refused_by_name(tmp_path):
    (tmp_path / "bad.tar").write_bytes(b"x" * 2000)
    with pytest.raises(DataError, match="bad.tar is no uncompressed tar shard"):
        find_images((str(tmp_path / "bad.tar"),))
