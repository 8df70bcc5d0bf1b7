from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest
import tensorflow as tf
import tiny
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from PIL import Image
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import saved_model_pb2

from fast_style import exporting, parity
from fast_style.checkpoints import MODEL_FILE, Model, load_model, save_checkpoint, save_model
from fast_style.errors import FastStyleError
from fast_style.exporting import export_model
from fast_style.saved_model import write_saved_model
from fast_style.stylize import Stylizer
from fast_style.transform_net import ARCHITECTURES

SIZES = [(1, 1), (5, 40), (16, 16), (17, 23), (33, 64)]
MIXES = [[0.0, 1.0, 0.0], [0.2, 0.5, 0.3]]
MODELS = {"one": ("float32", nets.johnson), "three": ("bfloat16", lambda: nets.johnson(3))}

# What a server does with an export: TensorFlow and the folder, nothing of ours. The JSON is what
# TensorFlow Serving would get: {"b64": ...} is bytes, and each row of the batch an instance, which
# names its inputs or is the only one. A column of an option may be given for all rows.
CLIENT = """
import base64, json, sys
import numpy as np
import tensorflow as tf

root = sys.argv[1]

def value(given):
    if isinstance(given, dict):
        return base64.b64decode(given["b64"])
    return given

loaded = {name: tf.saved_model.load(f"{root}/{name}/1") for name in ("one", "three")}
answers = {}
for number, (name, body) in enumerate(json.load(open(f"{root}/asked.json"))):
    run = loaded[name].signatures[body["signature_name"]]
    kinds = {key: spec.dtype for key, spec in run.structured_input_signature[1].items()}
    if "inputs" in body:
        columns = {key: [value(entry) for entry in body["inputs"][key]] for key in kinds}
    else:
        rows = [
            row if isinstance(row, dict) and "b64" not in row else dict.fromkeys(kinds, row)
            for row in body["instances"]
        ]
        columns = {key: [value(row[key]) for row in rows] for key in kinds}
    inputs = {key: tf.constant(columns[key], kind) for key, kind in kinds.items()}
    ((key, got),) = run(**inputs).items()
    rows = list(got.numpy())
    if key.endswith("_bytes"):
        rows = [np.frombuffer(row, np.uint8) for row in rows]
    for row, content in enumerate(rows):
        answers[f"{number} {row}"] = content
np.savez(f"{root}/answers.npz", **answers)
assert not any(module.startswith("fast_style") for module in sys.modules)
"""


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return tiny.smooth_picture(height, width, seed)


def packed(image: np.ndarray, form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, form, quality=95, subsampling=0)
    return file.getvalue()


def unpacked(content: np.ndarray | bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(bytes(content))))


def levels_apart(one: np.ndarray, other: np.ndarray) -> int:
    assert one.dtype == other.dtype == np.uint8
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.fixture(scope="module", autouse=True)
def small_checks() -> Any:
    """Compares on small pictures, which take no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "SIZES", ((64, 48), (33, 17)))
        yield


# --- SavedModel ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Served:
    """Two exported models, and what a process without our code got out of them.

    Attributes:
      folder: Holds `one` (float32, one style) and `three` (bfloat16, three styles).
      stylizers: The models that were exported.
      parities: How the export compared them.
      ask: (model, signature, rows or columns) -> what each picture was answered.
    """

    folder: Path
    stylizers: dict[str, Stylizer]
    parities: dict[str, parity.Parity]
    ask: Callable[[str, str, Any], list[np.ndarray]]


def b64(content: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(content).decode()}


def options(mix: list[float], strength: float, preserve_color: bool) -> dict[str, Any]:
    return {"style_weights": mix, "strength": strength, "preserve_color": preserve_color}


RGBA = np.dstack([picture(20, 30), np.full((20, 30), 90, np.uint8)])
FILES = [
    packed(picture(17, 23), "JPEG"),
    packed(picture(33, 20, 1), "PNG"),
    packed(RGBA, "PNG"),
    packed(picture(30, 30, 2)[..., 0], "JPEG"),
]
CASES: dict[str, tuple[str, str, Any]] = {
    **{
        f"{name} {height}x{width}": (
            name,
            "serving_default",
            [{"images": picture(height, width).tolist()}],
        )
        for name in MODELS
        for height, width in SIZES
    },
    "batch": ("one", "serving_default", [{"images": picture(17, 23, i).tolist()} for i in (0, 1)]),
    "floats": ("one", "float_images", [{"images": (picture(17, 23) / 1.0).tolist()}]),
    "files": ("one", "image_bytes", [{"image_bytes": b64(file)} for file in FILES]),
    "files, plainly": ("one", "image_bytes", [b64(FILES[1])]),
    "arrays, plainly": ("one", "serving_default", [picture(17, 23).tolist()]),
    "options": (
        "three",
        "serving_options",
        [
            {"images": picture(17, 23).tolist(), **options(mix, strength, keep)}
            for mix in MIXES
            for strength in (0.0, 0.4, 1.0)
            for keep in (False, True)
        ],
    ),
    "files with options": (
        "three",
        "image_bytes_options",
        [{"image_bytes": b64(FILES[1]), **options(MIXES[0], 0.5, True)}],
    ),
    "one option for all": (
        "three",
        "serving_options",
        {
            "images": [picture(17, 23, seed).tolist() for seed in (0, 1)],
            "style_weights": [MIXES[0]],
            "strength": [0.4],
            "preserve_color": [True],
        },
    ),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    folder = tmp_path_factory.mktemp("exported")
    stylizers, parities = {}, {}
    for name, (precision, make) in MODELS.items():
        model = make()
        stylizers[name] = Stylizer(model, precision=precision)
        done = export_model(model, folder, name=name, precision=precision)
        (file,) = done.files
        assert file.path == folder / name / "1"
        assert file.parity.passed
        parities[name] = file.parity
    asked = [
        (
            name,
            {
                "signature_name": signature,
                "inputs" if isinstance(given, dict) else "instances": given,
            },
        )
        for name, signature, given in CASES.values()
    ]
    (folder / "asked.json").write_text(json.dumps(asked))
    client = [sys.executable, "-c", CLIENT, str(folder)]
    done = subprocess.run(client, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "answers.npz") as answers:
        found = dict(answers)

    def ask(name: str, signature: str, given: Any) -> list[np.ndarray]:
        number = list(CASES.values()).index((name, signature, given))
        count = len(given["images"]) if isinstance(given, dict) else len(given)
        return [found[f"{number} {row}"] for row in range(count)]

    return Served(folder, stylizers, parities, ask)


@pytest.fixture(scope="module")
def signatures(served: Served) -> Any:
    """Those of the model of three styles."""
    loaded = tf.saved_model.load(str(served.folder / "three" / "1"))
    yield loaded.signatures  # Needs `loaded` alive.


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_gives_the_stylizers_pixels_at_every_size(
    served: Served, name: str, height: int, width: int
) -> None:
    (got,) = served.ask(*CASES[f"{name} {height}x{width}"])
    # A file has the net alone: `stylize` knows what one colour becomes, such as that of one pixel.
    native = served.stylizers[name]
    mix = np.eye(1, len(native.model.style_names), dtype=np.float32)
    styled = native.run(picture(height, width)[None].astype(np.float32), mix)[0]
    assert levels_apart(got, np.rint(styled).astype(np.uint8)) <= 1


def test_a_batch_is_its_pictures_one_by_one(served: Served) -> None:
    for seed, got in enumerate(served.ask(*CASES["batch"])):
        assert levels_apart(got, served.stylizers["one"].stylize(picture(17, 23, seed))) <= 1


def test_floats_are_answered_unrounded(served: Served) -> None:
    (got,) = served.ask(*CASES["floats"])
    assert got.dtype == np.float32
    assert np.abs(got - np.rint(got)).max() > 0.1
    expected = served.stylizers["one"].stylize(picture(17, 23))
    assert levels_apart(np.rint(got).astype(np.uint8), expected) <= 1


def test_files_of_mixed_sizes_and_formats_come_back_as_they_were(served: Served) -> None:
    jpeg, png, transparent, grey = served.ask(*CASES["files"])
    stylize = served.stylizers["one"].stylize
    assert bytes(jpeg[:3]) == bytes(grey[:3]) == b"\xff\xd8\xff"
    assert bytes(png[:4]) == bytes(transparent[:4]) == b"\x89PNG"
    assert levels_apart(unpacked(png), stylize(picture(33, 20, 1))) <= 1
    # The net sees transparent pictures over white.
    over_white = np.rint(255 + (RGBA[..., :3] - 255.0) * 90 / 255).astype(np.uint8)
    assert levels_apart(unpacked(transparent), stylize(over_white)) <= 1
    # Decoders round differently; colours keep their resolution.
    expected = unpacked(packed(stylize(unpacked(FILES[0])), "JPEG"))
    assert unpacked(jpeg).shape == (17, 23, 3)
    assert np.abs(unpacked(jpeg) - expected.astype(float)).mean() < 1
    assert Image.open(io.BytesIO(bytes(jpeg))).layer == [(1, 1, 1, 0), (2, 1, 1, 1), (3, 1, 1, 1)]
    assert unpacked(grey).shape == (30, 30, 3)


@pytest.mark.parametrize("bad", [packed(RGBA[..., :3], "GIF"), packed(RGBA[..., :3], "BMP"), b""])
def test_files_that_are_no_pictures_are_told_with_their_places(signatures: Any, bad: bytes) -> None:
    expected = r"expected JPEG or PNG files, got something else at these places, from 0:\] \[1 3\]"
    options = {"style_weights": [[1.0, 0, 0]], "strength": [1.0], "preserve_color": [False]}
    for name, given in (("image_bytes", {}), ("image_bytes_options", options)):
        given = {key: tf.constant(value) for key, value in given.items()}
        with pytest.raises(tf.errors.InvalidArgumentError, match=expected):
            signatures[name](image_bytes=tf.constant([FILES[0], bad, FILES[1], bad]), **given)


def test_options_do_what_they_do_in_the_stylizer(served: Served) -> None:
    name, signature, rows = CASES["options"]
    for row, got in zip(rows, served.ask(name, signature, rows), strict=True):
        how = {key: value for key, value in row.items() if key != "images"}
        photo = picture(17, 23)
        expected = served.stylizers[name].stylize(photo, **how)
        # Rounded once here, after every step there.
        assert levels_apart(got, expected) <= 2, how
        if row["strength"] == 0.0:
            np.testing.assert_array_equal(got, photo)


def test_files_take_options_too(served: Served) -> None:
    (got,) = served.ask(*CASES["files with options"])
    expected = served.stylizers["three"].stylize(
        picture(33, 20, 1), style_weights=MIXES[0], strength=0.5, preserve_color=True
    )
    assert levels_apart(unpacked(got), expected) <= 2


def test_an_instance_need_not_name_the_only_input(served: Served) -> None:
    (named, *_) = served.ask(*CASES["one 17x23"])
    np.testing.assert_array_equal(served.ask(*CASES["arrays, plainly"])[0], named)
    np.testing.assert_array_equal(
        served.ask(*CASES["files, plainly"])[0], served.ask(*CASES["files"])[1]
    )


def test_an_option_of_one_row_serves_all_pictures(served: Served) -> None:
    for seed, got in enumerate(served.ask(*CASES["one option for all"])):
        expected = served.stylizers["three"].stylize(
            picture(17, 23, seed), style_weights=MIXES[0], strength=0.4, preserve_color=True
        )
        assert levels_apart(got, expected) <= 2


def test_options_declare_the_first_style_in_full_as_their_defaults(served: Served) -> None:
    content = (served.folder / "three" / "1" / "saved_model.pb").read_bytes()
    (graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    for name, signature in graph.signature_def.items():
        found = {key: tf.make_ndarray(value).tolist() for key, value in signature.defaults.items()}
        expected = {"style_weights": [[1, 0, 0]], "strength": [1], "preserve_color": [False]}
        assert found == (expected if name.endswith("_options") else {})


def test_signatures_and_their_inputs_can_be_read_off(signatures: Any) -> None:
    given = {"style_weights": (None, 3), "strength": (None,), "preserve_color": (None,)}
    images, files = {"images": (None, None, None, 3)}, {"image_bytes": (None,)}
    assert {
        name: {key: tuple(spec.shape) for key, spec in run.structured_input_signature[1].items()}
        for name, run in signatures.items()
    } == {
        "serving_default": images,
        "float_images": images,
        "image_bytes": files,
        "serving_options": images | given,
        "image_bytes_options": files | given,
    }


def test_every_style_was_compared_through_every_signature_that_takes_options(
    served: Served,
) -> None:
    mixes = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.166667, 0.333333, 0.5)]
    extra = served.parities["three"].differences[3 * len(parity.SIZES) :]
    assert [(d.signature, d.style_weights) for d in extra] == [
        ("float_images", mixes[0]),
        ("image_bytes", mixes[0]),
        *[("image_bytes_options", mix) for mix in mixes],
        *[("serving_options", mix) for mix in mixes],
    ]


def test_a_saved_model_has_its_report_beside_it_and_its_card_within(served: Served) -> None:
    report = json.loads((served.folder / "three" / "1.json").read_text())
    assert (report["path"], report["precision"]) == ("three/1", "bfloat16")
    assert report["passed"] and report["sha256"] is None
    card = served.folder / "three" / "1" / "assets.extra" / "model_card.json"
    assert json.loads(card.read_text()) == report["card"]
    assert report["card"]["style_names"] == list(nets.STYLES)


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_holds_the_net_once_and_nothing_else(served: Served, name: str) -> None:
    folder = served.folder / name / "1"
    weights = sum(value.nbytes for value in served.stylizers[name].model.weights.values())
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert weights < size < weights + 1_000_000  # The graph takes some 500 kB.
    assert b"vgg" not in (folder / "saved_model.pb").read_bytes().lower()


def test_warm_up_requests_are_prediction_logs_of_both_default_signatures(
    served: Served, signatures: Any
) -> None:
    path = served.folder / "three" / "1" / "assets.extra" / "tf_serving_warmup_requests"
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    logs = [prediction_log(bytes(record)) for record in records]
    requests = [log.predict_log.request for log in logs]
    assert [request.model_spec.name for request in requests] == ["three", "three"]
    arrays, files = requests
    assert arrays.model_spec.signature_name == "serving_default"
    assert files.model_spec.signature_name == "image_bytes"
    run = signatures["image_bytes"]
    for request, key in ((arrays, "images"), (files, "image_bytes")):
        (entry,) = request.inputs
        assert entry.key == key
        tensor = tf.make_ndarray(tensor_pb2.TensorProto.FromString(entry.value))
        if key == "images":
            assert (tensor.shape, tensor.dtype) == ((1, 256, 256, 3), np.uint8)
        else:
            (answer,) = run(image_bytes=tf.constant(tensor))["stylized_bytes"].numpy()
            assert unpacked(answer).shape == (256, 256, 3)


def prediction_log(record: bytes) -> Any:
    """Parses a message as TensorFlow Serving's .proto files declare it, as far as it is used."""
    file = descriptor_pb2.FileDescriptorProto(name="log.proto", package="t", syntax="proto3")
    text, content, nested = 9, 12, 11
    for message, fields in {
        "ModelSpec": [("name", 1, text, ""), ("signature_name", 3, text, "")],
        "Entry": [("key", 1, text, ""), ("value", 2, content, "")],
        "PredictRequest": [
            ("model_spec", 1, nested, "ModelSpec"),
            ("inputs", 2, nested, "Entry"),
        ],
        "PredictLog": [("request", 1, nested, "PredictRequest")],
        "PredictionLog": [("predict_log", 6, nested, "PredictLog")],
    }.items():
        declared = file.message_type.add(name=message)
        for name, number, kind, of in fields:
            declared.field.add(
                name=name,
                number=number,
                type=kind,
                type_name=f".t.{of}" if of else None,
                label=3 if name == "inputs" else 1,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.PredictionLog"))
    parsed = kind.FromString(record)
    parsed.DiscardUnknownFields()
    assert parsed.SerializeToString() == record, "fields of other numbers"
    return parsed


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_eager_traced_restored_and_exported_nets_agree(arch: str, tmp_path: Path) -> None:
    model = {"johnson": nets.johnson, "slim2016": nets.slim2016}[arch]()
    images = np.stack([picture(17, 23, seed) for seed in (0, 1)])

    def eager(model: Model) -> np.ndarray:
        return np.rint(nets.stylize_eagerly(model, images)).astype(np.uint8)

    expected = eager(model)
    assert expected.std() > 10
    traced = Stylizer(model, precision="float32")
    assert levels_apart(np.stack(traced.stylize(list(images))), expected) <= 1

    save_model(tmp_path / "run" / MODEL_FILE, model)
    assert levels_apart(eager(load_model(tmp_path / "run")), expected) <= 1

    run = {"config": {"arch": arch, "width": model.width}, "style_names": ["a"]}
    checkpoint = save_checkpoint(tmp_path / "run", 5, model.weights, run, keep=1)
    assert levels_apart(eager(load_model(checkpoint)), expected) <= 1

    write_saved_model(model, tmp_path / "saved", name="a", precision="float32", card={})
    signature = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    exported = signature(images=tf.constant(images))["stylized"].numpy()
    assert levels_apart(exported, expected) <= 1


# --- all formats ---------------------------------------------------------------------------------


def test_every_file_says_how_it_was_made_and_how_it_compares(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("ai_edge_litert")
    source = tmp_path / "net.safetensors"
    save_model(source, nets.johnson())
    photo = tiny.save_picture(tmp_path / "hill.png", 60, 70, 3)
    done = export_model(
        load_model(source), tmp_path / "out", name="a", formats=("tflite", "onnx"), photo=photo
    )
    files = ["a_float16.tflite", "a_int8.tflite", "a.onnx"]
    assert names(tmp_path / "out") == sorted([*files, *(f"{name}.json" for name in files)])
    reports = [json.loads(file.report.read_text()) for file in done.files]
    assert [report["path"] for report in reports] == files
    assert [report["precision"] for report in reports] == ["float32", "int8", "float32"]
    for report, written in zip(reports, done.files, strict=True):
        assert report["passed"] and report["milliseconds"] > 0
        assert report["bytes"] == written.path.stat().st_size
        assert report["sha256"] == hashlib.sha256(written.path.read_bytes()).hexdigest()
        assert report["model"] == {
            "name": "a",
            "source": str(source),
            "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        }
        assert report["card"]["arch"] == "johnson"
        assert report["card"]["metadata"] == {"config": {"naming": "candy"}}
        assert report["photo"] == "hill.png"
        assert report["versions"]["fast-style"]
        age = datetime.now(timezone.utc) - datetime.fromisoformat(report["made"])
        assert timedelta(0) <= age < timedelta(hours=1)
        assert [(p["picture"], p["height"], p["width"]) for p in report["pictures"]] == [
            (name, *size) for name in ("photo", "grey", "noise") for size in parity.SIZES
        ]
    (entry,) = onnx.load(tmp_path / "out" / "a.onnx").metadata_props
    assert (entry.key, json.loads(entry.value)) == ("model_card", reports[0]["card"])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands in for what takes seconds: writers, and the check, whose result can be set."""
    state: dict[str, Any] = {"apart": 0, "failure": None}

    def write(model: Model, folder: Path, **_: Any) -> None:
        folder.mkdir()
        (folder / "saved_model.pb").write_text("graph")
        if state["failure"]:
            raise state["failure"]

    def write_file(model: Model, path: Path, **_: Any) -> None:
        path.write_text(model.style_names[0])

    class Check:
        photo = parity.PHOTO
        milliseconds = 1.0

        def __init__(self, *_: Any) -> None:
            pass

        def measure(
            self, signatures: object, tolerance: parity.Tolerance, *, precision: str
        ) -> parity.Parity:
            found = parity.Difference(
                picture="photo", height=1, width=1, max=state["apart"], mean=0.0, psnr=20.0
            )
            return parity.Parity(differences=(found,), milliseconds=1.0, tolerance=tolerance)

    monkeypatch.setattr(exporting, "write_saved_model", write)
    monkeypatch.setattr(exporting, "ParityCheck", Check)
    monkeypatch.setattr(exporting, "saved_model_signatures", lambda folder: [])
    monkeypatch.setattr(exporting, "write_onnx", write_file)
    for name in ("import_onnx", "import_onnxruntime", "onnx_runner"):
        monkeypatch.setattr(exporting, name, lambda *_: None)
    return state


def export(folder: Path, version: int | None = None) -> Path:
    (file,) = export_model(nets.johnson(), folder, name="a", version=version).files
    return file.path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_versions_count_up_and_can_be_chosen(tmp_path: Path, quick: dict[str, Any]) -> None:
    assert export(tmp_path) == tmp_path / "a" / "1"
    assert export(tmp_path) == tmp_path / "a" / "2"
    assert export(tmp_path, version=7) == tmp_path / "a" / "7"
    assert export(tmp_path) == tmp_path / "a" / "8"
    (tmp_path / "a" / "notes.txt").write_text("mine")
    with pytest.raises(FastStyleError, match="a/7: already exists; leave out --version for"):
        export(tmp_path, version=7)
    assert names(tmp_path / "a") == [
        *("1", "1.json", "2", "2.json", "7", "7.json", "8", "8.json", "notes.txt")
    ]


def test_a_format_beyond_its_tolerance_leaves_only_a_report_of_that(
    tmp_path: Path, quick: dict[str, Any]
) -> None:
    quick["apart"] = 2
    done = export_model(nets.johnson(), tmp_path, name="a")
    assert not done.files[0].parity.passed
    assert done.failures == tmp_path / "a.failed.json"
    assert names(tmp_path) == ["a.failed.json"]
    (told,) = json.loads((tmp_path / "a.failed.json").read_text())["files"]
    assert (told["passed"], told["max"], told["tolerance"]) == (False, 2, "at most 1 level")
    assert (told["kind"], told["path"], told["model"]["sha256"]) == ("savedmodel", None, None)
    quick["apart"] = 1
    export(tmp_path)
    assert names(tmp_path) == ["a"]
    quick["apart"] = 2
    export(tmp_path)
    assert names(tmp_path / "a") == ["1", "1.json"]


def test_a_file_that_stays_keeps_its_report(tmp_path: Path, quick: dict[str, Any]) -> None:
    old, new = nets.johnson(), dataclasses.replace(nets.johnson(), style_names=("new",))
    export_model(old, tmp_path, name="a", formats=["onnx"])
    before = [(tmp_path / name).read_text() for name in ("a.onnx", "a.onnx.json")]
    quick["apart"] = 2
    export_model(new, tmp_path, name="a", formats=["onnx", "savedmodel"])
    assert names(tmp_path) == ["a.failed.json", "a.onnx", "a.onnx.json"]
    assert [(tmp_path / name).read_text() for name in ("a.onnx", "a.onnx.json")] == before
    told = json.loads((tmp_path / "a.failed.json").read_text())["files"]
    assert [(one["kind"], one["card"]["style_names"]) for one in told] == [
        ("onnx", ["new"]),
        ("savedmodel", ["new"]),
    ]
    quick["apart"] = 1
    export_model(new, tmp_path, name="a")
    # Another format took its place: the ONNX file is still the old model's.
    assert names(tmp_path) == ["a", "a.onnx", "a.onnx.json"]
    assert [(tmp_path / name).read_text() for name in ("a.onnx", "a.onnx.json")] == before
    report = json.loads((tmp_path / "a" / "1.json").read_text())
    assert report["card"]["style_names"] == ["new"]


@pytest.mark.parametrize("place", ["a.onnx", "a.onnx.json", "a.failed.json", "a/1.json"])
def test_a_folder_in_the_place_of_a_file_is_told_before_anything_is_computed(
    tmp_path: Path, quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / place).mkdir(parents=True)
    monkeypatch.setattr(exporting, "ParityCheck", None)
    expected = rf"{place}: cannot write this file \(Is a directory\); choose another place"
    with pytest.raises(FastStyleError, match=expected):
        export_model(nets.johnson(), tmp_path, name="a", formats=["savedmodel", "onnx"])
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")] == [place]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (tf.errors.ResourceExhaustedError(None, None, "a.pb; No space left on device"), "No space"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_a_failed_export_leaves_nothing(
    tmp_path: Path, quick: dict[str, Any], failure: Exception, reason: str
) -> None:
    quick["failure"] = failure
    expected = rf"a/1: cannot write this folder \({reason}.*\); choose another place, free some"
    with pytest.raises(FastStyleError, match=expected):
        export(tmp_path)
    assert names(tmp_path) == []


def test_what_a_killed_export_left_is_removed_by_the_next(
    tmp_path: Path, quick: dict[str, Any]
) -> None:
    (tmp_path / "a" / ".7.01234567.partial" / "variables").mkdir(parents=True)
    (tmp_path / "a" / "mine.partial").write_text("mine")
    export(tmp_path)
    assert names(tmp_path / "a") == ["1", "1.json", "mine.partial"]


def test_a_file_in_the_exports_place_is_left_as_it_is(
    tmp_path: Path, quick: dict[str, Any]
) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(FastStyleError, match="a: is a file, not a folder; choose another"):
        export(tmp_path)
    with pytest.raises(FastStyleError, match=r"cannot write to this folder \(.*a is not a folder"):
        export(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "mine"


def test_unknown_formats_and_precisions_and_paths_as_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"name: expected a plain name .*, got '\.\.'"):
        export_model(nets.johnson(), tmp_path, name="..")
    with pytest.raises(ValueError, match="any of savedmodel, tflite, onnx, got 'coreml'"):
        export_model(nets.johnson(), tmp_path, name="a", formats=["coreml"])
    with pytest.raises(ValueError, match="expected float32 or bfloat16, got 'auto'"):
        export_model(nets.johnson(), tmp_path, name="a", precision="auto")
    assert names(tmp_path) == []
