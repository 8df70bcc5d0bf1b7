from __future__ import annotations

import argparse
import base64
import dataclasses
import importlib.util
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tiny
import weight_files
from PIL import Image

from fast_style import curves, quality
from fast_style import objective as tags
from fast_style.builders import build_network, build_objective, load_style_pictures
from fast_style.chart import log_ticks, photo_chart, style_chart, to_picture, to_svg
from fast_style.checkpoints import Model, load_model, save_model
from fast_style.cli_quality import add_quality_arguments, run_quality
from fast_style.config import StyleSpec
from fast_style.curves import (
    Curve,
    CurveCache,
    Iterations,
    curve_key,
    default_cache_folder,
    equivalent_iterations,
    quantile,
)
from fast_style.errors import DataError, FastStyleError, ModelError
from fast_style.images import cover_crop, read_image
from fast_style.loss_weights import weights_sha256
from fast_style.optimize import noise_picture
from fast_style.picture_loss import PictureLoss
from fast_style.provenance import file_sha256
from fast_style.quality import PhotoScore, Quality, QualityObserver, StyleScore, measure_quality
from fast_style.quality_report import render_report
from fast_style.transform_net import init_weights

SIZE = 40
ITERATIONS = 8

# Where a curve crosses a loss

FALLING = np.array([100.0, 60.0, 40.0, 40.0, 10.0])


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (100.5, "0.0"),  # worse than the photo itself
        (100.0, "0.0"),  # as good as the photo itself
        (80.0, "0.5"),
        (60.0, "1.0"),
        (45.0, "1.8"),  # 1 + 15/20 = 1.75
        (40.0, "2.0"),  # reached at 2 and kept at 3: the first counts
        (25.0, "3.5"),  # between 3 and 4, not between 2 and 4
        (10.0, "4.0"),
        (9.9, ">4"),
        (float("nan"), "0.0"),
    ],
)
def test_a_loss_is_worth_the_first_iteration_as_low(loss: float, expected: str) -> None:
    assert str(equivalent_iterations(FALLING, loss, 4)) == expected


def test_a_loss_below_a_curve_that_ended_early_is_worth_more_than_was_asked_for() -> None:
    assert equivalent_iterations(FALLING, 1.0, 200) == Iterations(200.0, censored=True)


def test_a_curve_of_the_photo_alone_is_worth_nothing_or_more() -> None:
    assert equivalent_iterations(np.array([5.0]), 5.0, 200) == Iterations(0.0)
    assert equivalent_iterations(np.array([5.0]), 4.0, 200) == Iterations(200.0, censored=True)


def numbers(*values: float | str) -> list[Iterations]:
    """'>9' is censored at 9."""
    return [
        Iterations(float(value[1:]), True) if isinstance(value, str) else Iterations(value)
        for value in values
    ]


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        (numbers(3.0), 0.5, "3.0"),
        (numbers(7.0, 1.0, 3.0), 0.5, "3.0"),
        (numbers(4.0, 1.0, 2.0, 8.0), 0.5, "3.0"),
        (numbers(4.0, 1.0, 2.0, 8.0), 0.25, "1.8"),  # 1 + 0.75 * (2 - 1)
        (numbers(10.0, ">200", 20.0), 0.5, "20.0"),
        (numbers(10.0, ">200", 20.0), 0.75, ">110"),  # halfway between 20 and 200 or more
        (numbers(10.0, ">200"), 0.5, ">105"),
        (numbers(">200", 10.0, ">200"), 0.5, ">200"),
        (numbers(">200", 200.0, 200.0), 0.5, "200.0"),
        (numbers(">200"), 0.25, ">200"),
    ],
)
def test_quantiles_are_lower_bounds_once_they_depend_on_a_censored_number(
    values: list[Iterations], share: float, expected: str
) -> None:
    assert str(quantile(values, share)) == expected
    assert str(quantile(values[::-1], share)) == expected


# Curves on disk


def small_curve(iterations: int = 60, *, ended: bool = False) -> Curve:
    rng = np.random.default_rng(0)
    pictures = {at: rng.integers(0, 256, (5, 7, 3), np.uint8) for at in (50, iterations)}
    return Curve(np.geomspace(100.0, 1.0, iterations + 1), pictures, iterations + 3, ended)


def assert_same_curve(one: Curve, other: Curve) -> None:
    np.testing.assert_array_equal(one.losses, other.losses)
    assert one.snapshots.keys() == other.snapshots.keys()
    for at, picture in one.snapshots.items():
        np.testing.assert_array_equal(picture, other.snapshots[at])
    assert (one.evaluations, one.ended) == (other.evaluations, other.ended)


def test_a_kept_curve_is_read_back_unchanged(tmp_path: Path) -> None:
    cache = CurveCache(tmp_path / "new" / "folder")
    assert cache.get("key", 60) is None
    cache.put("key", small_curve())
    kept = cache.get("key", 60)
    assert kept is not None
    assert_same_curve(kept, small_curve())
    assert cache.get("other", 60) is None
    cut = small_curve().first(50)
    cache.put("cut", cut)
    kept = cache.get("cut", 50)
    assert kept is not None
    assert_same_curve(kept, cut)


def test_a_longer_curve_serves_a_shorter_request_and_not_the_other_way_round(
    tmp_path: Path,
) -> None:
    cache = CurveCache(tmp_path)
    cache.put("key", small_curve(60))
    shorter = cache.get("key", 55)
    assert shorter is not None
    np.testing.assert_array_equal(shorter.losses, small_curve(60).losses[:56])
    assert list(shorter.snapshots) == [50]
    # The longer run's number would claim evaluations that these iterations did not need.
    assert shorter.evaluations is None
    assert cache.get("key", 61) is None


def test_a_curve_that_ended_by_itself_serves_every_request(tmp_path: Path) -> None:
    cache = CurveCache(tmp_path)
    cache.put("key", small_curve(60, ended=True))
    kept = cache.get("key", 1000)
    assert kept is not None and kept.iterations == 60 and kept.ended


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"not a zip file",
        lambda data: data[: len(data) // 2],
        lambda data: data[:200] + bytes(50) + data[250:],
    ],
    ids=["empty", "something else", "cut", "overwritten"],
)
def test_a_damaged_file_counts_as_none(tmp_path: Path, damage: Any) -> None:
    cache = CurveCache(tmp_path)
    cache.put("key", small_curve())
    file = tmp_path / "key.npz"
    file.write_bytes(damage(file.read_bytes()))
    assert cache.get("key", 60) is None
    cache.put("key", small_curve())
    assert cache.get("key", 60) is not None


@pytest.mark.parametrize(
    "arrays",
    [
        {"losses": np.array([1.0, np.nan])},
        {"losses": np.zeros((2, 2))},
        {"losses": np.array([None], object)},
        {"picture_50": np.zeros((4, 4, 3), np.float32)},
    ],
    ids=["not finite", "no list", "pickled", "no picture"],
)
def test_a_file_that_holds_something_else_counts_as_none(tmp_path: Path, arrays: Any) -> None:
    whole = {"losses": np.ones(61), "evaluations": 61, "ended": False}
    np.savez(tmp_path / "key.npz", **{**whole, **arrays})
    assert CurveCache(tmp_path).get("key", 60) is None


def test_a_folder_that_cannot_be_written_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    CurveCache(tmp_path / "file").put("key", small_curve())
    assert "this curve is not kept" in caplog.text


def test_the_key_depends_on_every_pixel_and_setting() -> None:
    photo, style = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4, 3), np.uint8)
    settings = {"content_weight": 1.0, "style_layers": ("a", "b")}
    changed = photo.copy()
    changed[3, 3, 2] = 1
    keys = [
        curve_key([photo, style], settings),
        curve_key([changed, style], settings),
        curve_key([style, photo], settings),
        curve_key([photo.reshape(2, 8, 3), style], settings),
        curve_key([photo, style], {**settings, "content_weight": 2.0}),
        curve_key([photo, style], {**settings, "style_layers": ("b", "a")}),
    ]
    assert len(set(keys)) == len(keys)
    assert curve_key([photo.copy(), style], dict(settings)) == keys[0]
    assert all(re.fullmatch("[0-9a-f]{64}", key) for key in keys)


def test_the_cache_is_where_the_system_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache_folder() == Path("/somewhere/fast-style/curves")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_cache_folder() == Path("/home/someone/.cache/fast-style/curves")


# Measuring


def save_tiny_model(world: tiny.World, folder: Path, **changes: Any) -> Model:
    """An untrained model in `folder`/models/tiny, described as training would."""
    config = world.config(folder, **{"image_size": SIZE, **changes})
    names = tuple(style.name for style in config.style_specs)
    weights = init_weights(config.arch, width=config.width, styles=len(names))
    metadata = {
        "config": config.to_dict(),
        "steps": 4,
        "style_sha256": [file_sha256(Path(style.image)) for style in config.style_specs],
        "loss_model_sha256": weights_sha256(world.weights),
    }
    path = config.run_folder / "model.safetensors"
    save_model(path, Model(config.arch, config.width, names, weights, metadata))
    return load_model(path)


def two_styles(world: tiny.World) -> dict[str, Any]:
    return {
        "style_image": None,
        "style_weight": None,
        "styles": [
            {"name": "one", "image": str(world.style), "weight": 100.0},
            {"name": "two", "image": str(world.other_style), "weight": 30.0},
        ],
    }


@pytest.fixture(scope="module")
def model(world: tiny.World, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return save_tiny_model(world, tmp_path_factory.mktemp("run"), val_dataset=str(world.held_out))


@pytest.fixture(scope="module")
def photos(world: tiny.World) -> list[Path]:
    return sorted(world.held_out.iterdir())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> CurveCache:
    return CurveCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def measured(model: Model, photos: list[Path], cache: CurveCache) -> Quality:
    return measure(model, photos, cache=cache)


def measure(model: Model, photos: Sequence[Path], **arguments: Any) -> Quality:
    config = quality.model_config(model)
    return measure_quality(model, config, photos, **{"iterations": ITERATIONS, **arguments})


def no_evaluation(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("a curve was computed again")


@dataclasses.dataclass
class Counter(QualityObserver):
    curves: int = 0
    known: int = 0
    iterations: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)
    scored: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def on_start(self, curves: int, known: int, notes: Sequence[str]) -> None:
        self.curves, self.known, self.notes = curves, known, list(notes)

    def on_iteration(self, iteration: int) -> None:
        self.iterations += 1

    def on_photo(self, score: PhotoScore, style: str) -> None:
        self.scored.append((score.path.name, style))


def test_the_models_terms_are_those_of_its_run_on_the_picture_a_person_gets(
    model: Model, photos: list[Path], measured: Quality
) -> None:
    config = quality.model_config(model)
    network = build_network(config, "float32")
    objective = build_objective(config, network, load_style_pictures(config))
    (style,) = measured.styles
    assert [score.path for score in style.photos] == photos
    for score in style.photos:
        photo = cover_crop(read_image(score.path), SIZE)
        np.testing.assert_array_equal(score.photo, photo)
        assert score.styled.dtype == np.uint8 and score.styled.shape == (SIZE, SIZE, 3)
        styled = tf.constant(score.styled[None].astype(np.float32))
        expected = objective.score(styled, tf.constant(photo[None]), tf.ones([1, 1]))
        assert score.terms.keys() == expected.keys()
        for tag, value in expected.items():
            # Two compilations of the same float32 sums.
            assert score.terms[tag] == pytest.approx(float(value), rel=1e-4), tag
        own = objective.score(
            tf.constant(photo[None], tf.float32), tf.constant(photo[None]), tf.ones([1, 1])
        )
        assert score.photo_loss == pytest.approx(float(own[tags.TOTAL]), rel=1e-4)


def test_curves_start_at_the_photo_and_fall(measured: Quality) -> None:
    for score in measured.styles[0].photos:
        losses = score.curve.losses
        assert len(losses) == ITERATIONS + 1
        assert (np.diff(losses) <= 0).all() and losses[-1] < 0.7 * losses[0]
        assert list(score.curve.snapshots) == [ITERATIONS]


def test_curves_from_noise_start_at_the_same_noise_for_every_photo(
    model: Model, photos: list[Path], cache: CurveCache, measured: Quality
) -> None:
    found = measure(model, photos, cache=cache, start="noise")
    config = quality.model_config(model)
    objective = build_objective(
        config, build_network(config, "float32"), load_style_pictures(config)
    )
    noise = tf.constant(noise_picture(SIZE, SIZE, seed=0)[None])
    for score, before in zip(found.styles[0].photos, measured.styles[0].photos, strict=True):
        own = objective.score(noise, tf.constant(score.photo[None]), tf.ones([1, 1]))
        assert score.start_loss == pytest.approx(float(own[tags.TOTAL]), rel=1e-4)
        assert score.start_loss != before.start_loss
        assert score.photo_loss == pytest.approx(before.photo_loss, rel=1e-6)
        assert (score.terms, score.curve.iterations) == (before.terms, ITERATIONS)
        expected = equivalent_iterations(score.curve.losses, score.loss, ITERATIONS)
        assert score.worth == expected
    page = render_report(found)
    assert "the pixels of grey noise" in page and "0 is no better than the noise" in page
    assert "iterations of L-BFGS from noise on the same loss" in page
    assert page.count("L-BFGS iterations from noise") == 2 + len(photos)
    with pytest.raises(ValueError, match="start: expected one of photo, noise, got 'Photo'"):
        measure(model, photos, start="Photo")
    assert "the pixels of a photo" in render_report(measured)


def test_a_model_as_good_as_five_iterations_is_worth_five(
    model: Model, photos: list[Path], cache: CurveCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "SNAPSHOTS", (5,))
    pictures = {
        score.photo.tobytes(): score.curve.snapshots[5]
        for score in measure(model, photos).styles[0].photos
    }
    monkeypatch.undo()

    class Oracle(quality.Stylizer):
        def stylize(self, image: Any, **kwargs: Any) -> Any:
            return pictures[image.tobytes()]

    monkeypatch.setattr(quality, "Stylizer", Oracle)
    for score in measure(model, photos, cache=cache).styles[0].photos:
        # Rounding to 8 bits costs a little.
        assert score.worth.value == pytest.approx(5.0, abs=0.3) and not score.worth.censored


def test_a_model_that_beats_the_whole_curve_is_censored_and_the_photo_is_worth_nothing(
    model: Model, photos: list[Path], measured: Quality, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = {
        score.photo.tobytes(): score.curve.snapshots[ITERATIONS]
        for score in measured.styles[0].photos
    }

    class Oracle(quality.Stylizer):
        def stylize(self, image: Any, **kwargs: Any) -> Any:
            return ends[image.tobytes()] if image.tobytes() == first else image

    first = next(iter(ends))
    monkeypatch.setattr(quality, "Stylizer", Oracle)
    one, other = measure(model, photos, iterations=3).styles[0].photos
    assert str(one.worth) == ">3"
    assert other.worth == Iterations(0.0)
    assert other.loss == other.photo_loss


def test_the_same_photo_has_the_same_curve_bit_by_bit(
    model: Model, photos: list[Path], measured: Quality
) -> None:
    for one, other in zip(
        measured.styles[0].photos, measure(model, photos).styles[0].photos, strict=True
    ):
        assert_same_curve(one.curve, other.curve)
        assert (one.terms, one.worth) == (other.terms, other.worth)


def test_a_short_curve_is_the_beginning_of_a_long_one(
    model: Model, photos: list[Path], measured: Quality
) -> None:
    short = measure(model, photos[:1], iterations=3).styles[0].photos[0].curve
    np.testing.assert_array_equal(short.losses, measured.styles[0].photos[0].curve.losses[:4])


def test_a_second_run_computes_no_curve(
    model: Model,
    photos: list[Path],
    cache: CurveCache,
    measured: Quality,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quality, "optimize_photo", no_evaluation)
    counter = Counter()
    again = measure(model, photos, cache=cache, observer=counter)
    assert (counter.curves, counter.known, counter.iterations) == (2, 2, 0)
    for one, other in zip(measured.styles[0].photos, again.styles[0].photos, strict=True):
        assert_same_curve(one.curve, other.curve)
        assert (one.terms, one.worth) == (other.terms, other.worth)


def test_curves_finished_before_an_interruption_are_kept(
    model: Model, photos: list[Path], tmp_path: Path
) -> None:
    class Impatient(Counter):
        def on_iteration(self, iteration: int) -> None:
            super().on_iteration(iteration)
            if self.iterations == ITERATIONS + 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(model, photos, cache=CurveCache(tmp_path), observer=Impatient())
    counter = Counter()
    measure(model, photos, cache=CurveCache(tmp_path), observer=counter)
    assert (counter.known, counter.iterations) == (1, ITERATIONS)


def test_photos_and_styles_share_one_trace(
    world: tiny.World, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = []
    terms = PictureLoss.terms

    def remember(loss: PictureLoss, *arguments: Any) -> Any:
        traced.append(loss)
        return terms(loss, *arguments)

    monkeypatch.setattr(PictureLoss, "terms", remember)
    counter = Counter()
    model = save_tiny_model(world, tmp_path, **two_styles(world))
    measure(model, photos, iterations=1, observer=counter)
    assert len(counter.scored) == 4 and len(traced) == 1


def test_each_style_of_a_model_has_its_own_curves_and_pictures(
    world: tiny.World, photos: list[Path], tmp_path: Path
) -> None:
    model = save_tiny_model(world, tmp_path, **two_styles(world))
    counter = Counter()
    both = measure(model, photos[:1], iterations=2, observer=counter)
    assert counter.scored == [(photos[0].name, "one"), (photos[0].name, "two")]
    assert [(style.name, style.weight) for style in both.styles] == [("one", 100.0), ("two", 30.0)]
    one, two = (style.photos[0] for style in both.styles)
    assert one.photo_loss != two.photo_loss
    chosen = quality.choose_styles(both.config, ["two"])
    alone = measure(model, photos[:1], iterations=2, styles=chosen).styles
    assert [style.name for style in alone] == ["two"]
    np.testing.assert_array_equal(alone[0].photos[0].styled, two.styled)
    # Bit by bit: a kept curve serves the style alone and among others.
    assert_same_curve(alone[0].photos[0].curve, two.curve)


def test_an_unreadable_photo_is_left_out_and_told(
    model: Model, photos: list[Path], cache: CurveCache, measured: Quality, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    found = measure(model, [broken, *photos], cache=cache)
    assert list(found.skipped) == [broken] and len(found.styles[0].photos) == 2
    with pytest.raises(DataError, match="none of the 1 photos can be read; .*broken.jpg"):
        measure(model, [broken])


def test_another_configuration_than_the_models_own_is_told(
    world: tiny.World, model: Model, photos: list[Path], tmp_path: Path
) -> None:
    own = quality.model_config(model)
    other = dataclasses.replace(
        own, naming="another", style_image=str(world.other_style), style_weight=7.0
    )
    found = measure_quality(model, other, photos[:1], iterations=1)
    assert len(found.notes) == 2
    assert "other.png is not the picture that 'another' was trained with" in found.notes[0]
    assert found.notes[1] == (
        f"style_weight is 7.0, and the model was trained with {own.style_weight}, so N is about "
        "another loss"
    )


def test_files_that_changed_since_the_training_are_told(
    world: tiny.World, model: Model, photos: list[Path], tmp_path: Path
) -> None:
    assert measure(model, photos[:1], iterations=1).notes == ()
    other_weights = weight_files.save_npz(
        tmp_path / "other.npz", weight_files.random_vgg("vgg_16", "conv2_2", seed=1)
    )
    config = quality.model_config(model)
    config, styles = quality.relocate(
        config, config.style_specs, [str(world.other_style)], str(other_weights)
    )
    counter = Counter()
    found = measure_quality(
        model, config, photos[:1], styles=styles, iterations=1, observer=counter
    )
    assert list(found.notes) == counter.notes
    style_note, weights_note = found.notes
    assert re.match(r".*other\.png is not the picture that 'tiny' was trained with", style_note)
    assert "the loss network's weights are not those of the training" in weights_note


def test_style_pictures_are_found_again_by_name(world: tiny.World, tmp_path: Path) -> None:
    config = world.config(tmp_path, **two_styles(world))
    moved = str(world.photos / "0.jpg")
    _, (one, two) = quality.relocate(config, config.style_specs, [f"two={moved}"])
    assert (one, two) == (config.style_specs[0], StyleSpec("two", moved, 30.0))
    with pytest.raises(FastStyleError, match="whose picture is this.* one, two"):
        quality.relocate(config, config.style_specs, [moved])
    gone = dataclasses.replace(config.style_specs[0], image="gone.jpg")
    with pytest.raises(FastStyleError, match=r"gone\.jpg: no such file, .*'one'.*--style-image"):
        quality.relocate(config, [gone])


def test_a_model_of_other_styles_than_its_configuration_is_refused(
    world: tiny.World, model: Model, photos: list[Path], tmp_path: Path
) -> None:
    config = world.config(tmp_path, **two_styles(world))
    with pytest.raises(ModelError, match="its styles are tiny, and those of .* one, two"):
        measure_quality(model, config, photos)
    with pytest.raises(FastStyleError, match="--style three: no such style .* one, two"):
        quality.choose_styles(config, ["three"])


# Charts and the page


def made_up(
    losses: Sequence[float],
    loss: float,
    iterations: int,
    name: str = "a.jpg",
    photo_loss: float | None = None,
):
    picture = tiny.smooth_picture(12, 12, 3)
    curve = Curve(np.array(losses), {len(losses) - 1: picture}, len(losses), False)
    worth = equivalent_iterations(curve.losses, loss, iterations)
    shares = {tags.TOTAL: 1.0, tags.WEIGHTED_CONTENT: 0.5, tags.WEIGHTED_STYLE: 0.5}
    terms = {tag: share * loss for tag, share in shares.items()}
    own = losses[0] if photo_loss is None else photo_loss
    return PhotoScore(Path(name), picture, picture, terms, own, curve, worth)


@pytest.mark.parametrize("photo_loss", [None, 150.0])
@pytest.mark.parametrize("loss", [2000.0, 900.0, 300.0, 5.0, 0.0])
def test_charts_stay_inside_their_frame(loss: float, photo_loss: float | None) -> None:
    score = made_up([1000.0, 500.0, 100.0, 10.0], loss, 3, photo_loss=photo_loss)
    for chart in (
        photo_chart(score, 3, start="noise"),
        style_chart(StyleScore("s", 1.0, (score,)), 3),
        style_chart(StyleScore("s", 1.0, (score,)), 3, title="with a title", width=380),
    ):
        numbers = re.findall(r'(?:cx|cy|x|y)="([-\d.]+)"|points="([^"]+)"', to_svg(chart))
        values = [float(v) for pair in numbers for v in re.findall(r"[-\d.]+", " ".join(pair))]
        assert len(values) > 20
        assert 0 <= min(values) and max(values) <= max(chart.width, chart.height)
        pixels = to_picture([chart], scale=1)
        assert pixels.shape == (chart.height, chart.width, 3)
        assert (pixels[0] == 255).all() and (pixels < 200).any()


def test_a_flat_curve_has_a_chart_too() -> None:
    score = made_up([7.0, 7.0], 7.0, 1)
    assert "N = 0.0" in to_svg(photo_chart(score, 1))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.8, 1200.0, [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]),
        (0.04, 1.1, [0.05, 0.1, 0.2, 0.5, 1.0]),
        (1.4, 2.3, [1.5, 2.0]),
        (1e-6, 1e6, [10.0**decade for decade in range(-6, 7)]),
    ],
)
def test_ticks_are_round_and_few(low: float, high: float, expected: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(expected)


def test_the_page_stands_alone_and_holds_the_pictures(measured: Quality) -> None:
    page = render_report(measured)
    data = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(data) == 2 * 3  # Per photo: itself, the model's, L-BFGS's last.
    first = measured.styles[0].photos[0]
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in data[:3]]
    for got, expected in zip(
        shown, (first.photo, first.styled, first.curve.snapshots[ITERATIONS]), strict=True
    ):
        assert got.shape == expected.shape
        assert np.abs(got.astype(int) - expected).mean() < 6  # JPEG
    assert "http://" not in page and "https://" not in page and "<script" not in page
    targets = re.findall(r'(?:src|href|url)\s*[=(]\s*"?([^">)]+)', page)
    assert targets and all(target.startswith(("data:", "#")) for target in targets)
    assert f"L-BFGS, {ITERATIONS} iterations" in page
    assert str(measured.styles[0].worth()) in page
    assert "prefers-color-scheme:dark" in page and "width=device-width" in page


def test_text_from_files_is_escaped_in_the_page(measured: Quality) -> None:
    bad = "<img src=x onerror=alert(1)>"
    photo = dataclasses.replace(measured.styles[0].photos[0], path=Path(f"{bad}.jpg"))
    style = StyleScore(bad, 1.0, (photo,))
    page = render_report(dataclasses.replace(measured, styles=(style,), notes=(bad,)))
    assert "<img src=x" not in page and page.count("&lt;img src=x") >= 4


# The command


def command(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_quality_arguments(parser)
    return run_quality(parser.parse_args([*arguments, "--iterations", str(ITERATIONS)]))


def test_the_command_prints_a_table_and_writes_numbers_plot_and_page(
    model: Model,
    cache: CurveCache,
    measured: Quality,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = model.source.parent
    report = tmp_path / "report.html"
    assert (
        command("--model", str(folder), "--cache", str(cache.folder), "--report", str(report)) == 0
    )
    printed = capsys.readouterr().out
    style = measured.styles[0]
    assert "2 of 8 iterations, 2 known already" in printed
    for score in style.photos:
        row = next(line for line in printed.splitlines() if line.startswith(score.path.name))
        assert row.split()[1] == str(score.worth) and f"{score.loss:,.0f}" in row.split()
    assert f"median N {style.worth()}, quartiles {style.worth(0.25)} to" in printed
    assert "iterations of L-BFGS on the same loss" in printed

    found = json.loads((folder / "quality.json").read_text(encoding="utf-8"))
    assert (found["image_size"], found["iterations"], found["steps"]) == (SIZE, ITERATIONS, 4)
    assert found["start"] == "photo"
    assert found["loss"]["style_layers"] == [tiny.SHALLOW, tiny.DEEP]
    assert found["loss"]["loss_model_sha256"] == measured.loss_model_sha256
    (entry,) = found["styles"]
    assert (entry["name"], entry["style_weight"], entry["photos"]) == ("tiny", 100.0, 2)
    assert entry["n_median"] == style.worth().to_dict()
    for item, score in zip(entry["per_photo"], style.photos, strict=True):
        assert item["photo"] == str(score.path)
        assert item["n"] == score.worth.to_dict()
        assert item["curve"] == pytest.approx(list(score.curve.losses), rel=1e-6)
        assert item["photo_loss"] == item["curve"][0]
        assert item["model_terms"][tags.TOTAL] == pytest.approx(score.loss, rel=1e-6)
    assert np.asarray(Image.open(folder / "quality.png")).shape == (880, 1720, 3)
    assert report.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_limit_takes_the_first_photos_and_a_line_tells_of_progress(
    world: tiny.World, model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers_file = tmp_path / "numbers.json"
    arguments = ("--model", str(model.source), "--photos", str(world.photos), "--limit", "1")
    command(*arguments, "--json", str(numbers_file), "--cache", str(tmp_path / "cache"))
    printed = capsys.readouterr()
    assert f"1 (the first 1 of {tiny.PHOTO_COUNT})" in printed.out
    assert re.search(r"curve 1/1  0\.jpg \(tiny\)  N \S+  0s left", printed.err)
    found = json.loads(numbers_file.read_text(encoding="utf-8"))
    assert [item["photo"] for item in found["styles"][0]["per_photo"]] == [
        str(world.photos / "0.jpg")
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cache",
        "numbers.json",
        "numbers.png",
    ]


def test_a_model_that_does_not_say_how_it_was_made_needs_a_configuration(
    world: tiny.World, model: Model, cache: CurveCache, measured: Quality, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, dataclasses.replace(model, metadata={}))
    with pytest.raises(ModelError, match="does not say how it was made, .*2016.* -c "):
        command("--model", str(path))
    conf = world.config_file(tmp_path, image_size=SIZE)
    command(
        *("--model", str(path), "-c", str(conf), "--photos", str(world.held_out)),
        *("--cache", str(cache.folder)),
    )
    found = json.loads((tmp_path / "quality.json").read_text(encoding="utf-8"))
    assert found["styles"][0]["n_median"] == measured.styles[0].worth().to_dict()


def test_the_command_says_that_curves_began_with_noise(
    model: Model, cache: CurveCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, model)
    where = ("--model", str(path), "--cache", str(cache.folder))
    for start in ("photo", "noise"):
        command(*where, "--start", start)
    assert "N iterations of L-BFGS from noise on the same loss" in capsys.readouterr().out
    for name, start in (("quality.json", "photo"), ("quality_noise.json", "noise")):
        assert json.loads((tmp_path / name).read_text(encoding="utf-8"))["start"] == start
    assert (tmp_path / "quality.png").is_file() and (tmp_path / "quality_noise.png").is_file()
    with pytest.raises(SystemExit):
        command("--model", str(model.source), "--start", "nothing")


def test_what_a_person_can_put_right_is_told_before_anything_is_computed(
    world: tiny.World, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "optimize_photo", no_evaluation)
    (tmp_path / "empty").mkdir()
    without_photos = save_tiny_model(world, tmp_path)
    with pytest.raises(FastStyleError, match="no val_dataset; say with --photos"):
        command("--model", str(without_photos.source))
    with pytest.raises(DataError, match="empty: no photos in this folder .*--photos"):
        command("--model", str(model.source), "--photos", str(tmp_path / "empty"))
    with pytest.raises(FastStyleError, match="this is a folder; name the file"):
        command("--model", str(model.source), "--report", str(tmp_path))
    with pytest.raises(FastStyleError, match=r"--json .*a\.png: end the name in \.json"):
        command("--model", str(model.source), "--json", str(tmp_path / "a.png"))
    with pytest.raises(FastStyleError, match=r"--report .*q\.json: end the name in \.html"):
        command("--model", str(model.source), "--report", str(tmp_path / "q.json"))
    shots = tmp_path / "shots"
    shots.mkdir()
    tiny.save_picture(shots / "cat.png", 40, 40, 0)
    with pytest.raises(FastStyleError, match=r"cat\.png: would replace a source picture"):
        options = ["--photos", str(shots), "--json", str(shots / "cat.json")]
        command("--model", str(model.source), *options)
    with pytest.raises(SystemExit):
        command("--model", str(model.source), "--limit", "0")


def test_missing_scipy_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "scipy" else real(name)
    )
    with pytest.raises(FastStyleError, match=r"SciPy is not installed; run: pip install '.*\["):
        command("--model", "models/none")


def test_an_interrupted_command_says_what_is_kept(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(quality, "optimize_photo", interrupted)
    before = (model.source.parent / "quality.json").exists()
    with pytest.raises(KeyboardInterrupt, match="finished curves are kept in"):
        command("--model", str(model.source), "--cache", str(tmp_path))
    assert (model.source.parent / "quality.json").exists() == before
