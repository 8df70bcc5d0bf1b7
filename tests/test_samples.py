from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny

from fast_style.config import load_config
from fast_style.data import find_photos
from fast_style.errors import DataError
from fast_style.provenance import names_sha256
from fast_style.samples import SAMPLES, sample_photos

ROOT = Path(__file__).parents[1]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for the two libraries; the second one lacks a photo."""
    for place in ("skimage/data/chelsea.png", "skimage/data/coffee.png", "sklearn/datasets/x.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        tiny.save_picture(tmp_path / place, 40, 50, 1)

    def find_spec(name: str) -> Any:
        return SimpleNamespace(submodule_search_locations=[str(tmp_path / name)])

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    return tmp_path


def test_samples_are_photos_of_installed_libraries(packages: Path) -> None:
    expected = tuple(packages / "skimage/data" / name for name in ("chelsea.png", "coffee.png"))
    assert find_photos(SAMPLES) == sample_photos() == expected


def test_samples_that_are_not_installed_say_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"`pip install 'fast-style\[quickstart\]'` installs them"):
        find_photos(SAMPLES)


def test_other_samples_are_refused() -> None:
    with pytest.raises(DataError, match="samples:cats: there are no such samples; did you mean"):
        find_photos("samples:cats")


def test_names_of_files_elsewhere_count_without_their_place(tmp_path: Path) -> None:
    here, there = tmp_path / "a/x.png", tmp_path / "b/x.png"
    assert names_sha256([here], Path(SAMPLES)) == names_sha256([there], Path(SAMPLES))
    assert names_sha256([here], tmp_path) != names_sha256([there], tmp_path)


def test_the_quickstart_needs_nothing_that_has_to_be_downloaded() -> None:
    config = load_config(ROOT / "conf/quickstart.yml")
    assert config.dataset == SAMPLES and config.loss_model == "vgg_mini"
    assert (ROOT / config.loss_model_file).is_file()
    assert config.style_image is not None and (ROOT / config.style_image).is_file()


def test_the_installed_libraries_have_the_samples() -> None:
    pytest.importorskip("skimage", reason="needs the extra quickstart")
    pytest.importorskip("sklearn", reason="needs the extra quickstart")
    assert len(sample_photos()) == 7
