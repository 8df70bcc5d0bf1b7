from __future__ import annotations

import base64
import functools
import itertools
import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import tensorflow as tf
import tiny
import weight_files
from nets import random_weights
from PIL import Image

import fast_style
from fast_style import exporting as exporting_module
from fast_style import objective as tags
from fast_style import parity as parity_module
from fast_style import saving, train_state, training
from fast_style.checkpoints import Model, load_model, save_model
from fast_style.cli import main, script
from fast_style.cli_export import _serving_use
from fast_style.config import config_to_yaml, load_config
from fast_style.images import write_image
from fast_style.photo import read_photo
from fast_style.transform_net import init_weights

ROOT = Path(__file__).resolve().parents[1]


def python(folder: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """Runs a program of its own, as a user does; only for what cannot be seen from within."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment | {"PYTHONPATH": str(ROOT)},
    )


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: files with their contents, folders with None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@dataclass(frozen=True)
class Trained:
    """A run of two steps that train.py did: its folder, and what it printed."""

    folder: Path
    broken: list[Path]
    process: subprocess.CompletedProcess[str]

    @property
    def model(self) -> Path:
        return self.folder / "models" / "tiny"


@pytest.fixture(scope="module")
def trained(world: tiny.World, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Half of its photos are truncated."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(world.photos, folder / "photos")
    broken = sorted(path for path in (folder / "photos").rglob("*") if path.is_file())[1::2]
    for path in broken:
        truncate(path)
    config = world.config_file(folder, dataset=str(folder / "photos"))
    process = python(folder, ROOT / "train.py", "-c", config, "--set", "steps=2")
    return Trained(folder, broken, process)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def quick_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the training step, which takes seconds to trace, by one that only counts."""

    def make_quick_step(state: train_state.TrainState, *rest: Any, **arguments: Any):
        def step(photos: np.ndarray, choice: np.ndarray):
            state.step.assign_add(1)
            names = (tags.TOTAL, tags.CONTENT, tags.STYLE, tags.VARIATION, tags.WEIGHTED_CONTENT)
            names += (tags.WEIGHTED_STYLE, tags.WEIGHTED_VARIATION, tags.GRADIENT_NORM)
            losses = {name: tf.constant(1234.0) for name in names}
            return losses, tf.zeros([2, 32, 32, 3]), tf.ones([len(state.weights)])

        return step

    monkeypatch.setattr(training, "make_train_step", make_quick_step)


# train.py


def test_train_ends_well_and_tells_what_it_does(trained: Trained) -> None:
    assert trained.process.returncode == 0, trained.process.stderr
    lines = trained.process.stdout.splitlines()
    labels = {line.split(":")[0]: line.split(":", 1)[1].strip() for line in lines if ":" in line}
    assert labels["device"]
    assert labels["precision"] == "float32"
    assert labels["loss network"].startswith("vgg_16, ")
    assert labels["loss network"].endswith("vgg_16.npz")
    assert labels["photos"] == "7"
    assert labels["steps"] == "2"
    assert labels["transform net"].startswith("johnson, ")
    assert labels["transform net"].endswith(" weights")
    assert labels["run"] == str(trained.model)
    assert labels["style seen as"] == "generated/target_style_tiny.jpg"
    assert labels["model"] == str(trained.model / "model.safetensors")
    reports = [line for line in lines if line.startswith("step ")]
    assert [report.split()[1] for report in reports] == ["1/2", "2/2"]
    for word in ("content", "style", "tv", "total", "images/s"):
        assert all(word in report for report in reports), word
    # The time left is estimated from the second step on: the first holds the tracing.
    assert [report.endswith(" left") for report in reports] == [False, True]


def test_train_names_the_photos_it_could_not_read(trained: Trained) -> None:
    errors = trained.process.stderr
    assert "3 photos could not be read and were left out:" in errors
    for path in trained.broken:
        assert str(path) in errors
    assert "Traceback" not in errors


def test_train_prints_a_config_that_loads_back_equal(trained: Trained, tmp_path: Path) -> None:
    printed, _, _ = trained.process.stdout.partition("\n\n")
    (tmp_path / "printed.yml").write_text(printed)
    again = load_config(tmp_path / "printed.yml")
    assert again == load_config(trained.folder / "tiny.yml", ["steps=2"])


def test_a_finished_run_says_that_nothing_is_left_to_do(
    trained: Trained, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.folder / "models", workplace / "models")
    arguments = ["--set", "steps=2", "--set", f"model_path={workplace}/models"]
    assert script("train", ["-c", str(trained.folder / "tiny.yml"), *arguments]) == 0
    out = capsys.readouterr().out
    assert "steps:         2, 2 done before\n" in out
    assert "note: model_path changed from" in out
    assert "nothing left to do" in out


def test_a_run_of_minutes_says_what_it_does_with_them(
    world: tiny.World,
    workplace: Path,
    quick_steps: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seconds = itertools.count()  # One each time that somebody looks.
    clock = functools.partial(training.RunClock, now=lambda: float(next(seconds)))
    monkeypatch.setattr(training, "RunClock", clock)
    keys = {"image_size": 64, "small_first": 0.25, "mini_first": 0.5}
    path = world.config_file(workplace, steps=None, minutes=2, **keys)
    assert main(["train", "-c", str(path)]) == 0
    out = capsys.readouterr().out
    start = (
        "time:          2m 00s, the first 30s on half the size, the first 1m 00s judged by vgg_mini"
    )
    assert f"\n{start}\n" in out
    done = int(re.findall(r"done: +(\d+) steps in all", out)[0])
    assert done > 100 and f"\nstep {done} " in out and " left\n" in out
    assert main(["train", "-c", str(path)]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"^time: +2m 00s, 2m \d\ds of it over, {done} steps done$", out, re.MULTILINE)
    advice = "raise minutes to go on, or start over with --fresh"
    assert f"{workplace}/models/tiny has {done} steps, and its 2m 00s are over; {advice}\n" in out


def test_a_converged_run_started_again_says_what_would_let_it_go_on(
    world: tiny.World,
    workplace: Path,
    quick_steps: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    changes = {"val_dataset": str(world.held_out), "checkpoint_every_steps": 1, "steps": 9}
    path = world.config_file(workplace, patience_checkpoints=1, **changes)
    ended = "ended at step 2: the held-out loss has not improved for 1 checkpoints"
    # The quick step does not learn, so the second score equals the first.
    assert main(["train", "-c", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"\n{ended}\n" in out and "nothing left to do" not in out
    assert main(["train", "-c", str(path)]) == 0
    advice = "raise patience_checkpoints or remove it to go on, or start over with --fresh"
    assert f"{workplace}/models/tiny {ended}; {advice}\n" in capsys.readouterr().out


def test_dry_run_prints_the_resolved_config_and_writes_nothing(
    world: tiny.World, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = world.config_file(workplace)
    before = tree(workplace)
    overrides = ["--set", "epoch=3", "--set", "learning_rate=2e-3"]
    assert script("train", ["-c", str(path), "--dry-run", *overrides]) == 0
    assert tree(workplace) == before
    printed = capsys.readouterr().out
    (workplace / "printed.yml").write_text(printed)
    config = load_config(workplace / "printed.yml")
    assert config == load_config(path, ["epoch=3", "learning_rate=2e-3"])
    assert (config.epoch, config.steps, config.learning_rate) == (3, None, 2e-3)


def test_a_config_is_read_before_tensorflow_is_imported(world: tiny.World, tmp_path: Path) -> None:
    path = world.config_file(tmp_path)
    code = (
        "import sys; from fast_style.cli import script; "
        f"codes = [script('train', ['-c', {str(path)!r}, *more]) for more in "
        "(['--dry-run'], ['--set', 'stepz=3'])]; "
        "print(codes, 'tensorflow' in sys.modules)"
    )
    result = python(tmp_path, "-c", code)
    assert result.stdout.splitlines()[-1] == "[0, 2] False", result.stderr


def test_ctrl_c_saves_and_ends_with_130(
    world: tiny.World,
    workplace: Path,
    quick_steps: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(saving.RunWriter, "summarize", stop)
    assert main(["train", "-c", str(world.config_file(workplace))]) == 130
    out = capsys.readouterr().out
    assert "stopped after step 1 and saved; the same command goes on from there" in out
    assert (workplace / "models" / "tiny" / "fast-style-model.ckpt-1.index").is_file()


def test_a_terminal_shows_a_bar_with_losses_speed_and_time_left(
    world: tiny.World,
    workplace: Path,
    quick_steps: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["train", "-c", str(world.config_file(workplace))]) == 0
    out, bar = capsys.readouterr()
    for part in ("4/4", "content 1.23k", "style 1.23k", "tv 1.23k", "total 1.23k", "img/s"):
        assert part in bar, part
    assert "left" in bar
    assert "step 4/4" not in out
    assert f"saved {workplace}/models/tiny/fast-style-model.ckpt-4" in out


def test_output_that_nobody_reads_is_no_error(world: tiny.World, tmp_path: Path) -> None:
    path = world.config_file(tmp_path)
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [sys.executable, ROOT / "train.py", "-c", path, "--dry-run"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
    )
    os.close(writing)
    assert (result.returncode, result.stderr) == (0, "")


# eval.py


@pytest.fixture(scope="module")
def stylizer(trained: Trained) -> fast_style.Stylizer:
    return fast_style.load(trained.model, precision="float32")


def evaluate(trained: Trained, *arguments: Any) -> int:
    model = ["--model", str(trained.model), "--precision", "float32"]
    return script("eval", [*model, *map(str, arguments)])


def test_eval_writes_the_picture_at_its_size_under_its_name_and_the_styles(
    trained: Trained, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.save_picture(workplace / "dog.jpg", 33, 47, 1)
    assert evaluate(trained, "--image", "dog.jpg") == 0
    assert capsys.readouterr().out == "generated/dog_tiny.jpg\n"
    assert sorted(tree(workplace)) == ["dog.jpg", "generated", "generated/dog_tiny.jpg"]
    with Image.open("generated/dog_tiny.jpg") as result:
        assert (result.size, result.format) == ((47, 33), "JPEG")


def test_eval_writes_what_the_python_interface_returns(
    trained: Trained, stylizer: fast_style.Stylizer, workplace: Path
) -> None:
    tiny.save_picture(workplace / "dog.png", 33, 47, 1)
    assert evaluate(trained, "--image", "dog.png", "-o", "results/styled.png") == 0
    assert sorted(tree(workplace)) == ["dog.png", "results", "results/styled.png"]
    expected = stylizer.stylize(tiny.smooth_picture(33, 47, 1))
    np.testing.assert_array_equal(np.asarray(Image.open("results/styled.png")), expected)


def test_eval_takes_one_style_of_several_by_its_name(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = random_weights("johnson", width=0.125, styles=3)
    names = ("a", "../b c", "d")
    save_model(workplace / "three.safetensors", Model("johnson", 0.125, names, weights, {}))
    tiny.save_picture(workplace / "dog.png", 33, 47, 1)
    command = ["--model", "three.safetensors", "--precision", "float32", "--image", "dog.png"]

    assert script("eval", [*command, "--style", "../b c"]) == 0

    assert capsys.readouterr().out == "generated/dog_three__b c.png\n"
    model = fast_style.load("three.safetensors", precision="float32")
    expected = model.stylize(tiny.smooth_picture(33, 47, 1), style_weights=[0, 1, 0])
    np.testing.assert_array_equal(np.asarray(Image.open("generated/dog_three__b c.png")), expected)
    assert script("eval", [*command, "--style", "d"]) == 0
    assert (workplace / "generated" / "dog_three_d.png").is_file()
    with pytest.raises(ValueError, match=r"expected one of a, \.\./b c, d, got 'e'"):
        model.one_style("e")


def test_eval_takes_the_ancestors_arguments(trained: Trained, workplace: Path) -> None:
    tiny.save_picture(workplace / "dog.jpg", 33, 47, 1)
    unused = ["--loss_model", "vgg_16", "--image_size", "256"]
    arguments = ["--model_file", str(trained.model), "--image_file", "dog.jpg"]
    assert script("eval", [*arguments, *unused]) == 0
    assert (workplace / "generated" / "dog_tiny.jpg").is_file()


def test_eval_reads_the_ancestors_checkpoints(workplace: Path) -> None:
    (workplace / "wave").mkdir()
    weight_files.save_v1(
        workplace / "wave" / "fast-style-model.ckpt-done", init_weights("slim2016")
    )
    tiny.save_picture(workplace / "dog.jpg", 18, 21, 1)
    arguments = ["--model_file", "wave/fast-style-model.ckpt-done", "--image_file", "dog.jpg"]
    assert script("eval", arguments) == 0
    with Image.open("generated/dog_wave.jpg") as result:
        assert result.size == (21, 18)


def test_eval_takes_pictures_and_folders_and_keeps_their_tree(
    trained: Trained, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "trip" / "day2").mkdir(parents=True)
    tiny.save_picture(workplace / "trip" / "a.png", 20, 24, 1)
    tiny.save_picture(workplace / "trip" / "day2" / "b.jpg", 24, 20, 2)
    tiny.save_picture(workplace / "dog.jpg", 33, 47, 3)
    assert evaluate(trained, "--image", "dog.jpg", "trip", "-o", "out") == 0
    expected = ["out/dog.jpg", "out/a.png", "out/day2/b.jpg"]
    assert capsys.readouterr().out.splitlines() == expected
    assert all((workplace / path).is_file() for path in expected)


def test_one_bad_picture_among_good_ones_is_named_and_the_others_are_done(
    trained: Trained, workplace: Path
) -> None:
    tiny.save_picture(workplace / "a.jpg", 20, 24, 1)
    tiny.save_picture(workplace / "c.jpg", 24, 20, 2)
    (workplace / "b.jpg").write_text("no picture")
    result = python(
        workplace, ROOT / "eval.py", "--model", trained.model, "--image", "a.jpg", "b.jpg", "c.jpg"
    )
    assert result.returncode == 1
    assert result.stdout.splitlines() == ["generated/a_tiny.jpg", "generated/c_tiny.jpg"]
    assert result.stderr.splitlines()[:1] == ["1 of 3 files failed:"]
    assert result.stderr.count("\n") == 2, result.stderr
    assert "\n  b.jpg: " in result.stderr
    assert sorted(path.name for path in (workplace / "generated").iterdir()) == [
        "a_tiny.jpg",
        "c_tiny.jpg",
    ]


def test_an_output_of_unknown_format_is_refused_before_a_picture_is_computed(
    trained: Trained,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def no_work(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError("a picture was computed")

    monkeypatch.setattr(fast_style.Stylizer, "stylize", no_work)
    tiny.save_picture(workplace / "dog.jpg", 20, 24, 1)
    assert evaluate(trained, "--image", "dog.jpg", "-o", "styled.xyz") == 2
    assert "styled.xyz: pictures are not written as" in capsys.readouterr().err


def test_a_file_name_that_is_no_text_is_printed_escaped(
    trained: Trained, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        tiny.save_picture(workplace / name, 20, 24, 1)
    except OSError:
        pytest.skip("this file system holds no such name")
    assert evaluate(trained, "--image", name) == 0
    assert capsys.readouterr().out == "generated/caf\\udce9_tiny.png\n"


def test_a_phone_photo_comes_out_upright(
    trained: Trained, stylizer: fast_style.Stylizer, workplace: Path
) -> None:
    """Stored 40 x 30 and turned by EXIF: the phone was held upright, 30 wide and 40 high."""
    photo = Image.fromarray(tiny.smooth_picture(30, 40, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # Show it turned by a quarter, clockwise.
    photo.save("phone.jpg", exif=exif, quality=95)
    assert evaluate(trained, "--image", "phone.jpg", "-o", "styled.png") == 0
    stored = np.asarray(Image.open("phone.jpg"))
    assert stored.shape == (30, 40, 3)
    styled = np.asarray(Image.open("styled.png"))
    assert styled.shape == (40, 30, 3)
    np.testing.assert_array_equal(styled, stylizer.stylize(np.rot90(stored, k=-1).copy()))
    assert evaluate(trained, "--image", "phone.jpg") == 0
    with Image.open("generated/phone_tiny.jpg") as result:
        assert result.size == (30, 40)
        assert 0x0112 not in result.getexif()  # Nothing left that would turn it again.


def test_eval_takes_patterns_formats_and_quality_and_leaves_existing_results(
    trained: Trained, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "shots").mkdir()
    for number in range(2):
        tiny.save_picture(workplace / "shots" / f"{number}.png", 60, 70, number)
    arguments = ("--image", "shots/*.png", "-o", "out", "--format", "jpg")
    assert evaluate(trained, *arguments, "--quality", "95") == 0
    assert capsys.readouterr().out.splitlines() == ["out/0.jpg", "out/1.jpg"]
    large = (workplace / "out" / "0.jpg").stat().st_size
    (workplace / "out" / "0.jpg").unlink()
    kept = (workplace / "out" / "1.jpg").read_bytes()
    assert evaluate(trained, *arguments, "--quality", "30", "--skip-existing") == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == ["out/0.jpg"]
    assert "1 of 2 files have a result already and are left as they are" in said.err
    assert (workplace / "out" / "0.jpg").stat().st_size < large / 2
    assert (workplace / "out" / "1.jpg").read_bytes() == kept
    assert evaluate(trained, *arguments, "--skip-existing") == 0
    assert capsys.readouterr().out == ""


def test_eval_refuses_bombs_unless_told_otherwise_and_keeps_16_bits(
    trained: Trained,
    stylizer: fast_style.Stylizer,
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    deep = tiny.smooth_picture(20, 24, 1).astype(np.uint16) * 257
    write_image("deep.tif", deep)
    (workplace / "bomb.png").write_bytes(hostile.bomb())
    assert (workplace / "bomb.png").stat().st_size < 100_000
    assert evaluate(trained, "--image", "bomb.png", "deep.tif", "-o", "out") == 1
    said = capsys.readouterr()
    assert said.out == "out/deep.tif\n"
    assert "1 of 2 files failed:\n  bomb.png: has more than the allowed 89,478," in said.err
    assert "--max-pixels" in said.err
    result = read_photo("out/deep.tif").pixels
    assert result.dtype == np.uint16
    expected = stylizer.stylize(tiny.smooth_picture(20, 24, 1)).astype(int) * 257
    np.testing.assert_allclose(result, expected, atol=257)
    assert evaluate(trained, "--image", "deep.tif", "-o", "a.tif", "--max-pixels", "479") == 1
    assert "more than the allowed 479 pixels" in capsys.readouterr().err


def test_eval_says_what_is_bare_unless_it_was_told_about_grain(
    trained: Trained, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    white = np.full((256, 256, 4), 255, np.uint8)
    white[200:, :, :3] = tiny.smooth_picture(56, 256, 1)
    Image.fromarray(white[..., :3]).save("white.png")
    tiny.save_picture(workplace / "full.png", 64, 64, 1)
    white[:200, :, 3] = 0
    Image.fromarray(white).save("cut_out.png")

    def told(*arguments: str) -> str:
        assert evaluate(trained, *arguments, "-o", "out/") == 0
        return capsys.readouterr().err

    start = "note: nets paint nothing where a photo is perfectly flat, as in parts of "
    end = "; --grain 3 has them paint there, too\n"
    one = told("--image", "white.png")
    share = int(re.findall(r"^.* out/white\.png \((\d+)%\);", one)[0])
    assert one == f"{start}out/white.png ({share}%){end}"
    styled = np.asarray(Image.open("out/white.png"))
    assert 20 < share < 78 and (styled[: share * 2] == styled[0, 0]).all()  # So many rows.
    (workplace / "six").mkdir()
    for number in range(5):
        Image.fromarray(white[..., :3]).save(f"six/{number}.png")
    Image.fromarray(white[40:, :, :3]).save("six/less.png")
    names = ", ".join(f"out/{number}.png ({share}%)" for number in range(4))
    assert told("--image", "full.png", "six") == f"{start}{names} and 2 more{end}"
    assert told("--image", "full.png", "cut_out.png") == ""
    opaque = told("--image", "cut_out.png", "--format", "jpg")
    assert opaque == f"{start}out/cut_out.jpg ({share}%){end}"
    for options in (("--grain", "3"), ("--grain", "0"), ("--strength", "0")):
        assert told("--image", "white.png", *options) == ""


def test_eval_says_that_only_the_first_frame_is_stylized(
    trained: Trained, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "moving.gif").write_bytes(hostile.animation("GIF"))
    assert evaluate(trained, "--image", "moving.gif") == 0
    said = capsys.readouterr()
    assert said.out == "generated/moving_tiny.png\n"
    assert said.err == "note: moving.gif: only the first of its 3 frames is stylized\n"


def test_eval_says_once_how_large_pictures_are_done(
    trained: Trained, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png"):
        tiny.save_picture(workplace / name, 60, 70, 0)
    assert evaluate(trained, "--image", "a.png", "b.png", "--tile", "fast:32", "-o", "out") == 0
    said = capsys.readouterr().err
    assert said.count("70x60: fast tiles of 32 px, with the statistics of a thumbnail") == 1
    assert evaluate(trained, "--image", "a.png", "--max-size", "40", "-o", "small.png") == 0
    assert "scaled down to 40x34 for max_size" in capsys.readouterr().err
    assert logging.getLogger("fast_style.stylize").level == logging.NOTSET


@pytest.mark.parametrize("quality", ["0", "101", "high"])
def test_eval_refuses_an_impossible_quality(
    quality: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        script("eval", ["--model", "m", "--image", "a.jpg", "--quality", quality])
    assert caught.value.code == 2
    assert f"expected a whole number of 1 to 100, got '{quality}'" in capsys.readouterr().err


# export.py


def test_export_writes_what_is_asked_for_and_says_how_to_use_it(
    trained: Trained,
    stylizer: fast_style.Stylizer,
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parity_module, "SIZES", ((33, 47), (21, 18)))
    assert script("export", ["--model", str(trained.model), "-n", "tiny (b)"]) == 0
    out = capsys.readouterr().out
    assert "wrote exported/tiny (b)/1 (float32)" in out
    assert re.search(r"^savedmodel +ok +[01] ", out, re.MULTILINE)
    assert "tf.saved_model.load('exported/tiny (b)/1').signatures['serving_default']" in out
    (serve,) = (line for line in out.splitlines() if line.startswith("serve:"))
    words = shlex.split(serve)
    assert words[words.index("-v") + 1] == f"{workplace}/exported/tiny (b):/models/tiny (b)"
    assert words[words.index("-e") + 1] == "MODEL_NAME=tiny (b)"
    assert "http://localhost:8501/v1/models/tiny%20%28b%29:predict" in out
    assert [path.name for path in (workplace / "exported").iterdir()] == ["tiny (b)"]
    described = json.loads((workplace / "exported" / "tiny (b)" / "1.json").read_text())
    assert described["model"]["source"] == str(trained.model / "model.safetensors")


def test_export_fails_when_a_format_gives_other_pictures(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity_module, "SIZES", ((33, 47), (21, 18)))
    monkeypatch.setattr(exporting_module, "write_saved_model", lambda _, path, **__: path.mkdir())
    black = parity_module.Signature(run=lambda photo, mix: np.zeros_like(photo), mixes=False)
    monkeypatch.setattr(exporting_module, "saved_model_signatures", lambda _: [black])
    save_good_model(workplace / "model.safetensors")
    assert script("export", ["--model", "model.safetensors", "-n", "bad"]) == 1
    said = capsys.readouterr()
    assert "FAILED" in said.out
    assert "wrote exported/bad/1" not in said.out
    assert "wrote exported/bad.failed.json" in said.out
    assert "exported/bad/1: not kept, because it differs from the native net by up to" in said.err
    assert not (workplace / "exported" / "bad").exists()


def test_export_that_is_terminated_leaves_nothing(
    workplace: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(model: Model, folder: Path, **_: Any) -> None:
        folder.mkdir()
        (folder / "half").write_text("half")
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(parity_module, "SIZES", ((33, 17),))
    monkeypatch.setattr(exporting_module, "write_saved_model", write)
    save_good_model(workplace / "model.safetensors")
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        assert script("export", ["--model", "model.safetensors"]) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    told = capfd.readouterr().err.splitlines()
    removing = "stopping, and removing what is not complete"
    assert told == [f"SIGTERM: {removing}; once more stops at once", "stopped"]
    assert [path.name for path in workplace.iterdir()] == ["model.safetensors"]


def test_export_asks_of_the_served_files_as_its_curl_line_does(
    workplace: Path,
) -> None:
    """The shell lines make the JSON of TensorFlow Serving, and a picture of its answer."""
    model = tiny_model()
    lines = _serving_use(model, Path("exported/a/1"), "a").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("ask:"))
    ask = "\n".join(lines[start:]).removeprefix("ask:").replace("| curl", "| ./curl")
    (workplace / "photo.jpg").write_bytes(b"\xff\xd8\xffphoto")
    (workplace / "curl").write_text(
        "#!/bin/sh\ncat > asked.json\n"
        """echo '{"predictions": [{"b64": "'$(printf styled | base64)'"}]}'\n"""
    )
    (workplace / "curl").chmod(0o755)
    subprocess.run(["sh", "-c", ask], check=True, cwd=workplace)
    asked = json.loads((workplace / "asked.json").read_text())
    assert asked["signature_name"] == "image_bytes"
    assert base64.b64decode(asked["instances"][0]["b64"]) == b"\xff\xd8\xffphoto"
    assert (workplace / "styled.jpg").read_bytes() == b"styled"


def test_scripts_explain_their_arguments(tmp_path: Path) -> None:
    for name, words in {
        "train": ("--conf", "--set", "--fresh", "--dry-run"),
        "eval": ("--model", "--model_file", "--image", "--image_file", "--output"),
        "export": ("--model", "--model_file", "--model_name"),
    }.items():
        result = python(tmp_path, ROOT / f"{name}.py", "--help")
        assert result.returncode == 0
        assert all(word in result.stdout for word in words), result.stdout
    result = python(tmp_path, ROOT / "export.py")
    assert result.returncode == 2
    assert "--model" in result.stderr
    assert "Traceback" not in result.stderr


# Mistakes, one by one


@dataclass(frozen=True)
class Mistake:
    """A command that cannot work.

    Attributes:
      name: In a few words.
      arguments: Prepares the current folder and returns the command line.
      code: The exit code wanted.
      says: What standard error must contain.
      lines: How many lines it may have.
    """

    name: str
    arguments: Callable[[tiny.World, Path], list[str]]
    code: int
    says: tuple[str, ...]
    lines: int = 1


def training_run(**changes: Any) -> Callable[[tiny.World, Path], list[str]]:
    """A run whose configuration is right, but for what it names."""
    return lambda world, here: ["train", "-c", str(world.config_file(here, **changes))]


def with_file(name: str, data: bytes, **changes: Any) -> Callable[[tiny.World, Path], list[str]]:
    """A run with a file of its own in the current folder."""

    def prepare(world: tiny.World, here: Path) -> list[str]:
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return training_run(**changes)(world, here)

    return prepare


def with_override(*overrides: str) -> Callable[[tiny.World, Path], list[str]]:
    options = [word for override in overrides for word in ("--set", override)]
    return lambda world, here: [*training_run()(world, here), *options]


def with_truncated_weights(world: tiny.World, here: Path) -> list[str]:
    shutil.copy(world.weights, here / "cut.npz")
    truncate(here / "cut.npz")
    return training_run(loss_model_file="cut.npz")(world, here)


def with_shallow_weights(world: tiny.World, here: Path) -> list[str]:
    weight_files.save_npz(here / "short.npz", weight_files.random_vgg("vgg_16", "conv1_2"))
    return training_run(loss_model_file="short.npz")(world, here)


def with_glass_style(world: tiny.World, here: Path) -> list[str]:
    pixels = np.dstack([tiny.smooth_picture(40, 40, 1), np.full((40, 40), 99, np.uint8)])
    Image.fromarray(pixels).save(here / "glass.png")
    return training_run(style_image="glass.png")(world, here)


def with_empty_folder(world: tiny.World, here: Path) -> list[str]:
    (here / "nothing").mkdir()
    return training_run(dataset="nothing")(world, here)


def with_another_arch(world: tiny.World, here: Path) -> list[str]:
    weight_files.save_v1(here / "old.ckpt", init_weights("slim2016"))
    return training_run(init_from="old.ckpt")(world, here)


def evaluation(
    model: Callable[[Path], None] | None = None,
    picture: bytes | None = None,
    options: tuple[str, ...] = (),
) -> Callable[[tiny.World, Path], list[str]]:
    """Stylizing photo.jpg with model.safetensors, each made as told."""

    def prepare(world: tiny.World, here: Path) -> list[str]:
        (model or save_good_model)(here / "model.safetensors")
        if picture is None:
            tiny.save_picture(here / "photo.jpg", 20, 24, 1)
        else:
            (here / "photo.jpg").write_bytes(picture)
        (here / "file").write_text("not a folder")
        return ["eval", "--model", "model.safetensors", "--image", "photo.jpg", *options]

    return prepare


def exporting(*options: str) -> Callable[[tiny.World, Path], list[str]]:
    return lambda world, here: [
        "export",
        *evaluation()(world, here)[1:3],
        *options,
    ]


def tiny_model(arch: str = "johnson", weights_of: str = "johnson") -> Model:
    width = 0.125 if weights_of == "johnson" else 1.0
    return Model(arch, width, ("tiny",), init_weights(weights_of, width=width))


def save_good_model(path: Path) -> None:
    save_model(path, tiny_model())


def save_truncated_model(path: Path) -> None:
    save_good_model(path)
    truncate(path)


MISTAKES = [
    Mistake(
        "config missing",
        lambda world, here: ["train", "-c", "conf/nothing.yml"],
        2,
        ("conf/nothing.yml: 1 problem", "no such file"),
        2,
    ),
    Mistake(
        "unknown key",
        with_override("style_wieght=3"),
        2,
        ("style_wieght: unknown key; did you mean 'style_weight'?",),
        2,
    ),
    Mistake(
        "wrong type",
        with_override("batch_size=two"),
        2,
        ("batch_size: expected a whole number of at least 1, got 'two'",),
        2,
    ),
    Mistake(
        "both epoch and steps",
        with_override("epoch=1", "steps=3"),
        2,
        ("epoch, steps: expected one of the two, got both; remove one",),
        2,
    ),
    Mistake(
        "three mistakes at once",
        with_override("style_wieght=3", "batch_size=0", "precision=half"),
        2,
        ("--set: 3 problems", "style_wieght", "batch_size", "precision: expected one of auto"),
        4,
    ),
    Mistake(
        "weights missing",
        training_run(loss_model_file="pretrained/vgg_16.ckpt"),
        2,
        (
            "pretrained/vgg_16.ckpt: the weights of the loss network vgg_16 are missing",
            "`python -m fast_style fetch vgg_16` gets it, or point loss_model_file at your own",
        ),
        2,
    ),
    Mistake("weights truncated", with_truncated_weights, 2, ("cut.npz: ", "damaged")),
    Mistake(
        "weights of too few layers",
        with_shallow_weights,
        2,
        ("short.npz: no weights for layer vgg_16/conv2/conv2_1",),
    ),
    Mistake(
        "style picture missing",
        training_run(style_image="img/no.jpg"),
        2,
        ("style_image: img/no.jpg: no such picture",),
        2,
    ),
    Mistake(
        "style picture is not one",
        with_file("style.jpg", b"hello", style_image="style.jpg"),
        2,
        ("style_image: style.jpg: ",),
        2,
    ),
    Mistake(
        "style picture with alpha",
        with_glass_style,
        2,
        ("style_image: glass.png: has transparent parts", "save it without transparency"),
        2,
    ),
    Mistake(
        "photo folder missing",
        training_run(dataset="data/train2014"),
        2,
        (
            "data/train2014: no such folder of photos; point `dataset` at a folder of your own "
            "(any photos will do),",
            "`python -m fast_style fetch coco2017val` (0.8 GB) or "
            "`python -m fast_style fetch coco2014` (13.6 GB)",
        ),
        2,
    ),
    Mistake("photo folder empty", with_empty_folder, 2, ("no photos in this folder (it is",), 2),
    Mistake(
        "photo folder without pictures",
        with_file("texts/a.txt", b"hello", dataset="texts"),
        2,
        ("texts: no photos in this folder (none of its 1 files is a picture)",),
        2,
    ),
    Mistake(
        "photos that are none",
        with_file("texts/a.jpg", b"hello", dataset="texts", batch_size=1),
        2,
        ("texts: none of its 1 photos can be read; for example, texts/a.jpg: ",),
    ),
    Mistake(
        "held-out folder missing",
        training_run(val_dataset="no"),
        2,
        ("no: no such folder of photos; point `val_dataset` at",),
    ),
    Mistake(
        "fewer photos than a batch",
        training_run(batch_size=8),
        2,
        ("7 photos in ", "fewer than batch_size 8; add photos or lower batch_size"),
    ),
    Mistake(
        "preview picture missing",
        training_run(preview_image="no.jpg"),
        2,
        ("preview_image: no.jpg: no such picture",),
        2,
    ),
    Mistake(
        "starting point missing",
        training_run(init_from="models/none"),
        2,
        ("models/none: no such model",),
    ),
    Mistake(
        "starting point of another arch",
        with_another_arch,
        2,
        ("old.ckpt is arch slim2016", "this run is arch johnson", "make them agree"),
        2,
    ),
    Mistake(
        "model folder is a file",
        with_file("out", b"x", model_path="out"),
        1,
        ("out/tiny: cannot write to this folder (", "out is not a folder)"),
    ),
    Mistake(
        "folder of style targets is a file",
        with_file("generated", b"x"),
        1,
        ("generated: cannot write to this folder (", "generated is not a folder)"),
    ),
    Mistake(
        "model missing",
        lambda world, here: ["eval", "--model", "models/no", "--image", "photo.jpg"],
        2,
        ("models/no: no such model; give the folder of a training run",),
    ),
    Mistake(
        "model truncated",
        evaluation(save_truncated_model),
        2,
        ("model.safetensors: cannot be read as a safetensors file", "damaged"),
    ),
    Mistake(
        "model of an unknown arch",
        evaluation(lambda path: save_model(path, tiny_model(arch="unet"))),
        2,
        ("model.safetensors: made for arch 'unet', and this version knows johnson, slim2016",),
    ),
    Mistake(
        "model of another arch than it says",
        evaluation(lambda path: save_model(path, tiny_model(weights_of="slim2016"))),
        2,
        ("model.safetensors: does not hold the weights of arch johnson: ", "missing (conv1/wei"),
    ),
    Mistake(
        "model is a folder without one",
        lambda world, here: ["export", "--model", "."],
        2,
        ("no model.safetensors and no fast-style-model.ckpt-* in this folder",),
    ),
    Mistake("picture is not one", evaluation(picture=b"hello"), 1, ("photo.jpg: ",)),
    Mistake("picture is empty", evaluation(picture=b""), 1, ("photo.jpg: ", "empty")),
    Mistake(
        "picture missing",
        lambda world, here: [*evaluation()(world, here)[:4], "no.jpg"],
        1,
        ("no.jpg: no such picture; check the path",),
    ),
    Mistake(
        "folder of no pictures",
        lambda world, here: [*with_folder(here / "none", evaluation()(world, here)[:4]), "none"],
        2,
        ("none: no photos in this folder (it is empty); give pictures, or a folder of some",),
    ),
    Mistake(
        "output below a file",
        evaluation(options=("-o", "file/styled.jpg")),
        1,
        ("file: cannot write to this folder (", "file is not a folder)"),
    ),
    Mistake(
        "output of an unknown format",
        evaluation(options=("-o", "styled.xyz")),
        2,
        ("styled.xyz: pictures are not written as .xyz", ".png"),
    ),
    Mistake(
        "output in place of the picture",
        evaluation(options=("-o", "photo.jpg")),
        2,
        ("photo.jpg: would replace a source picture; choose another output with -o",),
    ),
    Mistake(
        "style weights that are no numbers",
        evaluation(options=("--style-weights", "a,b")),
        2,
        ("--style-weights: expected numbers with commas between", "got 'a,b'"),
    ),
    Mistake(
        "style weights for another number of styles",
        evaluation(options=("--style-weights", "0.5,0.5")),
        2,
        ("--style-weights: expected 1 numbers from -10 to 10, for tiny, got [0.5, 0.5]",),
    ),
    Mistake(
        "a style that the model does not have",
        evaluation(options=("--style", "mosaic")),
        2,
        ("--style: expected one of tiny, got 'mosaic'",),
    ),
    Mistake(
        "a style and a mix",
        evaluation(options=("--style", "tiny", "--style-weights", "1")),
        2,
        ("--style: given beside --style-weights; keep one of them",),
    ),
    Mistake(
        "a strength beyond the full style",
        evaluation(options=("--strength", "1.5")),
        2,
        ("--strength: expected a number from 0 to 1, got 1.5",),
    ),
    Mistake(
        "strokes too large",
        evaluation(options=("--stroke-scale", "5")),
        2,
        ("--stroke-scale: expected a number from 0.5 to 4, got 5.0",),
    ),
    Mistake(
        "too much grain",
        evaluation(options=("--grain", "33")),
        2,
        ("--grain: expected a number from 0 to 32, got 33.0",),
    ),
    Mistake(
        "a picture of no size",
        evaluation(options=("--max-size", "0")),
        2,
        ("--max-size: expected a whole number of at least 1, got 0",),
    ),
    Mistake(
        "tiles of a word",
        evaluation(options=("--tile", "small")),
        2,
        ("--tile: expected auto, off, fast, or a tile's side in pixels", "got 'small'"),
    ),
    Mistake(
        "export below a file",
        exporting("-o", "file/out"),
        1,
        ("file/out", "cannot write to this folder (", "file is not a folder)"),
    ),
    Mistake(
        "export over something else",
        exporting("-n", "file", "-o", "."),
        1,
        ("file: is a file, not a folder; choose another place with -o",),
    ),
    Mistake(
        "export as what there is not",
        exporting("--format", "onnx,coreml"),
        2,
        ("--format: expected any of savedmodel, tflite, onnx, with commas between, got 'coreml'",),
    ),
    *(
        Mistake(
            f"export under {name!r}",
            exporting("-n", name),
            2,
            ("--model_name: expected a plain name (", f"got '{name}'"),
        )
        for name in ("a/b", "..", "")
    ),
    Mistake(
        "fetching what there is not",
        lambda world, here: ["fetch", "vgg16"],
        1,
        ("'vgg16': nothing to fetch by this name; did you mean 'vgg_16'?",),
    ),
]


def with_folder(folder: Path, arguments: list[str]) -> list[str]:
    folder.mkdir()
    return arguments


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
def test_a_mistake_is_told_in_a_sentence_and_nothing_is_written(
    mistake: Mistake,
    world: tiny.World,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def no_graph(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError("a graph was built for a run that cannot start")

    for function in ("make_train_step", "build_objective"):
        monkeypatch.setattr(training, function, no_graph)
    arguments = mistake.arguments(world, workplace)
    before = tree(workplace)
    capfd.readouterr()
    assert main(arguments) == mistake.code
    errors = capfd.readouterr().err
    assert errors.startswith("error: ")
    for part in mistake.says:
        assert part in errors
    assert "Traceback" not in errors
    assert len(errors.splitlines()) <= mistake.lines
    assert tree(workplace) == before


def test_losses_that_are_not_finite_end_a_run_with_a_sentence(
    world: tiny.World,
    workplace: Path,
    quick_steps: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_step = training.make_train_step

    def make_broken_step(*arguments: Any, **keywords: Any):
        step = make_step(*arguments, **keywords)

        def broken(photos: np.ndarray, choice: np.ndarray):
            losses, styled, gradients = step(photos, choice)
            return losses | {tags.TOTAL: tf.constant(np.inf)}, styled, gradients

        return broken

    monkeypatch.setattr(training, "make_train_step", make_broken_step)
    assert main(["train", "-c", str(world.config_file(workplace))]) == 1
    errors = capsys.readouterr().err
    *warnings, error = errors.splitlines()
    assert [warning.partition(";")[0] for warning in warnings] == [
        f"step {step}: not a finite number: total_loss" for step in (1, 2, 3)
    ]
    assert error.startswith("error: step 3: not a finite number in 3 batches in a row: total_loss;")
    assert "Lower learning_rate" in error


def test_resuming_with_another_setting_is_refused_with_exit_code_2(
    trained: Trained, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.folder / "models", workplace / "models")
    before = tree(workplace)
    overrides = ["--set", f"model_path={workplace}/models", "--set", "style_weight=5"]
    assert main(["train", "-c", str(trained.folder / "tiny.yml"), *overrides]) == 2
    errors = capsys.readouterr().err
    assert "style_weight: was 100.0, now 5.0" in errors
    assert "--fresh" in errors
    assert tree(workplace) == before


def test_the_model_of_a_run_and_the_printed_config_agree(trained: Trained) -> None:
    described = load_model(trained.model).metadata["config"]
    printed, _, _ = trained.process.stdout.partition("\n\n")
    config = load_config(trained.folder / "tiny.yml", ["steps=2"])
    assert described == config.to_dict()
    assert config_to_yaml(config).strip() == printed
