"""Faults injected into training runs: kills, signals, second runs, bad numbers, bad disks."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tiny

from fast_style import checkpoints, files, saving, training
from fast_style import objective as tags
from fast_style.checkpoints import (
    Model,
    load_model,
    read_checkpoint,
    read_newest_checkpoint,
    remove_partial_files,
    save_checkpoint,
    save_model,
)
from fast_style.cli import main
from fast_style.errors import ConfigError, FastStyleError
from fast_style.objective import Objective
from fast_style.run_events import TrainObserver, TrainResult
from fast_style.run_lock import RunLock
from fast_style.train_state import TrainState
from fast_style.training import train
from fast_style.transform_net import init_weights

STEM = "fast-style-model.ckpt"


def run_tiny(
    world: tiny.World, folder: Path, *, observer: TrainObserver | None = None, **changes: Any
) -> TrainResult:
    with tiny.working_in(folder):
        return train(world.config(folder, **changes), observer=observer or TrainObserver())


def tensors_of(folder: Path, step: int) -> dict[str, np.ndarray]:
    return read_checkpoint(folder / "models" / "tiny" / f"{STEM}-{step}")[0]


def assert_equal_tensors(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if "tfevents" not in path.name}


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system refuses to write files beyond `size` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def quick_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the training step, which takes seconds to trace, by one that only counts."""

    def make_quick_step(state: TrainState, *rest: Any, **arguments: Any):
        def step(photos: np.ndarray, choice: np.ndarray):
            state.step.assign_add(1)
            names = (tags.TOTAL, tags.CONTENT, tags.STYLE, tags.VARIATION, tags.WEIGHTED_CONTENT)
            names += (tags.WEIGHTED_STYLE, tags.WEIGHTED_VARIATION, tags.GRADIENT_NORM)
            losses = {name: tf.constant(5.0) for name in names}
            return losses, tf.zeros([2, 32, 32, 3]), tf.ones([len(state.weights)])

        return step

    monkeypatch.setattr(training, "make_train_step", make_quick_step)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def eagerly() -> Iterator[None]:
    """Takes steps without a graph: a tenth of a second each, where tracing takes seconds."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


# Kills


@pytest.mark.usefixtures("eagerly")
def test_a_kill_at_any_moment_of_a_save_leaves_a_run_that_goes_on(
    world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is copied around every rename and flush: that is what a kill would leave."""
    folder, copies = tmp_path / "whole", tmp_path / "copies"
    run = folder / "models" / "tiny"
    replace, fsync = os.replace, os.fsync

    def copy() -> None:
        if (run / f"{STEM}-1.index").exists():  # Before it there is nothing to lose.
            shutil.copytree(run, copies / str(len(list(copies.iterdir()))) / "models" / "tiny")

    def copying_replace(source: Any, target: Any) -> None:
        copy()
        replace(source, target)
        copy()

    def copying_fsync(descriptor: int) -> None:
        copy()
        fsync(descriptor)

    copies.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", copying_replace)
        patched.setattr(os, "fsync", copying_fsync)
        run_tiny(world, folder, steps=2, checkpoint_every_steps=1, keep_checkpoints=1)
    whole = {step: tensors_of(folder, step) for step in (2,)}
    left = sorted(copies.iterdir(), key=lambda path: int(path.name))
    assert len(left) > 12
    partial = [
        path for path in left if any(".partial" in n for n in names_in(path / "models/tiny"))
    ]
    assert len(partial) > 3
    found_steps = []
    for path in left:
        found = read_newest_checkpoint(path / "models" / "tiny")
        assert found is not None and found[3] == [], path
        found_steps.append(int(found[1]["global_step"]))
        if found_steps[-1] == 2:
            assert_equal_tensors(found[1], whole[2])
    assert found_steps == sorted(found_steps) and set(found_steps) == {1, 2}
    # The data is in place and its index is not: the last moment before the checkpoint counts.
    last_of_1 = left[found_steps.index(2) - 1]
    assert f"{STEM}-2.data-00000-of-00001" in names_in(last_of_1 / "models" / "tiny")
    run_tiny(world, last_of_1, steps=2, checkpoint_every_steps=1, keep_checkpoints=1)
    assert_equal_tensors(tensors_of(last_of_1, 2), whole[2])
    assert names_in(last_of_1 / "models" / "tiny") == names_in(run)


def test_what_a_kill_left_is_cleaned_at_the_next_start(
    world: tiny.World, workplace: Path, quick_steps: None
) -> None:
    run = workplace / "models" / "tiny"
    run.mkdir(parents=True)
    (workplace / "generated").mkdir()
    ours = [
        run / ".model.0123abcd.partial.safetensors",
        run / ".preview.89abcdef.partial.jpg",
        workplace / "generated" / ".target_style_tiny.01234567.partial.jpg",
    ]
    others = [
        workplace / "generated" / ".target_style_wave.01234567.partial.jpg",  # Of another run.
        run / ".notes.partial.txt",
    ]
    for path in (*ours, *others):
        path.write_bytes(b"half")
    assert main(["train", "-c", str(world.config_file(workplace))]) == 0
    assert [path.exists() for path in (*ours, *others)] == [False] * 3 + [True] * 2


def test_pruning_does_not_take_a_damaged_newer_checkpoint_for_the_newest(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"a": tf.zeros([1])}, {}, keep=5)
    # 7 was damaged: the run went on from 2 and saves 3.
    save_checkpoint(tmp_path, 7, {"a": tf.zeros([1])}, {}, keep=5)
    save_checkpoint(tmp_path, 3, {"a": tf.zeros([1])}, {}, keep=1)
    assert {name for name in names_in(tmp_path) if name.endswith(".index")} == {
        f"{STEM}-3.index",
        f"{STEM}-7.index",
    }


def test_a_damaged_checkpoint_is_kept_under_another_name(
    world: tiny.World, workplace: Path, quick_steps: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(world.config_file(workplace, checkpoint_every_steps=1))
    assert main(["train", "-c", config, "--set", "steps=2"]) == 0
    run = workplace / "models" / "tiny"
    data = run / f"{STEM}-2.data-00000-of-00001"
    flipped = bytearray(data.read_bytes())
    flipped[len(flipped) // 2] ^= 64
    data.write_bytes(flipped)
    capsys.readouterr()
    assert main(["train", "-c", config, "--set", "steps=2"]) == 0
    assert f"note: {STEM}-2 is damaged: going on from {STEM}-1\n" in capsys.readouterr().out
    assert (run / f"damaged-{data.name}").read_bytes() == flipped
    found = read_newest_checkpoint(run)
    assert found is not None and (found[0].name, found[3]) == (f"{STEM}-2", [])


def test_a_checkpoint_of_weights_that_are_not_finite_counts_as_damaged(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"a": tf.zeros([2])}, {}, keep=5)
    save_checkpoint(tmp_path, 2, {"a": tf.constant([0.0, np.nan])}, {}, keep=5)
    found = read_newest_checkpoint(tmp_path)
    assert found is not None
    assert (found[0].name, [path.name for path in found[3]]) == (f"{STEM}-1", [f"{STEM}-2"])


# Signals


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_in_the_middle_of_a_save_saves_and_ends_with_its_code(
    world: tiny.World,
    workplace: Path,
    quick_steps: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
    code: int,
) -> None:
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, usual)
    save = saving.save_checkpoint

    def interrupted_save(*arguments: Any, **keywords: Any) -> Path:
        signal.raise_signal(number)
        return save(*arguments, **keywords)

    monkeypatch.setattr(saving, "save_checkpoint", interrupted_save)
    config = str(
        world.config_file(workplace, checkpoint_every_steps=2, val_dataset=str(world.held_out))
    )
    try:
        assert main(["train", "-c", config]) == code
        out, errors = capfd.readouterr()
        expected = "stopping as soon as the work is saved; once more stops at once"
        assert f"{number.name}: {expected}\n" in errors
        assert "stopped after step 2 and saved; the same command goes on from there\n" in out
        monkeypatch.undo()
        assert not (workplace / "models/tiny/validation.json").exists()  # It had to hurry.
    finally:
        signal.signal(number, before)


def test_a_score_that_an_interruption_left_out_is_made_up_for(
    world: tiny.World, workplace: Path, quick_steps: None
) -> None:
    config = world.config(workplace, checkpoint_every_steps=2, val_dataset=str(world.held_out))

    class Stopper(TrainObserver):
        def on_step(self, step: int) -> None:
            if step == 2:
                stop.ask(signal.SIGTERM)

    stop = training.StopRequest()
    result = train(config, observer=Stopper(), stop=stop)
    assert (result.steps, result.interrupted) == (2, True)
    assert not (workplace / "models/tiny/validation.json").exists()
    train(config, observer=TrainObserver())
    record = json.loads((workplace / "models/tiny/validation.json").read_text())
    assert sorted(record["totals"]) == ["2", "4"]


def test_a_signal_before_the_first_step_saves_nothing(
    world: tiny.World,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    monkeypatch.setattr(
        training, "build_network", lambda *arguments: signal.raise_signal(signal.SIGTERM)
    )
    try:
        assert main(["train", "-c", str(world.config_file(workplace))]) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err.endswith(
        "stopped before the first step; there is nothing to save\n"
    )
    assert not (workplace / "models").exists()


# Two runs in a folder


def test_a_second_run_in_the_folder_is_refused_and_harms_nothing(
    world: tiny.World, workplace: Path, quick_steps: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(world.config_file(workplace))
    assert main(["train", "-c", config, "--set", "steps=1"]) == 0
    run = workplace / "models" / "tiny"
    with RunLock(run):
        before = names_in(run)
        for options in ([], ["--fresh"]):
            capsys.readouterr()
            assert main(["train", "-c", config, *options]) == 1
            error = capsys.readouterr().err
            assert error.startswith(f"error: {run}: process {os.getpid()} on ")
            assert error.count("\n") == 1
        assert names_in(run) == before
    assert main(["train", "-c", config]) == 0


# Numbers that are not finite


@pytest.fixture
def white_photo(world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos of which a white one, shown in the steps 2, 5 and 9, makes every loss NaN."""
    photos = tmp_path / "photos"
    shutil.copytree(world.photos, photos)
    from PIL import Image

    order = [training.photo_places(tiny.PHOTO_COUNT, 0, 2 * step, 2) for step in range(9)]
    listed = sorted(path for path in photos.rglob("*") if path.is_file())
    listed.sort(key=lambda path: path.relative_to(photos).as_posix())
    white = listed[order[1][0]]
    Image.new("RGB", (40, 40), (255, 255, 255)).save(white)
    score = Objective.score

    def broken(self: Objective, styled: tf.Tensor, photos: tf.Tensor, *rest: tf.Tensor):
        terms = score(self, styled, photos, *rest)
        whites = tf.reduce_all(photos == 255, axis=[1, 2, 3])
        wrong = tf.where(tf.reduce_any(whites), np.float32(np.nan), np.float32(1.0))
        return terms | {
            tags.CONTENT: wrong * terms[tags.CONTENT],
            tags.TOTAL: wrong * terms[tags.TOTAL],
        }

    monkeypatch.setattr(Objective, "score", broken)
    return white


@pytest.mark.usefixtures("eagerly")
def test_a_batch_that_is_not_finite_is_skipped_kept_and_named_and_a_resumed_run_equals_a_whole_one(
    world: tiny.World, white_photo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings: Any = {"dataset": str(tmp_path / "photos"), "checkpoint_every_steps": 2, "steps": 4}
    whole = run_tiny(world, tmp_path / "whole", **settings)
    assert whole.steps == 4
    assert 2 in whole.skipped_steps and len(whole.skipped_steps) < 4
    assert np.isfinite(list(whole.last.values())).all()
    message = next(m for m in caplog.messages if m.startswith("step 2: "))
    kept = tmp_path / "whole" / "models" / "tiny" / "nonfinite-step-2.npz"
    assert message == (
        "step 2: not a finite number: losses/content_loss, total_loss; this batch is skipped and "
        f"kept in {kept}"
    )
    with np.load(kept) as batch:
        assert batch["photos"].shape == (2, 32, 32, 3)
        assert str(white_photo) in batch["files"]
    # Nothing but the count of the step before changed.
    two = tensors_of(tmp_path / "whole", 2)
    run_tiny(world, tmp_path / "pieces", **settings | {"steps": 1})
    one = tensors_of(tmp_path / "pieces", 1)
    assert (one.pop("global_step"), two.pop("global_step")) == (1, 2)
    assert_equal_tensors(one, two)
    run_tiny(world, tmp_path / "pieces", **settings)
    assert_equal_tensors(tensors_of(tmp_path / "pieces", 4), tensors_of(tmp_path / "whole", 4))


def keep_states(patched: pytest.MonkeyPatch, states: list[TrainState]) -> None:
    """Adds the state of each training that begins to a list."""
    make = training.make_train_step

    def make_and_keep(state: TrainState, *arguments: Any, **keywords: Any) -> Any:
        states.append(state)
        return make(state, *arguments, **keywords)

    patched.setattr(training, "make_train_step", make_and_keep)


@pytest.mark.usefixtures("eagerly")
def test_weights_that_break_are_rolled_back_to_the_last_checkpoint(
    world: tiny.World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    states: list[TrainState] = []

    class Breaker(TrainObserver):
        def on_step(self, step: int) -> None:
            if step == 3:  # As if by a bad memory cell, after the checkpoint of step 2.
                weight = states[0].weights["res1/conv1/weight"]
                weight.assign(weight * np.nan)

    with pytest.MonkeyPatch.context() as patched:
        keep_states(patched, states)
        result = run_tiny(world, tmp_path, observer=Breaker(), steps=5, checkpoint_every_steps=2)
    assert (result.steps, result.skipped_steps) == (5, (4,))
    assert f"step 4: the weights are not finite numbers; going on from those of {STEM}-2" in (
        caplog.messages
    )
    two, four, five = (tensors_of(tmp_path, step) for step in (2, 4, 5))
    assert (four.pop("global_step"), two.pop("global_step"), five["global_step"]) == (4, 2, 5)
    assert_equal_tensors(two, four)
    assert not np.array_equal(five["out/weight"], four["out/weight"])


@pytest.mark.usefixtures("eagerly")
def test_weights_that_break_before_a_checkpoint_go_back_to_where_they_came_from(
    world: tiny.World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = tmp_path / "start.safetensors"
    save_model(start, Model("johnson", 0.125, ("a",), init_weights("johnson", width=0.125), {}))
    weights = load_model(start).weights
    states: list[TrainState] = []

    class Breaker(TrainObserver):
        def on_step(self, step: int) -> None:
            if step == 1:
                weight = states[0].weights["res1/conv1/weight"]
                weight.assign(weight * np.nan)
                start.unlink()  # As --fresh renames the folder of the run before.

    with pytest.MonkeyPatch.context() as patched:
        keep_states(patched, states)
        run_tiny(world, tmp_path, observer=Breaker(), steps=2, init_from=str(start))
    assert "step 2: the weights are not finite numbers; going on from those of the start" in (
        caplog.messages
    )
    ended = tensors_of(tmp_path, 2)
    assert_equal_tensors({name: ended[name] for name in weights}, dict(weights))


def test_broken_weights_without_a_checkpoint_start_over(world: tiny.World, tmp_path: Path) -> None:
    state = TrainState({"w": np.ones([3], np.float32)})
    state.first["w"].assign([1.0, np.inf, 2.0])
    assert not state.is_finite()
    state.restart({"w": np.full([3], 5.0, np.float32)})
    assert state.is_finite()
    np.testing.assert_array_equal(state.weights["w"], [5.0, 5.0, 5.0])
    np.testing.assert_array_equal(state.first["w"], np.zeros(3))


def test_a_flat_preview_is_warned_about_at_each_checkpoint(
    world: tiny.World,
    workplace: Path,
    quick_steps: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def black(arch: str, weights: Any, images: tf.Tensor, *rest: Any) -> tf.Tensor:
        return tf.zeros_like(images)

    monkeypatch.setattr(saving, "stylize_batch", black)
    train(world.config(workplace, checkpoint_every_steps=2), observer=TrainObserver())
    warnings = [message for message in caplog.messages if "preview" in message]
    assert [message.partition(" is not right")[0] for message in warnings] == [
        f"step {step}: the preview in style tiny" for step in (2, 4)
    ]
    assert "it is flat: a contrast of 0.0 levels" in warnings[0]


# Disks and clocks


def test_a_full_disk_ends_the_run_with_a_sentence_and_the_last_checkpoint_intact(
    world: tiny.World, workplace: Path, quick_steps: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(world.config_file(workplace))
    assert main(["train", "-c", config, "--set", "steps=1"]) == 0
    run = workplace / "models" / "tiny"
    before = {name: (run / name).read_bytes() for name in names_in(run)}
    capsys.readouterr()
    with largest_file(20_000):
        assert main(["train", "-c", config]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {run}/model.safetensors: cannot write this file (File too ")
    assert error.count("\n") == 1
    assert {name: (run / name).read_bytes() for name in names_in(run)} == before
    assert main(["train", "-c", config]) == 0


def test_a_disk_that_fills_while_a_checkpoint_is_written_leaves_the_one_before(
    world: tiny.World,
    workplace: Path,
    quick_steps: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(path: Any) -> None:
        if STEM in str(path):
            raise OSError(28, "No space left on device")

    config = str(world.config_file(workplace))
    assert main(["train", "-c", config, "--set", "steps=1"]) == 0
    run = workplace / "models" / "tiny"
    before = names_in(run)
    monkeypatch.setattr(checkpoints, "fsync_path", full)
    capsys.readouterr()
    assert main(["train", "-c", config]) == 1
    assert "ckpt-4: cannot write this checkpoint (No space left on device); free some space" in (
        capsys.readouterr().err
    )
    assert names_in(run) == before


def test_a_log_on_a_full_disk_does_not_end_the_run(
    world: tiny.World, workplace: Path, quick_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = str(world.config_file(workplace))
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr("sys.stdout", full)
        # The configuration is printed before the run: that may still fail.
        code = main(["train", "-c", config, "--log-json"])
        with contextlib.suppress(OSError):
            full.flush()
    assert code == 0
    assert (workplace / "models" / "tiny" / f"{STEM}-4.index").is_file()


def test_a_clock_that_jumps_does_no_harm(
    world: tiny.World, workplace: Path, quick_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(2_000_000_000, 0, -10_000_000))
    monkeypatch.setattr(time, "time", lambda: float(next(times)))
    result = train(world.config(workplace), observer=TrainObserver())
    assert result.steps == 4
    assert 0 <= result.seconds < 100


def test_a_fast_clock_divides_by_no_zero(
    world: tiny.World, workplace: Path, quick_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: 1.0)
    assert train(world.config(workplace), observer=TrainObserver()).steps == 4


def test_leftovers_of_others_are_told_from_ours_by_their_stem(tmp_path: Path) -> None:
    names = [".a[1].01234567.partial.jpg", ".b.01234567.partial.jpg", ".a[1].jpg"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in files.partial_paths(tmp_path, "a[1]")] == names[:1]
    remove_partial_files(tmp_path, ["a[1]"])
    assert names_in(tmp_path) == set(names[1:])


# Two runs of one configuration


@pytest.mark.usefixtures("eagerly")
def test_the_seed_decides_everything(world: tiny.World, tmp_path: Path) -> None:
    styles = [
        {"name": "one", "image": str(world.style), "weight": 100.0},
        {"name": "other", "image": str(world.other_style), "weight": 50.0},
    ]
    settings: Any = {"styles": styles, "style_image": None, "style_weight": None, "steps": 3}
    settings |= {"random_crop": True, "random_flip": True}
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        run_tiny(world, tmp_path / name, seed=seed, **settings)
    one, same, other = (tensors_of(tmp_path / name, 3) for name in "abc")
    assert_equal_tensors(one, same)
    assert not np.array_equal(one["out/weight"], other["out/weight"])


# What may change between two starts


def test_a_learning_rate_may_change_and_a_new_key_is_told(
    world: tiny.World, workplace: Path, quick_steps: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(world.config_file(workplace))
    assert main(["train", "-c", config, "--set", "steps=1"]) == 0
    capsys.readouterr()
    changes = ["--set", "learning_rate=0.01", "--set", "gradient_clip=2"]
    assert main(["train", "-c", config, *changes]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: steps changed from 1 to 4",
        "note: learning_rate changed from 0.001 to 0.01 (it holds from here on, and Adam's "
        "moments are kept)",
        "note: gradient_clip changed from 1.5 to 2.0 (it holds from here on)",
    ]


@pytest.mark.parametrize("schedule", ["cosine", "cooldown"])
def test_a_run_whose_learning_rate_falls_says_so_when_its_length_changes(
    world: tiny.World,
    workplace: Path,
    quick_steps: None,
    capsys: pytest.CaptureFixture[str],
    schedule: str,
) -> None:
    config = str(world.config_file(workplace))
    falls = ["--set", f"learning_rate_schedule={schedule}"]
    assert main(["train", "-c", config, *falls, "--set", "steps=1"]) == 0
    capsys.readouterr()
    assert main(["train", "-c", config, *falls]) == 0
    assert (
        "note: steps changed from 1 to 4 (the learning rate follows the new length from here on)"
        in capsys.readouterr().out.splitlines()
    )


def test_other_photos_of_the_same_number_are_refused(
    world: tiny.World, tmp_path: Path, quick_steps: None
) -> None:
    shutil.copytree(world.photos, tmp_path / "photos")
    settings: Any = {"dataset": str(tmp_path / "photos"), "steps": 1}
    run_tiny(world, tmp_path, **settings)
    (tmp_path / "photos" / "0.jpg").rename(tmp_path / "photos" / "9.jpg")
    with pytest.raises(ConfigError, match="the names of the photos in dataset changed"):
        run_tiny(world, tmp_path, **settings)


def test_the_advice_to_go_on_from_the_weights_alone_works(
    world: tiny.World, workplace: Path, quick_steps: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(world.config_file(workplace))
    assert main(["train", "-c", config]) == 0
    assert main(["train", "-c", config, "--set", "style_weight=7"]) == 2
    advice = f"--fresh --set init_from={workplace}/models/tiny"
    assert advice in capsys.readouterr().err
    assert main(["train", "-c", config, "--set", "style_weight=7", *advice.split()]) == 0
    assert tensors_of(workplace, 4)["global_step"] == 4


@pytest.mark.usefixtures("eagerly")
def test_a_run_that_never_knew_a_finite_number_says_so(
    world: tiny.World, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Objective, styled: tf.Tensor, *rest: tf.Tensor) -> dict[str, tf.Tensor]:
        total = tf.reduce_sum(styled)
        names = (tags.CONTENT, tags.STYLE, tags.VARIATION, tags.WEIGHTED_CONTENT)
        names += (tags.WEIGHTED_STYLE, tags.WEIGHTED_VARIATION)
        return {name: total for name in names} | {tags.TOTAL: total / 0.0}

    monkeypatch.setattr(Objective, "score", broken)
    with pytest.raises(FastStyleError, match="step 3: not a finite number in 3 batches in a row"):
        run_tiny(world, workplace, steps=3)
    assert names_in(workplace / "models" / "tiny") == {
        f"nonfinite-step-{step}.npz" for step in (1, 2, 3)
    }
    result = run_tiny(world, workplace, steps=2)  # Two are not yet too many.
    assert (result.first, result.last, result.skipped_steps) == ({}, {}, (1, 2))
