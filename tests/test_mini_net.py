from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import safetensors
import safetensors.numpy
import tensorflow as tf
import weight_files

from fast_style import objective as tags
from fast_style.config import RunConfig
from fast_style.errors import ConfigError, WeightsError
from fast_style.loss_net import LossNetwork, build_loss_network
from fast_style.mini_net import PIXEL_SCALE, metric
from fast_style.objective import Objective, style_grams
from fast_style.picture_loss import NORMALIZATIONS, PictureLoss

CHANNELS = (64, 64, 128, 128)
LAYERS = ("conv1/conv1_1", "conv1/conv1_2", "conv2/conv2_1", "conv2/conv2_2")
TAPS = ("conv1/conv1_2", "conv2/conv2_2")
BUNDLED_LAYERS = tuple(
    f"vgg_16/{layer}"
    for layer in ("conv1/conv1_2", "conv2/conv2_2", "conv3/conv3_3", "conv4/conv4_3")
)


def save(path: Path, tensors: Mapping[str, np.ndarray], teacher: str | None = "vgg_16") -> Path:
    header = {"teacher": teacher} if teacher else None
    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    path.write_bytes(safetensors.numpy.save(arrays, metadata=header))
    return path


def random_mini(widths: tuple[int, ...] = (5, 4, 7, 6), seed: int = 3) -> dict[str, np.ndarray]:
    """A narrow network, with a metric that distorts."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    inputs = 3
    for layer, width in zip(LAYERS, widths, strict=True):
        name = f"vgg_mini/{layer}"
        tensors[f"{name}/weights"] = rng.normal(0, 0.4, (3, 3, inputs, width)).astype(np.float32)
        tensors[f"{name}/biases"] = rng.normal(size=width).astype(np.float32)
        if layer in TAPS:
            tensors[f"{name}/metric"] = rng.normal(size=(width, width)).astype(np.float32)
            tensors[f"{name}/channels"] = np.array([4 * width], np.int32)
        inputs = width
    return tensors


def disguised_vgg(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The teacher itself as a mini network: its channels shuffled and scaled, and Q undoes it."""
    rng = np.random.default_rng(11)
    tensors: dict[str, np.ndarray] = {}
    order, scale = np.arange(3), np.full(3, 1.0 / PIXEL_SCALE)
    for layer, width in zip(LAYERS, CHANNELS, strict=True):
        kernel = weights[f"vgg_16/{layer}/weights"][:, :, order] / scale[:, None]
        order, scale = rng.permutation(width), rng.uniform(0.01, 0.1, width)
        name = f"vgg_mini/{layer}"
        tensors[f"{name}/weights"] = (kernel[..., order] * scale).astype(np.float32)
        bias = weights[f"vgg_16/{layer}/biases"][order] * scale
        tensors[f"{name}/biases"] = bias.astype(np.float32)
        if layer in TAPS:
            teacher_map = np.zeros((width, width))
            teacher_map[order, np.arange(width)] = 1.0 / scale
            tensors[f"{name}/metric"] = metric(teacher_map)
            tensors[f"{name}/channels"] = np.array([width], np.int32)
    return tensors


def pictures(count: int = 2, height: int = 35, width: int = 41, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (count, height, width, 3)).astype(np.float32)


def built(file: Path, layers: tuple[str, ...] = TAPS, **options: Any) -> LossNetwork:
    return build_loss_network("vgg_mini", file, [f"vgg_mini/{name}" for name in layers], **options)


def test_features_are_those_of_the_formula(tmp_path: Path) -> None:
    tensors = random_mini()
    network = built(save(tmp_path / "mini.safetensors", tensors))
    images = pictures()
    features = reference.vgg(tensors, "vgg_mini", LAYERS, images, PIXEL_SCALE)
    for layer in TAPS:
        expected = features[layer]
        found = network(tf.constant(images))[f"vgg_mini/{layer}"]
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
        np.testing.assert_array_equal(
            network.metrics[f"vgg_mini/{layer}"], tensors[f"vgg_mini/{layer}/metric"]
        )


@pytest.mark.parametrize("shape", [(5, 3), (4, 4), (9, 2)])
def test_a_metric_keeps_lengths_in_the_teachers_space(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    teacher_map = rng.normal(size=shape)
    features = rng.normal(size=(50, shape[1]))
    ours, theirs = features @ metric(teacher_map), features @ teacher_map.T
    # Means over channels, as losses take them.
    np.testing.assert_allclose(np.mean(ours**2), np.mean(theirs**2), rtol=1e-5)
    # Gram matrices are divided by the number of channels once.
    own_gram, teacher_gram = ours.T @ ours / shape[1], theirs.T @ theirs / shape[0]
    np.testing.assert_allclose(np.sum(own_gram**2), np.sum(teacher_gram**2), rtol=1e-5)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[LossNetwork, LossNetwork]:
    """A mini network that knows all its teacher knows, and the teacher."""
    folder = tmp_path_factory.mktemp("both")
    weights = weight_files.random_vgg("vgg_16", "conv2_2")
    vgg = weight_files.save_safetensors(folder / "vgg_16.safetensors", weights)
    mini = save(folder / "mini.safetensors", disguised_vgg(weights))
    return built(mini), build_loss_network("vgg_16", vgg, [f"vgg_16/{name}" for name in TAPS])


def test_training_losses_are_the_teachers(both: tuple[LossNetwork, LossNetwork]) -> None:
    style, photos, styled = pictures(1, seed=1), pictures(2, seed=2), pictures(2, seed=3)
    scores = []
    for network in both:
        grams = style_grams(network, network.layers, [style[0].astype(np.uint8)])
        objective = Objective(
            network, network.layers[1:], grams, np.array([30.0], np.float32), 1.0, 0.0
        )
        terms = objective.score(tf.constant(styled), tf.constant(photos), tf.ones([2, 1]))
        scores.append([float(terms[tag]) for tag in (tags.TOTAL, tags.CONTENT, tags.STYLE)])
    np.testing.assert_allclose(*scores, rtol=2e-4)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_losses_of_one_picture_are_the_teachers_in_every_normalization(
    both: tuple[LossNetwork, LossNetwork], normalization: str
) -> None:
    style, photo, picture = (pictures(1, seed=seed) for seed in (1, 2, 3))
    totals = []
    for network in both:
        loss = PictureLoss(
            network,
            normalization,
            {network.layers[1]: 1.0},
            dict.fromkeys(network.layers, 0.5),
            style_grams(network, network.layers, [style[0].astype(np.uint8)]),
            (1.0,),
            2.0,
            3.0,
            0.0,
        )
        features = network(tf.constant(photo), network.layers[1:])
        totals.append(float(loss.terms(tf.constant(picture), features)[tags.TOTAL]))
    np.testing.assert_allclose(*totals, rtol=2e-4)


def test_gradients_of_training_losses_are_the_teachers(
    both: tuple[LossNetwork, LossNetwork],
) -> None:
    style, photos = pictures(1, seed=1), pictures(2, seed=2)
    # Not of seed 3, where two pixels are so alike that rounding decides which one a pooling takes.
    styled = tf.constant(pictures(2, seed=8))
    gradients = []
    for network in both:
        grams = style_grams(network, network.layers, [style[0].astype(np.uint8)])
        objective = Objective(
            network, network.layers[1:], grams, np.array([30.0], np.float32), 1.0, 0.0
        )
        with tf.GradientTape() as tape:
            tape.watch(styled)
            terms = objective.score(styled, tf.constant(photos), tf.ones([2, 1]))
        gradients.append(tape.gradient(terms[tags.TOTAL], styled).numpy())
    scale = np.abs(gradients[1]).max()
    assert scale > 0
    assert np.abs(gradients[0] - gradients[1]).max() < 1e-3 * scale


def test_layers_go_by_the_teachers_names_too(tmp_path: Path) -> None:
    file = save(tmp_path / "mini.safetensors", random_mini())
    network = build_loss_network("vgg_mini", file, ["vgg_16/conv2/conv2_2"])
    images = tf.constant(pictures())
    np.testing.assert_array_equal(
        network(images)["vgg_16/conv2/conv2_2"], built(file)(images)["vgg_mini/conv2/conv2_2"]
    )
    assert network.channels == {"vgg_16/conv2/conv2_2": 24}
    with pytest.raises(ConfigError, match="unknown layer 'vgg_19/conv2/conv2_2'"):
        build_loss_network("vgg_mini", file, ["vgg_19/conv2/conv2_2"])


def test_a_layer_without_a_metric_is_told(tmp_path: Path) -> None:
    file = save(tmp_path / "mini.safetensors", random_mini())
    expected = "unknown layer 'vgg_mini/conv2/conv2_1'; did you mean 'vgg_mini/conv2/conv2_2'"
    with pytest.raises(ConfigError, match=expected):
        built(file, ("conv2/conv2_1",))


def test_it_keeps_its_own_pooling(tmp_path: Path) -> None:
    file = save(tmp_path / "mini.safetensors", random_mini())
    with pytest.raises(ConfigError, match="vgg_mini keeps its own pooling"):
        built(file, pooling="avg")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vgg_mini/conv1/conv1_2/weights": np.zeros((3, 3, 9, 4), np.float32)}, "has shape"),
        ({"vgg_mini/conv2/conv2_2/metric": np.zeros((6, 5), np.float32)}, "has shape"),
        ({"vgg_mini/conv1/conv1_1/weights": np.zeros(3, np.float32)}, "has shape"),
        ({"vgg_mini/conv1/conv1_1/biases": None}, "is missing"),
        ({"vgg_mini/conv2/conv2_2/channels": None}, "is missing"),
        ({"vgg_mini/conv1/conv1_1/biases": np.full(5, np.nan, np.float32)}, "not finite"),
        ({"vgg_mini/conv1/conv1_1/metric": np.eye(5, dtype=np.float32)}, "channels' is missing"),
        ({"vgg_mini/conv2/conv2_1/channels": np.array([9])}, "channels' is none of its variables"),
        ({"vgg_mini/fc6/weights": np.zeros(3)}, "fc6/weights' is none of its variables"),
        ({"vgg_mini/conv2/conv2_2/channels": np.array([0])}, "channels' is 0, expected a whole"),
        ({"vgg_mini/conv2/conv2_2/channels": np.array([2.5])}, "channels' is 2.5, expected a"),
    ],
)
def test_a_file_that_does_not_fit_is_told(
    tmp_path: Path, change: Mapping[str, np.ndarray | None], message: str
) -> None:
    tensors = {k: v for k, v in {**random_mini(), **change}.items() if v is not None}
    with pytest.raises(WeightsError, match=message):
        built(save(tmp_path / "mini.safetensors", tensors))


@pytest.mark.parametrize("teacher", ["vgg_16", None])
@pytest.mark.parametrize("missing", [("conv1/conv1_1",), ("conv2/conv2_1",), LAYERS[:2]])
def test_a_network_that_lacks_a_convolution_is_refused(
    tmp_path: Path, missing: tuple[str, ...], teacher: str | None
) -> None:
    # The kernels that are left fit each other.
    tensors = {
        name: value
        for name, value in random_mini((3, 3, 3, 3)).items()
        if not any(layer in name for layer in missing)
    }
    with pytest.raises(WeightsError, match=f"convolution {missing[0]} is missing"):
        built(save(tmp_path / "mini.safetensors", tensors, teacher), TAPS[1:])


def test_a_network_that_lacks_the_last_convolution_of_a_block_is_refused(tmp_path: Path) -> None:
    tensors = {k: v for k, v in random_mini((3, 3, 3, 3)).items() if "conv1_2" not in k}
    with pytest.raises(WeightsError, match="convolution conv1/conv1_2 is missing"):
        built(save(tmp_path / "mini.safetensors", tensors), TAPS[1:])


def test_another_networks_weights_are_told(tmp_path: Path) -> None:
    weights = weight_files.random_vgg("vgg_16", "conv1_2")
    file = weight_files.save_safetensors(tmp_path / "vgg.safetensors", weights)
    with pytest.raises(WeightsError, match="no distilled loss network"):
        built(file)


# Configuration.


def test_another_loss_model_leaves_the_files_weights_behind(tmp_path: Path) -> None:
    from fast_style.config import load_config

    path = tmp_path / "run.yml"
    path.write_text(
        "naming: a\nstyle_image: a.jpg\nstyle_weight: 1\nsteps: 1\nloss_model: vgg_16\n"
        "loss_model_file: mine.ckpt\ncontent_layers: [vgg_16/conv3/conv3_3]\n"
    )
    assert load_config(path).loss_model_file == "mine.ckpt"
    assert load_config(path, ["loss_model=vgg_16"]).loss_model_file == "mine.ckpt"
    mini = load_config(path, ["loss_model=vgg_mini"])
    assert mini.loss_model_file == "pretrained/vgg_mini.safetensors"
    assert mini.content_layers == ("vgg_16/conv3/conv3_3",)
    given = load_config(path, ["loss_model=vgg_mini", "loss_model_file=b.safetensors"])
    assert given.loss_model_file == "b.safetensors"


@pytest.mark.parametrize("loss_model", ["vgg_16", "vgg_19", "inception_v1"])
def test_weights_are_expected_under_the_networks_name(loss_model: str) -> None:
    config = RunConfig(
        naming="a",
        style_image="a.jpg",
        style_weight=1.0,
        steps=1,
        loss_model=loss_model,
        content_layers=(f"{loss_model}/conv1/conv1_1",),
        style_layers=(f"{loss_model}/conv1/conv1_1",),
    )
    assert config.loss_model_file == f"pretrained/{loss_model}.ckpt"


def test_the_bundled_file_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fast_style.loss_models import BUNDLED
    from fast_style.loss_weights import resolve_weights_file

    monkeypatch.chdir(tmp_path)
    root = Path(__file__).parents[1]
    assert resolve_weights_file(BUNDLED, "vgg_mini").samefile(root / BUNDLED)
    # One of one's own comes first, and other names stand for nothing else.
    (tmp_path / BUNDLED).parent.mkdir()
    save(tmp_path / BUNDLED, random_mini())
    assert resolve_weights_file(BUNDLED, "vgg_mini") == BUNDLED
    for name in ("other.safetensors", "elsewhere/vgg_mini.safetensors", "vgg_mini.safetensors"):
        with pytest.raises(WeightsError, match=re.escape(f"{name}: the weights")):
            resolve_weights_file(name, "vgg_mini")


def test_the_bundled_file_is_what_the_readme_says() -> None:
    from fast_style.loss_models import BUNDLED

    file = Path(__file__).parents[1] / BUNDLED
    assert file.stat().st_size <= 3_000_000
    network = build_loss_network("vgg_mini", file, BUNDLED_LAYERS)
    assert network.channels == dict(zip(BUNDLED_LAYERS, (64, 128, 256, 512), strict=True))
    with safetensors.safe_open(str(file), framework="np") as archive:
        header = archive.metadata()
    assert header["teacher"] == "vgg_16" and "CC BY 4.0" in header["licence"]
    description = json.loads(header["description"])
    assert re.fullmatch("[0-9a-f]{64}", description["teacher_sha256"])
    assert description["losses"]
    # Where its maker keeps files is nobody's business.
    places = ("teacher_file", "dataset", "styles", "val_dataset", "val_styles", "output")
    for key in (*places, "run_folder", "init_from"):
        assert not re.search(r"[/\\]", description["config"][key] or ""), key


def test_the_notice_goes_wherever_the_file_goes() -> None:
    from fast_style.loss_models import BUNDLED

    root = Path(__file__).parents[1]
    packaging = (root / "pyproject.toml").read_text(encoding="utf-8")
    assert 'license-files = ["LICENSE", "NOTICE"]' in packaging
    assert BUNDLED.name in packaging
    assert BUNDLED.as_posix() in (root / "NOTICE").read_text(encoding="utf-8")
