from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from fast_style.cli import main
from fast_style.data import PhotoStream, find_photos
from fast_style.errors import DataError
from fast_style.images import load_scaled, load_training_crop, read_image
from fast_style.prepare import INDEX_FILE, check_prepared, prepare_photos

if TYPE_CHECKING:
    import tiny


def save_noise(path: Path, height: int, width: int, seed: int) -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five photos of several formats and shapes, one of them smaller than it is trained at."""
    folder = tmp_path / "photos"
    for seed, name in enumerate(["b.jpg", "a/c.png", "a/b.webp", "z.jpg", "small.bmp"]):
        height, width = ((70, 90), (64, 48), (200, 61), (48, 48), (20, 31))[seed]
        save_noise(folder / name, height, width, seed)
    return folder


def test_prepared_photos_keep_their_names_order_and_aspect(photos: Path, tmp_path: Path) -> None:
    result = prepare_photos(photos, tmp_path / "fast", size=32)
    assert (result.photos, result.written, result.skipped) == (5, 5, {})
    before, after = find_photos(photos), find_photos(tmp_path / "fast")
    names = [f"{path.relative_to(photos).as_posix()}.ppm" for path in before]
    assert [path.relative_to(tmp_path / "fast").as_posix() for path in after] == names
    for one, other in zip(before, after, strict=True):
        picture = read_image(other)
        np.testing.assert_array_equal(picture, load_scaled(one, 32))
        assert min(picture.shape[:2]) == 32
        height, width = read_image(one).shape[:2]
        assert picture.shape[0] / picture.shape[1] == pytest.approx(height / width, rel=0.03)


def test_training_sees_the_same_crops_up_to_resampling(photos: Path, tmp_path: Path) -> None:
    prepare_photos(photos, tmp_path / "fast", size=32)

    def batches(folder: Path) -> list[np.ndarray]:
        options = {"image_size": 32, "batch_size": 2, "seed": 3, "random_flip": True}
        with PhotoStream(find_photos(folder), stop_step=5, **options) as stream:
            return list(stream)

    for one, other in zip(batches(photos), batches(tmp_path / "fast"), strict=True):
        # The long side is rounded to whole pixels, and the crop begins at one.
        assert np.abs(one.astype(int) - other.astype(int)).mean() < 8


def test_a_crop_of_the_prepared_size_is_cut_and_not_resampled(photos: Path, tmp_path: Path) -> None:
    prepare_photos(photos, tmp_path / "fast", size=32)
    path = tmp_path / "fast" / "b.jpg.ppm"
    whole = read_image(path)
    left = (whole.shape[1] - 32) // 2
    np.testing.assert_array_equal(load_training_crop(path, 32), whole[:, left : left + 32])


def test_a_second_call_writes_only_what_is_missing_or_older(photos: Path, tmp_path: Path) -> None:
    prepare_photos(photos, tmp_path / "fast", size=32)
    (tmp_path / "fast" / "z.jpg.ppm").unlink()
    os.utime(photos / "b.jpg", (4e9, 4e9))
    calls: list[tuple[int, int]] = []
    result = prepare_photos(
        photos, tmp_path / "fast", size=32, progress=lambda *counts: calls.append(counts)
    )
    assert (result.photos, result.written) == (5, 2)
    assert calls == [(count, 5) for count in range(1, 6)]


def test_unreadable_photos_are_named_and_left_out(photos: Path, tmp_path: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"no picture")
    result = prepare_photos(photos, tmp_path / "fast", size=32)
    assert result.photos == 5
    assert list(result.skipped) == [photos / "bad.jpg"]
    assert "not a readable picture" in result.skipped[photos / "bad.jpg"]
    assert not (tmp_path / "fast" / "bad.jpg.ppm").exists()


def test_a_prepared_folder_says_what_it_serves(photos: Path, tmp_path: Path) -> None:
    prepare_photos(photos, tmp_path / "fast", size=32)
    check_prepared(tmp_path / "fast", 32)
    check_prepared(photos, 512)
    with pytest.raises(DataError, match="image_size of up to 32, and this run has 48"):
        check_prepared(tmp_path / "fast", 48)
    with pytest.raises(DataError, match="prepared with --size 32, not 48"):
        prepare_photos(photos, tmp_path / "fast", size=48)


def test_an_interrupted_preparation_is_not_trained_on(photos: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_photos(photos, tmp_path / "fast", size=32, workers=1, progress=interrupt)
    with pytest.raises(DataError, match="interrupted; run the same"):
        check_prepared(tmp_path / "fast", 32)
    assert prepare_photos(photos, tmp_path / "fast", size=32).photos == 5
    check_prepared(tmp_path / "fast", 32)
    assert not list((tmp_path / "fast").rglob("*.partial*"))


@pytest.mark.parametrize("text", ["", "[1]", '{"format": "other"}', '{"size": "x"}'])
def test_a_damaged_index_is_reported(photos: Path, text: str) -> None:
    (photos / INDEX_FILE).write_text(text)
    with pytest.raises(DataError, match="not what `python -m fast_style prepare` writes"):
        check_prepared(photos, 32)


def test_folders_within_each_other_are_refused(photos: Path) -> None:
    for target in (photos, photos / "fast", photos.parent):
        with pytest.raises(DataError, match="lies within the photo folder"):
            prepare_photos(photos, target, size=32)
    assert not (photos / INDEX_FILE).exists()


def test_a_folder_without_readable_photos_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of its 1 photos can be read"):
        prepare_photos(tmp_path / "photos", tmp_path / "fast", size=32)
    with pytest.raises(ValueError, match="at least 1 pixel, got 0"):
        prepare_photos(tmp_path / "photos", tmp_path / "fast", size=0)


def test_the_command_says_how_to_train(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "bad.jpg").write_bytes(b"no picture")
    target = tmp_path / "fast"
    assert main(["prepare", str(photos), "-o", str(target), "--size", "32"]) == 0
    said = capsys.readouterr()
    assert f"5 photos in {target}, 0.00 GB" in said.out
    assert f"--set dataset={target} (image_size up to 32)" in said.out
    assert "1 photo could not be read and was left out:" in said.err
    assert json.loads((target / INDEX_FILE).read_text())["complete"] is True
    assert main(["prepare", str(tmp_path / "none"), "-o", str(target)]) == 2
    assert "no such folder of photos" in capsys.readouterr().err


def test_a_run_reads_prepared_photos_and_refuses_those_too_small(
    world: tiny.World, tmp_path: Path
) -> None:
    from fast_style.builders import find_run_photos

    prepare_photos(world.photos, tmp_path / "fast", size=32)
    dataset = str(tmp_path / "fast")
    found, _ = find_run_photos(world.config(tmp_path, dataset=dataset, image_size=32))
    assert len(found) == len(find_photos(world.photos))
    with pytest.raises(DataError, match="up to 32, and this run has 48"):
        find_run_photos(world.config(tmp_path, dataset=dataset, image_size=48))
    with pytest.raises(DataError, match="up to 32, and this run has 48"):
        find_run_photos(world.config(tmp_path, val_dataset=dataset, image_size=48))


def test_photos_that_are_not_of_the_folder_are_refused(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "fast"
    prepare_photos(photos, target, size=32)
    (photos / "z.jpg").unlink()
    with pytest.raises(
        DataError, match=r"fast: holds 1 pictures that are not of .*photos, such as z"
    ):
        prepare_photos(photos, target, size=32)


def test_what_a_killed_run_left_behind_is_removed(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "fast"
    left_over = target / "a" / ".c.png.0a1b2c3d.partial.ppm"
    left_over.parent.mkdir(parents=True)
    left_over.write_bytes(b"P6 half")
    assert prepare_photos(photos, target, size=32).photos == 5
    assert not left_over.exists()


def test_a_photo_too_thin_to_be_scaled_is_skipped_and_named(photos: Path, tmp_path: Path) -> None:
    Image.new("RGB", (4000, 1)).save(photos / "line.png")
    result = prepare_photos(photos, tmp_path / "fast", size=160)
    assert result.photos == 5
    ((path, reason),) = result.skipped.items()
    assert path.name == "line.png" and "too long and thin, 640000x160 px" in reason
