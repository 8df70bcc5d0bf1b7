from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import weight_files
from weight_files import FORMATS, Weights

from fast_style import loss_weights
from fast_style.errors import WeightsError
from fast_style.loss_weights import read_weights, resolve_weights_file, weights_sha256

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="module")
def vgg() -> dict[str, np.ndarray]:
    return weight_files.random_vgg("vgg_16", "conv2_1")


def assert_holds(file: Path, expected: Weights, network: str = "vgg_16") -> None:
    weights = read_weights(file, network)
    assert set(weights) == set(expected)
    for name, value in expected.items():
        assert weights[name].dtype == np.float32
        np.testing.assert_array_equal(weights[name], value, err_msg=name)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_back_the_same_numbers_under_the_same_names(
    kind: str, vgg: Weights, tmp_path: Path
) -> None:
    name, save = FORMATS[kind]
    assert_holds(save(tmp_path / name, vgg), vgg)


@pytest.mark.parametrize(
    "names",
    [
        "{0}/{0}/kernel:0 {0}/{0}/bias:0",
        "model_weights/{0}/{0}/kernel model_weights/{0}/{0}/bias",
    ],
)
def test_keras_files_of_later_versions_are_read(names: str, vgg: Weights, tmp_path: Path) -> None:
    assert_holds(weight_files.save_keras(tmp_path / "a.h5", vgg, names), vgg)


def test_keras_files_that_number_their_layers_are_read(vgg: Weights, tmp_path: Path) -> None:
    names = "layers/{0}/vars/0 layers/{0}/vars/1"
    file = weight_files.save_keras(tmp_path / "a.weights.h5", vgg, names, numbered=True)
    assert_holds(file, vgg)


def test_optimizer_slots_in_keras_files_are_not_weights(vgg: Weights, tmp_path: Path) -> None:
    file = weight_files.save_keras(tmp_path / "a.h5", vgg)
    with h5py.File(file, "a") as archive:
        archive["optimizer_weights/block1_conv1/kernel:0"] = np.zeros((3, 3, 3, 64))
    assert_holds(file, vgg)


def test_matconvnet_files_of_the_older_releases_are_read(vgg: Weights, tmp_path: Path) -> None:
    file = weight_files.save_matconvnet(tmp_path / "a.mat", vgg, old_release=True)
    assert_holds(file, vgg)


@pytest.mark.parametrize("old_release", [False, True])
def test_matconvnet_files_with_a_bgr_average_are_turned_to_rgb(
    old_release: bool, vgg: Weights, tmp_path: Path
) -> None:
    file = weight_files.save_matconvnet(tmp_path / "a.mat", vgg, bgr=True, old_release=old_release)
    assert_holds(file, vgg)


def test_sixteen_bit_floats_become_float32(tmp_path: Path) -> None:
    values = np.linspace(-1, 1, 7)
    file = tmp_path / "half.safetensors"
    halves = {
        "brain": values.astype(ml_dtypes.bfloat16),
        "half": values.astype(np.float16),
    }
    safetensors.numpy.save_file(halves, file)
    assert_holds(file, {name: value.astype(np.float32) for name, value in halves.items()})


def test_the_content_decides_the_format_and_not_the_suffix(vgg: Weights, tmp_path: Path) -> None:
    file = weight_files.save_safetensors(tmp_path / "a.safetensors", vgg)
    assert_holds(file.rename(tmp_path / "vgg_16.ckpt"), vgg)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_cut_short_is_refused(kind: str, vgg: Weights, tmp_path: Path) -> None:
    name, save = FORMATS[kind]
    save(tmp_path / name, vgg)
    victim = next(p for p in (tmp_path / name, *tmp_path.glob("*.data-*")) if p.is_file())
    os.truncate(victim, victim.stat().st_size * 3 // 5)
    with pytest.raises(WeightsError, match="cut short"):
        dict(read_weights(tmp_path / name, "vgg_16"))


# Keras, MatConvNet without compression, and safetensors files carry no checksums.
@pytest.mark.parametrize("kind", ["TF-Slim V1", "TF-Slim V2", "npz"])
def test_a_flipped_byte_is_noticed_where_the_format_has_checksums(
    kind: str, vgg: Weights, tmp_path: Path
) -> None:
    name, save = FORMATS[kind]
    save(tmp_path / name, vgg)
    victim = next(p for p in (tmp_path / name, *tmp_path.glob("*.data-*")) if p.is_file())
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 0x10
    victim.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged.*; copy or download it again"):
        dict(read_weights(tmp_path / name, "vgg_16"))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    file = weight_files.save_npz(tmp_path / "a.npz", {"w": np.array([1.0, np.nan])})
    with pytest.raises(WeightsError, match="'w' holds values that are not finite"):
        read_weights(file, "vgg_16")["w"]


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, w=np.array([{"run": "me"}], object))
    with pytest.raises(WeightsError, match="'w' cannot be read"):
        read_weights(file, "vgg_16")["w"]


def test_a_picture_is_not_a_weights_file(tmp_path: Path) -> None:
    file = tmp_path / "vgg_16.ckpt"
    file.write_bytes(b"\xff\xd8\xff\xe0 not weights at all")
    with pytest.raises(WeightsError, match="not a weights file, or one that was cut short"):
        read_weights(file, "vgg_16")


def test_an_empty_file_is_not_a_weights_file(tmp_path: Path) -> None:
    file = tmp_path / "vgg_16.h5"
    file.touch()
    with pytest.raises(WeightsError, match=r"not a weights file.*\(0 bytes\)"):
        read_weights(file, "vgg_16")


def test_an_hdf5_file_without_vgg_layers_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as archive:
        archive["dense/kernel"] = np.zeros((2, 2))
    with pytest.raises(WeightsError, match="no VGG convolutions in this Keras file"):
        read_weights(tmp_path / "a.h5", "vgg_16")


@pytest.mark.parametrize(
    ("held", "asked", "deepest"),
    [("vgg_19", "vgg_16", "conv3_4"), ("vgg_16", "vgg_19", "conv4_1")],
)
@pytest.mark.parametrize("save", [weight_files.save_keras, weight_files.save_matconvnet])
def test_the_other_vgg_is_noticed_although_its_shallow_layers_fit(
    save: Callable[[Path, Weights], Path], held: str, asked: str, deepest: str, tmp_path: Path
) -> None:
    thin = {
        f"{weight_files.scope_of(held, layer)}/{part}": np.zeros(shape, np.float32)
        for layer in weight_files.vgg_layers(held, deepest)
        for part, shape in (("weights", (3, 3, 2, 2)), ("biases", (2,)))
    }
    file = save(tmp_path / "weights", thin)
    file = file if file.exists() else file.with_suffix(".mat")
    advice = f"set teacher to {held} or teacher_file to a file of {asked}"
    with pytest.raises(WeightsError, match=f"weights of {held}, not of {asked}; {advice}"):
        read_weights(file, asked, key="teacher_file")


def test_keras_files_of_other_networks_are_refused(vgg: Weights, tmp_path: Path) -> None:
    file = weight_files.save_keras(tmp_path / "a.h5", vgg)
    with pytest.raises(WeightsError, match="for vgg_16 and vgg_19 only, not for resnet_v1_50"):
        read_weights(file, "resnet_v1_50")


def test_a_keras_file_whose_arrays_are_elsewhere_is_refused(tmp_path: Path) -> None:
    """A dataset can name any file of the disk as its content."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(3 * 3 * 3 * 4 * 4))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset(
            "block1_conv1/kernel", (3, 3, 3, 4), "f4", external=[(str(secret), 0, 432)]
        )
    with pytest.raises(WeightsError, match="block1_conv1/kernel is kept in another file"):
        read_weights(tmp_path / "a.h5", "vgg_16")


def test_a_keras_file_with_damaged_names_is_refused(vgg: Weights, tmp_path: Path) -> None:
    """h5py's own way to visit all items never came back from such files."""
    file = weight_files.save_keras(tmp_path / "a.h5", vgg)
    content = file.read_bytes()
    assert content.count(b"HEAP") > 1
    for damaged in range(content.count(b"HEAP")):
        parts = content.split(b"HEAP")
        file.write_bytes(
            b"HEAP".join(parts[: damaged + 1]) + b"HEAQ" + b"HEAP".join(parts[damaged + 1 :])
        )
        with pytest.raises(WeightsError, match=r"a\.h5: .*(damaged|lacks)"):
            read_weights(file, "vgg_16")


def test_a_keras_file_that_holds_itself_is_refused(vgg: Weights, tmp_path: Path) -> None:
    file = weight_files.save_keras(tmp_path / "a.h5", vgg)
    with h5py.File(file, "a") as archive:
        archive["a/b"] = archive["/"]
    with pytest.raises(WeightsError, match=r"a\.h5: .*more than 10,000 items"):
        read_weights(file, "vgg_16")


def test_a_keras_file_that_claims_more_than_memory_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:  # Without a byte of data behind it.
        file.create_dataset("block1_conv1/kernel", (9999, 9999, 9, 4), "f4", chunks=(9, 9, 9, 4))
    weights = read_weights(tmp_path / "a.h5", "vgg_16")
    with pytest.raises(WeightsError, match="conv1_1/weights' cannot be read: more than 1,073,"):
        weights["vgg_16/conv1/conv1_1/weights"]


def test_an_archive_that_claims_more_than_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_weights, "_MOST_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", bytes((1 << 20) + 1))  # A thousand bytes, packed.
    with pytest.raises(WeightsError, match="'w' cannot be read: more than 1,048,576 bytes"):
        read_weights(tmp_path / "a.npz", "vgg_16")["w"]


def test_a_variable_whose_name_is_damage_is_told_in_a_short_sentence(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("n" * 8000 + ".npy", b"no array")
    weights = read_weights(tmp_path / "a.npz", "vgg_16")
    with pytest.raises(WeightsError) as caught:
        weights["n" * 8000]
    assert len(str(caught.value)) < 700


def test_a_name_that_the_file_lacks_is_a_key_error(vgg: Weights, tmp_path: Path) -> None:
    weights = read_weights(weight_files.save_npz(tmp_path / "a.npz", vgg), "vgg_16")
    assert "vgg_16/fc6/weights" not in weights
    with pytest.raises(KeyError, match="vgg_16/fc6/weights"):
        weights["vgg_16/fc6/weights"]


def test_a_missing_file_is_replaced_by_its_neighbour_of_another_format(tmp_path: Path) -> None:
    (tmp_path / "vgg_16.h5").touch()
    found = resolve_weights_file(tmp_path / "vgg_16.ckpt", "vgg_16")
    assert found == tmp_path / "vgg_16.h5"


def test_a_file_that_exists_wins_over_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "vgg_16.h5").touch()
    (tmp_path / "vgg_16.mat").touch()
    assert resolve_weights_file(tmp_path / "vgg_16.mat") == tmp_path / "vgg_16.mat"


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001"])
def test_a_v2_checkpoint_is_found_by_its_prefix_and_by_its_files(
    suffix: str, tmp_path: Path
) -> None:
    for part in ("index", "data-00000-of-00001"):
        (tmp_path / f"vgg_16.ckpt.{part}").touch()
    found = resolve_weights_file(f"{tmp_path / 'vgg_16.ckpt'}{suffix}")
    assert found == tmp_path / "vgg_16.ckpt"


@pytest.mark.parametrize(
    ("network", "advice"),
    [
        ("vgg_19", "`python -m fast_style fetch vgg_19` gets it, or point loss_model_file"),
        (
            "resnet_v1_50",
            "Download a TF-Slim checkpoint of this network, and point loss_model_file",
        ),
        ("vgg_mini", "`python -m fast_style distill` makes such a file; point loss_model_file"),
    ],
)
def test_missing_weights_are_explained_in_two_lines(
    network: str, advice: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError) as caught:
        resolve_weights_file(tmp_path / "none.ckpt", network)
    first, second = str(caught.value).splitlines()
    assert f"none.ckpt: the weights of the loss network {network} are missing" in first
    assert second.startswith(advice)


def test_messages_name_the_key_that_a_file_was_given_by(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="or point teacher_file at your own"):
        resolve_weights_file(tmp_path / "none.ckpt", "vgg_16", key="teacher_file")
    with pytest.raises(WeightsError, match="no such weights file; check teacher_file"):
        read_weights(tmp_path / "none.ckpt", "vgg_16", key="teacher_file")


def test_an_empty_path_counts_as_missing() -> None:
    with pytest.raises(WeightsError, match="are missing"):
        resolve_weights_file("")


def test_the_hash_of_a_v2_checkpoint_covers_index_and_data(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt.index").write_bytes(b"index")
    (tmp_path / "a.ckpt.data-00000-of-00002").write_bytes(b"one")
    (tmp_path / "a.ckpt.data-00001-of-00002").write_bytes(b"two")
    expected = hashlib.sha256(b"indexonetwo").hexdigest()
    assert weights_sha256(tmp_path / "a.ckpt") == expected


def test_the_hash_of_a_single_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"weights")
    assert weights_sha256(tmp_path / "a.npz") == hashlib.sha256(b"weights").hexdigest()


def test_the_hash_of_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        weights_sha256(tmp_path / "none.npz")


@pytest.mark.shared
@pytest.mark.parametrize(
    ("file", "network", "deepest"),
    [("vgg_16.ckpt", "vgg_16", "conv4_3"), ("vgg_19_conv1-conv3.ckpt", "vgg_19", "conv3_4")],
)
def test_the_real_checkpoints_hold_every_layer_they_should(
    file: str, network: str, deepest: str
) -> None:
    weights = read_weights(SHARED / "pretrained" / file, network)
    for layer in weight_files.vgg_layers(network, deepest):
        scope = weight_files.scope_of(network, layer)
        assert weights[f"{scope}/weights"].shape[:2] == (3, 3)
        assert weights[f"{scope}/biases"].ndim == 1
