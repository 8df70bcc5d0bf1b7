"""The net that comes along for others to start from, pretrained/johnson.safetensors."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import fast_style
from fast_style import objective as tags
from fast_style.builders import (
    begin,
    build_network,
    build_objective,
    load_style_pictures,
    step_settings,
)
from fast_style.checkpoints import load_model
from fast_style.config import START, config_from_dict, load_config
from fast_style.errors import ModelError
from fast_style.images import cover_crop, read_image, write_image
from fast_style.loss_models import BUNDLED
from fast_style.parity import PHOTO
from fast_style.provenance import file_sha256
from fast_style.train_state import TrainState, make_train_step

ROOT = Path(__file__).parents[1]
OTHERS = sorted(
    {path.stem for path in (ROOT / "conf").glob("*.yml")} - {"start", "quickstart", "hour"}
)


def test_it_holds_all_styles_of_the_project_and_says_how_it_was_made() -> None:
    file = ROOT / START
    assert file.stat().st_size <= 4_000_000
    model = load_model(file)
    config = load_config(ROOT / "conf/start.yml")
    assert (model.arch, model.width) == (config.arch, config.width) == ("johnson", 1.0)
    assert list(model.style_names) == [style.name for style in config.style_specs] == OTHERS
    made = model.metadata["config"]
    assert [style["weight"] for style in made["styles"]] == [s.weight for s in config.style_specs]
    pictures = [file_sha256(ROOT / style.image) for style in config.style_specs]
    assert model.metadata["style_sha256"] == pictures
    assert model.metadata["loss_model_sha256"] == file_sha256(ROOT / BUNDLED)
    described = config_from_dict(made, "its header")  # Keys that are younger have their defaults.
    where = {"dataset", "loss_model_file", "model_path", "styles"}
    for key in {field.name for field in dataclasses.fields(config)} - where:
        assert getattr(described, key) == getattr(config, key), key
    # Where its maker keeps files is nobody's business.
    for text in (made["dataset"], made["model_path"], *map(str, made["styles"])):
        assert not re.search(r"(^|')(/|\w:\\|\.\.)", text), text


def test_it_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_model(START).source.samefile(ROOT / START)
    with pytest.raises(ModelError, match="other.safetensors: no such model"):
        load_model("pretrained/other.safetensors")
    packaging = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert Path(START).name in packaging


def test_every_style_of_it_makes_a_picture_of_its_own() -> None:
    net = fast_style.load(ROOT / START, precision="float32")
    photo = cover_crop(read_image(PHOTO), 128)
    styled = [
        net.stylize(photo, style_weights=net.one_style(name)).astype(np.float64)
        for name in net.model.style_names
    ]
    for place, one in enumerate(styled):
        assert one.std() > 20  # Not grey.
        assert ((one > 2) & (one < 253)).mean() > 0.8  # Not saturated.
        # The photo is still there: dark stays dark.
        assert np.corrcoef(one.mean(-1).ravel(), photo.mean(-1).ravel())[0, 1] > 0.15
        for other in styled[:place]:
            assert np.abs(one - other).mean() > 8


def test_a_style_that_it_never_saw_is_learnt_faster_from_it(tmp_path: Path) -> None:
    """One of ours in other colours and turned, for some steps on one photo."""
    picture = read_image(ROOT / "data/styles/wave.jpg")
    write_image(tmp_path / "style.png", picture.transpose(1, 0, 2)[..., [2, 0, 1]])
    overrides = ["image_size=96", "loss_model=vgg_mini", f"style_image={tmp_path}/style.png"]
    overrides += ["batch_size=1", "warmup_steps=0", "steps=10", "precision=float32"]
    config = load_config(ROOT / "conf/wave.yml", overrides)
    objective = build_objective(
        config, build_network(config, "float32"), load_style_pictures(config)
    )
    photo = tf.constant(cover_crop(read_image(PHOTO), 96)[None])

    def total_after_steps(start: str | None) -> float:
        beginning = begin(dataclasses.replace(config, init_from=start))
        assert start is None or "the mean of its 8 styles" in str(beginning.told)
        state = TrainState(beginning.weights)
        settings = step_settings(config, "float32", steps=10)
        step = make_train_step(state, objective, settings, batch_size=1)
        found = [float(step(photo, tf.ones([1, 1]))[0][tags.TOTAL]) for _ in range(10)]
        return found[-1]

    assert total_after_steps(str(ROOT / START)) < 0.8 * total_after_steps(None)
