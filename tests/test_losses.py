from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from fast_style.losses import (
    border_loss,
    content_layer_losses,
    gram_matrix,
    grid_loss,
    style_layer_losses,
    total_variation_loss,
)

# float32 sums of a few thousand products against float64: a few units in the seventh digit.
TOLERANCE = 1e-5


def features(*shape: int, seed: int = 0) -> np.ndarray:
    """Like a layer after its ReLU: not negative, of very different sizes."""
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(20.0, 60.0, shape), 0.0).astype(np.float32)


def gram_by_loops(maps: np.ndarray) -> np.ndarray:
    """F^T F / (H W C), entry by entry, [H, W, C] -> [C, C]."""
    height, width, channels = maps.shape
    gram = np.zeros((channels, channels))
    for i in range(channels):
        for j in range(channels):
            for y in range(height):
                for x in range(width):
                    gram[i, j] += float(maps[y, x, i]) * float(maps[y, x, j])
    return gram / (height * width * channels)


def test_gram_equals_the_formula_in_float64() -> None:
    maps = features(2, 5, 7, 4)
    expected = np.stack([gram_by_loops(picture) for picture in maps])
    np.testing.assert_allclose(gram_matrix(tf.constant(maps)), expected, rtol=TOLERANCE)


def test_gram_of_two_pixels_by_hand() -> None:
    maps = tf.constant([[[[1.0, 2.0], [3.0, 4.0]]]])  # One row, two pixels, two channels.
    # [[1*1 + 3*3, 1*2 + 3*4], [.., 2*2 + 4*4]] / (1 * 2 * 2)
    np.testing.assert_array_equal(gram_matrix(maps), [[[2.5, 3.5], [3.5, 5.0]]])


def test_gram_ignores_where_features_are() -> None:
    maps = features(1, 6, 9, 5)
    shuffled = np.random.default_rng(1).permutation(maps.reshape(1, 54, 5), axis=1)
    np.testing.assert_allclose(
        gram_matrix(tf.constant(shuffled.reshape(1, 6, 9, 5))),
        gram_matrix(tf.constant(maps)),
        rtol=TOLERANCE,
    )


def test_gram_is_four_times_as_large_when_features_double() -> None:
    maps = tf.constant(features(1, 6, 9, 5))
    np.testing.assert_array_equal(gram_matrix(2.0 * maps), 4.0 * gram_matrix(maps))


def test_gram_is_symmetric_and_positive_semi_definite() -> None:
    gram = gram_matrix(tf.constant(features(1, 3, 4, 20)))[0].numpy()  # Rank 12 of 20.
    # Some processors add in another order above the diagonal than below.
    np.testing.assert_allclose(gram, gram.T, rtol=1e-5)
    assert np.linalg.eigvalsh(gram.astype(np.float64)).min() > -1e-4 * gram.max()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 0.01)])
def test_gradient_of_gram_equals_that_of_the_plain_formula(dtype: str, tolerance: float) -> None:
    # bfloat16 rounds the upstream gradient and the result, 0.4 % each.
    maps = tf.cast(features(2, 4, 5, 6), dtype)
    weight = np.random.default_rng(3).standard_normal((2, 6, 6)).astype(np.float32)
    flat = np.asarray(tf.cast(maps, tf.float64)).reshape(2, 20, 6)
    expected = flat @ (weight + weight.transpose(0, 2, 1)) / (4 * 5 * 6)
    with tf.GradientTape() as tape:
        tape.watch(maps)
        total = tf.reduce_sum(gram_matrix(maps) * weight)
    got = np.asarray(tape.gradient(total, maps)).astype(np.float64).reshape(2, 20, 6)
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.01)])
def test_a_metric_is_what_features_are_multiplied_by(dtype: str, tolerance: float) -> None:
    """Losses and gradients, against float64 formulas of the product."""
    metric = np.random.default_rng(4).standard_normal((6, 6)).astype(np.float32)
    target_gram = np.random.default_rng(5).uniform(0, 500, (1, 6, 6)).astype(np.float32)
    maps, photo = (tf.cast(features(2, 4, 5, 6, seed=seed), dtype) for seed in (6, 7))
    rows, photo_rows = (np.asarray(tf.cast(m, tf.float64)).reshape(2, 20, 6) for m in (maps, photo))
    exact = metric.astype(np.float64)

    moved = (rows - photo_rows) @ exact
    content, content_slope = np.mean(moved**2), 2.0 / moved.size * moved @ exact.T
    apart = (rows @ exact).transpose(0, 2, 1) @ (rows @ exact) / 120 - target_gram
    style = np.sum(apart**2) / 240
    style_slope = rows @ exact @ (apart + apart.transpose(0, 2, 1)) @ exact.T * (2.0 / 240 / 120)

    def content_loss(x: tf.Tensor) -> tf.Tensor:
        return content_layer_losses({"a": x}, {"a": photo}, {"a": tf.constant(metric)})["a"]

    def style_loss(x: tf.Tensor) -> tf.Tensor:
        targets, metrics = {"a": tf.constant(target_gram)}, {"a": tf.constant(metric)}
        return tf.reduce_sum(style_layer_losses({"a": x}, targets, None, metrics)["a"])

    for loss, expected, slope in (
        (content_loss, content, content_slope),
        (style_loss, style, style_slope),
    ):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            value = loss(maps)
        assert value.dtype == tf.float32
        np.testing.assert_allclose(float(value), expected, rtol=tolerance)
        got = np.asarray(tape.gradient(value, maps)).astype(np.float64).reshape(2, 20, 6)
        assert np.abs(got - slope).max() <= tolerance * np.abs(slope).max()


def test_gram_of_bfloat16_features_is_accumulated_in_float32() -> None:
    narrow = tf.cast(features(1, 64, 64, 3), tf.bfloat16)
    got = gram_matrix(narrow)
    assert got.dtype == tf.float32
    exact = tf.cast(narrow, tf.float32).numpy()[0].astype(np.float64).reshape(-1, 3)
    np.testing.assert_allclose(got[0], exact.T @ exact / exact.size, rtol=TOLERANCE)


def test_gradient_of_the_content_loss_is_that_of_the_formula() -> None:
    x, target = (tf.constant(features(2, 5, 7, 4, seed=seed)) for seed in (0, 1))
    with tf.GradientTape() as tape:
        tape.watch((x, target))
        loss = 3.0 * content_layer_losses({"a": x}, {"a": target})["a"]
    expected = 3.0 * 2.0 * (x - target).numpy() / (2 * 5 * 7 * 4)
    dx, d_target = (np.asarray(gradient) for gradient in tape.gradient(loss, (x, target)))
    np.testing.assert_allclose(dx, expected, rtol=TOLERANCE)
    np.testing.assert_allclose(d_target, -expected, rtol=TOLERANCE)


def test_gram_works_where_height_and_width_are_unknown() -> None:
    maps = features(2, 5, 7, 4)
    traced = tf.function(
        gram_matrix, input_signature=[tf.TensorSpec([None, None, None, 4], tf.float32)]
    )
    np.testing.assert_allclose(
        traced(tf.constant(maps)), gram_matrix(tf.constant(maps)), rtol=TOLERANCE
    )


def test_gram_refuses_a_picture_without_its_batch() -> None:
    with pytest.raises(ValueError, match=r"expected shape \[N, H, W, C\], got \(5, 7, 4\)"):
        gram_matrix(tf.zeros([5, 7, 4]))


def style_by_loops(maps: np.ndarray, targets: np.ndarray) -> float:
    """Sum over pictures of ||G - G_style||^2, over N H W C."""
    total = 0.0
    for picture, target in zip(maps, targets, strict=True):
        gram = gram_by_loops(picture)
        for i in range(len(target)):
            for j in range(len(target)):
                total += (gram[i, j] - float(target[i, j])) ** 2
    return total / maps.size


def test_style_loss_equals_the_formula_in_float64() -> None:
    maps = {"a": features(2, 5, 7, 4), "b": features(2, 3, 4, 6, seed=1)}
    targets = {"a": features(2, 4, 4, seed=2), "b": features(2, 6, 6, seed=3)}
    shares = style_layer_losses(
        {layer: tf.constant(value) for layer, value in maps.items()},
        {layer: tf.constant(value) for layer, value in targets.items()},
    )
    for layer, share in shares.items():
        assert share.shape == [2]
        expected = style_by_loops(maps[layer], targets[layer])
        np.testing.assert_allclose(tf.reduce_sum(share), expected, rtol=TOLERANCE)


def test_style_loss_of_one_pixel_by_hand() -> None:
    maps = {"a": tf.constant([[[[2.0, 4.0]]]])}
    target = {"a": tf.constant([[[1.0, 1.0], [1.0, 1.0]]])}
    # G = [[4, 8], [8, 16]] / 2; differences 1, 3, 3, 7; 68 / (1 * 1 * 1 * 2).
    np.testing.assert_array_equal(style_layer_losses(maps, target)["a"], [34.0])


def test_style_loss_is_zero_on_the_style_itself_and_one_target_serves_all_pictures() -> None:
    style = tf.constant(features(1, 5, 7, 4))
    target = {"a": gram_matrix(style)}
    maps = {"a": tf.concat([style, 3.0 * style], axis=0)}
    shares = style_layer_losses(maps, target)["a"].numpy()
    np.testing.assert_allclose(shares[0], 0.0, atol=TOLERANCE * shares[1])
    assert shares[1] > 0


def test_style_loss_has_a_quarter_of_its_size_at_twice_the_side() -> None:
    """Why a style weight needs x4 when the picture's side doubles."""
    small = tf.constant(features(1, 5, 7, 4))
    large = tf.tile(small, [1, 2, 2, 1])  # The same Gram matrix.
    target = {"a": tf.zeros([1, 4, 4])}
    np.testing.assert_allclose(
        style_layer_losses({"a": large}, target)["a"],
        style_layer_losses({"a": small}, target)["a"] / 4.0,
        rtol=TOLERANCE,
    )


def test_only_layers_with_a_target_are_scored() -> None:
    maps = {"a": tf.ones([1, 2, 3, 4]), "b": tf.ones([1, 2, 3, 4])}
    assert list(style_layer_losses(maps, {"b": tf.zeros([1, 4, 4])})) == ["b"]
    assert list(content_layer_losses(maps, {"a": maps["a"]})) == ["a"]


def test_content_loss_equals_the_formula_in_float64() -> None:
    ours, photo = features(2, 3, 5, 4), features(2, 3, 5, 4, seed=1)
    total = 0.0
    for one, other in zip(ours.ravel(), photo.ravel(), strict=True):
        total += (float(one) - float(other)) ** 2
    got = content_layer_losses({"a": tf.constant(ours)}, {"a": tf.constant(photo)})["a"]
    np.testing.assert_allclose(got, total / (2 * 3 * 5 * 4), rtol=TOLERANCE)


def test_content_loss_is_zero_on_itself_and_by_hand_elsewhere() -> None:
    photo = tf.constant([[[[1.0, 2.0], [3.0, 4.0]]]])
    styled = tf.constant([[[[1.0, 5.0], [3.0, 3.0]]]])
    assert content_layer_losses({"a": photo}, {"a": photo})["a"] == 0.0
    assert content_layer_losses({"a": styled}, {"a": photo})["a"] == (9.0 + 1.0) / 4.0


def test_bfloat16_features_give_float32_losses() -> None:
    narrow = {"a": tf.cast(features(1, 64, 64, 3), tf.bfloat16)}
    other = {"a": tf.cast(features(1, 64, 64, 3, seed=1), tf.bfloat16)}
    content = content_layer_losses(narrow, other)["a"]
    exact = [tf.cast(maps["a"], tf.float32).numpy().astype(np.float64) for maps in (narrow, other)]
    assert content.dtype == tf.float32
    np.testing.assert_allclose(content, np.mean((exact[0] - exact[1]) ** 2), rtol=TOLERANCE)
    assert style_layer_losses(narrow, {"a": tf.zeros([1, 3, 3])})["a"].dtype == tf.float32


def variation_by_loops(images: np.ndarray) -> float:
    count, height, width, channels = images.shape
    across = [
        (float(images[n, y, x + 1, c]) - float(images[n, y, x, c])) ** 2
        for n in range(count)
        for y in range(height)
        for x in range(width - 1)
        for c in range(channels)
    ]
    down = [
        (float(images[n, y + 1, x, c]) - float(images[n, y, x, c])) ** 2
        for n in range(count)
        for y in range(height - 1)
        for x in range(width)
        for c in range(channels)
    ]
    return sum(across) / (2 * len(across)) + sum(down) / (2 * len(down))


def test_total_variation_equals_the_formula_in_float64() -> None:
    images = np.random.default_rng(0).uniform(0, 255, (2, 5, 7, 3)).astype(np.float32)
    np.testing.assert_allclose(
        total_variation_loss(tf.constant(images)), variation_by_loops(images), rtol=TOLERANCE
    )


def test_total_variation_by_hand() -> None:
    # Grey levels [[0, 2, 2], [4, 2, 5]]: dx^2 4, 0, 4, 9 over 4; dy^2 16, 0, 9 over 3; both halved.
    grey = tf.constant([[0.0, 2.0, 2.0], [4.0, 2.0, 5.0]])
    images = tf.tile(grey[None, :, :, None], [1, 1, 1, 3])
    np.testing.assert_allclose(total_variation_loss(images), 17 / 8 + 25 / 6, rtol=1e-6)


def test_total_variation_is_zero_when_flat_and_blind_to_brightness() -> None:
    assert total_variation_loss(tf.fill([2, 17, 23, 3], 200.0)) == 0.0
    images = tf.round(tf.random.stateless_uniform([1, 17, 23, 3], (1, 2), 0.0, 200.0))
    # Whole levels, so that adding 50 is exact.
    assert total_variation_loss(images + 50.0) == total_variation_loss(images)


def test_gradients_on_a_flat_picture_are_finite() -> None:
    flat = tf.Variable(tf.fill([1, 8, 9, 3], 0.0))
    with tf.GradientTape() as tape:
        style = style_layer_losses({"a": tf.convert_to_tensor(flat)}, {"a": tf.ones([1, 3, 3])})
        content = content_layer_losses({"a": tf.convert_to_tensor(flat)}, {"a": tf.ones_like(flat)})
        variation = total_variation_loss(tf.convert_to_tensor(flat))
        grid = grid_loss(tf.convert_to_tensor(flat))
        total = tf.reduce_sum(style["a"]) + content["a"] + variation + grid
    gradient = tape.gradient(total, flat)
    assert gradient is not None
    assert np.isfinite(tf.convert_to_tensor(gradient).numpy()).all()


def grid_by_loops(images: np.ndarray) -> float:
    """The formula of `grid_loss`, window by window and phase by phase."""
    count, height, width, channels = images.shape
    images = images.astype(np.float64)
    rows, columns = (max((side - 3) // 32, 1) for side in (height, width))
    down, across = (height - 3) // (4 * rows), (width - 3) // (4 * columns)
    found = []
    for n, c in np.ndindex(count, channels):
        fine = np.empty((height - 3, width - 3))
        for y, x in np.ndindex(fine.shape):
            fine[y, x] = images[n, y + 2, x + 2, c] - images[n, y : y + 4, x : x + 4, c].mean()
        for row, column in np.ndindex(rows, columns):
            top, left = 4 * down * row, 4 * across * column
            phases = [
                np.mean(
                    [fine[top + 4 * i + a, left + 4 * j + b] for i, j in np.ndindex(down, across)]
                )
                for a, b in np.ndindex(4, 4)
            ]
            found.append(np.var(phases))
    return float(np.mean(found))


@pytest.mark.parametrize("size", [(8, 9), (32, 33), (47, 70)])
def test_the_grid_loss_equals_the_formula_in_float64(size: tuple[int, int]) -> None:
    images = np.random.default_rng(0).uniform(0, 255, (2, *size, 3)).astype(np.float32)
    images[:, ::4] += 30.0
    np.testing.assert_allclose(
        grid_loss(tf.constant(images)), grid_by_loops(images), rtol=TOLERANCE
    )


def repeated(tile: np.ndarray, height: int, width: int) -> tf.Tensor:
    """Grey pictures [1, H, W, 3] of a tile side by side."""
    picture = np.tile(tile, (height // len(tile) + 1, width // tile.shape[1] + 1))
    picture = picture[:height, :width, None].astype(np.float32)
    return tf.constant(np.repeat(picture, 3, axis=2)[None] + 128.0)


@pytest.mark.parametrize("shape", [(4, 4), (2, 2), (1, 4), (4, 1), (2, 4)])
def test_a_pattern_of_up_to_four_pixels_counts_with_its_variance(shape: tuple[int, int]) -> None:
    tile = np.random.default_rng(1).normal(0.0, 10.0, shape)
    for height, width in ((64, 64), (45, 103), (35, 36)):
        found = grid_loss(repeated(tile, height, width))
        np.testing.assert_allclose(found, tile.var(), rtol=1e-3)
        # Wherever it begins.
        found = grid_loss(repeated(np.roll(tile, 1, axis=(0, 1)), height, width))
        np.testing.assert_allclose(found, tile.var(), rtol=1e-3)


def test_what_is_no_grid_hardly_counts() -> None:
    y, x = np.mgrid[:67, :67].astype(np.float32)
    slope = np.repeat((x + 2.0 * y)[None, ..., None], 3, axis=-1)
    assert grid_loss(tf.constant(slope)) < 1e-6
    rng = np.random.default_rng(2)
    noise = rng.normal(128.0, 20.0, (1, 67, 67, 3)).astype(np.float32)
    assert grid_loss(tf.constant(noise)) < 20.0**2 / 50.0
    # Patterns of other periods, too; of multiples of 4, the part that repeats every 4 counts.
    for period, most in ((3, 0.02), (5, 0.02), (7, 0.02), (6, 0.2), (8, 0.5), (16, 0.2)):
        tile = rng.normal(0.0, 10.0, (period, period))
        assert grid_loss(repeated(tile, 131, 131)) < most * tile.var(), period


def test_the_gradient_of_the_grid_loss_removes_a_grid_and_leaves_a_photo() -> None:
    tile = np.random.default_rng(3).normal(0.0, 10.0, (4, 4))
    tile -= tile.mean()  # Brightness stays.
    y, x = np.mgrid[:67, :67]
    photo = 128.0 + 60.0 * np.sin(x / 11.0 + y / 17.0)
    clean = tf.constant(np.repeat(photo[None, ..., None], 3, axis=-1).astype(np.float32))
    picture = tf.Variable(clean + repeated(tile, 67, 67) - 128.0)
    before = float(grid_loss(picture))
    for _ in range(20):
        with tf.GradientTape() as tape:
            loss = grid_loss(tf.convert_to_tensor(picture))
        picture.assign_sub(4000.0 * tf.convert_to_tensor(tape.gradient(loss, picture)))
    assert float(grid_loss(picture)) < 0.01 * before
    inner = np.s_[:, 4:-4, 4:-4]
    assert np.abs(picture.numpy()[inner] - clean.numpy()[inner]).mean() < 0.2 * np.abs(tile).mean()


def border_by_loops(styled: np.ndarray, photos: np.ndarray) -> float:
    """The formula of `border_loss`, border by border and row by row."""
    found = []
    for ours, theirs in zip(styled.astype(np.float64), photos.astype(np.float64), strict=True):
        for turns, row, channel in np.ndindex(4, 8, 3):
            steps = []
            for picture in (ours, theirs):
                turned = np.rot90(picture, turns)[..., channel]
                steps.append(turned[row].mean() - turned[8:24].mean())
            found.append((steps[0] - steps[1]) ** 2)
    return float(np.mean(found))


@pytest.mark.parametrize("size", [(24, 31), (32, 32), (70, 47)])
def test_the_border_loss_equals_the_formula_in_float64(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    styled = rng.uniform(0, 255, (2, *size, 3)).astype(np.float32)
    photos = rng.integers(0, 256, (2, *size, 3), np.uint8)
    styled[0, :3] += 80.0
    styled[1, :, -1] -= 50.0
    np.testing.assert_allclose(
        border_loss(tf.constant(styled), tf.constant(photos)),
        border_by_loops(styled, photos),
        rtol=TOLERANCE,
    )


def test_the_border_loss_of_a_batch_is_the_mean_of_its_parts() -> None:
    rng = np.random.default_rng(2)
    styled, photos = tf.constant(rng.uniform(0, 255, (2, 4, 32, 40, 3)).astype(np.float32))
    parts = [border_loss(styled[i : i + 2], photos[i : i + 2]) for i in (0, 2)]
    np.testing.assert_allclose(border_loss(styled, photos), np.mean(parts), rtol=TOLERANCE)


def test_lines_count_where_the_photo_has_none() -> None:
    photo = np.full((1, 64, 64, 3), 100.0, np.float32)
    line = photo.copy()
    line[:, :2] += 40.0
    photo, line = tf.constant(photo), tf.constant(line)
    # Two of 32 rows are off by 40, and the two ends of 16 columns a little.
    assert float(border_loss(line, photo)) == pytest.approx(2 / 32 * 40.0**2, rel=0.05)
    assert border_loss(line, line) == 0.0
    assert border_loss(photo + 50.0, photo) == 0.0


def test_the_gradient_of_the_border_loss_removes_a_line() -> None:
    rng = np.random.default_rng(1)
    photo = rng.normal(128.0, 30.0, (1, 48, 48, 3)).astype(np.float32)
    picture = tf.Variable(tf.constant(photo))
    picture[:, :, :2].assign(picture[:, :, :2] + 60.0)
    for _ in range(50):
        with tf.GradientTape() as tape:
            loss = border_loss(tf.convert_to_tensor(picture), tf.constant(photo))
        picture.assign_sub(1000.0 * tf.convert_to_tensor(tape.gradient(loss, picture)))
    assert np.abs(picture[:, :, :2].numpy() - photo[:, :, :2]).mean() < 10.0
    assert np.abs(picture[:, 24:, 24:].numpy() - photo[:, 24:, 24:]).mean() < 5.0
