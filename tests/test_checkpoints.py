from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest
import reference
import safetensors.numpy
import tensorflow as tf
import tiny
from PIL import Image

from fast_style import checkpoints, provenance
from fast_style.checkpoints import (
    CHECKPOINT_STEM,
    MODEL_FILE,
    Model,
    load_model,
    newest_checkpoint,
    read_checkpoint,
    remove_partial_files,
    save_checkpoint,
    save_model,
    tensor_problems,
)
from fast_style.checks import plain_name
from fast_style.errors import FastStyleError, ModelError

RUN = {"config": {"naming": "candy", "arch": "johnson", "width": 0.125}, "style_names": ["candy"]}


def state_of(model: Model, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights and Adam's moments, as training saves them."""
    rng = np.random.default_rng(seed)
    state = dict(model.weights)
    for name, value in model.weights.items():
        for slot in ("Adam", "Adam_1"):
            state[f"{name}/{slot}"] = rng.standard_normal(value.shape).astype(np.float32)
    return state


def save_steps(folder: Path, *steps: int, keep: int = 5) -> None:
    for step in steps:
        save_checkpoint(folder, step, {"a": tf.constant([float(step)])}, {}, keep=keep)


def steps_in(folder: Path) -> list[int]:
    found = [path.name.removesuffix(".index") for path in folder.glob("*.index")]
    return sorted(int(name.removeprefix(f"{CHECKPOINT_STEM}-")) for name in found)


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """The system refuses to write files beyond 1000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- training checkpoints ------------------------------------------------------------------------


def test_checkpoint_gives_back_weights_moments_step_and_run(tmp_path: Path) -> None:
    state = state_of(nets.johnson())
    prefix = save_checkpoint(tmp_path / "models/candy", 1200, state, RUN, keep=5)
    assert prefix == tmp_path / "models/candy" / "fast-style-model.ckpt-1200"
    tensors, run = read_checkpoint(prefix)
    assert run == RUN
    assert tensors.pop("global_step") == 1200
    assert "res1/conv1/weight/Adam" in tensors and "res1/conv1/weight/Adam_1" in tensors
    assert tensors.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(tensors[name], value)


def test_variables_are_saved_like_arrays(tmp_path: Path) -> None:
    prefix = save_checkpoint(tmp_path, 1, {"a": tf.Variable(tf.constant([1.5, 2.5]))}, {}, keep=1)
    np.testing.assert_array_equal(read_checkpoint(prefix)[0]["a"], [1.5, 2.5])


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    save_steps(tmp_path, 8, 9, 10, 11, keep=3)
    assert steps_in(tmp_path) == [9, 10, 11]
    assert len(list(tmp_path.iterdir())) == 6  # Two files each, nothing else.


def test_newest_checkpoint_goes_by_number_not_by_name(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    save_steps(tmp_path, 9, 10)
    assert newest_checkpoint(tmp_path) == tmp_path / f"{CHECKPOINT_STEM}-10"


def test_newest_checkpoint_of_no_folder_is_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "nowhere") is None


def write_done(folder: Path, step: int) -> Path:
    """What the 2016 tool writes when training ends, in V2 format."""
    done = folder / f"{CHECKPOINT_STEM}-done"
    tf.raw_ops.SaveV2(
        prefix=str(done),
        tensor_names=["global_step"],
        shape_and_slices=[""],
        tensors=[tf.constant(step, tf.int64)],
    )
    return done


def test_done_is_newer_than_the_steps_before_it(tmp_path: Path) -> None:
    done = write_done(tmp_path, 41391)
    assert newest_checkpoint(tmp_path) == done
    save_steps(tmp_path, 41000)
    assert newest_checkpoint(tmp_path) == done


def test_a_run_that_went_on_from_done_is_newer_than_it(tmp_path: Path) -> None:
    write_done(tmp_path, 41391)
    save_steps(tmp_path, 41000, 42000)
    assert newest_checkpoint(tmp_path) == tmp_path / f"{CHECKPOINT_STEM}-42000"


def test_a_damaged_done_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    done = write_done(tmp_path, 41391)
    save_steps(tmp_path, 42000)
    Path(f"{done}.index").write_bytes(b"")
    assert newest_checkpoint(tmp_path) == done
    with pytest.raises(ModelError, match="ckpt-done: cannot be read as a TensorFlow checkpoint"):
        load_model(tmp_path)


def test_what_an_interrupted_write_left_is_ignored_and_removed(tmp_path: Path) -> None:
    save_steps(tmp_path, 1)
    kept = {path.name for path in tmp_path.iterdir()}
    leftovers = [
        f".partial-{CHECKPOINT_STEM}-2.data-00000-of-00001",
        f".partial-{CHECKPOINT_STEM}-2.data-00000-of-00001.tempstate123",
        f".partial-{CHECKPOINT_STEM}-2.index",
        f"{CHECKPOINT_STEM}-2.data-00000-of-00001",  # Renamed, but its index was not.
    ]
    for name in leftovers:
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    assert newest_checkpoint(tmp_path) == tmp_path / f"{CHECKPOINT_STEM}-1"
    remove_partial_files(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept | {"notes.txt"}


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, state_of(nets.johnson()), RUN, keep=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    expected = r"ckpt-2: cannot write this checkpoint \(File too large\); free some space"
    with full_disk(), pytest.raises(FastStyleError, match=expected):
        save_checkpoint(tmp_path, 2, state_of(nets.johnson(), seed=1), RUN, keep=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert read_checkpoint(tmp_path / f"{CHECKPOINT_STEM}-1")[0]["global_step"] == 1


@pytest.mark.parametrize("renames_before", [0, 1])
def test_a_rename_that_fails_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames_before: int
) -> None:
    save_steps(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    rename, done = os.replace, []

    def replace(source: str, target: str) -> None:
        if len(done) == renames_before:
            raise PermissionError(13, "Permission denied")
        done.append(target)
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.os, "replace", replace)
        with pytest.raises(FastStyleError, match=r"ckpt-2: .* \(Permission denied\)"):
            save_steps(tmp_path, 2, keep=1)
    assert len(done) == renames_before
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_in_the_folders_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "candy").write_text("mine")
    with pytest.raises(FastStyleError, match=r"candy: cannot create this folder \(File exists\)"):
        save_steps(tmp_path / "candy", 1)
    assert (tmp_path / "candy").read_text() == "mine"


def test_folders_may_have_names_that_look_like_patterns(tmp_path: Path) -> None:
    folder = tmp_path / "runs [1] *?"
    prefix = save_checkpoint(folder, 7, state_of(nets.johnson()), RUN, keep=1)
    assert read_checkpoint(prefix)[0]["global_step"] == 7
    assert load_model(folder).arch == "johnson"


# --- the 2016 implementation's checkpoints -------------------------------------------------------


@pytest.fixture(scope="module")
def old_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """A folder with what TensorFlow 1 wrote: `v1/` and `v2/`, and the weights in them."""
    folder = tmp_path_factory.mktemp("models")
    weights = nets.random_weights("slim2016", seed=4)
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        variables = [v1.Variable(value, name=name) for name, value in weights.items()]
        loss = tf.add_n([tf.reduce_sum(tf.square(variable)) for variable in variables])
        step = v1.train.create_global_step()
        update = v1.train.AdamOptimizer(1e-3).minimize(loss, global_step=step)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            session.run(update)
            trained = session.run({variable.op.name: variable for variable in variables})
            for name, version in (("v1", v1.train.SaverDef.V1), ("v2", v1.train.SaverDef.V2)):
                (folder / name).mkdir()
                prefix = str(folder / name / f"{CHECKPOINT_STEM}-done")
                saver = v1.train.Saver(write_version=version)
                saver.save(session, prefix, write_meta_graph=False)
                Path(f"{prefix}.meta").write_bytes(b"the graph")
    return folder, trained


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_checkpoints_of_2016_load_and_give_their_pixels(
    old_run: tuple[Path, dict[str, np.ndarray]], version: str
) -> None:
    folder, weights = old_run
    model = load_model(folder / version)
    assert (model.arch, model.width, model.style_names) == ("slim2016", 1.0, (version,))
    assert model.label == version  # The folder's name: the file's says nothing.
    assert model.metadata == {}
    image = tiny.smooth_picture(17, 23, 0)
    got = nets.stylize_eagerly(model, image[None])
    expected = reference.slim2016(weights, image[None])
    # float32 against float64 through some twenty layers, on a scale of 255.
    np.testing.assert_allclose(got, expected, atol=0.1)


def test_checkpoints_of_2016_hold_what_training_needs_to_go_on(
    old_run: tuple[Path, dict[str, np.ndarray]],
) -> None:
    folder, weights = old_run
    tensors, run = read_checkpoint(folder / "v1" / f"{CHECKPOINT_STEM}-done")
    assert run == {}
    assert tensors["global_step"] == 1
    expected = {"global_step", "beta1_power", "beta2_power"}
    for name in weights:
        expected |= {name, f"{name}/Adam", f"{name}/Adam_1"}
    assert tensors.keys() == expected


@pytest.mark.parametrize("suffix", ["", ".meta"])
def test_a_v1_checkpoint_is_found_by_its_file(
    old_run: tuple[Path, dict[str, np.ndarray]], suffix: str
) -> None:
    folder, weights = old_run
    model = load_model(folder / "v1" / f"{CHECKPOINT_STEM}-done{suffix}")
    assert model.weights.keys() == weights.keys()


def test_a_numbered_v1_checkpoint_is_found_in_its_folder(
    old_run: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    source = old_run[0] / "v1" / f"{CHECKPOINT_STEM}-done"
    shutil.copy(source, tmp_path / f"{CHECKPOINT_STEM}-1000")
    (tmp_path / f"{CHECKPOINT_STEM}-1000.meta").write_bytes(b"the graph")
    assert newest_checkpoint(tmp_path) == tmp_path / f"{CHECKPOINT_STEM}-1000"
    assert load_model(tmp_path).arch == "slim2016"


# --- model files ---------------------------------------------------------------------------------


def test_model_file_gives_back_the_model(tmp_path: Path) -> None:
    model = dataclasses.replace(
        nets.johnson(3), metadata={"config": {"naming": "three", "seed": 0}, "steps": 40000}
    )
    save_model(tmp_path / MODEL_FILE, model)
    got = load_model(tmp_path / MODEL_FILE)
    assert (got.arch, got.width, got.style_names) == ("johnson", 0.125, nets.STYLES)
    assert got.metadata == model.metadata
    assert got.source == tmp_path / MODEL_FILE
    assert list(got.weights) == list(model.weights)
    for name, value in model.weights.items():
        assert got.weights[name].dtype == np.float32
        np.testing.assert_array_equal(got.weights[name], value)


def test_sixteen_bits_change_weights_by_one_part_in_2048(tmp_path: Path) -> None:
    model = nets.johnson()
    rng = np.random.default_rng(1)
    exact = {
        name: (value + 1e-3 * rng.standard_normal(value.shape)).astype(np.float32)
        for name, value in model.weights.items()
    }
    save_model(tmp_path / MODEL_FILE, dataclasses.replace(model, weights=exact))
    got = load_model(tmp_path / MODEL_FILE).weights
    for name, value in exact.items():
        # float16 rounds to 11 bits; below 2^-14 its steps are 2^-24.
        assert (np.abs(got[name] - value) <= np.abs(value) * 2**-11 + 2**-25).all(), name
    assert any((got[name] != value).any() for name, value in exact.items())


def test_anyone_can_read_how_a_model_was_made(tmp_path: Path) -> None:
    model = dataclasses.replace(nets.johnson(), metadata={**RUN, "style_sha256": ["ab12"]})
    save_model(tmp_path / MODEL_FILE, model)
    content = (tmp_path / MODEL_FILE).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])["__metadata__"]
    assert (header["format"], header["arch"], header["width"]) == ("fast-style", "johnson", "0.125")
    assert json.loads(header["style_names"]) == ["waves"]
    assert json.loads(header["metadata"])["config"]["naming"] == "candy"
    assert json.loads(header["metadata"])["style_sha256"] == ["ab12"]
    weights = sum(value.size for value in model.weights.values())
    assert len(content) - 8 - length == 2 * weights


@pytest.mark.parametrize("value", [1e5, np.inf, np.nan])
def test_weights_that_do_not_fit_sixteen_bits_are_refused(tmp_path: Path, value: float) -> None:
    model = nets.johnson()
    broken = {**model.weights, "conv2/offset": np.full((1, 8), value, np.float32)}
    expected = r"weight conv2/offset has values up to .* which do not fit 16-bit floats"
    with pytest.raises(FastStyleError, match=expected):
        save_model(tmp_path / MODEL_FILE, dataclasses.replace(model, weights=broken))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_model_file_before(tmp_path: Path) -> None:
    save_model(tmp_path / MODEL_FILE, nets.johnson())
    before = (tmp_path / MODEL_FILE).read_bytes()
    expected = r"model.safetensors: cannot write this file \(File too large\)"
    with full_disk(), pytest.raises(FastStyleError, match=expected):
        save_model(tmp_path / MODEL_FILE, nets.johnson(3))
    assert [path.name for path in tmp_path.iterdir()] == [MODEL_FILE]
    assert (tmp_path / MODEL_FILE).read_bytes() == before


@pytest.mark.parametrize(
    ("naming", "file", "label"),
    [
        ("wave", "runs/x/model.safetensors", "wave"),
        (None, "runs/great wave/model.safetensors", "great wave"),
        (None, "wave.safetensors", "wave"),
        (None, "runs/wave/fast-style-model.ckpt-done", "wave"),
        ("../../etc/passwd", "model.safetensors", "_.._etc_passwd"),
        ("..", "model.safetensors", "styled"),
        ("a" * 300, "model.safetensors", "a" * 50),
        (7, "model.safetensors", "7"),
        (None, "(wave, -.safetensors", "wave"),
        (None, "星" * 60 + ".safetensors", "星" * 33),
    ],
)
def test_label_is_a_plain_name_for_files(naming: Any, file: str, label: str) -> None:
    metadata = {"config": {"naming": naming}} if naming else {}
    assert Model("johnson", 1.0, ("a",), {}, metadata, Path(file)).label == label
    problems: list[str] = []
    plain_name("label", label, problems)
    assert not problems


# --- where models are found ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of 2 styles and no model file yet."""
    folder = tmp_path_factory.mktemp("models") / "candy"
    run = {**RUN, "style_names": ["waves", "glass"]}
    for step in (9, 10):
        state = state_of(nets.johnson(2))
        state["out/bias"] = np.full_like(state["out/bias"], step / 100)
        save_checkpoint(folder, step, state, run, keep=5)
    return folder


@pytest.mark.parametrize(
    ("place", "step"),
    [
        (".", 10),
        (f"{CHECKPOINT_STEM}-9", 9),
        (f"{CHECKPOINT_STEM}-9.index", 9),
        (f"{CHECKPOINT_STEM}-9.data-00000-of-00001", 9),
    ],
)
def test_checkpoints_load_as_models(run_folder: Path, place: str, step: int) -> None:
    model = load_model(run_folder / place)
    assert (model.arch, model.width, model.style_names) == ("johnson", 0.125, ("waves", "glass"))
    assert list(model.weights) == list(nets.johnson(2).weights)  # No moments, no step.
    np.testing.assert_array_equal(model.weights["out/bias"], np.float32(step / 100))
    assert model.label == "candy"


def test_a_folders_model_file_comes_before_its_checkpoints(
    run_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(run_folder, tmp_path / "candy")
    save_model(folder / MODEL_FILE, nets.johnson())
    assert load_model(folder).style_names == ("waves",)
    assert load_model(str(folder)).source == folder / MODEL_FILE


# --- models that cannot be used ------------------------------------------------------------------


def model_file(path: Path) -> Path:
    save_model(path / MODEL_FILE, nets.johnson())
    return path / MODEL_FILE


def text_file(path: Path) -> Path:
    (path / MODEL_FILE).write_text("<html>404: this model has moved</html>")
    return path / MODEL_FILE


def cut_file(path: Path, keep: float) -> Path:
    file = model_file(path)
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content))])
    return file


def somebody_elses(path: Path) -> Path:
    safetensors.numpy.save_file({"a": np.zeros(3, np.float32)}, path / MODEL_FILE)
    return path / MODEL_FILE


def with_header(**header: str | None) -> Callable[[Path], Path]:
    return lambda path: nets.rewrite_model(path / MODEL_FILE, nets.johnson(), header=header)


def with_weights(change: Callable[[dict[str, np.ndarray]], Any]) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        weights = dict(nets.johnson().weights)
        change(weights)
        return nets.rewrite_model(path / MODEL_FILE, nets.johnson(), weights=weights)

    return write


def jpeg(path: Path) -> Path:
    Image.fromarray(tiny.smooth_picture(17, 23, 0)).save(path / "photo.jpg")
    return path / "photo.jpg"


def eight_bit_file(path: Path) -> Path:
    """A safetensors file of a number type that NumPy does not have."""
    header = {
        "__metadata__": {"format": "fast-style"},
        "a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]},
    }
    text = json.dumps(header).encode()
    (path / MODEL_FILE).write_bytes(len(text).to_bytes(8, "little") + text + b"ab")
    return path / MODEL_FILE


UNUSABLE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda path: path / "candy", "candy: no such model; give the folder of a"),
    "missing file": (lambda path: path / "a.safetensors", "a.safetensors: no such model"),
    "empty folder": (lambda path: path, "no model.safetensors and no fast-style-model.ckpt-"),
    "text": (text_file, "model.safetensors: cannot be read as a safetensors file"),
    "empty file": (lambda path: cut_file(path, 0.0), "cannot be read as a safetensors file"),
    "cut header": (lambda path: cut_file(path, 0.01), "cannot be read as a safetensors file"),
    "cut weights": (lambda path: cut_file(path, 0.9), "cannot be read as a safetensors file"),
    "somebody else's": (somebody_elses, "a safetensors file, but not a fast-style model"),
    "8-bit weights": (eight_bit_file, "cannot be read as a safetensors file"),
    "no arch": (with_header(arch=None), "its header is incomplete or cannot be read: 'arch'"),
    "unknown arch": (
        with_header(arch="unet"),
        "made for arch 'unet', and this version knows johnson, slim2016; update fast-style",
    ),
    "width of text": (with_header(width="wide"), "cannot be read: could not convert string"),
    "NaN width": (with_header(width="nan"), "the file is damaged .its width is nan"),
    "infinite width": (with_header(width="inf"), "its width is inf"),
    "negative width": (with_header(width="-0.125"), "its width is -0.125"),
    "absurd width": (with_header(width="1e9"), "its width is 1000000000.0"),
    "another width": (
        with_header(width="0.5"),
        r"46 of another shape \(conv1/weight .* and 43 more\)",
    ),
    "slim of half width": (with_header(arch="slim2016"), "has width 1.0 and one style"),
    "broken JSON": (with_header(metadata='{"config": '), "its header is incomplete or cannot be"),
    "deep JSON": (with_header(metadata="[" * 100_000), "its header is incomplete or cannot be"),
    "metadata no table": (with_header(metadata="[1]"), "its metadata is not a table"),
    "config no table": (with_header(metadata='{"config": 3}'), "its metadata is not a table"),
    "no names": (with_header(style_names="[]"), r"its style names are \[\]"),
    "names of text": (with_header(style_names='"a"'), "its style names are 'a'"),
    "names of numbers": (with_header(style_names="[1]"), r"its style names are \[1\]"),
    "a weight missing": (
        with_weights(lambda weights: weights.pop("conv2/weight")),
        r"weights of arch johnson: 1 missing \(conv2/weight\); give a model",
    ),
    "a weight too many": (
        with_weights(lambda weights: weights.update(extra=np.zeros(3))),
        r"1 unexpected \(extra\)",
    ),
    "a weight of another shape": (
        with_weights(lambda weights: weights.update({"conv1/scale": np.zeros((1, 5))})),
        r"1 of another shape \(conv1/scale \[1, 5\] instead of \[1, 4\]\)",
    ),
    "a weight not a number": (
        with_weights(lambda weights: weights.update({"conv1/scale": np.full((1, 4), np.nan)})),
        r"1 weights \(conv1/scale\) hold values that are not finite numbers",
    ),
    "a picture": (jpeg, "photo.jpg: cannot be read as a TensorFlow checkpoint"),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_an_unusable_model_is_refused_in_a_sentence(tmp_path: Path, what: str) -> None:
    prepare, expected = UNUSABLE[what]
    with pytest.raises(ModelError, match=expected) as caught:
        load_model(prepare(tmp_path))
    assert str(caught.value).startswith(str(tmp_path))
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "data cut in half": (".data-00000-of-00001", lambda content: content[: len(content) // 2]),
    "data cut at the end": (".data-00000-of-00001", lambda content: content[:-1]),
    "data empty": (".data-00000-of-00001", lambda content: b""),
    "data changed": (
        ".data-00000-of-00001",
        lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
    ),
    "index cut": (".index", lambda content: content[: len(content) // 2]),
    "index empty": (".index", lambda content: b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_in_a_sentence(
    run_folder: Path, tmp_path: Path, damage: str
) -> None:
    folder = shutil.copytree(run_folder, tmp_path / "candy")
    suffix, change = DAMAGES[damage]
    file = folder / f"{CHECKPOINT_STEM}-10{suffix}"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(ModelError, match="ckpt-10: cannot be read as a TensorFlow checkpoint"):
        load_model(folder)
    assert load_model(folder / f"{CHECKPOINT_STEM}-9").arch == "johnson"


def test_a_checkpoint_without_its_data_is_refused_in_a_sentence(
    run_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(run_folder, tmp_path / "candy")
    (folder / f"{CHECKPOINT_STEM}-10.data-00000-of-00001").unlink()
    with pytest.raises(ModelError, match="ckpt-10: cannot be read as a TensorFlow checkpoint"):
        load_model(folder)


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ({**RUN, "config": {"arch": "unet"}}, "made for arch 'unet'"),
        ({**RUN, "config": {"arch": ["johnson"]}}, r"made for arch \['johnson'\]"),
        ({**RUN, "config": {"arch": "johnson", "width": "1"}}, "its width is '1'"),
        ({**RUN, "config": []}, "its configuration is not a table"),
        ({**RUN, "style_names": "candy"}, "its style names are 'candy'"),
        (["not a table"], "cannot be read as a TensorFlow checkpoint"),
    ],
)
def test_a_checkpoint_with_a_wrong_description_is_refused(
    tmp_path: Path, run: Any, expected: str
) -> None:
    prefix = save_checkpoint(tmp_path, 1, state_of(nets.johnson()), run, keep=1)
    with pytest.raises(ModelError, match=expected):
        load_model(prefix)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    tensors = {"vgg_16/conv1/conv1_1/weights": np.zeros((3, 3, 3, 64), np.float32)}
    prefix = save_checkpoint(tmp_path, 1, tensors, {}, keep=1)
    expected = r"arch slim2016: 16 missing \(.* and 13 more\); 1 unexpected \(vgg_16/conv1"
    with pytest.raises(ModelError, match=expected):
        load_model(prefix)


def test_a_checkpoint_that_holds_text_for_a_weight_is_refused(tmp_path: Path) -> None:
    state: dict[str, Any] = state_of(nets.johnson())
    state["conv1/scale"] = np.full((1, 4), "text")
    prefix = save_checkpoint(tmp_path, 1, state, RUN, keep=1)
    with pytest.raises(ModelError, match="conv1/scale.* not finite numbers"):
        load_model(prefix)


def test_a_checkpoint_that_asks_for_more_memory_than_there_is_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged size in a V1 file: TensorFlow's reader allocates before it looks."""
    save_steps(tmp_path, 1)

    def allocate(prefix: str) -> None:
        raise MemoryError("std::bad_alloc")

    monkeypatch.setattr(checkpoints.tf.train, "load_checkpoint", allocate)
    with pytest.raises(ModelError, match="ckpt-1: cannot be read as a TensorFlow checkpoint"):
        read_checkpoint(tmp_path / f"{CHECKPOINT_STEM}-1")


def test_a_name_of_any_length_is_told_in_few_words() -> None:
    (problem,) = tensor_problems({}, {"conv1/scale" * 300: np.zeros(1)})
    assert problem.startswith("1 unexpected (conv1/scale") and problem.endswith("...)")
    assert len(problem) < 150


def test_the_commit_of_a_header_says_when_the_code_was_changed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert provenance.git_commit() is None
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    (package / "provenance.py").write_text("1")
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    commit = provenance.git_commit()
    assert commit is not None and re.fullmatch("[0-9a-f]{40}", commit)
    (tmp_path / "notes.txt").write_text("Not code.")
    assert provenance.git_commit() == commit
    (package / "provenance.py").write_text("2")
    assert provenance.git_commit() == f"{commit} with changes"
