from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fast_style import images, opening
from fast_style.errors import FastStyleError, ImageError, UsageError
from fast_style.images import (
    OUTPUT_SUFFIXES,
    check_output,
    check_outputs,
    cover_crop,
    fit_long_side,
    load_training_crop,
    read_image,
    read_opaque,
    resize,
    to_uint8,
    write_image,
)


def noise(height: int = 17, width: int = 23, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """A picture with edges and gradients, but nothing that JPEG would destroy."""
    y, x = np.mgrid[:height, :width]
    waves = [127 + 60 * np.sin(x / a + y / b) + 60 * (x * b > y * a) for a, b in
             ((31, 47), (53, 29), (41, -37))]  # fmt: skip
    return np.clip(np.stack(waves, -1), 0, 255).astype(np.uint8)


def encoded(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """The start of a PNG that claims a size without holding its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


# Reading, by pixel mode


def test_lossless_rgb_is_read_as_it_is_from_path_bytes_and_file(tmp_path: Path) -> None:
    pixels = noise()
    data = encoded(Image.fromarray(pixels))
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for source in (path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data)):
        read = read_image(source)
        assert read.dtype == np.uint8 and read.flags.writeable
        np.testing.assert_array_equal(read, pixels)


def test_grey_becomes_three_equal_channels() -> None:
    grey = noise()[..., 0]
    np.testing.assert_array_equal(
        read_image(encoded(Image.fromarray(grey))), np.stack([grey] * 3, -1)
    )


def test_one_bit_pictures_become_black_and_white() -> None:
    bits = noise()[..., 0] > 127
    expected = np.repeat(np.where(bits, 255, 0)[..., None], 3, -1)
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(bits))), expected)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_keeps_its_range(form: str) -> None:
    deep = np.array([[0, 128, 257, 30000], [32768, 65407, 65408, 65535]], np.uint16)
    read = read_image(encoded(Image.fromarray(deep), form))
    np.testing.assert_array_equal(read[..., 0], np.rint(deep / 257.0))
    np.testing.assert_array_equal(read[..., 0], read[..., 2])


def test_thirty_two_bit_and_float_grey_are_scaled_to_their_range() -> None:
    whole = np.array([[0, 2**30, 2**31 - 1]], np.int32)
    np.testing.assert_array_equal(
        read_image(encoded(Image.fromarray(whole), "TIFF"))[0, :, 0], [0, 128, 255]
    )
    unit = np.array([[-1.0, 0.5, 1.0, np.nan]], np.float32)
    np.testing.assert_array_equal(
        read_image(encoded(Image.fromarray(unit), "TIFF"))[0, :, 0], [0, 128, 255, 0]
    )
    levels = np.array([[0.0, 127.6, 300.0]], np.float32)
    np.testing.assert_array_equal(
        read_image(encoded(Image.fromarray(levels), "TIFF"))[0, :, 0], [0, 128, 255]
    )


def test_palette_colours_are_looked_up() -> None:
    picture = Image.fromarray(noise()).quantize(7)
    np.testing.assert_array_equal(read_image(encoded(picture)), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_pixels_show_the_background(mode: str) -> None:
    colour = noise()
    alpha = noise(seed=1)[..., :1]
    alpha[0, 0], alpha[0, 1] = 0, 255
    if mode == "LA":
        colour[...] = colour[..., :1]
        stored = np.concatenate([colour[..., :1], alpha], -1)
    else:
        stored = np.concatenate([colour, alpha], -1)
    data = encoded(Image.fromarray(stored))
    for background in ((255, 255, 255), (10, 200, 30)):
        part = alpha / 255.0
        expected = colour * part + np.array(background) * (1.0 - part)
        # Half a level of rounding, and as much again for Pillow's division by 255.
        np.testing.assert_allclose(read_image(data, background=background), expected, atol=1.0)
    assert tuple(read_image(data)[0, 0]) == (255, 255, 255)
    np.testing.assert_array_equal(read_image(data)[0, 1], colour[0, 1])


def test_palette_transparency_shows_the_background() -> None:
    picture = Image.new("P", (3, 1))
    picture.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    picture.putdata([0, 1, 2])
    expected = [[255, 255, 255], [0, 200, 0], [0, 0, 200]]
    np.testing.assert_array_equal(read_image(encoded(picture, transparency=0))[0], expected)
    np.testing.assert_array_equal(read_image(encoded(picture, "GIF", transparency=0))[0], expected)
    graded = read_image(encoded(picture, transparency=bytes([0, 255, 128])))[0]
    np.testing.assert_array_equal(graded[:2], expected[:2])
    np.testing.assert_allclose(graded[2], [127, 127, 227], atol=1)


def test_transparent_key_of_sixteen_bit_grey_shows_the_background() -> None:
    deep = np.array([[300, 0, 65535]], np.uint16)
    data = encoded(Image.fromarray(deep), transparency=300)
    np.testing.assert_array_equal(read_image(data, background=(9, 8, 7))[0, 0], [9, 8, 7])
    assert read_image(data)[0, 1:, 0].tolist() == [0, 255]


@pytest.mark.parametrize("form", ["TIFF", "JPEG"])
def test_cmyk_is_read_in_its_true_colours(form: str) -> None:
    # Pillow writes CMYK JPEGs as Adobe does, with inverted values.
    inks = {(0, 0, 0, 0): (255, 255, 255), (0, 0, 0, 255): (0, 0, 0), (0, 255, 255, 0): (255, 0, 0)}
    for ink, colour in inks.items():
        data = encoded(Image.new("CMYK", (16, 16), ink), form)
        assert Image.open(io.BytesIO(data)).mode == "CMYK"
        np.testing.assert_allclose(read_image(data)[8, 8], colour, atol=2)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_several_is_read(form: str) -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    options: dict[str, object] = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 2
    np.testing.assert_array_equal(read_image(data), np.full((4, 5, 3), (255, 0, 0)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1)])
def test_slivers_are_read(shape: tuple[int, int]) -> None:
    pixels = noise(*shape)
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(pixels))), pixels)


def test_large_pictures_are_copied_whole() -> None:
    pixels = np.tile(noise(19, 1000), (1, 260, 1))  # More than one strip of _to_array.
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(pixels), "BMP")), pixels)


# Orientation

STORED_AS = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}
"""How a camera of each EXIF orientation stores an upright picture (EXIF 2.32, tag 274)."""


def oriented(upright: np.ndarray, orientation: int, form: str, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED_AS[orientation](upright))
    return encoded(Image.fromarray(stored), form, exif=exif, **options)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED_AS)
def test_every_orientation_comes_out_upright(orientation: int, form: str) -> None:
    pixels = noise()
    options: dict[str, object] = {"lossless": True} if form == "WEBP" else {}
    read = read_image(oriented(pixels, orientation, form, **options))
    np.testing.assert_array_equal(read, pixels)


@pytest.mark.parametrize("orientation", STORED_AS)
def test_oriented_jpeg_photos_come_out_upright(tmp_path: Path, orientation: int) -> None:
    pixels = smooth(48, 80)
    path = tmp_path / "a.jpg"
    path.write_bytes(oriented(pixels, orientation, "JPEG", quality=98, subsampling=0))
    np.testing.assert_allclose(read_image(path).astype(int), pixels, atol=40)
    assert np.abs(read_image(path) - pixels.astype(float)).mean() < 2
    # The crops of three corners tell every orientation from every other.
    for offset in ((0.0, 0.0), (0.0, 1.0)):
        expected = cover_crop(pixels, 24, offset=offset).astype(float)
        assert np.abs(load_training_crop(path, 24, offset=offset) - expected).mean() < 2


def test_broken_metadata_do_not_lose_the_picture() -> None:
    pixels = noise()
    for exif in (b"Exif\0\0rubbish", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"):
        data = encoded(Image.fromarray(pixels), exif=exif)
        np.testing.assert_array_equal(read_image(data), pixels)


# Refusals


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"this picture is empty \(0 bytes\); replace the file"),
        (b"dear diary,\n", r"not a readable picture \(it holds text\); give a JPEG, PNG,"),
        (b"<!DOCTYPE html><html>", r"not a readable picture \(it holds a web page\); give"),
        (b"\0\0\0\x18ftypheic\0\0", r"not a readable picture \(it holds a HEIC photo\); give"),
        (b"%PDF-1.7\n", r"not a readable picture \(it holds a PDF document\); give"),
        (bytes(100), r"not a readable picture \(it holds nothing but zero bytes\); give"),
        (b"\x89PNG\r\n\x1a\n12", "damaged"),
        (b"\xff\xd8\xff\xe0", "damaged"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            r"not a readable picture \(it holds text\)",
        ),
        ("grüße".encode(), r"not a readable picture \(it holds text\); give"),
        (bytes(range(128, 256)), r"not a readable picture \(it holds something unknown\); give"),
    ],
)
def test_what_is_no_picture_is_named_in_one_sentence(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"photo\.jpg: .*{message}") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match="picture given as bytes: "):
        read_image(content)
    with pytest.raises(ImageError, match=r"photo\.jpg"):
        load_training_crop(path, 8)


def test_missing_pictures_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nothing\.jpg: no such picture; check the path"):
        read_image(tmp_path / "nothing.jpg")
    with pytest.raises(ImageError, match="this is a folder, not a picture; name a file in it"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="cannot open this picture"):
        read_image("a\0b.jpg")
    with pytest.raises(ImageError, match=r"a\\nb.jpg: no such picture"):
        read_image("a\nb.jpg")
    with pytest.raises(ImageError, match="this is not an ordinary file"):
        read_image("/dev/null")


@pytest.mark.parametrize(
    ("form", "suffix"), [("JPEG", "jpg"), ("PNG", "png"), ("TIFF", "tif"), ("WEBP", "webp")]
)
def test_truncated_pictures_are_refused(tmp_path: Path, form: str, suffix: str) -> None:
    data = encoded(Image.fromarray(noise(64, 64)), form)
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(
        ImageError, match=rf"cut\.{suffix}: .*(damaged or cut short|damaged header)"
    ):
        read_image(path)


def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(60_000, 60_000))
    for read in (read_image, lambda source: load_training_crop(source, 8)):
        with pytest.raises(ImageError, match=r"bomb\.png: has more than the allowed 89,478,485"):
            read(path)
    with pytest.raises(ImageError, match="has more than the allowed 390 pixels"):
        read_image(encoded(Image.fromarray(noise())), max_pixels=390)


def test_pixel_limit_can_be_raised_and_pillows_own_is_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    monkeypatch.setattr(opening, "_PILLOW_REFUSES_ABOVE", 100)
    data = encoded(Image.fromarray(noise()))  # 391 pixels
    with pytest.raises(ImageError, match="more than the allowed 100 pixels"):
        read_image(data, max_pixels=100)
    assert read_image(data, max_pixels=391).shape == (17, 23, 3)
    assert Image.MAX_IMAGE_PIXELS == 50


def test_no_warning_of_pillows_leaks_and_filters_are_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # Warns from 200, refuses from 400.
    data = encoded(Image.fromarray(noise()))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        Image.open(io.BytesIO(data))
        assert len(caught) == 1  # Without us it does warn.
        threads = [threading.Thread(target=read_image, args=(data,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(caught) == 1
        assert list(warnings.filters) == before


# Transparency


def test_transparency_is_told_from_opaque_alpha(tmp_path: Path) -> None:
    rgba = np.dstack([noise(), np.full((17, 23), 255, np.uint8)])
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(rgba)))
    np.testing.assert_array_equal(read_opaque(path), rgba[..., :3])
    rgba[5, 7, 3] = 254
    path.write_bytes(encoded(Image.fromarray(rgba)))
    with pytest.raises(ImageError, match=r"a\.png: has transparent parts"):
        read_opaque(path)
    palette = Image.new("P", (3, 1))
    palette.putpalette([200, 0, 0, 0, 200, 0])
    path.write_bytes(encoded(palette, transparency=1))
    assert read_opaque(path).shape == (1, 3, 3)
    path.write_bytes(encoded(palette, transparency=0))
    with pytest.raises(ImageError, match="transparent parts"):
        read_opaque(path)


def test_an_opaque_picture_is_decoded_once_and_read_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens: list[object] = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: opens.append(a) or real(*a, **k))
    exif = Image.Exif()
    exif[0x0112] = 6
    rgba = np.dstack([noise(), np.full((17, 23), 255, np.uint8)])
    for number, picture in enumerate((noise(), rgba)):
        path = tmp_path / f"{number}.png"
        path.write_bytes(encoded(Image.fromarray(picture), exif=exif))
        opens.clear()
        found = read_opaque(path)
        assert len(opens) == 1
        np.testing.assert_array_equal(found, np.rot90(noise(), k=-1))
    rgba[5, 7, 3] = 254
    path = tmp_path / "glass\n.png"
    path.write_bytes(encoded(Image.fromarray(rgba)))
    expected = r"glass\\n\.png: has transparent parts, and what is .* save it without transparency$"
    with pytest.raises(ImageError, match=expected):
        read_opaque(path)
    with pytest.raises(ImageError, match="nowhere.png: no such picture"):
        read_opaque(tmp_path / "nowhere.png")


# Writing


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".tiff", ".bmp"])
def test_lossless_formats_keep_every_pixel(tmp_path: Path, suffix: str) -> None:
    pixels = noise()
    path = tmp_path / "new" / f"a{suffix}"
    write_image(path, pixels)
    np.testing.assert_array_equal(read_image(path), pixels)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", OUTPUT_SUFFIXES)
def test_every_output_suffix_writes_its_own_format(tmp_path: Path, suffix: str) -> None:
    pixels = smooth(33, 47)
    path = tmp_path / f"a{suffix}"
    write_image(path, pixels[:, ::-1])  # Views that are not contiguous are fine too.
    with Image.open(path) as picture:
        assert Image.registered_extensions()[suffix] == picture.format
    # WebP halves the resolution of chroma, so only most pixels are close.
    assert np.abs(read_image(path) - pixels[:, ::-1].astype(float)).mean() < 4


def test_jpeg_keeps_full_colour_resolution(tmp_path: Path) -> None:
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2, 0], stripes[:, 1::2, 2] = 255, 255
    path = tmp_path / "a.jpg"
    write_image(path, stripes)
    # Halved chroma would average red and blue columns to purple: an error of 85 on average.
    assert np.abs(read_image(path) - stripes.astype(float)).mean() < 10
    write_image(tmp_path / "small.jpg", stripes, quality=30)
    assert (tmp_path / "small.jpg").stat().st_size < path.stat().st_size


@pytest.mark.parametrize("name", ["a.gif", "a", "a.jpg.txt"])
def test_unknown_endings_list_the_choices(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"end the name in one of \.jpg, \.jpeg, \.png, \.webp,"):
        write_image(tmp_path / name, noise())
    assert not list(tmp_path.iterdir())


def test_pictures_too_long_for_a_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"WEBP cannot hold 20000x1 pixels \(at most 16383 a side"):
        write_image(tmp_path / "a.webp", noise(1, 20_000))
    assert not list(tmp_path.iterdir())


def test_failed_write_keeps_the_old_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    write_image(path, noise())

    def fail(self: Image.Image, file: Path, **options: object) -> None:
        Path(file).write_bytes(b"half a pic")
        raise OSError("encoder error -2")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(ImageError, match=r"a\.png: the PNG encoder failed \(encoder error -2\)"):
        write_image(path, noise(seed=1))
    assert list(tmp_path.iterdir()) == [path]
    np.testing.assert_array_equal(read_image(path), noise())


def test_unwritable_places_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "a.png").mkdir()
    for refuse in (check_output, lambda path: write_image(path, noise())):
        with pytest.raises(FastStyleError, match=r"cannot write to this folder .*file is not a f"):
            refuse(tmp_path / "file" / "a.png")
        with pytest.raises(FastStyleError, match=r"a\.png: this is a folder; name a file in it"):
            refuse(tmp_path / "a.png")
        with pytest.raises(UsageError, match=r"not written as a name without an ending; end the"):
            refuse(tmp_path / "a")
    with pytest.raises(FastStyleError, match=r"cannot write this file \(File name too long\)"):
        write_image(tmp_path / f"{'a' * 300}.png", noise())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.png", "file"]


def test_a_check_of_outputs_writes_nothing_and_protects_every_source(tmp_path: Path) -> None:
    here = tmp_path / "here"
    check_outputs([here / "a.png", here / "deep" / "b.JPG"], [here / "c.png"])
    assert not list(tmp_path.iterdir())
    write_image(here / "c.png", noise())
    (tmp_path / "link.png").symlink_to(here / "c.png")
    sources = [here / "other.png", here / "c.png"]
    for path in (here / ".." / "here" / "c.png", tmp_path / "link.png"):
        with pytest.raises(
            FastStyleError, match=r"c?\.png: would replace a source picture; choose"
        ):
            check_outputs([here / "a.png", path], sources)


def test_levels_are_clipped_and_rounded_to_the_nearest() -> None:
    levels = np.array([[[-7.0, -0.4, 0.49], [0.51, 1.5, 2.5], [254.6, 255.4, 1e9]]], np.float32)
    rounded = to_uint8(levels)
    assert rounded.dtype == np.uint8
    assert rounded.tolist() == [[[0, 0, 0], [1, 2, 2], [255, 255, 255]]]


# Sizes


def test_resize_averages_when_reducing_and_keeps_flat_areas_flat() -> None:
    checks = np.indices((16, 24)).sum(0)[..., None] % 2 * np.full(3, 254, np.uint8)
    reduced = resize(checks.astype(np.uint8), 4, 6)
    np.testing.assert_allclose(reduced[1:-1, 1:-1], 127, atol=2)  # Unfiltered it would be 0 or 254.
    flat = np.full((17, 23, 3), (1, 100, 250), np.uint8)
    np.testing.assert_array_equal(resize(flat, 40, 3), np.broadcast_to(flat[0, 0], (40, 3, 3)))
    np.testing.assert_array_equal(resize(noise(), 17, 23), noise())


def test_cover_crop_of_equal_short_side_only_cuts() -> None:
    pixels = noise(17, 24)
    np.testing.assert_array_equal(cover_crop(pixels, 17), pixels[:, 3:20])  # (24 - 17) // 2
    np.testing.assert_array_equal(cover_crop(pixels, 17, offset=(0.3, 0.0)), pixels[:, :17])
    np.testing.assert_array_equal(cover_crop(pixels, 17, offset=(0.3, 1.0)), pixels[:, 7:])
    tall = pixels.transpose(1, 0, 2)
    np.testing.assert_array_equal(cover_crop(tall, 17, offset=(1.0, 0.0)), tall[7:])


def test_cover_crop_equals_scaling_all_and_cutting() -> None:
    pixels = smooth(60, 100)
    for size in (15, 30, 120):
        scaled = resize(pixels, size, size * 100 // 60).astype(int)
        left = (scaled.shape[1] - size) // 2
        np.testing.assert_allclose(cover_crop(pixels, size), scaled[:, left : left + size], atol=1)


def test_centre_crop_of_a_symmetric_picture_is_symmetric() -> None:
    ramp = np.abs(np.arange(-40, 41)) * 3
    pixels = np.broadcast_to(ramp[None, :, None], (41, 81, 3)).astype(np.uint8)
    crop = cover_crop(pixels, 20).astype(int)  # Scaled to 20 x 39.5, so cut between pixels.
    np.testing.assert_allclose(crop, crop[:, ::-1], atol=1)
    # The outermost of 20 output pixels lie 19.475 input pixels from the centre.
    np.testing.assert_allclose(crop[:, [0, -1]], 3 * 19.475, atol=1)


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (1, 1), (3, 5000), (333, 517)])
@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.5, 0.5), (0.999, 0.999), (1.0, 1.0)])
def test_cover_crop_always_fills_its_square(
    shape: tuple[int, int], offset: tuple[float, float]
) -> None:
    for size in (1, 7, 64):
        assert cover_crop(noise(*shape), size, offset=offset).shape == (size, size, 3)


def test_fit_long_side_keeps_the_aspect_ratio_both_ways() -> None:
    assert fit_long_side(noise(30, 40), 20).shape == (15, 20, 3)
    assert fit_long_side(noise(40, 30), 80).shape == (80, 60, 3)
    assert fit_long_side(noise(1, 500), 20).shape == (1, 20, 3)
    np.testing.assert_array_equal(fit_long_side(noise(), 23), noise())


def test_wrong_arguments_are_value_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\], got float32 \[4, 4, 3\]"):
        cover_crop(np.zeros((4, 4, 3), np.float32), 2)
    with pytest.raises(ValueError, match=r"got uint8 \[4, 4\]"):
        write_image(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match=r"got uint8 \[0, 4, 3\]"):
        resize(np.zeros((0, 4, 3), np.uint8), 2, 2)
    with pytest.raises(ValueError, match="at least 1 pixel, got 0"):
        resize(noise(), 0, 4)
    with pytest.raises(ValueError, match=r"offset \(y, x\) within 0..1, got \(0.5, 1.5\)"):
        load_training_crop(tmp_path / "a.png", 4, offset=(0.5, 1.5))
    with pytest.raises(ValueError, match="quality must be 1 to 100, got 0"):
        write_image(tmp_path / "a.jpg", noise(), quality=0)


# The fast path


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_training_crop_of_large_jpegs_nearly_equals_the_full_path(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.jpg"
    Image.fromarray(smooth(403, 611)).convert(mode).save(path, quality=90)
    decoded: list[tuple[int, int]] = []
    load = images._flat_upright
    monkeypatch.setattr(
        images, "_flat_upright", lambda picture, b: decoded.append(picture.size) or load(picture, b)
    )
    for offset in ((0.5, 0.5), (0.5, 0.9)):
        fast = load_training_crop(path, 48, offset=offset)
        full = cover_crop(read_image(path), 48, offset=offset)
        assert np.abs(fast.astype(float) - full).mean() < 1.5
    assert decoded[0] == (153, 101) and decoded[1] == (611, 403)  # 1/4, still over 2 * 48
    flipped = load_training_crop(path, 48, offset=(0.5, 0.9), flip=True)
    np.testing.assert_array_equal(flipped, fast[:, ::-1])


def test_training_crop_of_other_pictures_equals_the_full_path(tmp_path: Path) -> None:
    rgba = np.dstack([noise(90, 140), noise(90, 140, 1)[..., 0]])
    deep = (noise(90, 140)[..., 0] * 257.0).astype(np.uint16)
    for name, picture in (
        ("alpha.png", Image.fromarray(rgba)),
        ("deep.png", Image.fromarray(deep)),
        ("palette.gif", Image.fromarray(noise(90, 140)).quantize(9)),
        ("small.jpg", Image.fromarray(smooth(90, 140))),
    ):
        picture.save(tmp_path / name)
        for flip in (False, True):
            crop = load_training_crop(tmp_path / name, 47, offset=(0.2, 0.8), flip=flip)
            full = cover_crop(read_image(tmp_path / name), 47, offset=(0.2, 0.8))
            np.testing.assert_array_equal(crop, full[:, ::-1] if flip else full)
