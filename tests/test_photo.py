from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import hostile
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps, TiffImagePlugin

from fast_style.deep_colour import write_png, write_tiff
from fast_style.errors import ImageError
from fast_style.extras import Extras, parse_exif
from fast_style.images import read_image, write_image
from fast_style.photo import read_photo, upright
from fast_style.pixel_modes import to_8_bits, to_16_bits

MAKE, EXPOSURE, GPS_LATITUDE, ORIENTATION = 0x010F, 0x829A, 0x0002, 0x0112
WIDTH_TAG, HEIGHT_TAG = 40962, 40963


def saved(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# 16 bits


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("form", ["png", "tif"])
def test_sixteen_bit_colour_survives_writing_and_reading(
    tmp_path: Path, form: str, channels: int
) -> None:
    deep = hostile.deep_picture(channels)
    path = tmp_path / f"a.{form}"
    alpha = deep[..., 3] if channels == 4 else None
    write_image(path, np.ascontiguousarray(deep[..., :3]), extras=Extras(alpha=alpha))
    photo = read_photo(path)
    assert photo.pixels.dtype == np.uint16
    if alpha is None:
        assert photo.extras.alpha is None
        np.testing.assert_array_equal(photo.pixels, deep)
    else:
        np.testing.assert_array_equal(photo.extras.alpha, alpha)
        share = alpha[..., None] / 65535.0
        expected = deep[..., :3] * share + 65535.0 * (1.0 - share)
        np.testing.assert_allclose(photo.pixels, expected, atol=0.51)
    # Others see the same picture: Pillow keeps the upper bytes.
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), deep >> 8)


def test_every_png_filter_is_written_and_read() -> None:
    """Rows that each suit another filter of the five, checked by decoding as the standard says."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 65536, (1, 23, 3), dtype=np.uint16)
    ramp = np.repeat(np.arange(23, dtype=np.uint16)[None, :, None] * 5 + 9, 3, 2)
    rows = [noise, ramp, ramp, noise, noise + np.uint16(1)]
    for _ in range(6):  # Smooth in both directions: Average and Paeth.
        mean = (rows[-1].astype(np.uint32) + np.roll(rows[-1], 1, axis=1)) // 2
        rows.append((mean + rng.integers(0, 3, mean.shape)).astype(np.uint16))
    pixels = np.concatenate(rows)
    file = io.BytesIO()
    write_png(file, pixels)
    data, place, packed = file.getvalue(), 8, b""
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        body = data[place + 8 : place + 8 + length]
        assert struct.unpack(">I", data[place + 8 + length :][:4])[0] == zlib.crc32(kind + body)
        packed += body if kind == b"IDAT" else b""
        place += 12 + length
    unpacked = zlib.decompress(packed)
    stride, step = 23 * 6, 6
    filters, above = set(), bytes(stride)
    for row in range(len(pixels)):
        line = bytearray(unpacked[row * (stride + 1) + 1 :][:stride])
        number = unpacked[row * (stride + 1)]
        filters.add(number)
        for i in range(stride):
            a = line[i - step] if i >= step else 0
            b, c = above[i], above[i - step] if i >= step else 0
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            line[i] = (line[i] + (0, a, b, (a + b) // 2, paeth)[number]) & 255
        np.testing.assert_array_equal(np.frombuffer(line, ">u2").reshape(23, 3), pixels[row])
        above = bytes(line)
    assert filters >= {0, 1, 2} and filters & {3, 4}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 8])
def test_tiffs_of_others_are_read_with_16_bits(
    tmp_path: Path, order: str, compression: int
) -> None:
    deep = hostile.deep_picture()
    data = deep.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if compression == 8 else data
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II" if order == "<" else b"MM")
    height, width = deep.shape[:2]
    tags[256], tags[257], tags[258], tags[259], tags[262] = width, height, (16,) * 3, compression, 2
    tags[273], tags[277], tags[278], tags[279] = (0,), 3, height, (len(data),)
    tags.tagtype[273] = tags.tagtype[279] = 4
    file = io.BytesIO()
    tags.save(file)
    file.write(data)
    np.testing.assert_array_equal(
        read_photo(saved(tmp_path / "a.tif", file.getvalue())).pixels, deep
    )


def test_deep_tiffs_in_planes_are_read_with_8_bits_or_refused(tmp_path: Path) -> None:
    deep = hostile.deep_picture()
    height, width = deep.shape[:2]
    for compression in (1, 8):
        planes = [deep[..., channel].astype("<u2").tobytes() for channel in range(3)]
        planes = [zlib.compress(plane) for plane in planes] if compression == 8 else planes
        sizes = tuple(map(len, planes))
        tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
        tags[256], tags[257], tags[258], tags[259] = width, height, (16,) * 3, compression
        tags[262], tags[277], tags[278], tags[279], tags[284] = 2, 3, height, sizes, 2
        tags[273] = (0, sizes[0], sizes[0] + sizes[1])
        tags.tagtype[273] = tags.tagtype[279] = 4
        file = io.BytesIO()
        tags.save(file)
        path = saved(tmp_path / "a.tif", file.getvalue() + b"".join(planes))
        if compression == 8:
            np.testing.assert_array_equal(read_photo(path).pixels, deep >> 8)
            continue
        with pytest.raises(ImageError, match="a TIFF of 16-bit planes without compression is not"):
            read_photo(path)


def test_deep_grey_with_alpha_and_with_a_transparent_value_are_read(tmp_path: Path) -> None:
    pair = np.array([[[1000, 65535], [300, 0], [65535, 32768]]], ">u2")
    path = saved(tmp_path / "la.png", hostile.png(3, 1, 16, 4, b"\0" + pair.tobytes()))
    photo = read_photo(path)
    assert photo.extras.alpha is not None
    np.testing.assert_array_equal(photo.extras.alpha, pair[..., 1])
    assert photo.pixels[0, :, 0].tolist() == [1000, 65535, 65535]  # Over white.
    rgb = np.array([[[1, 2, 3], [1, 2, 4]]], ">u2")
    key = b"tRNS" + rgb[0, 0].tobytes()
    photo = read_photo(
        saved(tmp_path / "rgb.png", hostile.png(2, 1, 16, 2, b"\0" + rgb.tobytes(), key))
    )
    assert photo.extras.alpha is not None
    assert photo.extras.alpha.tolist() == [[0, 65535]]
    assert photo.pixels.tolist() == [[[65535] * 3, [1, 2, 4]]]


def test_formats_of_8_bits_get_rounded_levels(tmp_path: Path) -> None:
    deep = np.full((8, 8, 3), 65535 // 2, np.uint16)
    for name in ("a.jpg", "a.webp", "a.bmp"):
        write_image(tmp_path / name, deep)
        np.testing.assert_allclose(read_image(tmp_path / name), 127, atol=1)


def test_depths_convert_to_the_nearest_level_and_back() -> None:
    levels = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(to_8_bits(levels), np.rint(levels / 257.0))
    small = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_8_bits(to_16_bits(small)), small)
    assert to_16_bits(small)[-1] == 65535


# What travels along


def camera_exif(orientation: int = 6) -> Image.Exif:
    exif = Image.Exif()
    exif[MAKE], exif[ORIENTATION] = "Camera", orientation
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details[EXPOSURE] = TiffImagePlugin.IFDRational(1, 125)
    details[WIDTH_TAG], details[HEIGHT_TAG] = 23, 17
    exif.get_ifd(ExifTags.IFD.GPSInfo)[GPS_LATITUDE] = (47.0, 30.0, 15.0)
    return exif


@pytest.mark.parametrize("source", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("target", ["jpg", "png", "webp", "tif", "deep.png", "deep.tif"])
def test_exif_and_profile_and_resolution_are_carried_over(
    tmp_path: Path, source: str, target: str
) -> None:
    profile = hostile.swapped_profile()
    path = tmp_path / f"in.{source}"
    Image.fromarray(hostile.picture()).save(
        path, exif=camera_exif().tobytes(), icc_profile=profile, dpi=(300, 300)
    )
    photo = read_photo(path)
    assert photo.pixels.shape == (23, 17, 3) and photo.notes == ()
    pixels = to_16_bits(photo.pixels) if target.startswith("deep") else photo.pixels
    write_image(tmp_path / f"out.{target}", pixels, extras=photo.extras)
    with Image.open(tmp_path / f"out.{target}") as result:
        assert result.size == (17, 23)
        assert result.info["icc_profile"] == profile
        if source != "webp" and target != "webp":  # It has no place for a resolution.
            np.testing.assert_allclose(np.array(result.info["dpi"], float), 300, atol=0.01)
        exif = result.getexif()
        assert exif[MAKE] == "Camera"
        assert exif.get(ORIENTATION, 1) == 1
        details = exif.get_ifd(ExifTags.IFD.Exif)
        assert float(details[EXPOSURE]) == pytest.approx(1 / 125)
        assert (details[WIDTH_TAG], details[HEIGHT_TAG]) == (17, 23)
        assert tuple(map(float, exif.get_ifd(ExifTags.IFD.GPSInfo)[GPS_LATITUDE])) == (47, 30, 15)
    again = read_photo(tmp_path / f"out.{target}")
    assert again.notes == () and again.pixels.shape == (23, 17, 3)


def test_numbers_are_kept_whatever_the_profile_says(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(hostile.picture()).save(path, icc_profile=hostile.swapped_profile())
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.pixels, hostile.picture())
    assert photo.extras.icc_profile == hostile.swapped_profile()


def test_formats_without_profiles_get_srgb(tmp_path: Path) -> None:
    """Red and green mean each other in the profile, so they trade places in sRGB."""
    colours = np.tile(np.array([[[200, 40, 90]]], np.uint8), (4, 5, 1))
    write_image(tmp_path / "a.bmp", colours, extras=Extras(icc_profile=hostile.swapped_profile()))
    np.testing.assert_allclose(read_image(tmp_path / "a.bmp")[0, 0], [40, 200, 90], atol=12)


def test_a_grey_picture_is_converted_by_its_profile(tmp_path: Path) -> None:
    grey = np.arange(0, 250, 10, dtype=np.uint8)[None].repeat(3, 0)
    path = tmp_path / "a.png"
    Image.fromarray(grey).save(path, icc_profile=hostile.grey_profile(gamma=1.0))
    photo = read_photo(path)
    assert photo.extras.icc_profile is None  # It would not describe RGB.
    linear = grey / 255.0
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(photo.pixels[..., 1], 255 * expected, atol=2)


def test_lab_pictures_are_read_in_their_colours(tmp_path: Path) -> None:
    colours = hostile.picture() // 2 + 60  # Well within what 8-bit Lab holds.
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = ImageCms.applyTransform(Image.fromarray(colours), to_lab)
    assert lab is not None
    lab.save(tmp_path / "a.tif")
    photo = read_photo(tmp_path / "a.tif")
    assert np.abs(photo.pixels.astype(float) - colours).mean() < 2


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_carried_over(tmp_path: Path, mode: str, suffix: str) -> None:
    alpha = np.random.default_rng(1).integers(0, 256, (17, 23), dtype=np.uint8)
    image = Image.fromarray(hostile.picture())
    if mode == "P":
        data = hostile.transparent_palette()
        alpha = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))[..., 3]
    else:
        image = image.convert(mode[:-1])
        image.putalpha(Image.fromarray(alpha))
        data = hostile.encoded(image, "PNG")
    photo = read_photo(saved(tmp_path / "a.png", data))
    write_image(tmp_path / f"b.{suffix}", photo.pixels, extras=photo.extras)
    with Image.open(tmp_path / f"b.{suffix}") as result:
        assert result.mode == "RGBA"
        np.testing.assert_array_equal(np.asarray(result)[..., 3], alpha)
    write_image(tmp_path / "b.jpg", photo.pixels, extras=photo.extras)  # Over white.
    assert read_image(tmp_path / "b.jpg").shape == (17, 23, 3)


def test_opaque_alpha_is_dropped(tmp_path: Path) -> None:
    image = Image.fromarray(hostile.picture()).convert("RGBA")
    image.save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png").extras.alpha is None


def test_alpha_follows_a_result_of_another_size(tmp_path: Path) -> None:
    alpha = np.zeros((10, 20), np.uint8)
    alpha[:, 10:] = 255
    write_image(tmp_path / "a.png", np.zeros((5, 8, 3), np.uint8), extras=Extras(alpha=alpha))
    found = np.asarray(Image.open(tmp_path / "a.png"))[..., 3]
    assert found.shape == (5, 8)
    assert found[:, 0].max() == 0 and found[:, -1].min() == 255


def test_a_makers_note_too_large_for_jpeg_is_left_out_and_the_rest_kept(tmp_path: Path) -> None:
    exif = camera_exif(1)
    exif.get_ifd(ExifTags.IFD.Exif)[0x927C] = bytes(70_000)
    extras = Extras(exif=exif.tobytes())
    write_image(tmp_path / "a.jpg", hostile.picture(), extras=extras)
    with Image.open(tmp_path / "a.jpg") as result:
        assert result.getexif()[MAKE] == "Camera"
        assert 0x927C not in result.getexif().get_ifd(ExifTags.IFD.Exif)
    write_image(tmp_path / "a.png", hostile.picture(), extras=extras)
    with Image.open(tmp_path / "a.png") as result:
        assert len(result.getexif().get_ifd(ExifTags.IFD.Exif)[0x927C]) == 70_000
    everything = Image.Exif()
    everything[MAKE] = "x" * 70_000
    assert Extras(exif=everything.tobytes()).exif_for(1, 1, jpeg=True) is None


def test_tags_about_the_storage_of_a_tiff_stay_behind(tmp_path: Path) -> None:
    Image.fromarray(hostile.picture()).save(
        tmp_path / "a.tif", exif=camera_exif(1).tobytes(), dpi=(72, 72), icc_profile=hostile.srgb()
    )
    exif = read_photo(tmp_path / "a.tif").extras.exif
    assert exif is not None
    assert set(parse_exif(exif)) == {MAKE, int(ExifTags.IFD.Exif), int(ExifTags.IFD.GPSInfo)}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_arrays_are_turned_as_pillow_turns_pictures(orientation: int) -> None:
    pixels = hostile.picture()
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = Image.open(io.BytesIO(hostile.encoded(Image.fromarray(pixels), "PNG", exif=exif)))
    turned = upright(pixels, orientation)
    np.testing.assert_array_equal(turned, np.asarray(ImageOps.exif_transpose(image)))
    assert turned.flags.c_contiguous and turned.flags.writeable


def test_a_tiff_of_many_strips_is_read_by_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fast_style.deep_colour._STRIP_BYTES", 300)
    file = io.BytesIO()
    write_tiff(file, hostile.picture())
    np.testing.assert_array_equal(np.asarray(Image.open(file)), hostile.picture())
