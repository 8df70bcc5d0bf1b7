from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import safetensors
import safetensors.numpy
import scipy.stats
import tensorflow as tf
import tiny
import weight_files

from fast_style import cli_distill
from fast_style.checkpoints import STEP, newest_checkpoint, read_checkpoint, save_checkpoint
from fast_style.cli import main
from fast_style.data import find_photos, read_crops
from fast_style.distill import DistillHeader, DistillObserver, DistillResult, distill
from fast_style.distill_apprentices import Apprentices, network_in_the_making
from fast_style.distill_compare import compare
from fast_style.distill_config import (
    DistillConfig,
    distill_config_to_yaml,
    load_distill_config,
)
from fast_style.distill_data import Scene, Studio
from fast_style.distill_file import mini_tensors
from fast_style.distill_report import (
    DistillReport,
    agreements,
    calibration,
    rank_correlation,
    table_lines,
)
from fast_style.distill_start import informative_channels, least_squares, pruned
from fast_style.distill_step import DIFFERENCES, FEATURES, GRAMS, TOTAL, make_distill_step
from fast_style.errors import ConfigError, DataError, FastStyleError, WeightsError
from fast_style.loss_models import BUNDLED
from fast_style.loss_net import build_loss_network
from fast_style.loss_weights import read_weights
from fast_style.mini_net import PIXEL_SCALE, mini_features
from fast_style.stopping import StopRequest
from fast_style.train_state import TrainState

ROOT = Path(__file__).parents[1]
LAYERS = ("conv1/conv1_2", "conv2/conv2_2")


@pytest.fixture(scope="module", autouse=True)
def _short_comparisons() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fast_style.distill._CALIBRATION_STAGES", (1, 3))
        patch.setattr("fast_style.distill_resume._FIRST_SCENES", 3)
        yield


@dataclass(frozen=True)
class Sources:
    """What runs learn from: folders of pictures, of which one each cannot be read."""

    weights: Path
    photos: Path
    styles: Path
    held_out: Path


@pytest.fixture(scope="module")
def sources(world: tiny.World, tmp_path_factory: pytest.TempPathFactory) -> Sources:
    folder = tmp_path_factory.mktemp("sources")
    found = Sources(world.weights, folder / "photos", folder / "styles", folder / "held_out")
    shutil.copytree(world.photos, found.photos)
    shutil.copytree(world.held_out, found.held_out)
    found.styles.mkdir()
    for style in (world.style, world.other_style):
        shutil.copy(style, found.styles)
    for place in (found.photos, found.styles, found.held_out):
        (place / "!broken.jpg").write_bytes(b"no picture")
    return found


def settings(sources: Sources, folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "teacher_file": str(sources.weights),
        "dataset": str(sources.photos),
        "styles": str(sources.styles),
        "output": str(folder / "mini.safetensors"),
        "run_folder": str(folder / "run"),
        "layers": LAYERS,
        "content_layer": "conv2/conv2_2",
        "channels": (4, 4, 8, 8),
        "image_size": 64,
        "studio": 4,
        "studio_per_step": 2,
        "others_per_step": 1,
        "apprentices": 1,
        "answers_per_step": 1,
        "steps": 4,
        "calibration_photos": 1,
        "precision": "float32",
        "log_every_steps": 1,
        "checkpoint_every_steps": 2,
    } | changes


def config(sources: Sources, folder: Path, **changes: Any) -> DistillConfig:
    return DistillConfig(**settings(sources, folder, **changes))


def overrides(sources: Sources, folder: Path, **changes: Any) -> list[str]:
    given = settings(sources, folder, **changes)
    pairs = ((k, list(v) if isinstance(v, tuple) else v) for k, v in given.items())
    return [item for k, v in pairs for item in ("--set", f"{k}={json.dumps(v)}")]


# Where it starts


def test_channels_that_others_follow_from_are_chosen() -> None:
    rng = np.random.default_rng(0)
    sources = rng.normal(size=(500, 3)) * (2.0, 4.0, 3.0)
    # Channels 1, 3 and 4 are the sources; the others say little of more than one of them.
    features = np.zeros((500, 6))
    features[:, [1, 3, 4]] = sources
    features[:, [0, 2, 5]] = 0.1 * sources + rng.normal(0, 0.1, (500, 3))
    chosen = informative_channels(features.T @ features / 500, 3)
    assert chosen.tolist() == [1, 3, 4]


def test_more_channels_than_say_something_can_be_chosen() -> None:
    features = np.zeros((50, 4))
    features[:, 2] = np.arange(50)
    chosen = informative_channels(features.T @ features / 50, 3)
    assert len(set(chosen.tolist())) == 3 and 2 in chosen
    assert informative_channels(features.T @ features / 50, 1).tolist() == [2]


def test_least_squares_are_numpys() -> None:
    rng = np.random.default_rng(1)
    inputs, targets = rng.normal(size=(300, 7)), rng.normal(size=(300, 4))
    expected = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    found = least_squares(inputs, targets, rectified=False)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_rectified_targets_are_fitted_better_after_the_relu() -> None:
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(400, 5))
    # What lies below 0 is nothing that these inputs can tell.
    targets = inputs @ rng.normal(size=(5, 3))
    targets = np.where(targets > 0, targets, targets * rng.uniform(0, 9, targets.shape))

    def error(rectified: bool) -> float:
        reached = np.maximum(inputs @ least_squares(inputs, targets, rectified=rectified), 0.0)
        return float(np.sum((reached - np.maximum(targets, 0.0)) ** 2))

    assert error(True) < 0.5 * error(False)


def _vgg_parts(weights: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    parts: list[dict[str, np.ndarray]] = [{}, {}]
    for name, value in weights.items():
        layer, kind = name.removeprefix("vgg_16/").rsplit("/", 1)
        parts[kind == "biases"][layer] = value
    return parts


def test_a_network_as_wide_as_its_teacher_knows_all_that_it_knows(tmp_path: Path) -> None:
    weights = weight_files.random_vgg("vgg_16", "conv1_2")
    kernels, biases = _vgg_parts(weights)
    images = np.random.default_rng(3).uniform(0, 255, (3, 24, 28, 3)).astype(np.float32)
    variables, maps = pruned(
        kernels, biases, dict.fromkeys(kernels, 64), ("conv1/conv1_2",), images
    )
    file = weight_files.save_safetensors(tmp_path / "vgg.safetensors", weights)
    teacher = build_loss_network("vgg_16", file, ["vgg_16/conv1/conv1_2"])
    wanted = teacher(tf.constant(images))["vgg_16/conv1/conv1_2"].numpy()
    own = mini_features(variables, tf.constant(images), ["conv1/conv1_2"], "float32")
    found = own["conv1/conv1_2"].numpy() @ maps["conv1/conv1_2"].T
    assert np.mean((found - wanted) ** 2) < 1e-3 * np.mean(wanted**2)


def test_more_channels_tell_more(tmp_path: Path) -> None:
    weights = weight_files.random_vgg("vgg_16", "conv2_2")
    kernels, biases = _vgg_parts(weights)
    images = np.random.default_rng(3).uniform(0, 255, (2, 24, 28, 3)).astype(np.float32)
    file = weight_files.save_safetensors(tmp_path / "vgg.safetensors", weights)
    teacher = build_loss_network("vgg_16", file, ["vgg_16/conv2/conv2_2"])
    wanted = teacher(tf.constant(images))["vgg_16/conv2/conv2_2"].numpy()
    errors = []
    for width in (4, 16, 48):
        variables, maps = pruned(
            kernels, biases, dict.fromkeys(kernels, width), ("conv2/conv2_2",), images
        )
        own = mini_features(variables, tf.constant(images), ["conv2/conv2_2"], "float32")
        found = own["conv2/conv2_2"].numpy() @ maps["conv2/conv2_2"].T
        errors.append(np.mean((found - wanted) ** 2))
    assert errors[0] > 1.2 * errors[1] > 1.2 * 1.2 * errors[2]


def test_a_widened_network_goes_on_computing_what_it_did() -> None:
    kernels, biases = _vgg_parts(weight_files.random_vgg("vgg_16", "conv2_2"))
    images = np.random.default_rng(3).uniform(0, 255, (2, 24, 28, 3)).astype(np.float32)
    taps, errors, features = ("conv2/conv2_2",), [], []
    teacher = tf.constant(images) - tf.constant([123.68, 116.78, 103.94])
    for layer, kernel in kernels.items():
        if layer == "conv2/conv2_1":
            teacher = tf.nn.max_pool2d(teacher, 2, 2, "VALID")
        teacher = tf.nn.relu(tf.nn.conv2d(teacher, kernel, 1, "SAME") + biases[layer])
    narrow, _ = pruned(kernels, biases, dict.fromkeys(kernels, 8), taps, images)
    for widths in ((8, 8, 8, 8), (8, 8, 8, 24), (8, 12, 16, 24)):
        wide, maps = pruned(
            kernels, biases, dict(zip(kernels, widths, strict=True)), taps, images, before=narrow
        )
        own = mini_features(wide, tf.constant(images), taps, "float32")[taps[0]].numpy()
        assert own.shape[3] == widths[-1]
        features.append(own[..., :8])
        errors.append(np.mean((own @ maps[taps[0]].T - teacher.numpy()) ** 2))
    np.testing.assert_allclose(features[1], features[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features[2], features[0], rtol=1e-4, atol=1e-5)
    assert errors[1] < 0.9 * errors[0] and errors[2] < 1.0001 * errors[1]


# The studio


def _studio(world: tiny.World, seed: int = 0) -> Studio:
    return Studio(
        find_photos(world.photos), find_photos(world.style.parent), size=32, seed=seed, seats=5
    )


def test_a_studio_shows_pictures_in_their_range(world: tiny.World) -> None:
    studio = _studio(world)
    for step in range(8):
        scene = studio.scene(step, seats=2, others=3)
        assert scene.seats.tolist() == [(2 * step) % 5, (2 * step + 1) % 5]
        for pictures, count in (
            (scene.styled, 2),
            (scene.photos, 2),
            (scene.styles, 2),
            (scene.others, 3),
        ):
            assert pictures.shape == (count, 32, 32, 3)
            assert pictures.dtype == np.float32
            assert pictures.min() >= 0 and pictures.max() <= 255


def test_a_studio_depends_on_its_seed_alone(world: tiny.World) -> None:
    scenes = [_studio(world, seed).scene(3, seats=2, others=2) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(scenes[0].others, scenes[1].others)
    np.testing.assert_array_equal(scenes[0].styled, scenes[1].styled)
    assert np.any(scenes[0].others != scenes[2].others)


def test_pictures_go_down_their_gradient_and_make_room_in_the_end(world: tiny.World) -> None:
    studio = _studio(world)
    scene = studio.scene(0, seats=2, others=1)
    before, left = studio.styled.copy(), studio.plan[:2, 3].copy()
    studio.improve(0, scene, np.ones((2, 32, 32, 3), np.float32))
    assert np.all(studio.styled[:2] <= before[:2]) and np.any(studio.styled[:2] < before[:2])
    np.testing.assert_array_equal(studio.styled[2:], before[2:])
    np.testing.assert_array_equal(studio.plan[:2, 3], left - 1)
    studio.plan[0, 3] = 1
    style = studio.styled[0].copy()
    studio.improve(5, scene, np.zeros((2, 32, 32, 3), np.float32))
    assert studio.plan[0, 3] >= 1 and np.any(studio.styled[0] != style)


def test_a_picture_whose_gradient_breaks_is_replaced(world: tiny.World) -> None:
    studio = _studio(world)
    scene = studio.scene(0, seats=2, others=1)
    studio.improve(0, scene, np.full((2, 32, 32, 3), np.nan, np.float32))
    assert np.isfinite(studio.styled).all()


def test_styles_that_cannot_be_read_are_told(world: tiny.World, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of the 1 style pictures can be read"):
        Studio(find_photos(world.photos), [tmp_path / "broken.jpg"], size=32, seed=0)


# Nets in training


def _apprentices(
    world: tiny.World, *, count: int = 1, answers: int = 1
) -> tuple[Studio, Apprentices]:
    studio = _studio(world)
    kernels, biases = _vgg_parts({**read_weights(world.weights, "vgg_16")})
    scene = studio.scene(0, seats=2, others=2)
    weights, maps = pruned(kernels, biases, dict.fromkeys(kernels, 6), LAYERS, scene.others)
    weights |= {f"vgg_mini/{tap}/map": maps[tap] for tap in LAYERS}
    network = network_in_the_making(
        TrainState(weights), LAYERS, dict.fromkeys(LAYERS, 1.0), "float32"
    )
    return studio, Apprentices(
        studio,
        network,
        content_layer="conv2/conv2_2",
        count=count,
        answers=answers,
        size=32,
        seed=0,
        precision="float32",
    )


def test_answers_of_nets_join_a_scene(world: tiny.World) -> None:
    studio, nets = _apprentices(world)
    scene = studio.scene(0, seats=2, others=1)
    contrasts = []
    for step in range(30):
        joined = nets.join(step, scene)
        for name in ("styled", "photos", "styles"):
            pictures, before = getattr(joined, name), getattr(scene, name)
            assert pictures.shape == (3, 32, 32, 3)
            np.testing.assert_array_equal(pictures[:2], before)
        assert 20.0 <= joined.style_weights[2] <= 300.0
        assert joined.seats is scene.seats and joined.others is scene.others
        contrasts.append(float(joined.styled[2].std()))
    # A net begins with grey pictures, and learns to paint.
    assert contrasts[0] < 20.0
    assert np.mean(contrasts[-5:]) > 2.0 * contrasts[0]


def test_nets_take_turns_and_go_on_from_what_was_kept(world: tiny.World) -> None:
    studio, nets = _apprentices(world, count=2, answers=2)
    scene = studio.scene(0, seats=2, others=1)
    # The first net makes room for another, which nobody could guess from the seed.
    nets.restore({**nets.state(), "apprentices/0/left": np.array(2, np.int32)})
    nets.join(0, scene)
    nets.join(1, scene)
    kept = {name: value.copy() for name, value in nets.state().items()}
    kept["apprentices/1/left"] = np.array(2, np.int32)
    nets.restore(kept)
    steps = (2, 3, 4, 5)
    expected = [nets.join(step, scene) for step in steps]
    _, others = _apprentices(world, count=2, answers=2)
    others.restore(kept)
    for step, wanted in zip(steps, expected, strict=True):
        found = others.join(step, scene)
        for name in ("styled", "photos", "styles", "style_weights"):
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    weights = [wanted.style_weights[2:] for wanted in expected]
    assert all(pair[0] == pair[1] for pair in weights)
    # Two nets in turn, of which the second is replaced after its first turn.
    assert weights[0][0] == weights[2][0]
    assert len({weights[0][0], weights[1][0], weights[3][0]}) == 3


def test_a_net_that_breaks_is_replaced_and_not_shown(world: tiny.World) -> None:
    studio, nets = _apprentices(world)
    scene = studio.scene(0, seats=2, others=1)
    state = nets.state()
    broken = {name: np.full_like(v, np.nan) for name, v in state.items() if "out/weight" in name}
    assert broken
    nets.restore({**state, **broken})
    assert nets.join(0, scene) is scene
    assert all(np.isfinite(value).all() for value in nets.state().values())
    assert len(nets.join(1, scene).styled) == 3


def test_a_net_that_has_learned_makes_room(world: tiny.World) -> None:
    studio, nets = _apprentices(world)
    scene = studio.scene(0, seats=2, others=1)
    nets.join(0, scene)
    nets.restore({**nets.state(), "apprentices/0/left": np.array(2, np.int32)})
    weights = [nets.join(step, scene).style_weights[2] for step in (1, 2)]
    assert weights[0] != weights[1]
    assert nets.state()["apprentices/0/step"] == 2
    assert nets.state()["apprentices/0/left"] >= 38


def test_without_nets_a_scene_stays_as_it_is(world: tiny.World) -> None:
    studio, nets = _apprentices(world, count=0)
    scene = studio.scene(0, seats=2, others=1)
    assert nets.join(0, scene) is scene and nets.state() == {}


# A step


CONVOLUTIONS = ("conv1/conv1_1", "conv1/conv1_2", "conv2/conv2_1", "conv2/conv2_2")
SCALES = {"conv1/conv1_2": 0.7, "conv2/conv2_2": 1.6}
STEPS = 100


@dataclass(frozen=True)
class Lesson:
    """One scene, and the function that takes a step on it."""

    weights: dict[str, np.ndarray]
    scene: Scene
    state: TrainState
    take: Callable[[Scene], tuple[dict[str, float], np.ndarray]]

    def begin(self, step: int) -> None:
        self.state.restart(self.weights)
        self.state.step.assign(step)


@pytest.fixture(scope="module")
def lesson(world: tiny.World) -> Lesson:
    teacher = build_loss_network("vgg_16", world.weights, [f"vgg_16/{name}" for name in LAYERS])
    scene = _studio(world).scene(0, seats=2, others=2)
    # In flat parts of a picture, poolings could take either of two pixels.
    noise = np.random.default_rng(9).normal(0, 3, scene.styled.shape).astype(np.float32)
    scene = dataclasses.replace(scene, styled=scene.styled + noise)
    kernels, biases = _vgg_parts({**read_weights(world.weights, "vgg_16")})
    weights, maps = pruned(kernels, biases, dict.fromkeys(kernels, 6), LAYERS, scene.others)
    weights |= {f"vgg_mini/{tap}/map": maps[tap] / np.float32(SCALES[tap]) for tap in LAYERS}
    state = TrainState(weights)
    take = make_distill_step(
        state,
        teacher,
        LAYERS,
        SCALES,
        content_tap="conv2/conv2_2",
        learning_rate=0.01,
        gram_weight=3.0,
        steps=STEPS,
        dtype="float32",
    )
    return Lesson(weights, scene, state, take)


def _as_the_teacher(weights: Mapping[str, np.ndarray], pictures: np.ndarray) -> dict[str, Any]:
    """The features of the teacher that a mini network knows of, in float64."""
    own = reference.vgg(weights, "vgg_mini", CONVOLUTIONS, pictures, PIXEL_SCALE)
    maps = {tap: weights[f"vgg_mini/{tap}/map"].astype(np.float64) for tap in LAYERS}
    return {tap: own[tap] @ maps[tap].T * SCALES[tap] for tap in LAYERS}


def test_losses_of_a_step_are_those_of_the_formula(world: tiny.World, lesson: Lesson) -> None:
    scene, teacher = lesson.scene, {**read_weights(world.weights, "vgg_16")}
    pictures = np.concatenate([scene.styled, scene.styles, scene.others])
    exact = reference.vgg(teacher, "vgg_16", CONVOLUTIONS, pictures)
    guess = _as_the_teacher(lesson.weights, pictures)
    expected: dict[str, float] = dict.fromkeys((FEATURES, GRAMS, DIFFERENCES), 0.0)
    for tap in LAYERS:
        powers = [np.mean(exact[tap][n] ** 2) for n in range(6)]
        for n in range(6):
            error = np.mean((exact[tap][n] - guess[tap][n]) ** 2)
            expected[FEATURES] += error / (powers[n] / 2 + np.mean(powers) / 2) / 6
        grams = [reference.gram(features) for features in exact[tap]]
        guessed = [reference.gram(features) for features in guess[tap]]
        for n in range(6):
            error = np.sum((grams[n] - guessed[n]) ** 2)
            expected[GRAMS] += error / np.sum(grams[n] ** 2) / 6
        for n in range(2):  # The styles stand behind the two styled pictures.
            difference = grams[n] - grams[2 + n]
            error = np.sum((difference - (guessed[n] - guessed[2 + n])) ** 2)
            floor = 0.01 * np.sum(grams[2 + n] ** 2)
            expected[DIFFERENCES] += error / (np.sum(difference**2) + floor) / 2
    # Three steps of the ten over which Gram matrices come in.
    expected[TOTAL] = expected[FEATURES] + 3.0 * 0.3 * (expected[GRAMS] + expected[DIFFERENCES])
    lesson.begin(3)
    found, _ = lesson.take(scene)
    # float32 sums of 10,000 terms.
    assert found == pytest.approx(expected, rel=1e-4)


def test_pictures_are_optimized_for_the_teachers_loss(lesson: Lesson) -> None:
    scene = lesson.scene
    photos, styles = (_as_the_teacher(lesson.weights, p) for p in (scene.photos, scene.styles))

    def verdict(styled: np.ndarray) -> float:
        features, value = _as_the_teacher(lesson.weights, styled), 0.0
        for n, weight in enumerate(scene.style_weights):
            for tap in LAYERS:
                own, style = (reference.gram(found[tap][n]) for found in (features, styles))
                value += float(weight) * np.sum((own - style) ** 2) / features[tap][n].size
            value += np.mean((features["conv2/conv2_2"][n] - photos["conv2/conv2_2"][n]) ** 2)
        return value

    lesson.begin(0)
    _, gradient = lesson.take(scene)
    rng = np.random.default_rng(6)
    small = 1e-4  # levels: few of the ReLUs and poolings change sides on the way.
    for direction in (gradient / np.abs(gradient).max(), *rng.normal(size=(2, *gradient.shape))):
        ends = [verdict(scene.styled + sign * small * direction) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * small)
        assert np.sum(gradient * direction, dtype=np.float64) == pytest.approx(slope, rel=2e-3)


def test_steps_on_one_scene_learn_it(lesson: Lesson) -> None:
    lesson.begin(0)
    first, gradient = lesson.take(lesson.scene)
    assert gradient.shape == lesson.scene.styled.shape and np.any(gradient != 0)
    for _ in range(60):
        last, _ = lesson.take(lesson.scene)
    for term in (FEATURES, GRAMS, DIFFERENCES):
        assert last[term] < 0.95 * first[term]


def test_numbers_that_are_not_finite_name_the_term_and_the_step(lesson: Lesson) -> None:
    lesson.begin(4)
    lesson.state.weights["vgg_mini/conv2/conv2_2/map"].assign(tf.fill([128, 6], 1e18))
    terms = "grams, differences, total, gradient"
    with pytest.raises(FastStyleError, match=f"step 5: not a finite number: (features, )?{terms};"):
        lesson.take(lesson.scene)


# A run


class Recorder(DistillObserver):
    header: DistillHeader

    def on_start(self, header: DistillHeader) -> None:
        self.header = header
        self.losses: list[Mapping[str, float]] = []

    def on_log(self, step: int, losses: Mapping[str, float]) -> None:
        self.losses.append(losses)


@dataclass(frozen=True)
class Finished:
    folder: Path
    seen: Recorder
    result: DistillResult


@pytest.fixture(scope="module")
def finished(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of four steps; nobody writes to its folder."""
    folder, seen = tmp_path_factory.mktemp("finished"), Recorder()
    return Finished(folder, seen, distill(config(sources, folder), observer=seen))


@pytest.fixture
def done_before(finished: Finished, tmp_path: Path) -> Path:
    """A folder with a copy of that run."""
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
    return tmp_path


def tensors_of(file: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(file)


def header_of(file: Path) -> dict[str, Any]:
    with safetensors.safe_open(str(file), framework="np") as archive:
        header = archive.metadata()
    return header | {"description": json.loads(header["description"])}


def test_a_finished_run_leaves_a_loss_network(sources: Sources, finished: Finished) -> None:
    result = finished.result
    assert result.output == finished.folder / "mini.safetensors" and result.steps == 4
    assert len(finished.seen.losses) == 4 and result.losses == finished.seen.losses[-1]
    own = build_loss_network("vgg_mini", str(result.output), [f"vgg_16/{n}" for n in LAYERS])
    teacher = build_loss_network("vgg_16", sources.weights, [f"vgg_16/{name}" for name in LAYERS])
    assert own.channels == {"vgg_16/conv1/conv1_2": 64, "vgg_16/conv2/conv2_2": 128}
    photos = tf.constant(np.stack(read_crops(find_photos(sources.held_out), 48, limit=2)))
    for layer in teacher.layers:
        # A metric keeps the mean square, but for what is not known yet, and calibration.
        ours = float(tf.reduce_mean((own(photos)[layer] @ own.metrics[layer]) ** 2))
        theirs = float(tf.reduce_mean(teacher(photos)[layer] ** 2))
        assert 0.5 < ours / theirs < 1.5


def test_the_header_says_where_a_network_comes_from(sources: Sources, finished: Finished) -> None:
    file = finished.folder / "mini.safetensors"
    assert {str(value.dtype) for value in tensors_of(file).values()} == {"float16", "int32"}
    header = header_of(file)
    assert header["teacher"] == "vgg_16" and "CC BY 4.0" in header["licence"]
    assert "teacher_note" not in header
    description = header["description"]
    teacher = build_loss_network("vgg_16", sources.weights, ["vgg_16/conv1/conv1_2"])
    assert description["teacher_sha256"] == teacher.sha256
    assert description["photos"] == tiny.PHOTO_COUNT + 1
    assert description["steps"] == 4 and description["losses"][TOTAL] > 0
    assert description["styles"] == ["other.png", "style.png"]  # And not the broken one.
    # Where files are is nobody else's business.
    assert description["config"]["dataset"] == "photos"
    assert str(finished.folder) not in str(header) and str(sources.photos) not in str(header)


def test_a_stopped_run_goes_on_to_the_same_network(
    sources: Sources, finished: Finished, tmp_path: Path
) -> None:
    stop = StopRequest()

    class StopAfterThree(DistillObserver):
        def on_step(self, step: int) -> None:
            if step == 3:
                stop.ask(15)

    wanted = config(sources, tmp_path)
    first = distill(wanted, observer=StopAfterThree(), stop=stop)
    assert first.output is None and first.steps == 3
    assert not (tmp_path / "mini.safetensors").exists()
    assert distill(wanted).steps == 4
    found = tensors_of(tmp_path / "mini.safetensors")
    for name, expected in tensors_of(finished.folder / "mini.safetensors").items():
        np.testing.assert_array_equal(found[name], expected)


def test_a_run_goes_on_from_a_network_that_may_become_wider(
    sources: Sources, finished: Finished, tmp_path: Path
) -> None:
    before = finished.folder / "mini.safetensors"
    wanted = config(sources, tmp_path, init_from=str(before), channels=(4, 4, 8, 12), steps=1)
    distill(dataclasses.replace(wanted, learning_rate=1e-9))
    old, new = tensors_of(before), tensors_of(tmp_path / "mini.safetensors")
    kernel = "vgg_mini/conv2/conv2_2/weights"
    assert new[kernel].shape == (3, 3, 8, 12)
    np.testing.assert_allclose(new[kernel][..., :8], old[kernel], atol=1e-3)
    header = header_of(tmp_path / "mini.safetensors")
    assert header["description"]["config"]["init_from"] == "mini.safetensors"
    sha = hashlib.sha256(before.read_bytes()).hexdigest()
    assert header["description"]["init_from_sha256"] == sha
    # What it began with is read no more, and need not be there.
    again = dataclasses.replace(wanted, steps=2, init_from="gone.safetensors")
    seen = Recorder()
    distill(dataclasses.replace(again, learning_rate=1e-9), observer=seen)
    (note,) = seen.header.notes
    assert re.search("from '.*mini.safetensors' to 'gone.safetensors' .it counts only for a", note)
    header = header_of(tmp_path / "mini.safetensors")
    assert header["description"]["config"]["init_from"] == "mini.safetensors"
    assert header["description"]["init_from_sha256"] == sha


def test_a_run_from_before_there_were_apprentices_goes_on_without(
    sources: Sources, done_before: Path
) -> None:
    newest = newest_checkpoint(done_before / "run")
    assert newest is not None
    tensors, run = read_checkpoint(newest)
    for key in ("apprentices", "answers_per_step", "init_from"):
        del run["config"][key]
    kept = {k: v for k, v in tensors.items() if k != STEP and not k.startswith("apprentices/")}
    save_checkpoint(done_before / "run", 4, kept, run, keep=1)
    with pytest.raises(ConfigError, match="apprentices: was 0, now 1"):
        distill(config(sources, done_before, steps=5))
    assert distill(config(sources, done_before, steps=5, apprentices=0)).steps == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"channels": (4, 4, 8, 7)},
            "init_from: has 8 channels at conv2/conv2_2, and `channels` asks for 7",
        ),
        (
            {
                "channels": (4, 4, 8),
                "layers": ("conv1/conv1_2", "conv2/conv2_1"),
                "content_layer": "conv2/conv2_1",
            },
            "init_from: has 4 convolutions, down to conv2/conv2_2, and `channels` asks for 3",
        ),
    ],
)
def test_a_network_of_other_channels_is_no_start(
    sources: Sources, finished: Finished, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    before = str(finished.folder / "mini.safetensors")
    with pytest.raises(ConfigError, match=message):
        distill(config(sources, tmp_path, init_from=before, **changes))


def test_a_network_of_another_teacher_is_no_start(
    sources: Sources, finished: Finished, tmp_path: Path
) -> None:
    before = finished.folder / "mini.safetensors"
    with safetensors.safe_open(str(before), framework="np") as archive:
        header = archive.metadata() | {"teacher": "vgg_19"}
    other = tmp_path / "other.safetensors"
    other.write_bytes(safetensors.numpy.save(tensors_of(before), metadata=header))
    with pytest.raises(ConfigError, match="was distilled from vgg_19, and teacher is vgg_16"):
        distill(config(sources, tmp_path, init_from=str(other)))


def test_a_start_that_is_no_network_is_told(sources: Sources, tmp_path: Path) -> None:
    for file, message in (
        (tmp_path / "none.safetensors", "init_from"),
        (sources.weights, "no distilled loss network; point init_from at"),
    ):
        with pytest.raises(WeightsError, match=message):
            distill(config(sources, tmp_path, init_from=str(file)))


def test_files_may_move_and_a_header_says_the_steps_that_were_done(
    sources: Sources, done_before: Path
) -> None:
    moved = shutil.copytree(sources.styles, done_before / "elsewhere")
    note = "weights of our own"
    wanted = config(sources, done_before, steps=2, styles=str(moved), teacher_note=note)
    seen = Recorder()
    result = distill(wanted, observer=seen)
    assert result.losses[TOTAL] > 0  # Known from the checkpoint: nothing was left to do.
    assert (seen.header.steps, seen.header.start_step) == (4, 4)
    header = header_of(done_before / "mini.safetensors")
    assert header["description"]["steps"] == 4
    assert header["teacher_note"] == note


def test_a_run_is_not_continued_with_other_settings(sources: Sources, done_before: Path) -> None:
    with pytest.raises(ConfigError, match=r"image_size: was 64, now 72(?s:.*)seed: was 0, now 1"):
        distill(config(sources, done_before, seed=1, image_size=72))


def test_a_run_does_not_go_on_with_other_sources(
    sources: Sources, world: tiny.World, done_before: Path, tmp_path: Path
) -> None:
    teacher = weight_files.save_npz(
        tmp_path / "other.npz", weight_files.random_vgg("vgg_16", "conv2_2", seed=1)
    )
    for key, value, what in (
        ("styles", sources.held_out, "the pictures in styles changed"),
        ("teacher_file", teacher, "the content of teacher_file changed"),
        ("dataset", world.held_out, "the names of the photos in dataset changed"),
    ):
        with pytest.raises(ConfigError, match=f"1 problem\n  {what}$"):
            distill(config(sources, done_before, **{key: str(value)}))


def test_a_folder_of_another_kind_of_run_is_told(sources: Sources, tmp_path: Path) -> None:
    tensors = {"conv1/weight": np.zeros(3, np.float32)}
    save_checkpoint(tmp_path / "run", 1, tensors, {"config": {"naming": "a"}}, keep=1)
    with pytest.raises(ConfigError, match="run_folder: holds a run of another kind"):
        distill(config(sources, tmp_path))


def test_a_damaged_checkpoint_is_passed_over(sources: Sources, done_before: Path) -> None:
    newest = newest_checkpoint(done_before / "run")
    data = Path(f"{newest}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:1000])
    (done_before / "mini.safetensors").unlink()
    seen = Recorder()
    assert distill(config(sources, done_before), observer=seen).output is not None
    assert seen.header.notes == (
        "fast-style-model.ckpt-4 is damaged: going on from fast-style-model.ckpt-2",
    )


def test_missing_weights_are_told_before_anything_is_written(
    sources: Sources, tmp_path: Path
) -> None:
    expected = "nothing.ckpt: the weights(?s:.*)or point teacher_file at your own"
    with pytest.raises(WeightsError, match=expected):
        distill(config(sources, tmp_path, teacher_file="nothing.ckpt"))
    assert list(tmp_path.iterdir()) == []


def test_what_the_end_needs_is_looked_at_before_the_first_step(
    sources: Sources, world: tiny.World, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    shutil.copy(sources.styles / "!broken.jpg", broken)
    photos, styles = str(sources.held_out), str(sources.styles)
    for changes, message in (
        ({"val_dataset": "/nope", "val_styles": styles}, "/nope: no such folder"),
        ({"val_dataset": str(broken), "val_styles": styles}, "none of the 1 photos can be read"),
        ({"val_dataset": photos, "val_styles": str(broken)}, "none of the 1 style pictures can"),
        ({"output": str(broken)}, "end the name in one of .safetensors"),
        ({"output": str(shutil.copytree(broken, tmp_path / "a.safetensors"))}, "is a folder"),
    ):
        with pytest.raises(FastStyleError, match=message):
            distill(config(sources, tmp_path, **changes))
    assert not (tmp_path / "run").exists()


def test_a_run_that_diverges_leaves_nothing(sources: Sources, tmp_path: Path) -> None:
    with pytest.raises(FastStyleError, match="step 2: not a finite number: "):
        distill(config(sources, tmp_path, learning_rate=1e30))
    assert not newest_checkpoint(tmp_path / "run") and not (tmp_path / "mini.safetensors").exists()


def test_weights_that_do_not_fit_the_file_are_told(sources: Sources, lesson: Lesson) -> None:
    wanted = config(sources, Path(), channels=(6, 6, 6, 6))
    factors: dict[str, float] = dict.fromkeys(LAYERS, 1.0)
    lesson.begin(0)
    assert mini_tensors(lesson.state, SCALES, wanted, factors)
    for name in ("conv1/conv1_1/biases", "conv2/conv2_2/map"):
        lesson.begin(0)
        weight = lesson.state.weights[f"vgg_mini/{name}"]
        weight.assign(tf.fill(weight.shape, 1e9))
        with pytest.raises(FastStyleError, match=f"{name} has values up to .* do not fit 16-bit"):
            mini_tensors(lesson.state, SCALES, wanted, factors)


# Configuration


def test_the_file_of_the_project_holds_the_defaults() -> None:
    found = load_distill_config(ROOT / "conf/distill/vgg_mini.yml")
    assert found == DistillConfig()
    # Nobody's first try replaces the file that comes along.
    assert Path(found.output).name == BUNDLED.name and Path(found.output) != BUNDLED


def test_a_config_is_written_as_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    wanted = DistillConfig(steps=7, val_dataset="photos", val_styles="styles")
    path.write_text(distill_config_to_yaml(wanted))
    assert load_distill_config(path) == wanted


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "inception_v1"}, "teacher: expected one of vgg_16, vgg_19, vgg_a"),
        ({"layers": ["conv4/conv4_4"]}, "conv4_4' is no convolution of vgg_16; did you mean"),
        ({"channels": [16, 16]}, "channels: expected 10 numbers, one for each convolution"),
        ({"channels": [65, *[16] * 9]}, "expected at most the teacher's 64 for conv1/conv1_1"),
        ({"channels": [16.5]}, r"channels\[0\]: expected a whole number"),
        ({"channels": 16}, "channels: expected a list of whole numbers, got 16"),
        ({"content_layer": "conv3/conv3_2"}, "content_layer: expected one of layers, got"),
        ({"image_size": 32}, "image_size"),
        ({"val_styles": "a"}, "val_dataset: missing, and val_styles is given; give both or none"),
        ({"val_dataset": "a"}, "val_styles: missing, and val_dataset is given"),
    ],
)
def test_mistakes_are_told(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DistillConfig(**changes)


# The report


def test_ranks_correlate_as_scipys() -> None:
    rng = np.random.default_rng(4)
    first = rng.integers(0, 9, 40).astype(float)
    second = first + rng.normal(0, 3, 40)
    expected = scipy.stats.spearmanr(first, second).statistic
    assert rank_correlation(first, second) == pytest.approx(expected, abs=1e-12)
    assert rank_correlation(first, np.exp(first)) == pytest.approx(1.0)


def test_agreement_is_of_each_term() -> None:
    teacher = np.array([[1.0, 4.0], [2.0, 3.0], [4.0, 1.0]])
    own = np.array([[2.0, 1.0], [4.0, 2.0], [8.0, 3.0]])
    found = agreements(("total", "content"), own, teacher)
    assert found["total"].ratio == 2.0
    assert found["total"].rank_correlation == pytest.approx(1.0)
    assert found["content"].rank_correlation == pytest.approx(-1.0)


def test_calibration_evens_out_what_is_missing() -> None:
    terms = ("total", "content", "style conv1_2", "style conv2_2")
    teacher = np.full((3, 4), 16.0)
    own = np.array([[8.0, 4.0, 1.0, 4.0]] * 3)
    report = DistillReport(terms, own, teacher, agreements(terms, own, teacher))
    found = calibration(report, LAYERS, "conv2/conv2_2")
    # A style loss is a fourth power of features: twice as large, 16 times. A content loss a square.
    assert found["conv1/conv1_2"] == pytest.approx(2.0)
    assert found["conv2/conv2_2"] == pytest.approx(np.sqrt(2.0 * np.sqrt(2.0)))


def test_a_photo_itself_says_nothing_of_a_ratio() -> None:
    found = agreements(("content",), np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]]))
    assert found["content"].ratio == 0.5


def test_columns_of_a_table_stay_apart() -> None:
    own, teacher = np.full((3, 2), 1e12), np.full((3, 2), 2.0)
    found = DistillReport(("total", "b"), own, teacher, agreements(("total", "b"), own, teacher))
    for line in table_lines(found)[1:]:
        ratio, spread = "500000000000.00", "500000000000.00 .. 500000000000.00"
        assert re.split("  +", line)[2:] == [ratio, spread]


def test_a_teacher_agrees_with_itself(sources: Sources, caplog: pytest.LogCaptureFixture) -> None:
    teacher = build_loss_network("vgg_16", sources.weights, [f"vgg_16/{name}" for name in LAYERS])
    seen = []
    report = compare(
        teacher,
        teacher,
        find_photos(sources.held_out),
        find_photos(sources.styles),
        content_layer="conv2/conv2_2",
        size=32,
        pairs=2,
        stages=(1, 2),
        on_step=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    ours = (record for record in caplog.records if record.name.startswith("fast_style"))
    told = [record.getMessage().split(" left out: ") for record in ours]
    assert [(kind, "!broken.jpg" in reason) for kind, reason in told] == [
        ("style picture", True),
        ("photo", True),
    ]
    assert len(report.own) == 4
    np.testing.assert_allclose(report.own, report.teacher, rtol=1e-5)
    assert report.agreement["total"].rank_correlation == pytest.approx(1.0)
    lines = table_lines(report)
    assert [line.split("  ")[0] for line in lines] == [
        "term",
        "total",
        "content",
        "style conv1_2",
        "style conv2_2",
    ]


def test_the_command_starts_over_and_reports(
    sources: Sources, done_before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out: dict[str, Any] = {
        "val_dataset": str(sources.held_out),
        "val_styles": str(sources.styles),
    }
    arguments = overrides(
        sources, done_before, steps=1, seed=1, report_photos=1, report_size=32, **held_out
    )
    before = sorted(done_before.rglob("*"))
    assert main(["distill", *arguments, "--dry-run"]) == 0
    assert sorted(done_before.rglob("*")) == before
    assert main(["distill", *arguments]) == 2
    assert "start over with --fresh" in capsys.readouterr().err
    assert main(["distill", *arguments, "--fresh"]) == 0
    told, errors = capsys.readouterr()
    assert "network:" in told and "rank correlation" in told
    assert re.search(r"picture left out: .*!broken\.jpg", errors)
    [aside] = done_before.glob("run.2*")
    assert f"note: the run that was in {done_before}/run is now in {aside}" in told
    assert newest_checkpoint(aside) == aside / "fast-style-model.ckpt-4"
    report = json.loads((done_before / "run/report.json").read_text())
    assert report["triples"] == 4 and set(report["agreement"]) >= {"total", "content"}
    page = (done_before / "run/report.html").read_text()
    assert page.count("<svg") == 4 and "style conv2_2" in page


def test_the_command_without_held_out_pictures_says_what_is_missing(
    sources: Sources, done_before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["distill", *overrides(sources, done_before)]) == 0
    assert "no report: it needs val_dataset and val_styles" in capsys.readouterr().err


def test_a_report_needs_pictures_and_the_very_network(
    sources: Sources,
    done_before: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(done_before)
    assert main(["distill", *overrides(sources, done_before), "--report-only"]) == 2
    assert "it needs val_dataset and val_styles" in capsys.readouterr().err
    held_out = {"val_dataset": str(sources.held_out), "val_styles": str(sources.styles)}
    # The default of other commands, which stands for a file that comes along.
    arguments = overrides(sources, done_before, **held_out, output=str(BUNDLED))
    assert main(["distill", *arguments, "--report-only"]) == 2
    assert f"{BUNDLED}: there is no such network to report on" in capsys.readouterr().err


def test_output_that_nobody_reads_does_not_end_a_run(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr("sys.stdout", full)
        observer = cli_distill._terminal()
        observer.on_start(finished.seen.header)
        for step in (1, 2):
            observer.on_step(step)
            observer.on_log(step, {TOTAL: 1.0})
            observer.on_checkpoint(Path("a"))
        observer.close()
        cli_distill._summarize(finished.result)
        with contextlib.suppress(OSError):
            full.flush()
