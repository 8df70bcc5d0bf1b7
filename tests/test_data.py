from __future__ import annotations

import itertools
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fast_style import data
from fast_style.data import PhotoStream, find_photos, photo_order
from fast_style.errors import DataError
from fast_style.images import load_training_crop

SHARED = Path(__file__).parents[2] / "shared"


def make_photos(folder: Path, count: int, size: tuple[int, int] = (23, 17)) -> tuple[Path, ...]:
    """Flat photos whose red level is their number, so that a batch tells what it holds."""
    for number in range(count):
        Image.new("RGB", size, (number, 100, 200)).save(folder / f"{number:03}.png")
    return find_photos(folder)


def noisy_photos(folder: Path, count: int) -> tuple[Path, ...]:
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 256, (17, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return find_photos(folder)


def numbers(batch: np.ndarray) -> list[int]:
    return batch[:, 0, 0, 0].tolist()


def batches(paths: tuple[Path, ...], count: int, **options: object) -> np.ndarray:
    settings: dict[str, Any] = {"image_size": 8, "batch_size": 4, **options}
    with PhotoStream(paths, **settings) as stream:
        return np.stack(list(itertools.islice(stream, count)))


# Finding


def test_photos_are_found_below_a_folder_in_a_fixed_order(tmp_path: Path) -> None:
    for name in (
        "b.JPG", "B.png", "a/z.jpeg", "a/deep/er/x.webp", "a.jpg", "a-b/c.tif", "notes.txt",
        ".hidden.jpg", ".cache/thumb.jpg", "a/._z.jpeg", "jpg",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"not opened")
    (tmp_path / "folder.jpg").mkdir()
    found = find_photos(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "B.png", "a-b/c.tif", "a.jpg", "a/deep/er/x.webp", "a/z.jpeg", "b.JPG",
    ]  # fmt: skip
    assert find_photos(str(tmp_path)) == found


def test_linked_folders_are_entered_once_and_loops_end(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jpg").write_bytes(b"x")
    (tmp_path / "set" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "link2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "self.jpg").symlink_to(tmp_path / "set" / "self.jpg")
    (tmp_path / "set" / "gone.jpg").symlink_to(tmp_path / "nothing")
    assert find_photos(tmp_path / "set") == (tmp_path / "set" / "link" / "a.jpg",)


def test_useless_folders_are_data_errors_that_name_the_key(tmp_path: Path) -> None:
    hint = r"; set `dataset:` in the config; any folder of photos will do$"
    with pytest.raises(DataError, match=rf"missing: no such folder of photos{hint}"):
        find_photos(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=rf"empty: no photos in this folder \(it is empty\){hint}"):
        find_photos(tmp_path / "empty")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no photo")
    with pytest.raises(DataError, match=rf"texts: .*\(none of its 1 files is a picture\){hint}"):
        find_photos(tmp_path / "texts")
    with pytest.raises(DataError, match=rf"a\.txt: this is a file, not a folder of photos{hint}"):
        find_photos(tmp_path / "texts" / "a.txt")


def test_unlistable_folders_are_left_out_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: Path):
        if Path(path) in locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    locked = {tmp_path / "locked"}
    assert find_photos(tmp_path) == (tmp_path / "a.jpg",)
    assert "locked: folder left out (Permission denied)" in caplog.text
    locked = {tmp_path}
    with pytest.raises(DataError, match=r"cannot list this folder \(Permission denied\); set"):
        find_photos(tmp_path)


# Order


def test_photo_order_is_a_permutation_of_its_own_for_seed_and_epoch() -> None:
    orders = [photo_order(101, seed, epoch) for seed in range(3) for epoch in range(3)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(101))
    assert len({tuple(order) for order in orders}) == 9
    np.testing.assert_array_equal(photo_order(101, 2, 1), orders[7])


def test_photo_order_never_changes() -> None:
    # Written down once: runs stopped under an earlier version resume in this order.
    assert photo_order(8, 0, 0).tolist() == [6, 4, 1, 3, 2, 7, 5, 0]
    assert photo_order(8, 7, 3).tolist() == [7, 4, 0, 1, 3, 2, 5, 6]


# The stream


def test_batches_follow_the_documented_formula(tmp_path: Path) -> None:
    paths = make_photos(tmp_path, 7)
    with PhotoStream(paths, image_size=8, batch_size=3, seed=5) as stream:
        for step in range(6):
            batch = next(stream)
            assert batch.shape == (3, 8, 8, 3) and batch.dtype == np.uint8
            places = range(step * 3, step * 3 + 3)
            assert numbers(batch) == [photo_order(7, 5, p // 7)[p % 7] for p in places]


def test_batches_hold_the_training_crops_of_the_photos(tmp_path: Path) -> None:
    paths = noisy_photos(tmp_path, 4)
    order = photo_order(4, 0, 0)
    expected = [load_training_crop(paths[i], 8) for i in order]
    np.testing.assert_array_equal(batches(paths, 1)[0], expected)


def test_every_photo_comes_once_per_epoch(tmp_path: Path) -> None:
    paths = make_photos(tmp_path, 10)
    seen = batches(paths, 5, seed=3)[..., 0, 0, 0].ravel()  # 5 batches of 4 are two epochs of 10.
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()


@pytest.mark.parametrize("workers", [1, 3])
def test_equal_seeds_give_equal_batches_and_other_seeds_others(
    tmp_path: Path, workers: int
) -> None:
    paths = noisy_photos(tmp_path, 9)
    options: dict[str, object] = {"random_crop": True, "random_flip": True}
    once = batches(paths, 5, seed=1, workers=2, **options)
    again = batches(paths, 5, seed=1, workers=workers, prefetch_batches=1, **options)
    np.testing.assert_array_equal(once, again)
    assert (once != batches(paths, 5, seed=2, **options)).any()


def test_start_step_equals_skipping_batches(tmp_path: Path) -> None:
    paths = noisy_photos(tmp_path, 9)
    options: dict[str, object] = {"random_crop": True, "random_flip": True, "seed": 4}
    whole = batches(paths, 12, **options)
    for start in (1, 5, 9):
        np.testing.assert_array_equal(
            batches(paths, 12, start_step=start, stop_step=12, **options), whole[start:]
        )


def test_crops_and_flips_are_drawn_only_on_request(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(80, dtype=np.uint8)[None, :, None] * 3, (8, 80, 3))
    Image.fromarray(np.ascontiguousarray(ramp)).save(tmp_path / "a.png")
    paths = find_photos(tmp_path)
    plain = batches(paths, 40, batch_size=1)[:, 0, 0, :, 0].astype(int)
    assert (plain == np.arange(36, 44) * 3).all()
    cropped = batches(paths, 40, batch_size=1, random_crop=True)[:, 0, 0, :, 0].astype(int)
    assert (np.diff(cropped) == 3).all()
    assert cropped[:, 0].min() < 40 and cropped[:, 0].max() > 170
    assert len(set(cropped[:, 0])) > 20
    flipped = batches(paths, 40, batch_size=1, random_flip=True)[:, 0, 0, :, 0].astype(int)
    mirrored = flipped[:, 0] > flipped[:, -1]
    assert (np.sort(flipped) == plain).all()
    assert 8 <= mirrored.sum() <= 32


def test_stream_ends_at_stop_step(tmp_path: Path) -> None:
    paths = make_photos(tmp_path, 4)
    with PhotoStream(paths, image_size=8, batch_size=4, start_step=2, stop_step=5) as stream:
        assert len(list(stream)) == 3
        assert list(stream) == []
    with PhotoStream(paths, image_size=8, batch_size=4, stop_step=0) as stream:
        assert list(stream) == []


# Unreadable photos


def test_rows_of_a_batch_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    paths = make_photos(tmp_path, 5)
    settings: dict[str, Any] = {"image_size": 8, "batch_size": 4, "seed": 3, "stop_step": 3}
    with PhotoStream(paths, **settings) as stream:
        whole = list(stream)
    for rows in (range(0, 2), range(2, 4)):
        with PhotoStream(paths, rows=rows, **settings) as stream:
            for part, batch in zip(stream, whole, strict=True):
                np.testing.assert_array_equal(part, batch[rows.start : rows.stop])


def test_half_of_the_photos_truncated_still_gives_full_batches(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = make_photos(tmp_path, 12, (64, 48))
    broken = paths[1::2]
    for path in broken:
        path.write_bytes(path.read_bytes()[:60])
    with PhotoStream(paths, image_size=8, batch_size=4) as stream:
        seen = [numbers(next(stream)) for _ in range(9)]
    assert all(number % 2 == 0 for batch in seen for number in batch)
    assert {number for batch in seen for number in batch} == set(range(0, 12, 2))
    assert set(stream.skipped) == set(broken)
    for path in broken:
        assert "damaged" in stream.skipped[path]
        assert caplog.text.count(path.name) == 1  # Three epochs, one line.
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_replacements_are_the_same_in_every_run_and_after_a_resume(tmp_path: Path) -> None:
    paths = make_photos(tmp_path, 11)
    for path in paths[::3]:
        path.write_text("not a photo")
    whole = batches(paths, 10, seed=6, workers=3)
    np.testing.assert_array_equal(batches(paths, 10, seed=6, workers=1), whole)
    np.testing.assert_array_equal(batches(paths, 3, seed=6, start_step=7), whole[7:])


def test_one_readable_photo_is_enough(tmp_path: Path) -> None:
    paths = make_photos(tmp_path, 5)
    for path in paths[:4]:
        path.unlink()
    assert (batches(paths, 3)[..., 0] == 4).all()


def test_no_readable_photo_is_an_error_that_names_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = make_photos(tmp_path, 30)
    for path in paths:
        path.write_text("not a photo")
    before = threading.active_count()
    stream = PhotoStream(paths, image_size=8, batch_size=4)
    with pytest.raises(
        DataError,
        match=rf"30 photos in {tmp_path}: none can be read; for example, .*\.png: not a readable",
    ):
        next(stream)
    assert threading.active_count() == before
    assert len(stream.skipped) == 30
    assert len(caplog.records) == 21 and "no more are named here" in caplog.text
    with pytest.raises(ValueError, match="this PhotoStream is closed"):
        next(stream)


def test_too_few_photos_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    paths = make_photos(tmp_path, 3)
    advice = "fewer than batch_size 4; add photos or lower batch_size"
    with pytest.raises(DataError, match=rf"^3 photos in {tmp_path}: {advice}"):
        PhotoStream(paths, image_size=8, batch_size=4)
    with pytest.raises(DataError, match=rf"^0 photos: {advice}"):
        PhotoStream([], image_size=8, batch_size=4)


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [("image_size", 0, 1), ("seed", -1, 0), ("stop_step", 2, 3), ("workers", 0, 1)],
)
def test_numbers_out_of_range_are_value_errors(
    tmp_path: Path, name: str, value: int, least: int
) -> None:
    settings: dict[str, Any] = {"image_size": 8, "batch_size": 1, "start_step": 3, name: value}
    with pytest.raises(ValueError, match=f"{name} must be at least {least}, got {value}"):
        PhotoStream(make_photos(tmp_path, 1), **settings)


# Threads


def test_threads_end_with_the_stream_however_it_ends(tmp_path: Path) -> None:
    paths = make_photos(tmp_path, 8)
    before = threading.active_count()
    for error in (KeyboardInterrupt, RuntimeError):
        with pytest.raises(error):
            with PhotoStream(paths, image_size=8, batch_size=4, workers=3) as stream:
                next(stream)
                assert threading.active_count() > before
                raise error
        assert threading.active_count() == before
    stream.close()  # Closing again does nothing.
    with pytest.raises(ValueError, match="this PhotoStream is closed"):
        next(stream)
    with PhotoStream(paths, image_size=8, batch_size=4):
        pass
    assert threading.active_count() == before


def test_closing_does_not_wait_for_what_was_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    reading = threading.Semaphore(0)
    closing = threading.Event()

    def slow(path: Path, size: int, **options: object) -> np.ndarray:
        read.append(path)
        reading.release()
        assert closing.wait(10)
        return np.zeros((size, size, 3), np.uint8)

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            closing.set()
            super().shutdown(wait=wait)

    monkeypatch.setattr(data, "load_training_crop", slow)
    monkeypatch.setattr(data, "ThreadPoolExecutor", Pool)
    with PhotoStream(make_photos(tmp_path, 64), image_size=8, batch_size=16, workers=2):
        for _ in range(2):
            assert reading.acquire(timeout=10)
    assert len(read) == 2  # One in each thread when it was closed.


def test_bugs_and_interrupts_in_threads_reach_the_consumer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_photos(tmp_path, 4)
    before = threading.active_count()
    for error in (ZeroDivisionError("a bug"), KeyboardInterrupt("stopped")):

        def fail(path: Path, size: int, error: BaseException = error, **options: object) -> None:
            raise error

        monkeypatch.setattr(data, "load_training_crop", fail)
        stream = PhotoStream(paths, image_size=8, batch_size=4)
        with pytest.raises(type(error), match=str(error)):
            next(stream)
        assert threading.active_count() == before


def test_decoding_ahead_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed_out: list[object] = []
    read = threading.Semaphore(0)

    class Pool(ThreadPoolExecutor):
        def submit(self, *arguments: Any, **options: Any) -> Any:
            handed_out.append(arguments)
            return super().submit(*arguments, **options)

    def counted(path: Path, size: int, **options: object) -> np.ndarray:
        read.release()
        return np.zeros((size, size, 3), np.uint8)

    monkeypatch.setattr(data, "load_training_crop", counted)
    monkeypatch.setattr(data, "ThreadPoolExecutor", Pool)
    paths = make_photos(tmp_path, 40)
    with PhotoStream(paths, image_size=8, batch_size=2, prefetch_batches=3) as stream:
        next(stream)
        for _ in range(8):  # The batch that was taken, and three ahead.
            assert read.acquire(timeout=10)
        assert len(handed_out) == 8


def test_waiting_for_a_batch_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    asked = threading.Event()

    class Clock:
        @staticmethod
        def perf_counter() -> float:
            value = now[0]
            asked.set()
            return value

    def slow(path: Path, size: int, **options: object) -> np.ndarray:
        assert asked.wait(10)  # Whoever wants the batch is waiting now.
        now[0] = 102.5
        return np.zeros((size, size, 3), np.uint8)

    monkeypatch.setattr(data, "load_training_crop", slow)
    monkeypatch.setattr(data, "time", Clock)
    with PhotoStream(make_photos(tmp_path, 4), image_size=8, batch_size=1) as stream:
        next(stream)
        assert stream.waited_seconds == 2.5
        next(stream)  # On this clock, the others take no time.
        assert stream.waited_seconds == 2.5


@pytest.mark.shared
def test_all_real_training_photos_are_read() -> None:
    paths = find_photos(SHARED / "photos" / "train")
    assert len(paths) == 611
    with PhotoStream(paths, image_size=256, batch_size=13, stop_step=47) as stream:  # 13 * 47 = 611
        spread = [batch.std() for batch in stream]
    assert len(spread) == 47 and min(spread) > 10
    assert stream.skipped == {}
