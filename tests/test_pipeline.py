from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import tiny

from fast_style import pipeline
from fast_style.errors import FastStyleError
from fast_style.images import read_image, write_image
from fast_style.jobs import Job, plan_jobs
from fast_style.photo import read_photo
from fast_style.pipeline import run_jobs


def negative(images: list[np.ndarray]) -> list[np.ndarray]:
    """Stands in for a net: exact, of any depth."""
    return [np.iinfo(image.dtype).max - image for image in images]


def folder_of(path: Path, count: int, *, sizes: int = 3) -> list[Job]:
    path.mkdir(parents=True, exist_ok=True)
    jobs = []
    for number in range(count):
        source = path / f"{number:02}.png"
        tiny.save_picture(source, 17 + number % sizes, 23, number)
        jobs.append(Job(source, path / "out" / source.name))
    return jobs


# Hostile files

REFUSED = {
    "truncated JPEG": r"cut\.jpg: this picture is damaged or cut short",
    "zero bytes": r"empty\.jpg: this picture is empty \(0 bytes\)",
    "nothing but zeros": r"zeros\.png: not a readable picture \(it holds nothing but zero bytes\)",
    "text": r"text\.jpg: not a readable picture \(it holds text\)",
    "bomb": r"bomb\.png: has more than the allowed .* or raise max_pixels \(--max-pixels\) if",
    "pipe": r"pipe\.jpg: this is not an ordinary file",
    "link to itself": r"loop\.jpg: cannot open this picture \(Too many levels of symbolic links\)",
}

WRITTEN = {
    "CMYK": ("cmyk.jpg", np.uint8),
    "one pixel": ("dot.png", np.uint8),
    "sliver": ("sliver.png", np.uint8),
    "transparent palette": ("palette.png", np.uint8),
    "animated GIF": ("moving.png", np.uint8),
    "animated WebP": ("moving.webp", np.uint8),
    "16-bit grey PNG": ("grey.png", np.uint16),
    "16-bit RGB PNG": ("deep.png", np.uint16),
    "16-bit RGBA TIFF": ("deep.tif", np.uint16),
    "unusual profile": ("swapped.png", np.uint8),
    "damaged profile": ("badicc.png", np.uint8),
    "rubbish as EXIF": ("badexif.jpg", np.uint8),
    "one bit": ("bits.png", np.uint8),
    "float TIFF": ("float.tif", np.uint16),
    "name with a line break": ("two\nlines.png", np.uint8),
    "folder named as a picture": ("inside.png", np.uint8),
}

NOTES = {
    "animated GIF": "only the first of its 3 frames is stylized",
    "animated WebP": "only the first of its 3 frames is stylized",
    "damaged profile": "its colour profile is damaged or of an unknown kind, and left out",
    "rubbish as EXIF": "its EXIF data are damaged and left out",
}


def test_every_hostile_file_is_refused_in_a_sentence_or_comes_out_right(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    paths = hostile.make_all(tmp_path / "in")
    as_root = os.access(paths["unreadable"], os.R_OK)
    jobs = plan_jobs([str(path) for path in paths.values()], str(tmp_path / "out"), "candy")
    assert len(jobs) == len(paths) >= 20
    outcomes = dict(zip(paths, run_jobs(jobs, negative), strict=True))
    assert [outcome.job for outcome in outcomes.values()] == jobs
    for what, message in REFUSED.items():
        error = outcomes[what].error
        assert error is not None, what
        with pytest.raises(FastStyleError, match=message):
            raise error
        assert "\n" not in str(error)
        assert not outcomes[what].job.target.exists()
    for what, (name, kind) in WRITTEN.items():
        outcome = outcomes[what]
        assert outcome.error is None, (what, outcome.error)
        assert outcome.job.target == tmp_path / "out" / name
        before, after = read_photo(outcome.job.source), read_photo(outcome.job.target)
        assert before.pixels.dtype == after.pixels.dtype == kind, what
        expected = negative([before.pixels])[0]
        if before.extras.alpha is not None:
            assert after.extras.alpha is not None
            np.testing.assert_array_equal(after.extras.alpha, before.extras.alpha)
            share = before.extras.alpha[..., None] / float(np.iinfo(kind).max)
            expected = expected * share + np.iinfo(kind).max * (1.0 - share)
        difference = np.abs(after.pixels.astype(float) - expected)
        if name.endswith((".png", ".tif")):
            assert difference.max() <= 1, what  # Half a level of rounding, twice.
        else:
            assert difference.mean() < 10, what  # JPEG, and WebP, which halves chroma.
    for what, outcome in outcomes.items():
        if what not in REFUSED and (what != "unreadable" or as_root):
            assert outcome.error is None
            assert outcome.notes == ((NOTES[what],) if what in NOTES else ()), what
    if not as_root:
        assert "cannot open this picture (Permission denied)" in str(outcomes["unreadable"].error)
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert not any("partial" in name for name in left)


def test_a_raised_limit_lets_a_large_picture_through(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(hostile.bomb(200))
    (refused,) = run_jobs([Job(path, tmp_path / "a.png")], negative, max_pixels=39_999)
    assert "more than the allowed 39,999 pixels" in str(refused.error)
    (done,) = run_jobs([Job(path, tmp_path / "a.png")], negative, max_pixels=40_000)
    assert done.error is None
    assert read_image(tmp_path / "a.png").max() == 0


# Order, failures, bounds


def test_outcomes_keep_the_order_of_the_jobs(tmp_path: Path) -> None:
    jobs = folder_of(tmp_path, 20)
    jobs[7].source.write_bytes(b"")
    jobs[8].source.unlink()
    outcomes = list(run_jobs(jobs, negative))
    assert [outcome.job for outcome in outcomes] == jobs
    assert [number for number, o in enumerate(outcomes) if o.error is not None] == [7, 8]
    for number, job in enumerate(jobs):
        if number not in (7, 8):
            expected = 255 - read_image(job.source)
            np.testing.assert_array_equal(read_image(job.target), expected)


def test_pictures_of_one_size_are_stylized_together_and_others_alone(tmp_path: Path) -> None:
    sizes: list[set[tuple[int, ...]]] = []
    counts = []

    def net(images: list[np.ndarray]) -> list[np.ndarray]:
        time.sleep(0.05)  # Long enough for others to be decoded.
        sizes.append({image.shape for image in images})
        counts.append(len(images))
        return negative(images)

    jobs = folder_of(tmp_path / "same", 12, sizes=1) + folder_of(tmp_path / "mixed", 6, sizes=2)
    assert all(outcome.error is None for outcome in run_jobs(jobs, net, ahead=4))
    assert all(len(shapes) == 1 for shapes in sizes)
    assert sum(counts) == 18 and max(counts) > 1


def test_a_net_that_fails_on_one_picture_of_a_batch_does_the_others(tmp_path: Path) -> None:
    jobs = folder_of(tmp_path, 6, sizes=1)
    bad = read_image(jobs[3].source)

    def net(images: list[np.ndarray]) -> list[np.ndarray]:
        time.sleep(0.02)
        if any(np.array_equal(image, bad) for image in images):
            raise MemoryError
        return negative(images)

    outcomes = list(run_jobs(jobs, net, ahead=4))
    failed = [str(outcome.error) for outcome in outcomes if outcome.error is not None]
    assert len(failed) == 1
    assert "03.png: too little memory to stylize it; make it smaller" in failed[0]


def test_an_unforeseen_failure_of_one_picture_is_told_as_a_bug(tmp_path: Path) -> None:
    def net(images: list[np.ndarray]) -> list[np.ndarray]:
        raise KeyError("shape")

    (outcome,) = run_jobs(folder_of(tmp_path, 1), net)
    expected = r"00.png: could not be stylized (KeyError: 'shape'); please report this as a bug"
    assert str(outcome.error).endswith(expected)
    assert not outcome.job.target.exists()


def test_few_pictures_are_in_memory_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive, most = 0, 0
    lock = threading.Lock()
    read, write = pipeline.read_photo, pipeline.write_image

    def counted_read(*arguments: object, **options: object) -> object:
        nonlocal alive, most
        photo = read(*arguments, **options)  # type: ignore[arg-type]
        with lock:
            alive += 1
            most = max(most, alive)
        return photo

    def counted_write(*arguments: object, **options: object) -> None:
        nonlocal alive
        time.sleep(0.01)  # Slower than all else.
        write(*arguments, **options)  # type: ignore[arg-type]
        with lock:
            alive -= 1

    monkeypatch.setattr(pipeline, "read_photo", counted_read)
    monkeypatch.setattr(pipeline, "write_image", counted_write)
    jobs = folder_of(tmp_path, 24)
    assert all(outcome.error is None for outcome in run_jobs(jobs, negative, ahead=2))
    assert alive == 0
    assert most <= 2 + 1 + 2 + 1 + 1  # Read, in the net, waiting to be written, being yielded.
    # With room for less than two pictures they go one by one.
    monkeypatch.setattr(pipeline, "PIXELS_IN_FLIGHT", 600)
    most = 0
    assert all(outcome.error is None for outcome in run_jobs(jobs, negative, ahead=2))
    assert most == 1


def test_an_interruption_ends_the_threads_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    jobs = folder_of(tmp_path, 12)
    done = 0

    def net(images: list[np.ndarray]) -> list[np.ndarray]:
        nonlocal done
        if done >= 5:
            raise KeyboardInterrupt
        done += len(images)
        return negative(images)

    before = threading.active_count()
    outcomes = []
    with pytest.raises(KeyboardInterrupt):
        outcomes.extend(run_jobs(jobs, net))
    assert threading.active_count() == before
    for path in (tmp_path / "out").iterdir():
        expected = 255 - read_image(tmp_path / path.name)
        np.testing.assert_array_equal(read_image(path), expected)


def test_closing_early_ends_the_threads(tmp_path: Path) -> None:
    before = threading.active_count()
    with contextlib.closing(run_jobs(folder_of(tmp_path, 12), negative)) as outcomes:
        assert next(outcomes).error is None
    assert threading.active_count() == before


def test_reading_and_writing_happen_while_the_net_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The net waits for the next picture to be read; each is written while the next is in it."""
    jobs = folder_of(tmp_path, 6)
    last = len(jobs) - 1
    changed = threading.Condition()
    read_done, net_begun = set(), set()
    in_time = []

    def note(done: set[int], number: int) -> None:
        with changed:
            done.add(number)
            changed.notify_all()

    def wait(done: set[int], number: int) -> None:
        with changed:
            in_time.append(changed.wait_for(lambda: number > last or number in done, timeout=20))

    def reading(source: Path, **options: Any) -> Any:
        photo = read_photo(source, **options)
        note(read_done, int(source.stem))
        return photo

    def writing(target: Path, *arguments: Any, **options: Any) -> None:
        wait(net_begun, int(target.stem) + 1)
        write_image(target, *arguments, **options)

    def net(images: list[np.ndarray]) -> list[np.ndarray]:
        number = len(net_begun)
        note(net_begun, number)
        wait(read_done, number + 1)
        return negative(images)

    monkeypatch.setattr(pipeline, "read_photo", reading)
    monkeypatch.setattr(pipeline, "write_image", writing)
    assert all(outcome.error is None for outcome in run_jobs(jobs, net, ahead=2))
    assert in_time == [True] * 12
