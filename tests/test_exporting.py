from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nets
import numpy as np
import pytest
import tensorflow as tf
import tiny

from fast_style import exporting
from fast_style.checkpoints import MODEL_FILE, Model, load_model, save_checkpoint, save_model
from fast_style.errors import FastStyleError
from fast_style.exporting import export_saved_model
from fast_style.stylize import Stylizer, make_stylize_function
from fast_style.transform_net import ARCHITECTURES

SIZES = [(1, 1), (5, 40), (16, 16), (17, 23), (33, 64)]
MIXES = [[0.0, 1.0, 0.0], [0.2, 0.5, 0.3]]
MODELS = {"one": ("float32", nets.johnson), "three": ("bfloat16", lambda: nets.johnson(3))}

# What a server does with an export: TensorFlow and the folder, nothing of ours.
CLIENT = """
import sys
import numpy as np
import tensorflow as tf

root = sys.argv[1]
asked = np.load(f"{root}/asked.npz")
runs = {
    name: tf.saved_model.load(f"{root}/{name}").signatures["serving_default"]
    for name in ("one", "three")
}
answers = {}
for key in asked.files:
    name, what, case = key.split(" ")
    if what == "images":
        inputs = {"images": tf.constant(asked[key])}
        if name == "three":
            inputs["style_weights"] = tf.constant(asked[f"three style_weights {case}"])
        answers[f"{name} {case}"] = runs[name](**inputs)["stylized"].numpy()
np.savez(f"{root}/answers.npz", **answers)
assert not any(module.startswith("fast_style") for module in sys.modules)
"""


@dataclass(frozen=True)
class Exports:
    """Two exported models, and what a process without our code got out of them.

    Attributes:
      folder: Holds `one` (float32, one style) and `three` (bfloat16, three styles).
      stylizers: The models that were exported.
      answers: {'name case': uint8 [N, H, W, 3]}.
    """

    folder: Path
    stylizers: dict[str, Stylizer]
    answers: dict[str, np.ndarray]


def batch_of(count: int, height: int, width: int) -> np.ndarray:
    return np.stack([tiny.smooth_picture(height, width, seed) for seed in range(count)])


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    folder = tmp_path_factory.mktemp("exported")
    stylizers, asked = {}, {}
    for name, (precision, make) in MODELS.items():
        model = make()
        stylizers[name] = Stylizer(model, precision=precision)
        assert export_saved_model(model, folder / name, precision=precision) == folder / name
        cases = {f"{height}x{width}": batch_of(1, height, width) for height, width in SIZES}
        for case, images in {**cases, "batch": batch_of(2, 17, 23)}.items():
            asked[f"{name} images {case}"] = images
            if name == "three":
                mix = np.array(MIXES[: len(images)], np.float32)
                asked[f"{name} style_weights {case}"] = mix
    np.savez(folder / "asked.npz", **asked)
    client = [sys.executable, "-c", CLIENT, str(folder)]
    done = subprocess.run(client, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "answers.npz") as answers:
        return Exports(folder, stylizers, dict(answers))


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("name", MODELS)
def test_an_export_gives_the_stylizers_pixels_at_every_size(
    exports: Exports, name: str, height: int, width: int
) -> None:
    styles = len(exports.stylizers[name].model.style_names)
    expected = exports.stylizers[name].stylize(
        tiny.smooth_picture(height, width, 0), style_weights=MIXES[0] if styles == 3 else None
    )
    (got,) = exports.answers[f"{name} {height}x{width}"]
    assert got.shape == (height, width, 3)
    assert levels_apart(got, expected) <= 1


@pytest.mark.parametrize("name", MODELS)
def test_an_exported_batch_is_its_pictures_one_by_one(exports: Exports, name: str) -> None:
    stylizer = exports.stylizers[name]
    got = exports.answers[f"{name} batch"]
    for index, picture in enumerate(batch_of(2, 17, 23)):
        mix = MIXES[index] if name == "three" else None
        assert levels_apart(got[index], stylizer.stylize(picture, style_weights=mix)) <= 1


def levels_apart(one: np.ndarray, other: np.ndarray) -> int:
    assert one.dtype == other.dtype == np.uint8
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.parametrize("name", MODELS)
def test_an_export_holds_the_net_and_nothing_else(exports: Exports, name: str) -> None:
    folder = exports.folder / name
    weights = sum(value.nbytes for value in exports.stylizers[name].model.weights.values())
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert weights < size < weights + 1_000_000  # The graph takes some 400 kB.
    assert b"vgg" not in (folder / "saved_model.pb").read_bytes().lower()


def test_an_export_leaves_nothing_beside_it(exports: Exports) -> None:
    names = {path.name for path in exports.folder.iterdir()}
    assert names == {"one", "three", "asked.npz", "answers.npz"}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_eager_traced_restored_and_exported_nets_agree(arch: str, tmp_path: Path) -> None:
    model = {"johnson": nets.johnson, "slim2016": nets.slim2016}[arch]()
    images = batch_of(2, 17, 23)

    def eager(model: Model) -> np.ndarray:
        return np.rint(nets.stylize_eagerly(model, images)).astype(np.uint8)

    expected = eager(model)
    assert expected.std() > 10
    traced = make_stylize_function(model, "float32")
    assert levels_apart(traced(tf.constant(images), tf.ones([2, 1])).numpy(), expected) <= 1

    save_model(tmp_path / "run" / MODEL_FILE, model)
    assert levels_apart(eager(load_model(tmp_path / "run")), expected) <= 1

    run = {"config": {"arch": arch, "width": model.width}, "style_names": ["a"]}
    checkpoint = save_checkpoint(tmp_path / "run", 5, model.weights, run, keep=1)
    assert levels_apart(eager(load_model(checkpoint)), expected) <= 1

    folder = export_saved_model(model, tmp_path / "missing" / "parents", precision="float32")
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    exported = signature(images=tf.constant(images))["stylized"].numpy()
    assert levels_apart(exported, expected) <= 1


# --- what is written over, and what is not -------------------------------------------------------


@pytest.fixture
def quick_save(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stands in for TensorFlow's writer, which takes seconds; lists where it was told to write."""
    written: list[Path] = []

    def save(module: tf.Module, folder: str, signatures: dict[str, object]) -> None:
        written.append(Path(folder))
        (Path(folder) / "variables").mkdir(parents=True)
        (Path(folder) / "saved_model.pb").write_text(f"export {len(written)}")

    monkeypatch.setattr(exporting.tf.saved_model, "save", save)
    return written


def export(folder: Path | str) -> Path:
    return export_saved_model(nets.johnson(), folder, precision="float32")


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, with the bytes of files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_an_older_export_is_replaced(tmp_path: Path, quick_save: list[Path]) -> None:
    export(tmp_path / "candy")
    (tmp_path / "candy" / "variables" / "variables.index").write_text("of the first")
    assert export(tmp_path / "candy") == tmp_path / "candy"
    assert contents(tmp_path) == {
        "candy": None,
        "candy/variables": None,
        "candy/saved_model.pb": b"export 2",
    }


def test_an_empty_folder_is_written_into(tmp_path: Path, quick_save: list[Path]) -> None:
    (tmp_path / "candy").mkdir()
    export(tmp_path / "candy")
    assert (tmp_path / "candy" / "saved_model.pb").read_text() == "export 1"


def test_an_export_goes_through_a_link_to_its_folder(
    tmp_path: Path, quick_save: list[Path]
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "candy").symlink_to(tmp_path / "disk")
    for count in (1, 2):
        export(tmp_path / "candy")
        assert (tmp_path / "disk" / "saved_model.pb").read_text() == f"export {count}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["candy", "disk"]
    assert (tmp_path / "candy").is_symlink()


@pytest.mark.parametrize("beside_an_export", [False, True])
def test_a_folder_with_other_things_is_left_as_it_is(
    tmp_path: Path, quick_save: list[Path], beside_an_export: bool
) -> None:
    folder = tmp_path / "candy"
    if beside_an_export:
        export(folder)
    folder.mkdir(exist_ok=True)
    (folder / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    expected = r"candy: already exists and holds other things than a SavedModel \(notes.txt\)"
    with pytest.raises(FastStyleError, match=expected):
        export(folder)
    assert contents(tmp_path) == before


def test_a_file_in_the_exports_place_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "candy").write_text("mine")
    with pytest.raises(FastStyleError, match="candy: is a file, not a folder; choose another"):
        export(tmp_path / "candy")
    with pytest.raises(FastStyleError, match="candy: cannot create this folder"):
        export(tmp_path / "candy" / "below")
    assert contents(tmp_path) == {"candy": b"mine"}


@pytest.mark.parametrize("place", [".", "", "..", "../here"])
def test_the_current_folder_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(FastStyleError, match="give the export a folder of its own with -o"):
        export(place)
    assert contents(tmp_path) == {"here": None}


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (tf.errors.ResourceExhaustedError(None, None, "a.pb; No space left on device"), "No space"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_a_failed_export_leaves_the_one_before(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quick_save: list[Path],
    failure: Exception,
    reason: str,
) -> None:
    export(tmp_path / "candy")
    before = contents(tmp_path)

    def fail(module: tf.Module, folder: str, signatures: dict[str, object]) -> None:
        Path(folder).mkdir()
        (Path(folder) / "saved_model.pb").write_text("half")
        raise failure

    monkeypatch.setattr(exporting.tf.saved_model, "save", fail)
    expected = rf"candy: cannot write this folder \({reason}.*\); choose another place, free some"
    with pytest.raises(FastStyleError, match=expected):
        export(tmp_path / "candy")
    assert contents(tmp_path) == before


def test_an_export_that_cannot_be_renamed_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_save: list[Path]
) -> None:
    export(tmp_path / "candy")
    before = contents(tmp_path)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(FastStyleError, match=r"candy: cannot write .* \(Permission denied\)"):
        export(tmp_path / "candy")
    assert contents(tmp_path) == before


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected float32 or bfloat16, got 'auto'"):
        export_saved_model(nets.johnson(), tmp_path / "candy", precision="auto")
    assert list(tmp_path.iterdir()) == []
