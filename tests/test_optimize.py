"""Optimized pictures: each recipe's loss, the steps, the sizes, and the commands."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import reference
import tensorflow as tf
import tiny
import weight_files
from PIL import Image

from fast_style import cli_optimize, descent, preview
from fast_style import objective as tags
from fast_style import optimize as optimizing
from fast_style.builders import build_network as build_training_network
from fast_style.colour import with_colours_of
from fast_style.contact_sheet import Cell, contact_sheet
from fast_style.errors import ConfigError, FastStyleError, ImageError
from fast_style.images import check_output, read_image, resize
from fast_style.loss_net import LossNetwork
from fast_style.objective import Objective, style_grams
from fast_style.optimize import (
    OptimizeObserver,
    OptimizeReport,
    OptimizeResult,
    blend_of,
    build_network,
    build_picture_loss,
    fit_style,
    noise_picture,
    optimize,
    scale_sizes,
)
from fast_style.optimize_config import OptimizeConfig, load_optimize_config
from fast_style.picture_loss import Evaluation, make_evaluation, picture_loss_of, tv_loss

CONF = Path(__file__).parents[1] / "conf" / "optimize"

# Networks compute in float32, the references in float64 from the same features; sums of up to a
# million squares agree to a few 1e-6, and cubes of counts as factors keep that.
TOLERANCE = 2e-5


# The loss of each recipe, in float64 from the formulas.


@pytest.fixture(scope="module")
def vgg_19(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Random weights of VGG19 down to conv5_2, in the formats that the recipes name."""
    folder = tmp_path_factory.mktemp("vgg_19")
    weights = weight_files.random_vgg("vgg_19", "conv5_2")
    return {
        "keras": weight_files.save_keras(folder / "vgg_19.h5", weights),
        "matconvnet": weight_files.save_matconvnet(folder / "vgg_19.mat", weights),
    }


PHOTO = tiny.smooth_picture(36, 40, 1)
PICTURE = tiny.smooth_picture(36, 40, 2).astype(np.float32) * 0.8 + 21.5
STYLES = [tiny.smooth_picture(44, 34, 3), tiny.smooth_picture(44, 46, 4)]


def features_of(network: LossNetwork, picture: np.ndarray) -> dict[str, np.ndarray]:
    found = network(tf.constant(picture[None]))
    return {layer: value[0].numpy().astype(np.float64) for layer, value in found.items()}


def sum_of_products(features: np.ndarray) -> np.ndarray:
    """[H, W, C] -> [C, C]: F'F, as no recipe divides it."""
    return np.einsum("yxi,yxj->ij", features, features)


def evaluate(
    config: OptimizeConfig, network: LossNetwork, styles: Sequence[np.ndarray], blend=(1.0,)
) -> dict[str, float]:
    loss = build_picture_loss(config, network, styles, blend, *PHOTO.shape[:2])
    terms, gradient = make_evaluation(loss, PHOTO)(PICTURE)
    assert gradient.shape == PICTURE.shape and np.isfinite(gradient).all()
    return terms


def check_terms(
    config: OptimizeConfig, terms: Mapping[str, float], content: float, style: float, tv: float
) -> None:
    assert terms[tags.CONTENT] == pytest.approx(content, rel=TOLERANCE)
    assert terms[tags.STYLE] == pytest.approx(style, rel=TOLERANCE)
    assert terms[tags.VARIATION] == pytest.approx(tv, rel=TOLERANCE)
    total = config.content_weight * content + config.style_weight * style + config.tv_weight * tv
    assert terms[tags.TOTAL] == pytest.approx(total, rel=TOLERANCE)


def test_the_keras_recipe_computes_its_published_loss(vgg_19: Mapping[str, Path]) -> None:
    config = load_optimize_config(CONF / "keras_vgg19.yml", [f"loss_model_file={vgg_19['keras']}"])
    network = build_network(config, "float32")
    terms = evaluate(config, network, STYLES[:1])

    height, width = PICTURE.shape[:2]
    ours, photo = features_of(network, PICTURE), features_of(network, PHOTO)
    painting = features_of(network, resize(STYLES[0], height, width))
    content = float(np.sum((ours["vgg_19/conv5/conv5_2"] - photo["vgg_19/conv5/conv5_2"]) ** 2))
    style = 0.0
    for block in range(1, 6):
        layer = f"vgg_19/conv{block}/conv{block}_1"
        difference = sum_of_products(ours[layer]) - sum_of_products(painting[layer])
        style += np.sum(difference**2) / (4 * 3**2 * (height * width) ** 2) / 5
    pixels = PICTURE.astype(np.float64)
    tv = 0.0
    for y in range(height - 1):
        for x in range(width - 1):
            for c in range(3):
                dx = pixels[y, x + 1, c] - pixels[y, x, c]
                dy = pixels[y + 1, x, c] - pixels[y, x, c]
                tv += (dx**2 + dy**2) ** 1.25
    check_terms(config, terms, content, style, tv)


def test_the_tf2_recipe_computes_its_published_loss(vgg_19: Mapping[str, Path]) -> None:
    config = load_optimize_config(CONF / "tf2_vgg19.yml", [f"loss_model_file={vgg_19['keras']}"])
    network = build_network(config, "float32")
    terms = evaluate(config, network, STYLES[:1])

    ours, photo = features_of(network, PICTURE), features_of(network, PHOTO)
    painting = features_of(network, resize(STYLES[0], 41, 32))
    content = float(np.mean((ours["vgg_19/conv5/conv5_2"] - photo["vgg_19/conv5/conv5_2"]) ** 2))
    style = 0.0
    for block in range(1, 6):
        layer = f"vgg_19/conv{block}/conv{block}_1"
        grams = [
            sum_of_products(found[layer]) / (found[layer].shape[0] * found[layer].shape[1])
            for found in (ours, painting)
        ]
        style += np.mean((grams[0] - grams[1]) ** 2) / 5
    tv = terms[tags.VARIATION]  # Its weight is 0 here.
    check_terms(config, terms, content, style, tv)


def test_the_matconvnet_recipe_computes_its_published_loss(vgg_19: Mapping[str, Path]) -> None:
    shares = (0.7, 0.3)
    layer_weights = (0.3, 0.25, 0.2, 0.15, 0.1)
    config = load_optimize_config(
        CONF / "matconvnet_vgg19.yml",
        [
            f"loss_model_file={vgg_19['matconvnet']}",
            "content_weight_blend=0.8",
            f"style_layer_weights={list(layer_weights)}",
        ],
    )
    network = build_network(config, "float32")
    assert network.pooling == "avg"
    terms = evaluate(config, network, STYLES, shares)

    def l2(values: np.ndarray) -> float:
        return float(np.sum(values**2)) / 2

    ours, photo = features_of(network, PICTURE), features_of(network, PHOTO)
    content = 0.0
    for layer, weight in (("vgg_19/conv4/conv4_2", 0.8), ("vgg_19/conv5/conv5_2", 0.2)):
        content += weight * 2 * l2(ours[layer] - photo[layer]) / photo[layer].size
    style = 0.0
    for painting, share in zip(STYLES, shares, strict=True):
        height, width = painting.shape[:2]
        theirs = features_of(network, resize(painting, round(height * 40 / width), 40))
        for block, weight in zip(range(1, 6), layer_weights, strict=True):
            layer = f"vgg_19/conv{block}/conv{block}_1"
            target = sum_of_products(theirs[layer]) / theirs[layer].size
            difference = sum_of_products(ours[layer]) / ours[layer].size - target
            style += share * weight * 2 * l2(difference) / target.size
    pixels = PICTURE.astype(np.float64)
    dy, dx = pixels[1:] - pixels[:-1], pixels[:, 1:] - pixels[:, :-1]
    tv = 2 * (l2(dy) / dy.size + l2(dx) / dx.size)
    check_terms(config, terms, content, style, tv)


def test_a_content_layer_of_weight_0_is_not_computed(vgg_19: Mapping[str, Path]) -> None:
    config = load_optimize_config(
        CONF / "matconvnet_vgg19.yml", [f"loss_model_file={vgg_19['matconvnet']}"]
    )
    network = build_network(config, "float32")
    assert "vgg_19/conv5/conv5_2" not in network.layers


def test_tv_forms_on_a_picture_small_enough_to_check_by_hand() -> None:
    picture = np.zeros((1, 2, 2, 3), np.float32)
    picture[0, 0, 1, 0], picture[0, 1, 0, 0] = 3.0, 4.0
    # dx: 3, -4; dy: 4, -3, among 6 differences each, five sixths of them channels of zeros.
    assert float(tv_loss(tf.constant(picture), "squared")) == pytest.approx(25 / 12 + 25 / 12)
    assert float(tv_loss(tf.constant(picture), "l2")) == pytest.approx(25 / 6 + 25 / 6)
    assert float(tv_loss(tf.constant(picture), "power")) == pytest.approx(25**1.25)


@pytest.mark.parametrize("form", ["squared", "l2", "power"])
def test_every_tv_form_is_flat_with_a_finite_gradient_on_a_flat_picture(form: str) -> None:
    picture = tf.fill((1, 5, 7, 3), 91.0)
    with tf.GradientTape() as tape:
        tape.watch(picture)
        loss = tv_loss(picture, form)
    assert float(loss) == 0.0
    np.testing.assert_array_equal(tape.gradient(loss, picture), np.zeros((1, 5, 7, 3)))


# The loss of training.


def test_the_loss_of_a_training_run_is_its_objectives(world: tiny.World, tmp_path: Path) -> None:
    run = world.config(tmp_path, tv_weight=0.3, content_weight=2.0)
    network = build_training_network(run, "float32")
    objective = Objective(
        network=network,
        content_layers=run.content_layers,
        target_grams=style_grams(network, run.style_layers, STYLES),
        style_weights=np.array([100.0, 30.0], np.float32),
        content_weight=run.content_weight,
        tv_weight=run.tv_weight,
    )
    for index in (0, 1):
        terms, _ = make_evaluation(picture_loss_of(objective, index), PHOTO)(PICTURE)
        expected = objective.score(
            tf.constant(PICTURE[None]), tf.constant(PHOTO[None]), tf.one_hot([index], 2)
        )
        assert terms.keys() == expected.keys()
        for tag, value in expected.items():
            assert terms[tag] == pytest.approx(float(value), rel=1e-5), tag


def test_the_default_style_loss_is_that_of_training_at_256_px() -> None:
    config = OptimizeConfig()
    # sum (dG)^2 / (H W C) of training over sum (dG)^2 / C^2 is C / (H W); halved sides per block.
    sides, channels = (256, 128, 64, 32), (64, 128, 256, 512)
    ratios = tuple(c / side**2 for c, side in zip(channels, sides, strict=True))
    assert config.style_layer_weights == ratios


def slim_evaluation(world: tiny.World, **changes: Any) -> Evaluation:
    config = small_config(world, normalization="slim2016", **changes)
    network = build_network(config, "float32")
    return make_evaluation(
        build_picture_loss(config, network, STYLES[:1], (1.0,), *PHOTO.shape[:2]), PHOTO
    )


def test_the_gradient_is_the_losses_slope(world: tiny.World) -> None:
    evaluation = slim_evaluation(world, tv_weight=5.0)
    _, gradient = evaluation(PICTURE)
    # Along the gradient the slope is its length, which stands out from float32 rounding.
    direction = gradient / np.linalg.norm(gradient)
    step = np.float32(2.0) * direction
    above, below = evaluation(PICTURE + step)[0], evaluation(PICTURE - step)[0]
    slope = (above[tags.TOTAL] - below[tags.TOTAL]) / 4.0
    # Central differences over 4 levels, across ReLUs that switch: 1 % is what they can show.
    assert slope == pytest.approx(np.linalg.norm(gradient), rel=0.01)


def test_the_photo_itself_has_no_content_loss(world: tiny.World) -> None:
    terms, _ = slim_evaluation(world)(PHOTO.astype(np.float32))
    assert terms[tags.CONTENT] == pytest.approx(0.0, abs=1e-6)
    assert terms[tags.STYLE] > 0.0


def test_bfloat16_scores_nearly_as_float32(world: tiny.World) -> None:
    config = small_config(world)
    totals = []
    for precision in ("float32", "bfloat16"):
        network = build_network(config, precision)
        loss = build_picture_loss(config, network, STYLES[:1], (1.0,), *PHOTO.shape[:2])
        totals.append(make_evaluation(loss, PHOTO)(PICTURE)[0][tags.TOTAL])
    # 8 bits of mantissa in features, which sums of squares average out.
    assert totals[1] == pytest.approx(totals[0], rel=0.03)


# Steps.


def test_adam_takes_the_published_steps() -> None:
    rng = np.random.default_rng(1)
    start = rng.uniform(50.0, 200.0, (3, 4, 3)).astype(np.float32)
    slopes = rng.normal(0.0, 2.0, start.shape).astype(np.float32)

    def loss_and_gradient(picture: np.ndarray) -> tuple[float, np.ndarray]:
        return float((slopes * picture**2).sum()), 2.0 * slopes * picture

    beta_1, beta_2, epsilon, rate, unit = 0.99, 0.98, 0.1, 0.02, 255.0
    found = descent.minimize(
        loss_and_gradient,
        start,
        iterations=3,
        direction=descent.adam_direction(beta_1=beta_1, beta_2=beta_2, epsilon=epsilon),
        learning_rate=lambda _: rate,
        unit=unit,
        bounds=None,
    )

    x = start.astype(np.float64) / unit  # Pixels 0..1, so gradients are 255 times larger.
    m = v = np.zeros_like(x)
    for t in (1, 2, 3):
        g = 2.0 * slopes * (x * unit) * unit
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g * g
        rate_t = rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        x = x - rate_t * m / (np.sqrt(v) + epsilon)
    np.testing.assert_allclose(found.picture, x * unit, rtol=1e-5)
    assert len(found.losses) == 3
    assert found.losses[-1] == pytest.approx(loss_and_gradient(found.picture)[0])


def test_plain_descent_with_decay_follows_its_formula() -> None:
    gradient = np.array([[1.0, -2.0]], np.float32)
    found = descent.minimize(
        lambda picture: (float((gradient * picture).sum()), gradient),
        np.full((1, 2), 100.0, np.float32),
        iterations=5,
        direction=descent.plain_direction(),
        learning_rate=lambda step: descent.decayed_rate(8.0, step, decay_rate=0.5, every=2),
    )
    moved = 8.0 * sum(0.5 ** (step / 2) for step in range(5))
    np.testing.assert_allclose(found.picture, 100.0 - moved * gradient, rtol=1e-6)


def test_decay_is_smooth_and_reaches_its_factor_at_every_period() -> None:
    rates = [descent.decayed_rate(100.0, step, decay_rate=0.96, every=100) for step in (0, 50, 100)]
    assert rates == pytest.approx([100.0, 100.0 * 0.96**0.5, 96.0])


def test_pixels_stay_in_their_range_at_each_step_only_if_asked_to() -> None:
    def run(bounds: tuple[float, float] | None) -> np.ndarray:
        return descent.minimize(
            lambda picture: (0.0, np.ones_like(picture)),
            np.full((2, 2, 3), 5.0, np.float32),
            iterations=3,
            direction=descent.plain_direction(),
            learning_rate=lambda _: 4.0,
            bounds=bounds,
        ).picture

    np.testing.assert_array_equal(run((0.0, 255.0)), np.zeros((2, 2, 3)))
    np.testing.assert_array_equal(run(None), np.full((2, 2, 3), -7.0))


def test_a_loss_that_is_not_finite_stops_descent_with_one_sentence() -> None:
    with pytest.raises(FastStyleError, match="step 0: the loss or its gradient is not a finite"):
        descent.minimize(
            lambda picture: (1.0, np.full_like(picture, np.inf)),
            np.zeros((2, 2, 3), np.float32),
            iterations=1,
            direction=descent.plain_direction(),
            learning_rate=lambda _: 1.0,
        )


# Sizes, starts, colours.


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"size": 512, "size_side": "long_side", "scales": 3}, ((64, 128), (128, 256), (256, 512))),
        ({"size": 400, "size_side": "height", "scales": 1}, ((400, 800),)),
        ({"size": None, "size_side": "height", "scales": 2}, ((150, 300), (300, 600))),
        ({"size": 100, "size_side": "long_side", "scales": 4}, ((50, 100),)),
    ],
)
def test_scales_double_up_to_the_size_and_skip_what_is_too_small(settings, expected) -> None:
    assert scale_sizes(300, 600, **settings) == expected


def test_a_photo_too_narrow_to_be_optimized_is_one_sentence() -> None:
    with pytest.raises(ImageError, match="optimized at 40x8 px, but both sides must have"):
        scale_sizes(10, 50, size=40, size_side="long_side", scales=2)


@pytest.mark.parametrize(
    ("fit", "scale", "expected"),
    [
        ("long_side", 1.0, (60, 40)),
        ("long_side", 2.0, (120, 80)),
        ("width", 1.0, (90, 60)),
        ("stretch", 1.0, (48, 60)),
        ("long_side", 0.25, (48, 32)),
        ("stretch", 0.25, (32, 32)),
    ],
)
def test_style_pictures_are_fitted_as_asked(fit: str, scale: float, expected) -> None:
    style = tiny.smooth_picture(90, 60, 5)
    assert fit_style(style, 48, 60, fit=fit, scale=scale).shape == (*expected, 3)


def test_noise_is_a_function_of_its_seed_alone() -> None:
    first, again, other = (noise_picture(33, 35, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    # 33 * 35 samples of deviation 25 per channel: the mean is known to 0.75.
    np.testing.assert_allclose(first.mean((0, 1)), reference.MEANS, atol=3.0)


def test_colours_are_the_photos_and_brightness_the_pictures() -> None:
    picture = tiny.smooth_picture(17, 23, 6) * 0.4 + 70.0
    photo = tiny.smooth_picture(17, 23, 7) * 0.2 + 100.0  # Far from where clipping begins.
    mixed = with_colours_of(picture, photo)

    def luma_and_chroma(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = 0.299 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2]
        return y, np.stack([0.564 * (image[..., 2] - y), 0.713 * (image[..., 0] - y)])

    np.testing.assert_allclose(luma_and_chroma(mixed)[0], luma_and_chroma(picture)[0], atol=1e-3)
    np.testing.assert_allclose(luma_and_chroma(mixed)[1], luma_and_chroma(photo)[1], atol=1e-3)


def test_shares_of_styles_sum_to_one() -> None:
    assert blend_of([7, 3], 2) == pytest.approx((0.7, 0.3))
    assert blend_of(None, 4) == (0.25,) * 4


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "expected 2 numbers, one per style, got 1"),
        ([1.0, -1.0], "expected numbers of at least 0 and one above it, got 1, -1"),
        ([0.0, 0.0], "expected numbers of at least 0 and one above it, got 0, 0"),
        ([1.0, float("nan")], "expected numbers of at least 0 and one above it, got 1, nan"),
    ],
)
def test_wrong_shares_are_one_sentence(weights: list[float], message: str) -> None:
    with pytest.raises(FastStyleError, match=f"--style-weights: {message}"):
        blend_of(weights, 2)


# Whole runs.


def small_settings(world: tiny.World, **changes: Any) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "loss_model_file": str(world.weights),
        "content_layers": (tiny.DEEP,),
        "style_layers": (tiny.SHALLOW, tiny.DEEP),
        "style_layer_weights": None,
        "size": 44,
        "scales": 1,
        "steps": 6,
        "coarse_steps": None,
        "style_weight": 1000.0,
    }
    return keys | changes


def small_config(world: tiny.World, **changes: Any) -> OptimizeConfig:
    return OptimizeConfig(**small_settings(world, **changes))


def photo_of(world: tiny.World) -> Path:
    return sorted(world.photos.glob("*.jpg"))[0]


def run_small(world: tiny.World, folder: Path, **changes: Any) -> OptimizeResult:
    return optimize(
        small_config(world, **changes), photo_of(world), [world.style], folder / "out.png"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "lbfgs"},
        {"optimizer": "adam", "learning_rate": 3.0},
        {"optimizer": "adam", "learning_rate": 0.02, "pixel_range": 1, "adam_epsilon": 0.1},
        {"optimizer": "sgd", "learning_rate": 0.1, "decay_rate": 0.96, "decay_every_steps": 2},
        {"start": "noise", "pooling": "avg"},
    ],
    ids=lambda changes: ",".join(map(str, changes.values())),
)
def test_the_loss_falls_and_the_picture_is_written(
    changes: dict[str, Any], world: tiny.World, tmp_path: Path
) -> None:
    result = run_small(world, tmp_path, **changes)
    assert result.last[tags.TOTAL] < 0.8 * result.first[tags.TOTAL]
    written = np.asarray(Image.open(tmp_path / "out.png"))
    np.testing.assert_array_equal(written, result.picture)
    assert written.shape == (34, 44, 3)  # The photo has 40x52 px.
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]


def test_the_start_may_be_another_picture(world: tiny.World, tmp_path: Path) -> None:
    # Of a rate so low that nothing moves, the result is the start.
    result = run_small(
        world,
        tmp_path,
        start_image=str(world.other_style),
        optimizer="sgd",
        learning_rate=1e-12,
        steps=1,
    )
    expected = resize(read_image(world.other_style), 34, 44)
    np.testing.assert_array_equal(result.picture, expected)


def test_scales_are_worked_through_from_coarse_to_fine(world: tiny.World, tmp_path: Path) -> None:
    reports: list[OptimizeReport] = []

    class Recorder(OptimizeObserver):
        def on_step(self, report: OptimizeReport) -> None:
            reports.append(report)

    config = small_config(world, size=96, scales=3, coarse_steps=3, steps=2)
    result = optimize(
        config, photo_of(world), [world.style], tmp_path / "out.png", observer=Recorder()
    )
    # A third scale would be 18 px high, and is left out.
    assert [report.size for report in reports] == [(37, 48)] * 3 + [(74, 96)] * 2
    assert [report.step for report in reports] == [1, 2, 3, 4, 5]
    assert {report.steps for report in reports} == {5}
    assert result.steps == 5
    # The last size starts from the coarse result, which is far ahead of the photo.
    assert result.picture.shape == (74, 96, 3)


def test_a_blend_of_styles_lies_between_them(world: tiny.World, tmp_path: Path) -> None:
    styles = [world.style, world.other_style]
    config = small_config(world, steps=15, content_weight=0.0)
    results = {}
    for share in (1.0, 0.7, 0.0):
        weights = (share, 1.0 - share)
        out = tmp_path / f"{share}.png"
        results[share] = optimize(
            config, photo_of(world), styles, out, style_weights=weights
        ).picture
    network = build_network(config, "float32")

    def distance(share: float, style: int) -> float:
        weights = (1.0, 0.0) if style == 0 else (0.0, 1.0)
        loss = build_picture_loss(config, network, [read_image(p) for p in styles], weights, 34, 44)
        photo = resize(read_image(photo_of(world)), 34, 44)
        terms, _ = make_evaluation(loss, photo)(results[share].astype(np.float32))
        return terms[tags.STYLE]

    assert distance(1.0, 0) < distance(0.7, 0) < distance(0.0, 0)
    assert distance(0.0, 1) < distance(0.7, 1) < distance(1.0, 1)


def test_steps_are_saved_beside_the_result(world: tiny.World, tmp_path: Path) -> None:
    run_small(world, tmp_path, steps=5, save_every_steps=2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["out.png", "out.step-00002.png", "out.step-00004.png"]


def test_colours_are_kept_if_asked_to(world: tiny.World, tmp_path: Path) -> None:
    result = run_small(world, tmp_path, preserve_color=True)
    photo = resize(read_image(photo_of(world)), 34, 44).astype(np.float64)
    picture = result.picture.astype(np.float64)
    inside = ((picture > 0) & (picture < 255)).all(-1)  # Clipped pixels cannot keep their colour.
    assert inside.mean() > 0.3
    for one, other in ((0, 1), (1, 2)):
        kept = (picture[..., one] - picture[..., other])[inside]
        wanted = (photo[..., one] - photo[..., other])[inside]
        np.testing.assert_allclose(kept, wanted, atol=1.0)  # Both channels are rounded.
    assert np.abs(picture - photo).mean() > 3.0


def test_an_interruption_writes_the_picture_so_far(world: tiny.World, tmp_path: Path) -> None:
    class Impatient(OptimizeObserver):
        def on_step(self, report: OptimizeReport) -> None:
            if report.step == 2:
                raise KeyboardInterrupt

    config = small_config(world, size=96, scales=2, steps=4)
    result = optimize(
        config, photo_of(world), [world.style], tmp_path / "out.png", observer=Impatient()
    )
    assert result.interrupted and result.steps == 2
    # Stopped at the coarse size, written at the one asked for.
    assert np.asarray(Image.open(tmp_path / "out.png")).shape == (74, 96, 3)


def test_an_interruption_before_the_first_step_leaves_the_output_as_it_was(
    world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fast_style.optimize.make_evaluation", stop)
    out = tmp_path / "out.png"
    out.write_bytes(b"earlier")
    with pytest.raises(KeyboardInterrupt):
        optimize(small_config(world), photo_of(world), [world.style], out)
    assert out.read_bytes() == b"earlier"


def test_the_losses_told_are_those_of_the_picture_kept(
    world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = []

    def with_a_rejected_trial(loss_and_gradient: Any, start: Any, **options: Any) -> Any:
        evaluated.append(loss_and_gradient(start)[0])
        options["on_iteration"](1, evaluated[0], start)
        evaluated.append(loss_and_gradient(start + 50.0)[0])  # Worse, so L-BFGS returns the first.
        return SimpleNamespace(stopped="")

    monkeypatch.setattr("fast_style.optimize.lbfgs.minimize", with_a_rejected_trial)
    config = small_config(world, optimizer="lbfgs", scales=1)
    result = optimize(config, photo_of(world), [world.style], tmp_path / "out.png")
    assert evaluated[0] != evaluated[1]
    assert result.last[tags.TOTAL] == evaluated[0]


def test_a_diverging_run_stops_with_one_sentence(world: tiny.World, tmp_path: Path) -> None:
    with pytest.raises(FastStyleError, match=r"step \d+: the loss .* lower learning_rate"):
        run_small(world, tmp_path, optimizer="sgd", learning_rate=1e30, clip_each_step=False)
    assert not list(tmp_path.iterdir())


# What is wrong is said before the work.


def no_work(*_args: Any, **_kwargs: Any) -> Any:
    raise AssertionError("a loss network was built")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.pcx", "pictures are not written as .pcx; end the name in one of .jpg"),
        ("out", "pictures are not written as a name without an ending"),
        ("file.txt/out.png", "cannot write to this folder .*file.txt is not a folder"),
        ("folder.png", "this is a folder; name a file in it"),
    ],
)
def test_an_unwritable_output_is_told_before_the_work(
    name: str, message: str, world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file.txt").touch()
    (tmp_path / "folder.png").mkdir()
    monkeypatch.setattr(optimizing, "build_loss_network", no_work)
    with pytest.raises(FastStyleError, match=message):
        optimize(small_config(world), photo_of(world), [world.style], tmp_path / name)


def test_a_result_never_replaces_a_source(world: tiny.World) -> None:
    with pytest.raises(FastStyleError, match="would replace a source picture"):
        check_output(world.style, [photo_of(world), world.style])


def test_a_transparent_style_is_refused(
    world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGBA", (40, 40), (10, 20, 30, 90)).save(tmp_path / "glass.png")
    monkeypatch.setattr(optimizing, "build_loss_network", no_work)
    with pytest.raises(ImageError, match="glass.png: has transparent parts"):
        optimize(
            small_config(world), photo_of(world), [tmp_path / "glass.png"], tmp_path / "out.png"
        )


# Contact sheets.


def test_a_sheet_shows_every_picture_whole_with_ink_below() -> None:
    pictures = [tiny.smooth_picture(20, 30, 1), tiny.smooth_picture(24, 18, 2)]
    sheet = contact_sheet([[Cell("one", pictures[0]), Cell("two\nlines", pictures[1])]], side=64)
    np.testing.assert_array_equal(sheet[12:32, 12:42], pictures[0])
    np.testing.assert_array_equal(sheet[12:36, 54:72], pictures[1])
    assert (sheet[36:, 12:42] < 128).any() and (sheet[36:, 54:] < 128).any()


def test_a_sheet_shrinks_large_pictures_and_wraps_long_labels() -> None:
    label = "style_weight 100, style_size 512 and-a-word-that-is-longer-than-the-picture"
    sheet = contact_sheet([[Cell(label, tiny.smooth_picture(90, 120, 3))]], side=60)
    assert sheet.shape[1] == 12 + 60 + 12
    # Nothing was written over the margins.
    np.testing.assert_array_equal(sheet[:, :12], np.full_like(sheet[:, :12], 255))
    np.testing.assert_array_equal(sheet[:, 73:], np.full_like(sheet[:, 73:], 255))


def test_an_empty_sheet_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        contact_sheet([[]], side=10)


# Previews.


def test_a_grid_is_the_product_of_its_keys() -> None:
    assert preview.grid_settings(["style_weight=50,100", "style_size = 64, 96"]) == [
        ("style_weight=50", "style_size=64"),
        ("style_weight=50", "style_size=96"),
        ("style_weight=100", "style_size=64"),
        ("style_weight=100", "style_size=96"),
    ]
    assert preview.grid_settings([]) == [()]


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        (["width=0.5,1"], "--grid: expected key=value,value,.* with a key of style_weight, "),
        (["style_weight"], "--grid: expected key=value,value"),
        (["style_weight=50,,100"], "--grid: expected key=value,value"),
        (["tv_weight=0,1", "tv_weight=2"], "--grid: tv_weight is given twice"),
        (["tv_weight=" + ",".join(["1"] * 101)], "--grid: 101 cells are more than 100"),
    ],
)
def test_a_wrong_grid_is_one_sentence(grids: list[str], message: str) -> None:
    with pytest.raises(FastStyleError, match=message):
        preview.grid_settings(grids)


def test_a_preview_lowers_the_loss_of_training_on_the_crop_of_training(
    world: tiny.World, tmp_path: Path
) -> None:
    config = world.config(tmp_path)
    (item,) = preview.preview([((), config)], photo_of(world), steps=5)
    assert item.photo.shape == item.picture.shape == (32, 32, 3)
    assert item.style_picture.shape == (32, 32, 3)
    assert item.first[tags.CONTENT] == pytest.approx(0.0, abs=1e-6)
    assert item.last[tags.TOTAL] < 0.8 * item.first[tags.TOTAL]


# The commands.


def command(name: str, *arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    getattr(cli_optimize, f"add_{name}_arguments")(parser)
    options = parser.parse_args([str(argument) for argument in arguments])
    return getattr(cli_optimize, f"run_{name}")(options)


def settings_of(world: tiny.World, **changes: Any) -> list[str]:
    arguments = []
    for key, value in small_settings(world, **changes).items():
        text = "null" if value is None else str(list(value) if isinstance(value, tuple) else value)
        arguments += ["--set", f"{key}={text}"]
    return arguments


def test_optimize_makes_a_picture_and_reports(
    world: tiny.World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made" / "out.jpg"
    code = command(
        "optimize",
        *("--content", photo_of(world), "--style", world.style, "--style", world.other_style),
        *("--style-weights", "0.7,0.3", *settings_of(world, steps=2), "-o", out),
    )
    printed = capsys.readouterr().out
    assert code == 0
    assert read_image(out).shape == (34, 44, 3)
    assert "sizes:         44x34 px" in printed
    assert "step 2/2  44x34  content " in printed
    assert printed.rstrip().endswith(str(out))


def test_optimize_names_its_result_itself(world: tiny.World, tmp_path: Path) -> None:
    with tiny.working_in(tmp_path):
        command(
            "optimize",
            *("--content", photo_of(world), "--style", world.style),
            *settings_of(world, steps=1),
        )
    assert (tmp_path / "generated" / f"{photo_of(world).stem}_style.png").is_file()


def test_optimize_can_just_show_its_configuration(
    world: tiny.World, capsys: pytest.CaptureFixture[str]
) -> None:
    keras = CONF / "keras_vgg19.yml"
    assert command("optimize", "--content", "x", "--style", "y", "-c", keras, "--dry-run") == 0
    assert 'optimizer: "sgd"\n' in capsys.readouterr().out


def test_a_stopped_optimize_says_so_and_exits_as_shells_expect(
    world: tiny.World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(self: Any, step: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_optimize.Progress, "move", stop)
    out = tmp_path / "out.png"
    code = command(
        "optimize",
        *("--content", photo_of(world), "--style", world.style, *settings_of(world), "-o", out),
    )
    assert code == 130
    assert "stopped after step 1; the picture so far was written" in capsys.readouterr().out
    assert out.is_file()


def test_wrong_settings_are_reported_before_anything_else(world: tiny.World) -> None:
    with pytest.raises(ConfigError, match="--set: 1 problem\n  stepz: unknown key"):
        command("optimize", "--content", "x", "--style", "y", "--set", "stepz=1")
    with pytest.raises(FastStyleError, match="--style-weights: expected numbers"):
        command("optimize", "--content", "x", "--style", "y", "--style-weights", "a,b")


def test_preview_makes_a_labelled_sheet_of_a_grid(
    world: tiny.World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sheet.png"
    code = command(
        "preview",
        *("-c", world.config_file(tmp_path), "--photo", photo_of(world), "--steps", "2"),
        *("--grid", "style_weight=10,1000", "--grid", "style_size=32,48", "-o", out),
    )
    printed = capsys.readouterr().out
    assert code == 0
    # Photo and two style sizes above, two by two results below, columns as wide as a picture.
    height, width = np.asarray(Image.open(out)).shape[:2]
    assert width == 12 + 3 * (32 + 12) and height > 3 * (32 + 24)
    assert "tiny, style_weight=10, style_size=48: content " in printed
    assert printed.count("after 2 steps") == 4


def test_a_stopped_preview_counts_cells_of_every_style_and_setting(
    world: tiny.World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    move = cli_optimize.Progress.move

    def stop_in_the_second_cell(self: Any, step: int) -> None:
        if step > 1:
            raise KeyboardInterrupt
        move(self, step)

    monkeypatch.setattr(cli_optimize.Progress, "move", stop_in_the_second_cell)
    styles = [
        {"name": "one", "image": str(world.style), "weight": 100.0},
        {"name": "other", "image": str(world.other_style), "weight": 50.0},
    ]
    changes = {"style_image": None, "style_weight": None, "styles": styles}
    config = world.config_file(tmp_path, **changes)
    out = tmp_path / "sheet.png"
    code = command(
        "preview",
        *("-c", config, "--photo", photo_of(world), "--steps", "1"),
        *("--grid", "tv_weight=0,1,2", "-o", out),
    )
    assert code == 130
    assert "stopped with 1 of 6 cells; the sheet shows these" in capsys.readouterr().out
    assert out.is_file()


def test_preview_takes_the_first_photo_of_the_data_set(world: tiny.World, tmp_path: Path) -> None:
    config = world.config_file(tmp_path)
    with tiny.working_in(tmp_path):
        assert command("preview", "-c", config, "--steps", "1") == 0
    assert (tmp_path / "generated" / "preview_tiny.jpg").is_file()


def test_preview_reports_wrong_values_of_a_grid_before_any_work(
    world: tiny.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview, "build_network", no_work)
    arguments = ("-c", world.config_file(tmp_path), "--photo", photo_of(world))
    with pytest.raises(ConfigError, match="style_weight: expected a number of at least 0, got 'x'"):
        command("preview", *arguments, "--grid", "style_weight=1,x")
    with pytest.raises(FastStyleError, match="pictures are not written as"):
        command("preview", *arguments, "-o", tmp_path / "out.xyz")
    with pytest.raises(ImageError, match="nowhere.jpg: no such picture"):
        command("preview", *arguments[:2], "--photo", tmp_path / "nowhere.jpg")
