"""ONNX and TFLite files, run by their own runtimes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest
import reference
import tensorflow as tf
import tiny

from fast_style import lite_export, onnx_export, parity
from fast_style.checkpoints import Model
from fast_style.errors import FastStyleError
from fast_style.lite_export import Storage, import_litert, tflite_runner, write_tflite
from fast_style.onnx_export import onnx_runner, write_onnx
from fast_style.plain_net import plain_stylize
from fast_style.stylize import Stylizer
from fast_style.transform_net import init_weights

# Below the least size of the net, odd, of every remainder by 4, wider than high.
SIZES = [(5, 40), (16, 16), (17, 23), (34, 19), (33, 64)]
MODELS: dict[str, Callable[[], Model]] = {
    "johnson": nets.johnson,
    "three styles": lambda: nets.johnson(3),
    "slim2016": nets.slim2016,
}


def first(model: Model) -> np.ndarray:
    """The style weights of the first style."""
    return parity.style_mixes(len(model.style_names))[0]


def apart(got: np.ndarray, expected: np.ndarray) -> parity.Difference:
    return parity.difference("picture", got, expected)


@pytest.fixture(scope="module", params=MODELS)
def native(request: pytest.FixtureRequest) -> Stylizer:
    return Stylizer(MODELS[request.param](), precision="float32")


def test_the_plain_net_gives_the_native_nets_pixels(native: Stylizer) -> None:
    for height, width in SIZES:
        picture = tiny.smooth_picture(height, width, 0)
        got = plain_stylize(native.model, tf.constant(picture[None]))[0].numpy()
        assert apart(got, native.stylize(picture)).max <= 1


# --- ONNX ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def onnx_file(native: Stylizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    write_onnx(native.model, path, card={"arch": native.model.arch})
    return path


def test_onnx_gives_the_native_nets_pixels_at_every_size(native: Stylizer, onnx_file: Path) -> None:
    run = onnx_runner(onnx_file)
    for height, width in SIZES:
        picture = tiny.smooth_picture(height, width, 1)
        assert apart(run(picture, first(native.model)), native.stylize(picture)).max <= 1


def test_onnx_takes_batches_and_a_mix_of_styles_for_each(native: Stylizer, onnx_file: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    images = np.stack([tiny.smooth_picture(17, 23, seed) for seed in (0, 1)])
    mixes = np.array([[0.2, 0.5, 0.3], [0.0, 0.0, 1.0]], np.float32)
    styles = len(native.model.style_names)
    given = {"style_weights": mixes} if styles > 1 else {}
    assert {entry.name for entry in session.get_inputs()} == {"images", *given}
    (got,) = session.run(["stylized"], {"images": images, **given})
    for picture, mix, result in zip(images, mixes, np.asarray(got), strict=True):
        expected = native.stylize(picture, style_weights=mix if styles > 1 else None)
        assert apart(result, expected).max <= 1


def test_onnx_is_of_opset_17_with_free_sizes_and_has_no_foreign_operations(onnx_file: Path) -> None:
    import onnx

    model = onnx.load(onnx_file)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["N", "H", "W", 3]
    assert {node.domain for node in model.graph.node} == {""}


# --- TFLite --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lite_files(native: Stylizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("ai_edge_litert")
    folder = tmp_path_factory.mktemp("tflite")
    # Converting takes seconds, and several styles are the same net.
    kinds: tuple[Storage, ...] = ("float16", "int8")
    kinds = kinds if len(native.model.style_names) == 1 else kinds[:1]
    for storage in kinds:
        write_tflite(native.model, folder / f"{storage}.tflite", storage=storage)
    return {storage: folder / f"{storage}.tflite" for storage in kinds}


def test_tflite_is_near_the_native_net_at_every_size(
    native: Stylizer, lite_files: dict[str, Path]
) -> None:
    for storage, path in lite_files.items():
        least = {"float16": 40.0, "int8": 25.0}[storage]
        run = tflite_runner(path)
        for height, width in SIZES:
            picture = tiny.smooth_picture(height, width, 1)
            # Of untrained weights; trained ones, and larger pictures, are what `export` measures.
            psnr = apart(run(picture, first(native.model)), native.stylize(picture)).psnr
            assert psnr is None or psnr > least, (storage, height, width)


def test_tflite_leaves_flat_pictures_flat(
    native: Stylizer, lite_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounded weights must not set neighbouring pixels apart: norms would enlarge that."""
    if native.model.arch == "slim2016":
        pytest.skip("turns flat pictures into noise itself")
    flat = np.full((29, 38, 3), 119, np.uint8)
    # Without rounding, norms have nothing to enlarge. The native net has rounding: where a
    # processor adds up borders in another order than the rest, it gives no flat picture.
    monkeypatch.setattr(
        reference, "normalize", lambda x, epsilon, scale, offset: np.zeros_like(x) + offset
    )
    mix = first(native.model)
    exact = reference.johnson(native.model.weights, flat[None], mix[None])[0]
    assert np.ptp(exact, axis=(0, 1)).max() < 1e-6
    for path in lite_files.values():
        got = tflite_runner(path)(flat, mix)
        assert np.ptp(got, axis=(0, 1)).max() <= 1
        # Untrained weights enlarge their own rounding by a few levels.
        assert np.abs(got - exact).max() <= 4


def test_tflite_has_built_in_operations_alone(lite_files: dict[str, Path]) -> None:
    for path in lite_files.values():
        interpreter = import_litert().Interpreter(str(path))
        operations = {entry["op_name"] for entry in interpreter._get_ops_details()}
        assert {"CONV_2D", "MIRROR_PAD", "MEAN"} <= operations
        foreign = {name for name in operations if "Flex" in name or "CUSTOM" in name.upper()}
        assert not foreign | (operations & {"WHILE", "IF"})


def test_tflite_mixes_styles(native: Stylizer, lite_files: dict[str, Path]) -> None:
    if len(native.model.style_names) == 1:
        pytest.skip("one style")
    interpreter = import_litert().Interpreter(str(lite_files["float16"]))
    run = interpreter.get_signature_runner("serving_default")
    picture = tiny.smooth_picture(17, 23, 0)
    mix = np.array([[0.2, 0.5, 0.3]], np.float32)
    got = run(images=picture[None], style_weights=mix)["stylized"][0]
    psnr = apart(got, native.stylize(picture, style_weights=mix[0])).psnr
    assert psnr is None or psnr > 40


def test_a_full_net_in_float16_takes_at_most_3_6_megabytes(tmp_path: Path) -> None:
    model = Model("johnson", 1.0, ("a",), init_weights("johnson"))
    write_tflite(model, tmp_path / "net.tflite", storage="float16")
    assert (tmp_path / "net.tflite").stat().st_size <= 3_600_000


# --- what is not installed, and what is measured -------------------------------------------------


@pytest.mark.parametrize(
    ("package", "load", "message"),
    [
        ("onnx", onnx_export.import_onnx, r"need the package onnx; .*'fast-style\[onnx\]'"),
        ("onnxruntime", onnx_export.import_onnxruntime, "checking ONNX files needs onnxruntime"),
        ("ai_edge_litert", lite_export.import_litert, r"LiteRT; .*'fast-style\[tflite\]'"),
    ],
)
def test_a_missing_package_is_named(
    package: str, load: Callable[[], Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(FastStyleError, match=message):
        load()


def test_differences_are_counted_in_levels_and_decibels() -> None:
    expected = np.full((2, 2, 3), 100, np.uint8)
    got = expected.copy()
    got[0, 0, 0] = 112
    found = parity.difference("p", got, expected)
    assert (found.max, found.mean) == (12, 1.0)
    assert found.psnr == pytest.approx(10 * np.log10(255**2 / 12.0))
    assert parity.difference("p", expected, expected).psnr is None
    with pytest.raises(ValueError, match=r"expected a picture of uint8 \[2, 2, 3\], got float64"):
        parity.difference("p", got.astype(float), expected)


def test_pictures_that_are_not_judged_do_not_count() -> None:
    def one(apart: int, judged: bool) -> parity.Difference:
        return parity.Difference(
            picture="p", height=1, width=1, max=apart, mean=apart / 2, psnr=20.0, judged=judged
        )

    for judged in (True, False):
        found = parity.Parity(
            differences=(one(1, True), one(9, judged)),
            milliseconds=1.0,
            tolerance=parity.Tolerance(levels=1),
        )
        assert found.passed != judged
        assert found.max == (9 if judged else 1)
        assert [p["max"] for p in found.as_json()["pictures"]] == [1, 9]


def patterned(picture: np.ndarray, mix: np.ndarray) -> np.ndarray:
    styled = picture.copy()
    styled[::2] = 0
    return styled


def one_colour(picture: np.ndarray, mix: np.ndarray) -> np.ndarray:
    return np.full_like(picture, 7)


@pytest.mark.parametrize(
    ("computed_flat", "exported", "counts"),
    [
        (True, one_colour, True),
        (True, patterned, False),
        (False, one_colour, False),
        (False, patterned, False),
    ],
)
def test_a_flat_picture_counts_where_the_computed_net_and_the_file_leave_it_flat(
    computed_flat: bool, exported: parity.Run, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "SIZES", ((33, 47),))
    check = parity.ParityCheck(nets.johnson())
    native = Stylizer(nets.johnson(), precision="float32")

    asked = []

    def computed(model: Model, precision: str) -> parity.Run:
        asked.append(precision)
        return (lambda picture, mix: native.stylize(picture)) if computed_flat else patterned

    monkeypatch.setattr(parity, "_computed", computed)
    only = [parity.Signature(run=exported, mixes=False)]
    for precision in ("float32", "int8", "bfloat16"):
        found = check.measure(only, parity.Tolerance(levels=255), precision=precision)
        assert {d.picture: d.judged for d in found.differences} == {
            "photo": True,
            "grey": counts,
            "noise": True,
        }
    assert asked == ["float32", "bfloat16"]  # Once for each type that is computed in.


@pytest.mark.parametrize("noisy", ["computed", "exported"])
def test_flat_pictures_count_in_all_sizes_or_in_none(
    noisy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "SIZES", ((33, 47), (16, 17)))
    check = parity.ParityCheck(nets.johnson())
    native = Stylizer(nets.johnson(), precision="float32")

    def flat(picture: np.ndarray, mix: np.ndarray) -> np.ndarray:
        return native.stylize(picture)

    def noisy_when_large(picture: np.ndarray, mix: np.ndarray) -> np.ndarray:
        styled = native.stylize(picture)
        styled[32:] = 0
        return styled

    computed = noisy_when_large if noisy == "computed" else flat
    monkeypatch.setattr(parity, "_computed", lambda model, precision: computed)
    exported = noisy_when_large if noisy == "exported" else flat
    found = check.measure(
        [parity.Signature(run=exported, mixes=False)], parity.Tolerance(levels=255)
    )
    unjudged = [(d.picture, d.height) for d in found.differences if not d.judged]
    assert unjudged == [("grey", 33), ("grey", 16)]


def test_a_flat_picture_of_another_colour_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "SIZES", ((33, 47),))
    check = parity.ParityCheck(nets.johnson())
    native = Stylizer(nets.johnson(), precision="float32")
    monkeypatch.setattr(
        parity, "_computed", lambda model, precision: lambda picture, mix: native.stylize(picture)
    )

    def wrong_when_flat(picture: np.ndarray, mix: np.ndarray) -> np.ndarray:
        styled = native.stylize(picture)
        return styled if np.ptp(picture) else styled ^ 16

    for run, passes in (
        (lambda picture, mix: native.stylize(picture), True),
        (wrong_when_flat, False),
    ):
        found = check.measure([parity.Signature(run=run, mixes=False)], parity.Tolerance(levels=1))
        assert found.passed == passes


def test_flat_pictures_do_not_count_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "SIZES", ((33, 47),))
    check = parity.ParityCheck(nets.johnson())
    unchanged = parity.Signature(run=lambda picture, mix: picture, mixes=False)
    found = check.measure([unchanged], parity.Tolerance(levels=255), precision="bfloat16")
    assert [d.picture for d in found.differences if not d.judged] == ["grey"]


def test_slim2016_turns_flat_pictures_into_noise_that_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parity, "SIZES", ((33, 47),))
    check = parity.ParityCheck(nets.slim2016())
    unchanged = parity.Signature(run=lambda picture, mix: picture, mixes=False)
    found = check.measure([unchanged], parity.Tolerance(levels=255))
    assert [d.picture for d in found.differences if not d.judged] == ["grey"]


def test_every_style_and_a_mix_count_through_every_signature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parity, "SIZES", ((33, 47),))
    model = nets.johnson(3)
    exchanged = {
        name: value[[0, 2, 1]] if value.ndim == 2 else value
        for name, value in model.weights.items()
    }

    def runner(weights: Mapping[str, np.ndarray]) -> parity.Run:
        stylizer = Stylizer(dataclasses.replace(model, weights=weights), precision="float32")
        return lambda picture, mix: stylizer.stylize(picture, style_weights=list(mix))

    wrong_run = runner(exchanged)
    first_only = parity.Signature(run=wrong_run, mixes=False, name="first only")
    wrong = parity.Signature(run=wrong_run, mixes=True, name="wrong")
    right = parity.Signature(run=runner(model.weights), mixes=True, name="right")
    check = parity.ParityCheck(model)
    one_level = parity.Tolerance(levels=1)
    found = check.measure([first_only, right], one_level)
    assert found.passed
    assert [(d.signature, d.style_weights) for d in found.differences] == [
        *[("first only", (1.0, 0.0, 0.0))] * 3,
        ("right", (1.0, 0.0, 0.0)),
        ("right", (0.0, 1.0, 0.0)),
        ("right", (0.0, 0.0, 1.0)),
        ("right", (0.166667, 0.333333, 0.5)),
    ]
    found = check.measure([first_only, wrong], one_level)
    assert [d.max > 1 for d in found.differences] == [False] * 4 + [True] * 3
    assert not found.passed
    assert not check.measure([wrong], one_level).passed
