"""Pictures of every accepted mode come back as they were; the others are refused in one line."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin, TiffImagePlugin

from tto.errors import BadArgument, FileError, LimitExceeded, TTOError, UnreadableImage, UnsupportedImage
from tto.image import Picture, _depth_in_header, encode_picture, load_picture, load_square

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (5, 7, 3), dtype=np.uint8)
ALPHA = RANDOM.integers(0, 256, (5, 7), dtype=np.uint8)
GRAY = RGB[..., 0]


def exif_bytes(orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    return exif.tobytes()


def file_of(image: Image.Image, kind: str, **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


# --- modes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_accepted_modes_come_back_exactly(mode):
    grayscale, has_alpha = mode in ("L", "LA"), mode in ("LA", "RGBA")
    colors = np.repeat(GRAY[..., None], 3, axis=2) if grayscale else RGB
    image = Picture(colors, grayscale=grayscale, alpha=ALPHA if has_alpha else None).to_pil()
    assert image.mode == mode
    picture = load_picture(file_of(image, "PNG"))
    assert picture.grayscale == grayscale
    assert picture.rgb.dtype == np.uint8 and np.array_equal(picture.rgb, colors)
    assert np.array_equal(picture.alpha, ALPHA) if has_alpha else picture.alpha is None
    assert (picture.width, picture.height) == (7, 5)
    assert picture.to_pil().tobytes() == image.tobytes()


def test_one_bit_becomes_gray():
    picture = load_picture(Image.fromarray(GRAY).convert("1"))
    assert picture.grayscale and set(np.unique(picture.rgb)) == {0, 255}


def test_palette_becomes_rgb():
    image = Image.fromarray(RGB).quantize(8)
    picture = load_picture(file_of(image, "PNG"))
    assert not picture.grayscale and picture.alpha is None
    assert np.array_equal(picture.rgb, np.asarray(image.convert("RGB")))


def test_palette_with_transparency_becomes_rgba():
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    picture = load_picture(file_of(image, "PNG", transparency=1))
    assert picture.rgb.tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert picture.alpha.tolist() == [[255, 0]]


def test_palette_with_alpha_in_its_colors_becomes_rgba():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 255, 40, 50, 60, 7], "RGBA")
    image.putpixel((1, 0), 1)
    picture = load_picture(image)
    assert picture.rgb.tolist() == [[[10, 20, 30], [40, 50, 60]]] and picture.alpha.tolist() == [[255, 7]]


def test_transparent_gray_level_becomes_alpha():
    picture = load_picture(file_of(Image.fromarray(np.array([[9, 8]], np.uint8)), "PNG", transparency=8))
    assert picture.grayscale and picture.rgb[0, :, 1].tolist() == [9, 8]
    assert picture.alpha.tolist() == [[255, 0]]


@pytest.mark.parametrize("mode", ["I", "F", "I;16", "CMYK", "LAB", "YCbCr", "HSV"])
def test_other_modes_are_refused_by_name(mode):
    with pytest.raises(UnsupportedImage, match=f"mode {mode} "):
        load_picture(Image.new(mode, (2, 2)))


def png(header: bytes, row: bytes, **more: bytes) -> bytes:
    """A file of one row of pixels; `more` are chunks before these."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    parts = [chunk(b"IHDR", header), *(chunk(kind.encode(), body) for kind, body in more.items())]
    parts += [chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def sixteen_bit_rgb_png(levels: bytes = bytes(6)) -> bytes:
    return png(struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0), levels)


def test_sixteen_bit_rgb_is_refused_though_pillow_would_cut_it():
    data = sixteen_bit_rgb_png()
    assert Image.open(io.BytesIO(data)).mode == "RGB"
    with pytest.raises(UnsupportedImage, match="more than 8 bits"):
        load_picture(io.BytesIO(data))


def test_depth_of_jpeg_2000_and_avif_is_read_from_their_headers():
    jp2 = bytearray(file_of(Image.fromarray(RGB), "JPEG2000").getvalue())
    assert load_picture(bytes(jp2)).rgb.shape == RGB.shape
    jp2[jp2.index(b"\xff\x4f\xff\x51") + 45] = 0x0B  # of the second component, in all 12 bits
    with pytest.raises(UnsupportedImage, match="more than 8 bits"):
        load_picture(bytes(jp2))
    avif = bytearray(file_of(Image.fromarray(RGB), "AVIF").getvalue())
    assert _depth_in_header(SimpleNamespace(format="AVIF", fp=io.BytesIO(avif))) == 8
    avif[avif.index(b"av1C") + 6] |= 0x40
    assert _depth_in_header(SimpleNamespace(format="AVIF", fp=io.BytesIO(avif))) == 10


@pytest.mark.parametrize("magic", [b"P5", b"P6"])
def test_a_pixmap_of_more_levels_than_bytes_have_is_refused(magic):
    body = bytes(2 * (3 if magic == b"P6" else 1))
    assert load_picture(magic + b" 1 1 255 " + body[::2]).rgb.shape == (1, 1, 3)
    with pytest.raises(UnsupportedImage):
        load_picture(magic + b" 1 1 1023 " + body)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_several_frames_are_refused(kind):
    frames = [Image.fromarray(RGB), Image.fromarray(RGB[::-1].copy())]
    file = file_of(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(UnsupportedImage, match="animated"):
        load_picture(file)


def test_photograph_with_previews_behind_it_is_read():
    frames = [Image.fromarray(RGB), Image.fromarray(RGB[:2, :2].copy())]
    file = file_of(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert Image.open(file).n_frames == 2
    assert load_picture(file).rgb.shape == RGB.shape


# --- arrays and tensors ----------------------------------------------------------------------------


def test_arrays_are_pictures():
    assert np.array_equal(load_picture(RGB).rgb, RGB)
    gray = load_picture(GRAY)
    assert gray.grayscale and np.array_equal(gray.rgb[..., 2], GRAY)
    rgba = load_picture(np.dstack([RGB, ALPHA]))
    assert np.array_equal(rgba.rgb, RGB) and np.array_equal(rgba.alpha, ALPHA)


def test_tensors_of_bytes_and_of_floats_are_pictures():
    tensor = torch.from_numpy(RGB).permute(2, 0, 1)
    for same in (tensor, tensor / 255, (tensor / 255).double().requires_grad_()):
        assert np.array_equal(load_picture(same).rgb, RGB)
    assert load_picture(tensor[:1]).grayscale


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (RGB.astype(np.float32), r"an array is uint8 \[H, W, 3\].*float32"),
        (RGB[..., :2], r"\[5, 7, 2\]"),
        (RGB[None], r"\[1, 5, 7, 3\]"),
        (torch.zeros(5, 7, 3), r"a tensor is \[3, H, W\].*\[5, 7, 3\]"),
        (torch.full((3, 5, 7), 1.5), r"values in \[0, 1\]"),
        (torch.full((3, 5, 7), float("nan")), r"values in \[0, 1\]"),
        (torch.zeros(3, 5, 7, dtype=torch.int64), "int64"),
    ],
)
def test_other_arrays_and_tensors_are_refused_by_what_they_are(thing, message):
    with pytest.raises(BadArgument, match=message):
        load_picture(thing)


def test_a_picture_is_itself():
    picture = Picture(RGB)
    assert load_picture(picture) is picture


# --- damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_truncated_file_is_unreadable(kind):
    data = file_of(Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8)), kind).getvalue()
    with pytest.raises(UnreadableImage):
        load_picture(io.BytesIO(data[: len(data) // 2]))


def test_text_and_missing_files_have_their_own_errors(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(UnreadableImage, match="a.png: not a picture"):
        load_picture(tmp_path / "a.png")
    with pytest.raises(FileError, match="No such file"):
        load_picture(tmp_path / "b.png")


def test_metadata_of_older_image_programs_is_kept():
    content = exif_bytes()
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(content):8}\n{content.hex()}\n", zip=True)
    kept = Image.Exif()
    kept.load(load_picture(file_of(Image.fromarray(RGB), "PNG", pnginfo=info)).exif)
    assert kept[0x0112] == 6 and kept.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"


def test_every_flipped_bit_gives_a_picture_or_a_typed_error():
    data = file_of(Image.fromarray(RGB), "PNG", exif=exif_bytes()).getvalue()
    for position in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << (position % 8)
        try:
            load_picture(io.BytesIO(bytes(damaged)))
        except TTOError as error:
            assert "\n" not in str(error)


def test_decompression_bombs_are_refused_without_a_warning(monkeypatch):
    file = file_of(Image.fromarray(RGB), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LimitExceeded, match="limit"):
            load_picture(file)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)  # Pillow only warns up to twice its limit
        assert load_picture(file).width == 7


def test_sides_beyond_the_format_are_refused():
    with pytest.raises(LimitExceeded, match="65536x1"):
        load_picture(Image.new("L", (65_536, 1)))


# --- metadata and saving ---------------------------------------------------------------------------


def save(image: Image.Image, path: Path) -> None:
    path.write_bytes(encode_picture(image, path))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "avif"])
def test_metadata_survives_saving_and_loading(tmp_path, suffix):
    picture = Picture(RGB, icc=b"profile" * 50, exif=exif_bytes(), xmp=b"<x:xmpmeta/>")
    save(picture.to_pil(), tmp_path / f"a.{suffix}")
    loaded = load_picture(tmp_path / f"a.{suffix}")
    assert (loaded.icc, loaded.xmp) == (picture.icc, picture.xmp)
    exif = Image.Exif()
    exif.load(loaded.exif)
    assert exif[0x0112] == 6 and exif.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
    assert (loaded.width, loaded.height) == (7, 5)  # the orientation is not applied


def test_tiff_keeps_metadata_but_not_its_own_layout(tmp_path):
    picture = Picture(RGB, icc=b"profile" * 50, exif=exif_bytes(orientation=1), xmp=b"<x:xmpmeta/>")
    save(picture.to_pil(), tmp_path / "a.tif")
    loaded = load_picture(tmp_path / "a.tif")
    assert np.array_equal(loaded.rgb, RGB)
    assert (loaded.icc, loaded.xmp) == (picture.icc, picture.xmp)
    exif = Image.Exif()
    exif.load(loaded.exif)
    assert exif[0x010F] == "Maker" and exif.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
    assert 0x0100 not in exif and 0x0111 not in exif  # width, strip offsets


def test_a_tiff_has_its_own_layout_and_not_that_of_the_picture_it_came_from(tmp_path):
    exif = Image.Exif()
    exif.load(exif_bytes(orientation=1))
    exif.update({256: 4000, 257: 3000, 258: (16, 16, 16), 259: 6, 277: 4})
    image = Picture(RGB).to_pil()
    image.info["exif"] = exif.tobytes()
    save(image, tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as written:
        assert written.size == (7, 5) and np.array_equal(np.asarray(written), RGB)
        assert written.getexif()[0x010F] == "Maker"
        assert written.getexif().get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "bmp"])
def test_lossless_formats_keep_the_pixels(tmp_path, suffix):
    save(Picture(RGB).to_pil(), tmp_path / f"a.{suffix}")
    assert np.array_equal(load_picture(tmp_path / f"a.{suffix}").rgb, RGB)


@pytest.mark.parametrize("name", ["a.xyz", "a", "a.jpg"])
def test_format_that_cannot_hold_the_picture_is_refused(tmp_path, name):
    with pytest.raises(BadArgument):
        save(Picture(RGB, alpha=ALPHA).to_pil(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_smaller_than_the_square_is_refused(photograph, tmp_path):
    photograph(80, 60).save(tmp_path / "a.png")
    assert load_square(tmp_path / "a.png", 60).rgb.shape == (60, 60, 3)
    assert load_square(tmp_path / "a.png", 0).rgb.shape == (60, 80, 3)
    with pytest.raises(BadArgument, match="80x60"):
        load_square(tmp_path / "a.png", 64)


def test_loading_an_open_image_leaves_it_usable():
    image = Image.open(file_of(Image.fromarray(RGB), "PNG"))
    load_picture(image)
    assert image.getpixel((0, 0)) == tuple(RGB[0, 0])


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif"])
def test_lossy_formats_keep_colours(suffix):
    rgb = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    back = load_picture(encode_picture(Picture(rgb).to_pil(), "a" + suffix)).rgb
    assert np.abs(back.astype(int) - rgb).mean() < 8  # halved chroma: above 25


@pytest.mark.parametrize("suffix", [".tiff", ".avif", ".png"])
def test_exif_that_nobody_can_read_does_not_keep_a_picture_from_being_written(suffix, caplog):
    for exif in (b"Exif\0\0garbage garbage", b"Exif\0\0II*\0"):
        data = encode_picture(Picture(np.tile(RGB, (8, 8, 1)), exif=exif).to_pil(), "a" + suffix)
        assert load_picture(data).rgb.shape == (40, 56, 3)
    assert ("left out" in caplog.text) is (suffix != ".png")


@pytest.mark.parametrize("suffix", ["bmp", "ppm", "jp2"])
def test_formats_without_metadata_say_what_they_leave_out(suffix, caplog):
    encode_picture(Picture(RGB, icc=b"profile" * 50, exif=exif_bytes()).to_pil(), f"a.{suffix}")
    assert "holds no metadata, ICC profile and EXIF with the orientation left out" in caplog.text
    caplog.clear()
    encode_picture(Picture(RGB).to_pil(), f"a.{suffix}")
    assert not caplog.text


@pytest.mark.parametrize(("suffix", "kind"), [("bmp", "BMP"), ("ppm", "PPM"), ("pgm", "PPM")])
@pytest.mark.parametrize("grayscale", [False, True])
def test_alpha_that_nobody_would_read_is_not_written(suffix, kind, grayscale):
    with pytest.raises(BadArgument, match=f"a.{suffix}: {kind} cannot hold alpha"):
        encode_picture(Picture(RGB, grayscale=grayscale, alpha=ALPHA).to_pil(), f"a.{suffix}")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_transparent_level_of_a_gray_png_of_few_bits_becomes_alpha(bits):
    top = (1 << bits) - 1
    row = bytes([0, top]) if bits == 8 else bytes([top << (8 - 2 * bits)])
    picture = load_picture(png(struct.pack(">IIBBBBB", 2, 1, bits, 0, 0, 0, 0), row, tRNS=struct.pack(">H", top)))
    assert picture.rgb[0, :, 0].tolist() == [0, 255] and picture.alpha is not None
    assert picture.alpha.tolist() == [[255, 0]]


def test_a_bitmap_of_16_bits_a_pixel_is_not_deep_and_an_sgi_of_16_bits_a_sample_is():
    head = struct.pack("<2sIHHI", b"BM", 14 + 40 + 12 + 4, 0, 0, 14 + 40 + 12)
    info = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 3, 4, 0, 0, 0, 0)
    masks, pixels = struct.pack("<III", 0xF800, 0x07E0, 0x001F), struct.pack("<HH", 0xF800, 0x001F)
    picture = load_picture(head + info + masks + pixels)
    assert picture.rgb.tolist() == [[[255, 0, 0], [0, 0, 255]]]
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "SGI", bpc=2)
    with pytest.raises(UnsupportedImage, match="more than 8 bits"):
        load_picture(file.getvalue())


def test_a_program_that_draws_is_no_picture(monkeypatch):
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("it is run"))
    with pytest.raises(UnreadableImage, match="not a picture"):
        load_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")


def test_a_tiff_with_an_odd_tag_is_read_without_its_exif(caplog):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[315], tags.tagtype[315] = (1.5,), 12  # an artist that is a number
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "TIFF", tiffinfo=tags)
    picture = load_picture(file.getvalue())
    assert np.array_equal(picture.rgb, RGB) and picture.exif is None
    assert "EXIF is damaged" in caplog.text
