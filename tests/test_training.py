from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tiny
import weight_files
from nets import random_weights

from fast_style import builders, saving, train_state, training
from fast_style import objective as tags
from fast_style.builders import begin
from fast_style.checkpoints import (
    FIRST_MOMENT,
    SECOND_MOMENT,
    STEP,
    Model,
    load_model,
    read_checkpoint,
    save_model,
)
from fast_style.cluster import Cluster
from fast_style.errors import ConfigError, DataError, FastStyleError, ModelError
from fast_style.images import cover_crop, read_image
from fast_style.objective import Objective
from fast_style.provenance import file_sha256
from fast_style.run_clock import PATIENCE_FROM, SECONDS, RunClock
from fast_style.run_events import RunHeader, StepReport, TrainObserver, TrainResult
from fast_style.train_state import StepSettings, TrainState, make_train_step
from fast_style.training import train
from fast_style.transform_net import init_weights, transform, weight_count

MODEL = "model.safetensors"
PREFIX = "fast-style-model.ckpt"


class Recorder(TrainObserver):
    """Remembers what it is told, and can press Ctrl-C."""

    def __init__(self, *, interrupt_at: int | None = None) -> None:
        """Presses it in the report of step `interrupt_at`."""
        self.interrupt_at = interrupt_at
        self.header: RunHeader | None = None
        self.reports: list[StepReport] = []
        self.steps: list[int] = []
        self.checkpoints: list[tuple[str, Mapping[str, float]]] = []

    def on_start(self, header: RunHeader) -> None:
        assert self.header is None
        self.header = header

    def on_log(self, report: StepReport) -> None:
        self.reports.append(report)

    def on_step(self, step: int) -> None:
        self.steps.append(step)
        if step == self.interrupt_at:
            raise KeyboardInterrupt

    def on_checkpoint(self, path: Path, validation: Mapping[str, float]) -> None:
        self.checkpoints.append((path.name, validation))


def run_tiny(
    world: tiny.World,
    folder: Path,
    *,
    fresh: bool = False,
    interrupt_at: int | None = None,
    **changes: Any,
) -> tuple[TrainResult, Recorder]:
    """Trains in `folder` as the current folder; the model goes to `folder`/models/tiny."""
    recorder = Recorder(interrupt_at=interrupt_at)
    with tiny.working_in(folder):
        result = train(world.config(folder, **changes), fresh=fresh, observer=recorder)
    return result, recorder


def checkpoint(folder: Path, step: int) -> dict[str, np.ndarray]:
    return read_checkpoint(folder / "models" / "tiny" / f"fast-style-model.ckpt-{step}")[0]


def assert_equal_tensors(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def contents(folder: Path) -> dict[str, bytes]:
    """What checkpoints and models below a folder hold; event files grow by design."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "tfevents" not in path.name
    }


def no_graph(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("the training graph was built for a run that cannot start")


# One run from start to end, and what it leaves behind


@pytest.fixture(scope="module")
def whole(world: tiny.World, tmp_path_factory: pytest.TempPathFactory):
    """Four steps in one go, with held-out photos and a checkpoint after every second step."""
    folder = tmp_path_factory.mktemp("whole")
    result, recorder = run_tiny(
        world, folder, checkpoint_every_steps=2, val_dataset=str(world.held_out)
    )
    return folder, result, recorder


def test_the_header_tells_what_the_run_is(world: tiny.World, whole: Any) -> None:
    folder, _, recorder = whole
    header = recorder.header
    assert header.precision == "float32"
    assert (header.loss_model, header.loss_model_file) == ("vgg_16", world.weights)
    assert (header.photos, header.steps, header.start_step) == (tiny.PHOTO_COUNT, 4, 0)
    assert header.arch == "johnson"
    assert header.weights == weight_count("johnson", width=0.125)
    assert header.folder == folder / "models" / "tiny"
    assert header.notes == ()


def test_steps_and_checkpoints_are_reported_as_they_happen(whole: Any) -> None:
    _, result, recorder = whole
    assert recorder.steps == [1, 2, 3, 4]
    assert [report.step for report in recorder.reports] == [1, 2, 3, 4]
    assert all(np.isfinite(list(report.losses.values())).all() for report in recorder.reports)
    assert all(0.0 <= report.waited <= 1.0 for report in recorder.reports)
    assert recorder.reports[0].images_per_second == 0.0  # Tracing is no measure of speed.
    assert recorder.reports[1].images_per_second > 0.0
    names = [name for name, _ in recorder.checkpoints]
    assert names == ["fast-style-model.ckpt-2", "fast-style-model.ckpt-4"]
    assert result.steps == 4
    assert not result.interrupted and result.skipped == {}


def test_the_result_holds_the_first_and_the_mean_of_the_last_losses(whole: Any) -> None:
    _, result, recorder = whole
    losses = [report.losses[tags.TOTAL] for report in recorder.reports]
    assert result.first[tags.TOTAL] == losses[0]
    assert result.last[tags.TOTAL] == pytest.approx(np.mean(losses))


def test_the_total_is_the_weighted_sum_at_every_step(whole: Any) -> None:
    for report in whole[2].reports:
        losses = report.losses
        assert losses[tags.WEIGHTED_STYLE] == pytest.approx(100.0 * losses[tags.STYLE], rel=1e-5)
        assert losses[tags.TOTAL] == pytest.approx(
            losses[tags.WEIGHTED_CONTENT]
            + losses[tags.WEIGHTED_STYLE]
            + losses[tags.WEIGHTED_VARIATION],
            rel=1e-5,
        )


def test_the_run_folder_holds_checkpoints_model_preview_and_summaries(whole: Any) -> None:
    folder = whole[0] / "models" / "tiny"
    names = {path.name for path in folder.iterdir() if "tfevents" not in path.name}
    stem = "fast-style-model.ckpt"
    assert names == {
        *(f"{stem}-{step}{end}" for step in (2, 4) for end in (".index", ".data-00000-of-00001")),
        MODEL,
        "preview.jpg",
        "validation.json",
    }


def test_the_style_is_saved_as_the_loss_network_saw_it(world: tiny.World, whole: Any) -> None:
    folder, _, recorder = whole
    assert recorder.header.targets == (Path("generated/target_style_tiny.jpg"),)
    saved = read_image(folder / "generated" / "target_style_tiny.jpg").astype(float)
    seen = cover_crop(read_image(world.style), 32)
    assert np.abs(saved - seen).mean() < 4  # A JPEG of quality 95.


def test_the_preview_has_the_first_photos_size(world: tiny.World, whole: Any) -> None:
    preview = read_image(whole[0] / "models" / "tiny" / "preview.jpg")
    assert preview.shape == (394, 512, 3)  # 40 x 52 px, scaled to a long side of 512 px.


def test_the_model_file_says_how_it_was_made(world: tiny.World, whole: Any) -> None:
    folder = whole[0]
    data = (folder / "models" / "tiny" / MODEL).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    described = json.loads(data[8 : 8 + length])
    header = described.pop("__metadata__")
    assert {entry["dtype"] for entry in described.values()} == {"F16"}
    assert header["arch"] == "johnson"
    assert float(header["width"]) == 0.125
    assert json.loads(header["style_names"]) == ["tiny"]
    metadata = json.loads(header["metadata"])
    assert (
        metadata["config"]
        == world.config(folder, checkpoint_every_steps=2, val_dataset=str(world.held_out)).to_dict()
    )
    assert metadata["steps"] == 4
    assert metadata["photos"] == tiny.PHOTO_COUNT
    assert metadata["precision"] == "float32"
    assert len(metadata["loss_model_sha256"]) == len(metadata["style_sha256"][0]) == 64
    assert metadata["versions"]["numpy"] == np.__version__
    assert metadata["validation"][tags.TOTAL] == whole[2].checkpoints[-1][1][tags.TOTAL]


def test_the_model_is_the_checkpoint_in_16_bits(whole: Any) -> None:
    folder = whole[0]
    trained = checkpoint(folder, 4)
    model = load_model(folder / "models" / "tiny")
    for name, value in model.weights.items():
        np.testing.assert_array_equal(value, trained[name].astype(np.float16))


def test_held_out_photos_are_scored_at_every_checkpoint(world: tiny.World, whole: Any) -> None:
    folder, _, recorder = whole
    model = load_model(folder / "models" / "tiny" / "fast-style-model.ckpt-4")
    config = world.config(folder)
    network = builders.build_network(config, "float32")
    objective = builders.build_objective(config, network, builders.load_style_pictures(config))
    score = train_state.make_score(
        TrainState(model.weights), objective, arch="johnson", precision="float32"
    )
    totals = []
    for path in sorted(world.held_out.iterdir()):
        photo = cover_crop(read_image(path), 32)
        totals.append(float(score(tf.constant(photo[None]), tf.ones([1, 1]))[tags.TOTAL]))
    (_, early), (_, late) = recorder.checkpoints
    assert late[tags.TOTAL] == pytest.approx(np.mean(totals), rel=1e-5)
    assert early[tags.TOTAL] != late[tags.TOTAL]


def test_a_run_ends_when_held_out_losses_stop_improving(world: tiny.World, tmp_path: Path) -> None:
    settings: Any = {
        "learning_rate": 1e-30,  # Too small to change a weight: no checkpoint beats the first.
        "steps": 9,
        "checkpoint_every_steps": 1,
        "patience_checkpoints": 2,
        "val_dataset": str(world.held_out),
    }
    result, recorder = run_tiny(world, tmp_path, **settings)
    assert (result.steps, result.converged, len(recorder.checkpoints)) == (3, True, 3)
    again, _ = run_tiny(world, tmp_path, **settings)
    assert (again.steps, again.converged) == (3, True)
    # More patience goes on where it ended, and remembers how long nothing has improved.
    longer, _ = run_tiny(world, tmp_path, **settings | {"patience_checkpoints": 3})
    assert (longer.steps, longer.converged) == (4, True)


def test_other_photos_in_the_held_out_folder_start_another_record(
    world: tiny.World, tmp_path: Path
) -> None:
    held_out = tmp_path / "held_out"
    shutil.copytree(world.held_out, held_out)
    settings: Any = {
        "learning_rate": 1e-30,
        "checkpoint_every_steps": 1,
        "patience_checkpoints": 2,
        "val_dataset": str(held_out),
    }
    first, _ = run_tiny(world, tmp_path, steps=2, **settings)
    assert not first.converged
    tiny.save_picture(held_out / "another.jpg", 44, 36, 9)
    second, _ = run_tiny(world, tmp_path, steps=3, **settings)
    assert (second.steps, second.converged) == (3, False)  # One total so far.


def test_an_interruption_does_not_count_against_patience(world: tiny.World, tmp_path: Path) -> None:
    settings: Any = {
        "learning_rate": 1e-30,
        "steps": 9,
        "checkpoint_every_steps": 2,
        "patience_checkpoints": 2,
        "val_dataset": str(world.held_out),
    }
    for stop in (3, 5):
        stopped, _ = run_tiny(world, tmp_path, interrupt_at=stop, **settings)
        assert (stopped.steps, stopped.interrupted, stopped.converged) == (stop, True, False)
    whole, _ = run_tiny(world, tmp_path, **settings)
    assert (whole.steps, whole.converged) == (6, True)  # Scored at 2 (the best), 4 and 6.


@pytest.mark.parametrize("steps", [12, 3])
def test_a_run_with_patience_leaves_its_best_model(
    world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    totals = iter([3.0, 1.0, 2.0, 2.5])
    monkeypatch.setattr(training.HeldOut, "score", lambda *_: {tags.TOTAL: next(totals)})
    result, _ = run_tiny(
        world,
        tmp_path,
        steps=steps,
        checkpoint_every_steps=1,
        keep_checkpoints=1,
        patience_checkpoints=2,
        val_dataset=str(world.held_out),
    )
    # It ran out of patience after step 4, or came to its end before.
    assert (result.steps, result.converged) == ((4, True) if steps == 12 else (3, False))
    assert result.model_step == 2
    model = load_model(tmp_path / "models" / "tiny" / MODEL)
    assert model.metadata["steps"] == 2
    tensors = checkpoint(tmp_path, 2)  # Kept although only one checkpoint is to be.
    for name, value in model.weights.items():
        np.testing.assert_array_equal(value, tensors[name].astype(np.float16), err_msg=name)


def test_resuming_with_another_picture_of_the_same_name_is_refused(
    world: tiny.World, tmp_path: Path
) -> None:
    style = tmp_path / "style.png"
    style.write_bytes(world.style.read_bytes())
    settings: Any = {"style_image": str(style), "steps": 1}
    run_tiny(world, tmp_path, **settings)
    moved = style.rename(tmp_path / "moved.png")
    _, recorder = run_tiny(world, tmp_path, **settings | {"style_image": str(moved)})
    assert recorder.header is not None
    assert recorder.header.notes == (f"style_image changed from '{style}' to '{moved}'",)
    style.write_bytes(world.other_style.read_bytes())
    with pytest.raises(ConfigError, match="the content of the style picture changed"):
        run_tiny(world, tmp_path, **settings)


def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_used(
    world: tiny.World, tmp_path: Path
) -> None:
    run_tiny(world, tmp_path, steps=2, checkpoint_every_steps=1)
    data = tmp_path / "models" / "tiny" / "fast-style-model.ckpt-2.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    result, recorder = run_tiny(world, tmp_path, steps=2, checkpoint_every_steps=1)
    assert recorder.header is not None
    assert (recorder.header.start_step, result.steps) == (1, 2)
    assert recorder.header.notes == (
        "fast-style-model.ckpt-2 is damaged: going on from fast-style-model.ckpt-1",
    )
    assert checkpoint(tmp_path, 2)["global_step"] == 2  # Written anew.


def test_weights_that_have_diverged_replace_no_checkpoint(
    world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_tiny(world, tmp_path, steps=1)
    before = contents(tmp_path / "models")

    def refuse(*arguments: Any) -> None:
        raise FastStyleError("weights do not fit")

    monkeypatch.setattr(saving, "save_model", refuse)
    with pytest.raises(FastStyleError, match="do not fit"):
        run_tiny(world, tmp_path, steps=2)
    assert contents(tmp_path / "models") == before


def read_events(folder: Path) -> tuple[dict[str, dict[int, float]], dict[str, int]]:
    """{tag: {step: value}} of the scalars and {tag: count} of the images."""
    scalars: dict[str, dict[int, float]] = defaultdict(dict)
    images: dict[str, int] = defaultdict(int)
    for path in sorted(folder.glob("*tfevents*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "images":
                    images[value.tag] += 1
                else:
                    scalars[value.tag][event.step] = float(tf.make_ndarray(value.tensor))
    return scalars, images


def test_tensorboard_finds_the_ancestors_tags(whole: Any) -> None:
    scalars, images = read_events(whole[0] / "models" / "tiny")
    ancestors = {
        "losses/content_loss",
        "losses/style_loss",
        "losses/regularizer_loss",
        "weighted_losses/weighted_content_loss",
        "weighted_losses/weighted_style_loss",
        "weighted_losses/weighted_regularizer_loss",
        "total_loss",
        "style_losses/vgg_16/conv1/conv1_2",
        "style_losses/vgg_16/conv2/conv2_2",
    }
    losses = ancestors | {"content_losses/vgg_16/conv2/conv2_2"}
    ours = {"gradient_norm", "learning_rate"}
    held_out = {f"validation/{tag}" for tag in losses}
    assert set(scalars) == losses | ours | held_out
    for report in whole[2].reports:
        for tag, value in report.losses.items():
            assert scalars[tag][report.step] == pytest.approx(value, rel=1e-6)
    assert sorted(scalars["validation/total_loss"]) == [2, 4]
    # Pictures with the first summary and every tenth, and a preview with each checkpoint.
    assert images == {"generated": 1, "origin": 1, "preview": 2}


# Stopping and going on


@pytest.fixture(scope="module")
def pieces(world: tiny.World, tmp_path_factory: pytest.TempPathFactory):
    """The same four steps in three goes: interrupted after one, ended at two, prolonged to four."""
    folder = tmp_path_factory.mktemp("pieces")
    interrupted = run_tiny(world, folder, steps=2, interrupt_at=1)
    after_interrupt = contents(folder)
    ended = run_tiny(world, folder, steps=2)
    prolonged = run_tiny(world, folder, steps=4, log_every_steps=3)
    return folder, interrupted, after_interrupt, ended, prolonged


def test_ctrl_c_ends_the_run_with_a_checkpoint(pieces: Any) -> None:
    _, (result, recorder), files, _, _ = pieces
    assert result.interrupted
    assert result.steps == 1
    assert [name for name, _ in recorder.checkpoints] == ["fast-style-model.ckpt-1"]
    assert "models/tiny/fast-style-model.ckpt-1.index" in files
    assert f"models/tiny/{MODEL}" in files


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(whole: Any, pieces: Any) -> None:
    after_ctrl_c, after_more_steps = checkpoint(pieces[0], 2), checkpoint(pieces[0], 4)
    assert_equal_tensors(after_ctrl_c, checkpoint(whole[0], 2))
    assert_equal_tensors(after_more_steps, checkpoint(whole[0], 4))
    weights = init_weights("johnson", width=0.125)
    assert set(after_more_steps) == {
        STEP,
        *weights,
        *(f"{name}/{FIRST_MOMENT}" for name in weights),
        *(f"{name}/{SECOND_MOMENT}" for name in weights),
    }
    assert after_more_steps[STEP] == 4
    assert not np.array_equal(after_ctrl_c["out/weight"], after_more_steps["out/weight"])


def test_a_resumed_run_starts_where_the_first_one_ended(pieces: Any) -> None:
    _, _, _, (_, second), (result, third) = pieces
    assert (second.header.start_step, second.steps) == (1, [2])
    assert (third.header.start_step, third.steps) == (2, [3, 4])
    assert result.steps == 4
    # After the first step of the session, at the multiple of log_every_steps, and at the end.
    assert [report.step for report in third.reports] == [3, 4]


def test_keys_that_are_free_to_change_are_noted(pieces: Any) -> None:
    _, _, _, (_, second), (_, third) = pieces
    assert second.header.notes == ()
    assert third.header.notes == (
        "steps changed from 2 to 4",
        "log_every_steps changed from 1 to 3",
    )


def test_a_run_from_before_a_key_may_take_it_up(world: tiny.World, tmp_path: Path) -> None:
    config = world.config(tmp_path, grid_weight=500.0)
    same = ("style_sha256", "loss_model_sha256", "photos", "photo_names_sha256", "precision")
    keys = json.loads(json.dumps(dataclasses.asdict(config)))
    now = {"config": keys, **dict.fromkeys(same, "as it was")}
    before = {"config": {key: value for key, value in keys.items() if key != "grid_weight"}}
    assert builders.check_resumable(config, now, before, tmp_path) == [
        "grid_weight changed from 0.0 to 500.0 (it holds from here on)"
    ]


def test_small_pictures_come_first(world: tiny.World, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(min(world.photos.iterdir()), photos / "the_only_one.png")
    same = {"dataset": str(photos), "batch_size": 1}

    _, both = run_tiny(world, tmp_path / "both", image_size=64, small_first=0.5, steps=2, **same)
    small, _ = run_tiny(world, tmp_path / "small", style_weight=25.0, steps=1, **same)
    start = str(tmp_path / "small" / "models" / "tiny" / "fast-style-model.ckpt-1")
    large, _ = run_tiny(world, tmp_path / "large", image_size=64, init_from=start, steps=1, **same)

    assert both.header is not None and both.header.small_first == 0.5
    assert both.steps == [1, 2]
    for report, alone in zip(both.reports, (small.first, large.first), strict=True):
        for tag in (tags.WEIGHTED_CONTENT, tags.WEIGHTED_STYLE, tags.TOTAL):
            assert report.losses[tag] == pytest.approx(alone[tag], rel=1e-5), (report.step, tag)


def impatient(world: tiny.World) -> dict[str, Any]:
    """A run whose second half is of the whole size, and in which nothing improves, ever."""
    return {
        "image_size": 64,
        "small_first": 0.5,
        "learning_rate": 1e-30,
        "checkpoint_every_steps": 1,
        "val_dataset": str(world.held_out),
        "patience_checkpoints": 2,
    }


def test_patience_begins_with_a_cooldown(world: tiny.World, tmp_path: Path) -> None:
    keys = impatient(world) | {"small_first": 0.0, "learning_rate_schedule": "cooldown"}
    result, recorder = run_tiny(world, tmp_path, steps=20, **keys)
    assert result.converged
    assert recorder.steps == list(range(1, 17))  # 14, and two that are no better.


def test_patience_begins_with_the_whole_size(world: tiny.World, tmp_path: Path) -> None:
    result, recorder = run_tiny(world, tmp_path, steps=12, **impatient(world))
    assert result.converged
    assert recorder.steps == list(range(1, 9))  # Six, and two that are no better.


def test_a_new_length_says_that_small_pictures_have_a_share_of_it(
    world: tiny.World, tmp_path: Path
) -> None:
    same = {"image_size": 64, "small_first": 0.5}
    run_tiny(world, tmp_path, steps=1, **same)
    _, recorder = run_tiny(world, tmp_path, steps=2, **same)
    assert recorder.header is not None
    assert recorder.header.notes == (
        "steps changed from 1 to 2 (small_first is a share of the new length)",
    )


def test_a_run_of_two_sizes_goes_on_in_either(world: tiny.World, tmp_path: Path) -> None:
    same = {"image_size": 64, "small_first": 0.5}
    result, _ = run_tiny(world, tmp_path / "whole", val_dataset=str(world.held_out), **same)
    steps, headers = [], []
    for interrupt_at in (1, 2, 3, None):  # The second between the two.
        _, recorder = run_tiny(world, tmp_path / "pieces", interrupt_at=interrupt_at, **same)
        steps.append(recorder.steps)
        headers.append(recorder.header and recorder.header.small_first)
    assert steps == [[1], [2], [3], [4]]
    assert headers == [0.5, 0.5, 0.0, 0.0]
    assert_equal_tensors(checkpoint(tmp_path / "pieces", 4), checkpoint(tmp_path / "whole", 4))
    assert result.steps == 4 and result.images_per_second > 0.0


def test_the_small_loss_network_comes_first(world: tiny.World, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(min(world.photos.iterdir()), photos / "the_only_one.png")
    same: Any = {"dataset": str(photos), "batch_size": 1, "steps": 1}

    _, both = run_tiny(world, tmp_path / "both", mini_first=0.5, **same | {"steps": 2})
    small: Any = {"loss_model": "vgg_mini", "loss_model_file": None}
    mini, _ = run_tiny(world, tmp_path / "mini", **small, **same)
    start = str(tmp_path / "mini" / "models" / "tiny" / "fast-style-model.ckpt-1")
    whole, _ = run_tiny(world, tmp_path / "whole", init_from=start, **same)

    assert both.header is not None
    assert (both.header.mini_first, both.header.loss_model) == (0.5, "vgg_16")
    for report, alone in zip(both.reports, (mini.first, whole.first), strict=True):
        for tag in (tags.WEIGHTED_CONTENT, tags.WEIGHTED_STYLE, tags.TOTAL):
            assert report.losses[tag] == pytest.approx(alone[tag], rel=1e-5), (report.step, tag)
    assert mini.first[tags.TOTAL] != pytest.approx(whole.first[tags.TOTAL], rel=0.01)


# Runs of minutes


class Ticking(Recorder):
    """Each step takes a second, on the clock that runs go by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **kwargs: Any) -> None:
        """Replaces the clock."""
        super().__init__(**kwargs)
        self.now = 1000.0
        clock = functools.partial(RunClock, now=lambda: self.now)
        monkeypatch.setattr(training, "RunClock", clock)

    def on_step(self, step: int) -> None:
        self.now += 1.0
        super().on_step(step)


def run_timed(
    world: tiny.World,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    interrupt_at: int | None = None,
    **changes: Any,
) -> tuple[TrainResult, Ticking]:
    """As `run_tiny`, but for six seconds of a step each."""
    recorder = Ticking(monkeypatch, interrupt_at=interrupt_at)
    keys = {"steps": None, "minutes": 0.1, **changes}
    with tiny.working_in(folder):
        result = train(world.config(folder, **keys), observer=recorder)
    return result, recorder


def rates(recorder: Recorder) -> list[float]:
    return [report.losses[tags.LEARNING_RATE] for report in recorder.reports]


def falling(*steps: int) -> list[float]:
    """The learning rates of steps along a cosine, when six are a run."""
    return [5e-4 * (1.0 + np.cos(np.pi * step / 6)) for step in steps]


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [("cosine", falling(*range(6))), ("cooldown", [1e-3] * 5 + [1e-3 / 6 / 0.3])],
)
def test_a_run_of_minutes_ends_when_they_are_over(
    world: tiny.World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    schedule: str,
    wanted: list[float],
) -> None:
    keys: Any = {"learning_rate_schedule": schedule, "val_dataset": str(world.held_out)}
    result, recorder = run_timed(world, tmp_path, monkeypatch, **keys)
    assert (result.steps, result.interrupted) == (6, False)
    assert recorder.header is not None
    assert (recorder.header.steps, recorder.header.minutes) == (None, 0.1)
    # A step's rate is that of the time at its beginning.
    np.testing.assert_allclose(rates(recorder), wanted, rtol=1e-5)
    [(name, validation)] = recorder.checkpoints
    assert name == "fast-style-model.ckpt-6" and validation  # Scored, as any run's end.
    metadata = load_model(result.model).metadata
    assert (metadata["steps"], metadata["training_seconds"]) == (6, 6.0)

    # The same steps, given as steps, come to the same weights.
    counted = {**keys, "steps": 6}
    run_tiny(world, tmp_path / "counted", **counted)
    mine, others = checkpoint(tmp_path, 6), checkpoint(tmp_path / "counted", 6)
    for name, value in mine.items():
        np.testing.assert_allclose(value, others[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_run_of_minutes_counts_those_of_earlier_sittings(
    world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: Any = {"learning_rate_schedule": "cosine"}
    first, began = run_timed(world, tmp_path, monkeypatch, interrupt_at=2, **keys)
    assert (first.steps, first.interrupted) == (2, True)
    second, went_on = run_timed(world, tmp_path, monkeypatch, **keys)
    assert went_on.header is not None
    assert (went_on.header.start_step, went_on.header.seconds) == (2, 2.0)
    assert (second.steps, second.interrupted) == (6, False)
    # Of the step that Ctrl-C came in there is no report.
    told = [*rates(began), *rates(went_on)]
    np.testing.assert_allclose(told, falling(0, 2, 3, 4, 5), rtol=1e-5)
    third, nothing = run_timed(world, tmp_path, monkeypatch, **keys)
    assert third.steps == 6 and nothing.steps == [] and not third.first
    longer, more = run_timed(world, tmp_path, monkeypatch, minutes=8 / 60, **keys)
    assert longer.steps == 8 and more.header is not None
    (note,) = more.header.notes
    assert note.endswith("(the learning rate follows the new length from here on)")


def test_parts_have_their_share_of_the_time(
    world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: Any = {"image_size": 64, "small_first": 0.5, "mini_first": 0.75}
    seen: list[tuple[int, str]] = []
    make = training.make_train_step

    def make_and_tell(state: Any, objective: Any, settings: Any, **kwargs: Any) -> Any:
        step = make(state, objective, settings, **kwargs)

        def told(photos: Any, choice: Any) -> Any:
            seen.append((photos.shape[1], objective.network.weights_file.name))
            return step(photos, choice)

        return told

    monkeypatch.setattr(training, "make_train_step", make_and_tell)
    result, _ = run_timed(world, tmp_path, monkeypatch, minutes=8 / 60, **keys)
    assert result.steps == 8
    mini, whole = "vgg_mini.safetensors", world.weights.name
    assert seen == [(32, mini)] * 4 + [(64, mini)] * 2 + [(64, whole)] * 2


def test_time_that_saving_takes_counts(
    world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Ticking(monkeypatch)

    def slow(path: Path, validation: Mapping[str, float]) -> None:
        Recorder.on_checkpoint(recorder, path, validation)
        recorder.now += 2.5

    monkeypatch.setattr(recorder, "on_checkpoint", slow)
    config = world.config(tmp_path, steps=None, minutes=0.1, checkpoint_every_steps=2)
    with tiny.working_in(tmp_path):
        result = train(config, observer=recorder)
    # Two steps, a checkpoint, a step and a half, and the end comes while the second is written.
    assert (result.steps, result.interrupted) == (4, False)
    assert [name for name, _ in recorder.checkpoints] == [f"{PREFIX}-2", f"{PREFIX}-4"]


def test_minutes_that_follow_steps_begin_with_them(
    world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def note(recorder: Recorder) -> str:
        assert recorder.header is not None
        [found] = recorder.header.notes
        return found

    run_tiny(world, tmp_path, steps=2)
    result, recorder = run_timed(world, tmp_path, monkeypatch)
    assert (recorder.header and recorder.header.seconds, result.steps) == (0.0, 8)
    assert note(recorder) == "minutes: 0.1 takes the place of steps: 2 (they begin now)"
    # Steps in between take time, too.
    ticking = Ticking(monkeypatch)
    with tiny.working_in(tmp_path):
        train(world.config(tmp_path, steps=10), observer=ticking)
    assert note(ticking) == "steps: 10 takes the place of minutes: 0.1"
    result, recorder = run_timed(world, tmp_path, monkeypatch, minutes=0.2)
    assert (recorder.header and recorder.header.seconds, result.steps) == (8.0, 14)
    assert note(recorder) == "minutes: 0.2 takes the place of steps: 10"


def test_patience_in_time_begins_in_whatever_sitting(
    world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"minutes": 0.2, **impatient(world)}
    first, began = run_timed(world, tmp_path, monkeypatch, interrupt_at=7, **keys)
    assert first.interrupted and began.steps == list(range(1, 8))
    second, went_on = run_timed(world, tmp_path, monkeypatch, **keys)
    assert second.converged and went_on.steps == [8]  # Six, and two that are no better.
    third, nothing = run_timed(world, tmp_path, monkeypatch, **keys)
    assert third.converged and nothing.steps == []


def test_where_patience_would_begin_in_a_sitting_of_steps_is_forgotten(
    world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = impatient(world)
    run_timed(world, tmp_path, monkeypatch, interrupt_at=2, **keys)
    run_tiny(world, tmp_path, interrupt_at=3, steps=40, **keys)
    told = read_checkpoint(tmp_path / "models" / "tiny" / f"{PREFIX}-3")[1]
    assert (told[SECONDS], told[PATIENCE_FROM]) == (2.0, None)


def test_processes_that_train_together_need_steps(world: tiny.World, tmp_path: Path) -> None:
    config = world.config(tmp_path, steps=None, minutes=1)
    with pytest.raises(ConfigError, match="have no common clock; give steps instead"):
        train(config, cluster=Cluster(("a:1", "b:1")))
    assert not (tmp_path / "models").exists()


def copy_of(whole: Any, folder: Path) -> Path:
    """The finished run once more, free to be changed."""
    shutil.copytree(whole[0] / "models", folder / "models")
    return folder


def test_a_changed_run_is_not_resumed_and_every_changed_key_is_named(
    world: tiny.World, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "make_train_step", no_graph)
    folder = copy_of(whole, tmp_path)
    before = contents(folder)
    with pytest.raises(ConfigError) as caught:
        run_tiny(world, folder, steps=9, style_weight=101.0, seed=3)
    assert str(caught.value).splitlines() == [
        f"{folder}/models/tiny: cannot resume, the run there was made with other settings "
        "(undo the change, choose another 'naming', or start over with --fresh, which keeps the "
        f"old run; --fresh --set init_from={folder}/models/tiny starts from its weights): "
        "2 problems",
        "  style_weight: was 100.0, now 101.0",
        "  seed: was 0, now 3",
    ]
    assert contents(folder) == before


def test_a_finished_run_does_nothing_and_keeps_its_model(
    world: tiny.World, whole: Any, tmp_path: Path
) -> None:
    folder = copy_of(whole, tmp_path)
    before = contents(folder / "models")
    for steps in (4, 3):
        result, recorder = run_tiny(world, folder, steps=steps)
        assert (result.steps, recorder.steps, result.first, result.last) == (4, [], {}, {})
    assert contents(folder / "models") == before


def test_a_finished_run_without_its_model_file_writes_it_again(
    world: tiny.World, whole: Any, tmp_path: Path
) -> None:
    folder = copy_of(whole, tmp_path)
    (folder / "models" / "tiny" / MODEL).unlink()
    run_tiny(world, folder)
    model = load_model(folder / "models" / "tiny")
    np.testing.assert_array_equal(
        model.weights["out/weight"], checkpoint(whole[0], 4)["out/weight"].astype(np.float16)
    )


def test_fresh_starts_over_and_renames_the_old_run(
    world: tiny.World, whole: Any, tmp_path: Path
) -> None:
    folder = copy_of(whole, tmp_path)
    before = contents(folder / "models" / "tiny")
    result, recorder = run_tiny(world, folder, fresh=True, steps=1, seed=1)
    assert recorder.steps == [1]
    assert result.steps == 1
    (aside,) = (path for path in (folder / "models").iterdir() if path.name != "tiny")
    assert contents(aside) == before
    assert recorder.header is not None
    assert recorder.header.notes == (f"the run that was in {folder}/models/tiny is now in {aside}",)


def test_damaged_checkpoints_without_a_whole_one_are_refused_and_left_alone(
    world: tiny.World, whole: Any, tmp_path: Path
) -> None:
    folder = copy_of(whole, tmp_path)
    for data in (folder / "models" / "tiny").glob("*.data-*"):
        data.write_bytes(data.read_bytes()[:1000])
    before = contents(folder)
    with pytest.raises(
        ModelError, match=r"ckpt-4 is damaged, .*ckpt-2 is damaged, and there is no"
    ):
        run_tiny(world, folder, steps=6)
    assert contents(folder) == before


def test_a_checkpoint_without_moments_is_refused(whole: Any) -> None:
    state = TrainState(init_weights("johnson", width=0.125))
    before = {name: value.numpy() for name, value in state.tensors().items()}
    tensors = checkpoint(whole[0], 4)
    del tensors[f"conv1/weight/{FIRST_MOMENT}"]
    with pytest.raises(
        ModelError, match=r"here: cannot resume .*: 1 missing \(conv1/weight/Adam\)"
    ):
        state.restore(Path("here"), tensors)
    assert_equal_tensors(before, {name: value.numpy() for name, value in state.tensors().items()})


def test_ctrl_c_between_an_update_and_its_count_loses_neither(
    world: tiny.World, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_interrupted_step(state: TrainState, *args: Any, **kwargs: Any):
        def step(photos: np.ndarray, choice: np.ndarray) -> None:
            state.step.assign_add(1)
            raise KeyboardInterrupt

        return step

    monkeypatch.setattr(training, "make_train_step", make_interrupted_step)
    folder = copy_of(whole, tmp_path)
    result, recorder = run_tiny(world, folder, steps=6)
    assert result.interrupted
    assert result.steps == 5
    assert [name for name, _ in recorder.checkpoints] == ["fast-style-model.ckpt-5"]
    assert checkpoint(folder, 5)[STEP] == 5


# Learning


@pytest.fixture(scope="module")
def two_styles(world: tiny.World, tmp_path_factory: pytest.TempPathFactory):
    """Thirty steps of a net of two styles, with random crops and flips."""
    folder = tmp_path_factory.mktemp("two_styles")
    styles = [
        {"name": "one", "image": str(world.style), "weight": 100.0},
        {"name": "other", "image": str(world.other_style), "weight": 50.0},
    ]
    return folder, *run_tiny(
        world,
        folder,
        steps=50,
        styles=styles,
        style_image=None,
        style_weight=None,
        random_crop=True,
        random_flip=True,
        log_every_steps=10,
        summary_every_steps=100,
    )


def test_the_loss_falls(two_styles: Any) -> None:
    _, result, recorder = two_styles
    last = recorder.reports[-1].losses
    assert last[tags.TOTAL] < result.first[tags.TOTAL] / 4
    assert last[tags.STYLE] < result.first[tags.STYLE] / 4


def test_reports_come_at_the_first_step_and_at_every_tenth(two_styles: Any) -> None:
    assert [report.step for report in two_styles[2].reports] == [1, 10, 20, 30, 40, 50]


def test_a_run_of_several_styles_makes_one_model_of_all(two_styles: Any) -> None:
    folder, _, recorder = two_styles
    model = load_model(folder / "models" / "tiny")
    assert model.style_names == ("one", "other")
    scales = model.weights["conv1/scale"]
    assert scales.shape[0] == 2
    assert (np.abs(scales - 1.0).max(axis=1) > 0).all()  # Both styles were trained.
    assert recorder.header.targets == (
        Path("generated/target_style_tiny_one.jpg"),
        Path("generated/target_style_tiny_other.jpg"),
    )
    assert all((folder / target).is_file() for target in recorder.header.targets)
    preview = read_image(folder / "models" / "tiny" / "preview.jpg")
    assert preview.shape == (394, 2 * 512, 3)


def test_the_choice_of_styles_depends_on_seed_and_step_alone() -> None:
    choices = [train_state.style_choice(7, step, 4, 3) for step in range(60)]
    np.testing.assert_array_equal(choices[5], train_state.style_choice(7, 5, 4, 3))
    assert all((choice.sum(axis=1) == 1).all() for choice in choices)
    shares = np.mean(np.concatenate(choices), axis=0)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.1)  # 240 draws.
    assert not np.array_equal(
        choices, [train_state.style_choice(8, step, 4, 3) for step in range(60)]
    )
    np.testing.assert_array_equal(train_state.style_choice(7, 5, 2, 1), [[1.0], [1.0]])


def test_adam_equals_the_formula_in_float64() -> None:
    """Kingma & Ba (2015), in the form that ends their section 2: epsilon is not corrected."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal((3, 5)).astype(np.float32)
    sizes = np.array([1e-8, 1e-3, 1.0, 10.0, 1e4])  # The first is epsilon's.
    gradients = [(rng.standard_normal((3, 5)) * sizes).astype(np.float32) for _ in range(3)]
    state = TrainState({"w": start})

    @tf.function(input_signature=[tf.TensorSpec([3, 5], tf.float32)], autograph=False)
    def update(gradient: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies(state.update({"w": gradient}, {"w": 0.01})):
            return tf.constant(0)

    weight, first, second = start.astype(np.float64), 0.0, 0.0
    for step, gradient in enumerate(gradients, start=1):
        update(tf.constant(gradient))
        gradient = gradient.astype(np.float64)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        rate = 0.01 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        weight = weight - rate * first / (np.sqrt(second) + 1e-8)
    assert state.step.numpy() == 3
    # 1 - 0.999 has lost four digits in float32, so a step is right to a thousandth of its 0.01.
    np.testing.assert_allclose(state.weights["w"], weight, rtol=0, atol=3e-5)
    np.testing.assert_allclose(state.first["w"], first, rtol=1e-4)
    np.testing.assert_allclose(state.second["w"], second, rtol=1e-3)


def test_steps_are_given_or_follow_from_passes_over_the_photos(
    world: tiny.World, tmp_path: Path
) -> None:
    assert builders.total_steps(world.config(tmp_path, steps=9), 7) == 9
    # Two passes over 7 photos by twos: batches run across the end of a pass.
    assert builders.total_steps(world.config(tmp_path, steps=None, epoch=2), 7) == 7


@pytest.mark.parametrize("warmup, decay", [(4, None), (2, 3)])
def test_the_learning_rate_follows_its_schedule(warmup: int, decay: int | None) -> None:
    state, objective = _toy_state("johnson", 0.125)
    falls: Any = {"learning_rate_schedule": "cosine", "decay_steps": decay} if decay else {}
    step = _compiled_step(state, objective, "johnson", 1e-3, warmup_steps=warmup, **falls)
    photo = tf.constant(tiny.smooth_picture(32, 32, 0)[None])
    for done in range(4):
        before = {name: value.numpy() for name, value in state.weights.items()}
        losses = step(photo, tf.ones([1, 1]))[0]
        rate = 1e-3 * (min(1.0, (done + 1) / warmup) if warmup else 1.0)
        if decay is not None:
            rate *= 0.5 * (1.0 + np.cos(np.pi * min(done, decay) / decay))
        assert float(losses[tags.LEARNING_RATE]) == pytest.approx(rate, rel=1e-5, abs=1e-10)
        moved = [
            np.abs(value.numpy() - before[name]).max() for name, value in state.weights.items()
        ]
        if done == 0:  # Adam's first step moves every weight by the rate, whatever its gradient.
            assert np.median(moved) == pytest.approx(rate, rel=0.01)
        elif rate < 1e-9:
            assert max(moved) < 1e-6
        else:
            assert np.median(moved) > 0.05 * rate


# Losses that are not finite


class _ToyNetwork:
    """Stands in for a loss network: the pixels are its only layer."""

    channels: dict[str, int] = {}
    metrics: dict[str, tf.Tensor] = {}

    def __call__(self, images: tf.Tensor, layers: Any = None) -> dict[str, tf.Tensor]:
        return {"pixels": tf.cast(images, tf.float32)}


def _toy_state(arch: str, width: float) -> tuple[TrainState, Objective]:
    objective = Objective(
        network=_ToyNetwork(),  # pyright: ignore[reportArgumentType]
        content_layers=("pixels",),
        target_grams={"pixels": np.zeros([1, 3, 3], np.float32)},
        style_weights=np.ones([1], np.float32),
        content_weight=1.0,
        tv_weight=0.0,
    )
    return TrainState(init_weights(arch, width=width)), objective


def _compiled_step(
    state: TrainState, objective: Objective, arch: str, learning_rate: float, **changes: Any
) -> Any:
    return make_train_step(
        state,
        objective,
        StepSettings(
            arch=arch,
            precision="float32",
            learning_rate=learning_rate,
            **{"image_size": 32, **changes},
        ),
        batch_size=1,
    )


def test_a_step_compiled_by_xla_is_the_same() -> None:
    found = []
    for xla in (False, True):
        state, objective = _toy_state("johnson", 0.125)
        step = _compiled_step(
            state,
            objective,
            "johnson",
            1e-3,
            xla=xla,
            grid_weight=500.0,
            border_weight=20.0,
            image_size=76,
        )
        losses, styled, halves = step(tf.constant(tiny.smooth_picture(76, 76, 0)[None]), [[1.0]])
        assert losses[tags.WEIGHTED_GRID] > 0.0 < losses[tags.WEIGHTED_BORDER]
        found.append((losses, styled, halves))
        assert state.step.numpy() == 1
    for plain, compiled in zip(*found, strict=True):
        tf.nest.map_structure(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), plain, compiled
        )


def test_a_step_with_muon_moves_inner_kernels_along_orthonormal_matrices() -> None:
    state, objective = _toy_state("johnson", 0.125)
    step = _compiled_step(state, objective, "johnson", 1e-3, optimizer="muon")
    before = {name: value.numpy() for name, value in state.weights.items()}
    step(tf.constant(tiny.smooth_picture(32, 32, 0)[None]), tf.ones([1, 1]))
    moved = {name: value.numpy() - before[name] for name, value in state.weights.items()}
    kernel = moved["res3/conv1/weight"].reshape(-1, moved["res3/conv1/weight"].shape[-1])
    sides = np.linalg.svd(kernel, compute_uv=False) / (1e-3 * np.sqrt(max(kernel.shape)))
    assert 0.6 < sides.min() <= sides.max() < 1.25
    # The rest is Adam's, whose first step moves every weight by the rate.
    assert np.median(np.abs(moved["out/weight"])) == pytest.approx(1e-3, rel=0.01)
    assert np.median(np.abs(moved["res3/conv1/offset"])) == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_what_a_style_has_of_its_own_moves_at_the_rate_of_norms(optimizer: str) -> None:
    state, objective = _toy_state("johnson", 0.125)
    step = _compiled_step(
        state, objective, "johnson", 1e-3, optimizer=optimizer, norm_learning_rate=7e-3
    )
    before = {name: value.numpy() for name, value in state.weights.items()}
    step(tf.constant(tiny.smooth_picture(32, 32, 0)[None]), tf.ones([1, 1]))
    for name in ("conv1/scale", "res3/conv1/offset", "out/bias", "out/weight"):
        moved = np.median(np.abs(state.weights[name].numpy() - before[name]))
        own = name != "out/weight"
        assert moved == pytest.approx(7e-3 if own else 1e-3, rel=0.02), name


def test_slim2016_moves_its_residual_blocks_at_a_tenth_of_the_rate() -> None:
    state, objective = _toy_state("slim2016", 1.0)
    step = _compiled_step(state, objective, "slim2016", 1e-3)
    before = {name: value.numpy() for name, value in state.weights.items()}
    step(tf.constant(tiny.smooth_picture(32, 32, 0)[None]), tf.ones([1, 1]))
    for name, value in state.weights.items():
        # Adam's first step moves every weight by the rate, whatever its gradient.
        moved = np.median(np.abs(value.numpy() - before[name]))
        assert moved == pytest.approx(1e-4 if name.startswith("res") else 1e-3, rel=0.01), name


def _step_with_clip(clip: float | None, steps_done: int, outlier: float) -> tuple[np.ndarray, ...]:
    """One step whose loss is as much larger than usual as `outlier` says.

    Returns: the usual norm of each weight's gradient, and the gradients that Adam was given.
    """
    state, objective = _toy_state("johnson", 0.125)
    rng = np.random.default_rng(3)
    for second in state.second.values():
        second.assign(rng.uniform(0.5, 1.5, second.numpy().shape).astype(np.float32))
    state.step.assign(steps_done)
    mass = [np.sum(v.numpy().astype(np.float64)) for v in state.second.values()]
    usual = np.sqrt(np.array(mass) / (1.0 - 0.999**steps_done))
    objective = dataclasses.replace(
        objective, content_weight=outlier, style_weights=np.full([1], outlier, np.float32)
    )
    step = _compiled_step(state, objective, "johnson", 1e-3, gradient_clip=clip)
    step(tf.constant(tiny.smooth_picture(32, 32, 0)[None]), tf.ones([1, 1]))
    # From moments of zero, the first moment is a tenth of the gradient.
    return usual, *(10.0 * value.numpy().astype(np.float64) for value in state.first.values())


def test_gradients_longer_than_usual_are_shortened_weight_by_weight() -> None:
    usual, *free = _step_with_clip(None, 50, 1.0)
    _, *clipped = _step_with_clip(1.5, 50, 1.0)
    shortened = 0
    for limit, before, after in zip(1.5 * usual, free, clipped, strict=True):
        length = np.linalg.norm(before)
        shortened += length > limit
        np.testing.assert_allclose(after, before * min(1.0, limit / length), rtol=2e-4, atol=1e-12)
    assert 0 < shortened < len(free)


def test_nothing_is_shortened_before_it_is_known_what_is_usual() -> None:
    _, *free = _step_with_clip(None, 9, 1e4)
    _, *clipped = _step_with_clip(1.5, 9, 1e4)
    for before, after in zip(free, clipped, strict=True):
        np.testing.assert_array_equal(after, before)


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    state, objective = _toy_state("johnson", 0.125)
    step = _compiled_step(state, objective, "johnson", 1e30)
    photos = tf.constant(tiny.smooth_picture(32, 32, 0)[None])
    losses, _, _ = step(photos, tf.ones([1, 1]))
    assert np.isfinite(losses[tags.TOTAL])
    after_one = {name: value.numpy() for name, value in state.tensors().items()}
    assert np.isfinite(list(after_one["out/weight"].ravel())).all()
    losses, _, _ = step(photos, tf.ones([1, 1]))
    assert not np.isfinite([float(value) for value in losses.values()]).all()
    assert_equal_tensors(
        after_one, {name: value.numpy() for name, value in state.tensors().items()}
    )
    assert state.step.numpy() == 2  # Its batch is consumed.


# Starting from other weights


@pytest.fixture(scope="module")
def ancestor(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """A V1 checkpoint as the 2016 implementation left it, at step 40,000."""
    folder = tmp_path_factory.mktemp("2016") / "wave"
    folder.mkdir()
    weights = init_weights("slim2016", seed=9)
    extra = {"global_step": np.array(40000, np.int64), "beta1_power": np.array(0.5, np.float32)}
    path = weight_files.save_v1(folder / "fast-style-model.ckpt-done", {**weights, **extra})
    return path, weights


def test_training_starts_from_a_checkpoint_of_2016(
    world: tiny.World, ancestor: Any, tmp_path: Path
) -> None:
    path, weights = ancestor
    result, recorder = run_tiny(
        world,
        tmp_path,
        arch="slim2016",
        width=1.0,
        init_from=str(path),
        steps=1,
        learning_rate=1e-30,  # Too little to change any weight.
    )
    assert recorder.header is not None
    assert recorder.header.start_step == 0
    assert recorder.header.weights == 1_674_432
    assert result.steps == 1
    trained = checkpoint(tmp_path, 1)
    assert_equal_tensors({name: trained[name] for name in weights}, weights)
    assert load_model(tmp_path / "models" / "tiny").arch == "slim2016"


def test_training_starts_from_a_model_of_ours(
    world: tiny.World, whole: Any, tmp_path: Path
) -> None:
    model = load_model(whole[0] / "models" / "tiny")
    run_tiny(
        world,
        tmp_path,
        init_from=str(whole[0] / "models" / "tiny"),
        steps=1,
        learning_rate=1e-30,
        seed=5,
    )
    trained = checkpoint(tmp_path, 1)
    for name, value in model.weights.items():
        np.testing.assert_allclose(trained[name], value, rtol=0, atol=2e-30, err_msg=name)
    assert np.abs(trained[f"out/weight/{FIRST_MOMENT}"]).max() > 0  # One step of its own.


def pictures_of_styles(folder: Path, names: str) -> dict[str, Path]:
    return {
        name: tiny.save_picture(folder / f"{name}.png", 40, 40, 50 + place)
        for place, name in enumerate(names)
    }


def net_of_styles(path: Path, pictures: Sequence[Path]) -> dict[str, np.ndarray]:
    """Saves a small net of styles that differ in all that styles may, and returns its weights."""
    weights = random_weights("johnson", width=0.125, styles=len(pictures))
    hashes = {"style_sha256": [file_sha256(picture) for picture in pictures]}
    names = tuple(f"the {picture.stem}" for picture in pictures)
    save_model(path, Model("johnson", 0.125, names, weights, hashes))
    return dict(load_model(path).weights)


@pytest.mark.parametrize(
    ("held", "wanted", "told"),
    [
        ("abc", "x", " (x: the mean of its 3 styles)"),
        ("abc", "b", " (b: the b)"),
        ("abc", "xca", " (x: the mean of its 3 styles, c: the c, a: the a)"),
        ("ab", "ba", " (b: the b, a: the a)"),
        ("a", "x", ""),
    ],
)
def test_a_style_starts_from_that_of_its_picture_or_from_the_mean(
    world: tiny.World, tmp_path: Path, held: str, wanted: str, told: str
) -> None:
    pictures = pictures_of_styles(tmp_path, "abcx")
    start = tmp_path / "start.safetensors"
    saved = net_of_styles(start, [pictures[name] for name in held])
    styles = [{"name": name, "image": str(pictures[name]), "weight": 1.0} for name in wanted]
    config = world.config(
        tmp_path, styles=styles, style_image=None, style_weight=None, init_from=str(start)
    )

    beginning = begin(config)

    assert beginning.told == f"{start}{told}"
    assert beginning.source == {"file": str(start), "sha256": file_sha256(start)}
    found = beginning.weights
    fresh = init_weights("johnson", width=0.125, styles=len(wanted))
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in fresh.items()}
    photo = tf.constant(np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)), tf.float32)
    for place, name in enumerate(wanted):
        mix = np.zeros((1, len(held)), np.float32)
        mix[0, held.index(name) if name in held else slice(None)] = 1.0
        before = transform("johnson", saved, photo, tf.constant(mix / mix.sum()))
        chosen = tf.one_hot([place], len(wanted))
        after = transform("johnson", found, photo, chosen)
        np.testing.assert_allclose(after, before, atol=0.02)


def test_a_run_says_where_its_weights_came_from_also_after_it_went_on(
    world: tiny.World, tmp_path: Path
) -> None:
    start = tmp_path / "start.safetensors"
    net_of_styles(start, [world.style])
    _, recorder = run_tiny(world, tmp_path, init_from=str(start), steps=1)
    assert recorder.header is not None and recorder.header.init_from == str(start)
    source = {"file": str(start), "sha256": file_sha256(start)}
    start.unlink()
    _, recorder = run_tiny(world, tmp_path, init_from="another", steps=2)
    assert recorder.header is not None and recorder.header.init_from is None
    made = load_model(tmp_path / "models" / "tiny").metadata
    assert (made["started_from"], made["config"]["init_from"]) == (source, str(start))


def test_a_fresh_run_that_goes_on_does_not_claim_a_start_that_it_never_had(
    world: tiny.World, tmp_path: Path
) -> None:
    _, recorder = run_tiny(world, tmp_path, steps=1)
    assert recorder.header is not None and recorder.header.init_from is None
    run_tiny(world, tmp_path, init_from="another", steps=2)
    made = load_model(tmp_path / "models" / "tiny").metadata
    assert (made["started_from"], made["config"]["init_from"]) == (None, None)


def test_a_start_that_is_missing_is_told_with_its_key(world: tiny.World, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"init_from: .*none: no such .*init_from=null starts"):
        begin(world.config(tmp_path, init_from=str(tmp_path / "none")))


def test_starting_from_another_architecture_is_refused(
    world: tiny.World, ancestor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "make_train_step", no_graph)
    with pytest.raises(
        ConfigError,
        match=r"ckpt-done is arch slim2016, width 1, and this run is arch johnson, "
        r"width 0\.125; make them agree, or start afresh without init_from",
    ):
        run_tiny(world, tmp_path, init_from=str(ancestor[0]))
    assert contents(tmp_path) == {}
    assert not (tmp_path / "models").exists()


# Photos


def test_unreadable_photos_are_counted_and_named(world: tiny.World, tmp_path: Path) -> None:
    shutil.copytree(world.photos, tmp_path / "photos")
    broken = sorted(path for path in (tmp_path / "photos").rglob("*") if path.is_file())[::2]
    for path in broken:
        path.write_bytes(path.read_bytes()[:200])
    result, recorder = run_tiny(world, tmp_path, dataset=str(tmp_path / "photos"))
    assert recorder.steps == [1, 2, 3, 4]  # All photos were asked for.
    assert set(result.skipped) == set(broken)
    for path, reason in result.skipped.items():
        assert str(path) in reason


def test_photos_none_of_which_can_be_read_are_refused_before_anything_is_written(
    world: tiny.World, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.png", "c.jpg"):
        (tmp_path / "photos" / name).write_text("no picture")
    before = contents(tmp_path)
    with pytest.raises(
        DataError, match=r"none of its 3 photos can be read; for example, .*a\.jpg: "
    ):
        run_tiny(world, tmp_path, dataset=str(tmp_path / "photos"))
    assert contents(tmp_path) == before
    assert not (tmp_path / "models").exists()
