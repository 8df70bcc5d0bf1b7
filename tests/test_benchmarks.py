"""The benchmarks find what they import; whether they measure well is for those who run them."""

from __future__ import annotations

import argparse
import ast
import fnmatch
import importlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fast_style.config import load_config
from fast_style.transform_net import init_weights

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.name)
def test_what_a_benchmark_imports_of_the_package_exists(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    missing = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("fast_style"):
            continue
        module = importlib.import_module(node.module or "")
        for alias in node.names:
            if not hasattr(module, alias.name):
                try:
                    importlib.import_module(f"{node.module}.{alias.name}")
                except ImportError:
                    missing.append(f"{node.module}.{alias.name}")
    assert not missing


def test_the_quality_study_is_made_of_configurations_that_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    study = importlib.import_module("quality_study")
    arguments = ["--photos", "p", "--held-out", "h", "--loss-model-file", "v", "--style", "s.jpg"]
    options = study._arguments(
        [*arguments, "--style-weight", "60", "--image-size", "96", "-o", "o"]
    )
    variants = study._variants(options)
    names = [variant.name for variant in variants]
    assert len(set(names)) == len(names) >= 16
    weights = init_weights("johnson")
    for variant in variants:
        assert sum(stage.share for stage in variant.stages) == pytest.approx(1.0), variant.name
        for stage in variant.stages:
            overrides = [*study._overrides(options, stage.settings), "steps=1"]
            config = load_config(ROOT / "conf/wave.yml", overrides)
            assert config.style_image == "s.jpg"
            first = stage is variant.stages[0]
            started = variant.name.startswith("started") or variant.name == "together"
            assert (config.init_from is not None) == (first and started)
            assert bool(stage.initial) == (first and not started)
            for pattern in stage.initial:
                assert fnmatch.filter(weights, pattern), pattern
    small, large = next(v for v in variants if v.name == "small_first").stages
    assert (small.settings["image_size"], small.settings["style_weight"]) == (48, 15.0)
    assert "image_size" not in large.settings


def test_the_quality_study_counts_what_is_quick_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    study = importlib.import_module("quality_study")

    def cost(options: Any, folder: Path, stage: Any) -> float:
        small = stage.settings.get("image_size", 96) == 48
        mini = stage.settings.get("loss_model") == "vgg_mini"
        return (0.25 if small else 1.0) * (0.5 if mini else 1.0)

    monkeypatch.setattr(study, "_cost", cost)
    options = argparse.Namespace(image_size=96, steps=1000)
    for settings, wanted in (
        ({}, 1.0),
        ({"small_first": 0.5}, 0.5 * 0.25 + 0.5),
        ({"mini_first": 0.5}, 0.5 * 0.5 + 0.5),
        ({"small_first": 0.25, "mini_first": 0.75}, 0.25 * 0.125 + 0.5 * 0.5 + 0.25),
        ({"small_first": 0.75, "mini_first": 0.25}, 0.25 * 0.125 + 0.5 * 0.25 + 0.25),
    ):
        steps = study._steps(options, Path("."), study.Stage(settings))
        assert steps == round(1000 / wanted), settings


def test_robustness_is_twenty_runs_of_five_styles_in_both_precisions_for_each_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    robustness = importlib.import_module("robustness")
    monkeypatch.setattr(
        "sys.argv", ["x", "--photos", "p", "--held-out", "h", "--image-size", "64", "-o", "o"]
    )
    options = robustness._arguments()
    runs = robustness._runs(options)
    assert len({run.name for run in runs}) == len({run.seed for run in runs}) == len(runs) == 40
    for kind in ("started", "afresh"):
        pairs = [(run.style, run.precision) for run in runs if run.kind == kind]
        assert sorted(pairs) == sorted(2 * [*set(pairs)]) and len(set(pairs)) == 10
    for run in runs:
        config = robustness._config(options, run)
        whole = load_config(ROOT / f"conf/{run.style}.yml")
        assert config.style_weight == pytest.approx((whole.style_weight or 0.0) / 16.0)
        assert (config.precision, config.seed) == (run.precision, run.seed)
        assert (config.init_from is None) == (run.kind == "afresh")
    options.start, options.style = ["started"], ["data/styles/udnie.jpg", "mine.png"]
    own = robustness._runs(options)
    assert [run.seed for run in own] == [0, 1, 2, 3, 8, 9, 10, 11]
    assert [run.name for run in own[3:5]] == ["udnie_bfloat16_started_3", "mine_float32_started_8"]
    config = robustness._config(options, own[0])
    assert str(config.style_image) == str(Path("data/styles/udnie.jpg").resolve())
    assert (config.style_weight, config.init_from is None) == (pytest.approx(220 / 16), False)


def test_robustness_reports_runs_that_fail_and_trains_them_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    robustness = importlib.import_module("robustness")
    arguments = ["x", "--photos", "p", "--held-out", "h", "--only", "candy", "-o", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    calls: list[list[str]] = []

    def fail(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        line = json.dumps({"event": "error", "message": "two\nlines"})
        return subprocess.CompletedProcess(command, 1, stdout=line + '\n{"event": "st')

    monkeypatch.setattr(robustness.subprocess, "run", fail)
    monkeypatch.setattr(robustness, "emit", lambda *_: None)  # It asks Git.
    robustness.main()
    rows = (tmp_path / "table.md").read_text().splitlines()[2:]
    assert len(rows) == len(calls) == 8
    assert all("| failed: two lines | " in row for row in rows)
    robustness.main()
    assert len(calls) == 16
    monkeypatch.setattr(
        robustness.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 130)
    )
    with pytest.raises(SystemExit, match="candy_float32_started_0 was stopped"):
        robustness.main()


def test_there_are_benchmarks() -> None:
    assert BENCHMARKS
