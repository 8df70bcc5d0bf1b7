from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import reference
import tensorflow as tf
import tiny

from fast_style import objective as tags
from fast_style.loss_net import LossNetwork, build_loss_network
from fast_style.objective import Objective, style_grams

LAYERS = (tiny.SHALLOW, tiny.DEEP)
ONE_STYLE = np.array([[1.0], [1.0]], np.float32)


@pytest.fixture(scope="module")
def network(world: tiny.World) -> LossNetwork:
    return build_loss_network("vgg_16", world.weights, LAYERS)


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    return np.stack([tiny.smooth_picture(34, 38, seed) for seed in (1, 2)])


@pytest.fixture(scope="module")
def styled() -> np.ndarray:
    pictures = [tiny.smooth_picture(34, 38, seed) for seed in (3, 4)]
    return np.stack(pictures).astype(np.float32) * 0.9 + 3.5


def make_objective(
    network: LossNetwork, *, styles: int = 1, content_layers: tuple[str, ...] = (tiny.DEEP,)
) -> Objective:
    pictures = [tiny.smooth_picture(36, 32 + 4 * index, 10 + index) for index in range(styles)]
    return Objective(
        network=network,
        content_layers=content_layers,
        target_grams=style_grams(network, LAYERS, pictures),
        style_weights=np.array([100.0, 30.0][:styles], np.float32),
        content_weight=2.0,
        tv_weight=0.5,
    )


def numbers(terms: Mapping[str, tf.Tensor]) -> dict[str, float]:
    return {tag: float(value) for tag, value in terms.items()}


def expected_terms(
    objective: Objective, styled: np.ndarray, photos: np.ndarray, choice: np.ndarray
) -> dict[str, float]:
    """Every term in float64, from the loss network's features of each picture by itself."""
    terms: dict[str, float] = {tags.CONTENT: 0.0, tags.STYLE: 0.0, tags.WEIGHTED_STYLE: 0.0}
    count = len(styled)
    for n in range(count):
        ours, photo = (
            {
                layer: value[0].numpy().astype(np.float64)
                for layer, value in objective.network(tf.constant(picture[None])).items()
            }
            for picture in (styled[n], photos[n])
        )
        for layer in objective.content_layers:
            share = np.mean((ours[layer] - photo[layer]) ** 2) / count
            terms[tags.CONTENT] += share
            tag = tags.CONTENT_LAYER + layer
            terms[tag] = terms.get(tag, 0.0) + share
        for layer in objective.target_grams:
            target = np.tensordot(choice[n], objective.target_grams[layer], 1).astype(np.float64)
            difference = reference.gram(ours[layer]) - target
            share = (difference**2).sum() / (count * ours[layer].size)
            terms[tags.STYLE] += share
            terms[tags.WEIGHTED_STYLE] += share * float(choice[n] @ objective.style_weights)
            tag = tags.STYLE_LAYER + layer
            terms[tag] = terms.get(tag, 0.0) + share
    pixels = styled.astype(np.float64)
    terms[tags.VARIATION] = (
        np.mean(np.diff(pixels, axis=2) ** 2) + np.mean(np.diff(pixels, axis=1) ** 2)
    ) / 2
    terms[tags.WEIGHTED_CONTENT] = objective.content_weight * terms[tags.CONTENT]
    terms[tags.WEIGHTED_VARIATION] = objective.tv_weight * terms[tags.VARIATION]
    terms[tags.TOTAL] = (
        terms[tags.WEIGHTED_CONTENT] + terms[tags.WEIGHTED_STYLE] + terms[tags.WEIGHTED_VARIATION]
    )
    return terms


@pytest.mark.parametrize(
    ("content_layers", "choice"),
    [
        ((tiny.DEEP,), ONE_STYLE),
        ((tiny.SHALLOW, tiny.DEEP), ONE_STYLE),
        ((tiny.DEEP,), np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)),
        ((tiny.SHALLOW,), np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)),
    ],
    ids=["one style", "two content layers", "a style each", "a blend of styles"],
)
def test_every_term_equals_its_formula(
    network: LossNetwork,
    styled: np.ndarray,
    photos: np.ndarray,
    content_layers: tuple[str, ...],
    choice: np.ndarray,
) -> None:
    objective = make_objective(network, styles=choice.shape[1], content_layers=content_layers)
    got = numbers(objective.score(tf.constant(styled), tf.constant(photos), tf.constant(choice)))
    expected = expected_terms(objective, styled, photos, choice)
    assert got.keys() == expected.keys()
    for tag in got:
        # float32 through four convolutions, whose sums depend on the batch's size.
        assert got[tag] == pytest.approx(expected[tag], rel=1e-4), tag


def test_terms_are_named_as_the_ancestor_named_them(
    network: LossNetwork, styled: np.ndarray, photos: np.ndarray
) -> None:
    terms = make_objective(network).score(
        tf.constant(styled), tf.constant(photos), tf.constant(ONE_STYLE)
    )
    assert set(terms) == {
        "losses/content_loss",
        "losses/style_loss",
        "losses/regularizer_loss",
        "weighted_losses/weighted_content_loss",
        "weighted_losses/weighted_style_loss",
        "weighted_losses/weighted_regularizer_loss",
        "total_loss",
        "style_losses/vgg_16/conv1/conv1_2",
        "style_losses/vgg_16/conv2/conv2_2",
        "content_losses/vgg_16/conv2/conv2_2",
    }


def test_content_is_zero_on_the_photo_and_style_on_the_style(network: LossNetwork) -> None:
    objective = make_objective(network)
    style = tf.constant(tiny.smooth_picture(36, 32, 10)[None])
    terms = numbers(objective.score(tf.cast(style, tf.float32), style, tf.ones([1, 1])))
    other = tf.constant(tiny.smooth_picture(36, 32, 5)[None])
    scale = numbers(objective.score(tf.cast(other, tf.float32), style, tf.ones([1, 1])))
    assert terms[tags.CONTENT] == 0.0 < scale[tags.CONTENT]
    assert terms[tags.STYLE] < 1e-8 * scale[tags.STYLE]


def test_the_gradient_is_of_the_styled_picture_alone(
    network: LossNetwork, styled: np.ndarray, photos: np.ndarray
) -> None:
    objective = make_objective(network)
    inputs = tf.constant(styled), tf.constant(photos, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total = objective.score(*inputs, tf.constant(ONE_STYLE))[tags.TOTAL]
    for_styled, for_photos = tape.gradient(total, inputs)
    assert for_photos is None
    values = tf.convert_to_tensor(for_styled).numpy()
    assert np.isfinite(values).all()
    assert (np.abs(values).reshape(2, -1).max(axis=1) > 0).all()


def test_a_pictures_style_changes_only_its_own_loss(
    network: LossNetwork, styled: np.ndarray, photos: np.ndarray
) -> None:
    objective = make_objective(network, styles=2)

    def style_gradient(choice: list[list[float]]) -> np.ndarray:
        pictures = tf.constant(styled)
        with tf.GradientTape() as tape:
            tape.watch(pictures)
            terms = objective.score(pictures, tf.constant(photos), tf.constant(choice))
        return tape.gradient(terms[tags.WEIGHTED_STYLE], pictures).numpy()

    one, other = style_gradient([[1.0, 0.0], [1.0, 0.0]]), style_gradient([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(one[0], other[0], rtol=1e-4, atol=1e-6 * np.abs(one).max())
    assert np.abs(one[1] - other[1]).max() > 0.01 * np.abs(one).max()


def test_style_grams_are_those_of_each_picture_whatever_its_size(network: LossNetwork) -> None:
    pictures = [tiny.smooth_picture(36, 44, 1), tiny.smooth_picture(33, 35, 2)]
    grams = style_grams(network, (tiny.DEEP,), pictures)
    assert list(grams) == [tiny.DEEP]
    assert grams[tiny.DEEP].shape == (2, 128, 128)
    assert grams[tiny.DEEP].dtype == np.float32
    for picture, gram in zip(pictures, grams[tiny.DEEP], strict=True):
        features = network(tf.constant(picture[None]), (tiny.DEEP,))[tiny.DEEP][0].numpy()
        expected = reference.gram(features)
        np.testing.assert_allclose(gram, expected, rtol=1e-5, atol=1e-6 * expected.max())


def test_a_bfloat16_network_gives_the_terms_in_float32(
    world: tiny.World, network: LossNetwork, styled: np.ndarray, photos: np.ndarray
) -> None:
    inputs = tf.constant(styled), tf.constant(photos), tf.constant(ONE_STYLE)
    wide = make_objective(network).score(*inputs)
    narrow_network = build_loss_network("vgg_16", world.weights, LAYERS, dtype="bfloat16")
    narrow = make_objective(narrow_network).score(*inputs)
    for tag in wide:
        assert narrow[tag].dtype == tf.float32
        # bfloat16 keeps 8 bits, 0.2 to 0.4 % a layer, and losses are squares of differences.
        assert float(narrow[tag]) == pytest.approx(float(wide[tag]), rel=0.05), tag
