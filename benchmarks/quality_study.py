"""What makes a better net in the same time? One change at a time, against one baseline.

Each variant of `quality_study.yml` trains for as many steps as fit into the time that the baseline
takes for `--steps`. How long a step takes is measured once for each variant, in turns with the
baseline and in processor time, so that other work beside the study does not spoil it. Then the same
photos, which no run has seen, are stylized and scored with `quality`, always with the loss of the
baseline at `--image-size`.

    python benchmarks/quality_study.py --photos DIR --held-out DIR --loss-model-file vgg_16.ckpt \
        --style painting.jpg --style-weight 220 --steps 300 -o OUT

Started again, it goes on where it was stopped; `--only NAME` does some of the variants. It prints
one line of JSON for each variant, and leaves `table.md`, `sheet.jpg` (a row for each photo, a
column for each variant) and all models in OUT. Once `--count` has measured the steps of all,
several processes may work in one OUT, each on its own `--only`.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from common import emit, interleaved, overrides, random_photos

from fast_style.files import atomic_path

ROOT = Path(__file__).resolve().parents[1]
SHOWN = 3  # photos on the sheet


@dataclass(frozen=True)
class Stage:
    """A part of a run.

    Attributes:
      settings: Keys of the configuration.
      share: Of the time.
      initial: {pattern of weight names: what to multiply the initial weights by}.
    """

    settings: dict[str, Any]
    share: float = 1.0
    initial: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
      name: Names its runs.
      why: What it is to show.
      stages: One after another, each starting from the weights of the one before.
    """

    name: str
    why: str
    stages: tuple[Stage, ...]

    @property
    def runs(self) -> list[str]:
        """The name of each stage's run; the last is the variant's."""
        return [f"{self.name}_{number}" for number in range(1, len(self.stages))] + [self.name]


def main() -> None:
    """Trains and scores all variants that are not done yet."""
    options = _arguments()
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = _chosen(options)
    counts = {v.name: [_steps(options, folder, stage) for stage in v.stages] for v in chosen}
    if options.count:
        emit("quality_study", "steps", counts)
        return
    for variant in chosen:
        _set_others_aside(options, folder, variant)
        steps = counts[variant.name]
        run = _train(options, folder, variant, steps)
        found = {"steps": sum(steps), **_score(options, folder, run)}
        record = {"asked": _asked(options, variant), "found": found}
        with atomic_path(_result_file(folder, variant)) as aside:
            aside.write_text(json.dumps(record), encoding="utf-8")
        emit("quality_study", variant.name, found, why=variant.why)
    done = _done(options, folder)
    with atomic_path(folder / "table.md") as aside:
        aside.write_text(_table(done), encoding="utf-8")
    _sheet(options, folder, [variant.name for variant, _ in done])


def _done(options: argparse.Namespace, folder: Path) -> list[tuple[Variant, dict[str, Any]]]:
    """Returns what has been found so far, by other processes too, when asked for the same."""
    done = []
    for variant in _variants(options):
        file = _result_file(folder, variant)
        record = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if record.get("asked") == _asked(options, variant):
            done.append((variant, record["found"]))
    return done


def _asked(options: argparse.Namespace, variant: Variant) -> dict[str, Any]:
    """Returns what a result depends on, as JSON has it."""
    scores = {key: getattr(options, key) for key in ("steps", "held_out", "limit", "iterations")}
    stages = [
        {"settings": _settings(options, s.settings), "share": s.share, "initial": s.initial}
        for s in variant.stages
    ]
    return json.loads(json.dumps({**scores, "stages": stages}))


def _result_file(folder: Path, variant: Variant) -> Path:
    return folder / f"{variant.name}_result.json"


def _chosen(options: argparse.Namespace) -> list[Variant]:
    """Returns the variants to do."""
    variants = _variants(options)
    unknown = set(options.only or ()) - {variant.name for variant in variants}
    if unknown:
        raise SystemExit(f"--only: no such variant: {', '.join(sorted(unknown))}")
    return [v for v in variants if not options.only or v.name in options.only]


def _arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--photos", required=True, help="a folder to train on")
    parser.add_argument("--held-out", required=True, help="a folder to score on")
    parser.add_argument("--loss-model-file", required=True, help="weights of VGG16")
    parser.add_argument("--style", required=True)
    parser.add_argument("--style-weight", type=float, default=220.0)
    parser.add_argument("--steps", type=int, default=300, help="of the baseline; sets the time")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--show", metavar="DIR", help="photos of the sheet (default: --held-out)")
    parser.add_argument("--limit", type=int, default=18, help="held-out photos to score")
    parser.add_argument("--iterations", type=int, default=100, help="of L-BFGS, for the yardstick")
    parser.add_argument("--variants", default=str(Path(__file__).with_suffix(".yml")))
    parser.add_argument("--only", action="append", help="a variant; may be repeated")
    parser.add_argument("--count", action="store_true", help="measure the steps of each, no more")
    parser.add_argument("-o", "--output", required=True)
    return parser.parse_args(arguments)


def _variants(options: argparse.Namespace) -> list[Variant]:
    """Reads the file of variants; what a variant does not set is the baseline's."""
    content = yaml.safe_load(Path(options.variants).read_text(encoding="utf-8"))
    baseline = content["baseline"]
    found = [Variant("baseline", "the fixed point", (_stage(options, baseline, {}),))]
    for name, entry in content["variants"].items():
        first, *later = entry.get("stages") or [entry]
        stages = [_stage(options, baseline, first)]
        stages += [_stage(options, {"set": baseline["set"]}, part) for part in later]
        found.append(Variant(name, entry["why"], tuple(stages)))
    return found


def _stage(options: argparse.Namespace, baseline: dict[str, Any], part: dict[str, Any]) -> Stage:
    """Returns what a part of the file describes.

    Its `scale` is of the study's picture size. A style weight keeps its meaning when it grows with
    the square of that, so it does; `style` is a factor of it besides.
    """
    settings = {**baseline["set"], **part.get("set", {})}
    if "scale" in part:
        settings["image_size"] = round(options.image_size * part["scale"])
    if "scale" in part or "style" in part:
        factor = part.get("style", 1.0) * part.get("scale", 1.0) ** 2
        settings["style_weight"] = options.style_weight * factor
    initial = part.get("initial", {})
    if settings["init_from"] is None:
        initial = {**baseline.get("initial", {}), **initial}
    elif initial:
        raise SystemExit("a stage has `initial` or init_from, not both")
    return Stage(settings, part.get("share", 1.0), initial)


def _settings(options: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the keys of a run: those that the command line decides, and a variant's."""
    return {
        "style_image": options.style,
        "style_weight": options.style_weight,
        "dataset": options.photos,
        "loss_model_file": options.loss_model_file,
        "image_size": options.image_size,
        **settings,
    }


def _overrides(options: argparse.Namespace, settings: dict[str, Any]) -> list[str]:
    """Returns the same as `--set` takes them."""
    return overrides(_settings(options, settings))


# --- time ----------------------------------------------------------------------------------------

# What a step costs depends on these keys, not on how fast it learns.
_COSTLY = (
    *("batch_size", "image_size", "width", "precision", "arch", "loss_model", "optimizer"),
    *("gradient_clip", "consistency_weight", "grid_weight", "border_weight"),
)


def _steps(options: argparse.Namespace, folder: Path, stage: Stage) -> int:
    """Returns how many steps fit into a stage's share of the time."""
    from fast_style.loss_models import MINI, default_weights_file
    from fast_style.run_parts import spans

    shares = [stage.settings.get(key, 0.0) for key in ("small_first", "mini_first")]
    cost = 0.0
    for begin, end, small, mini in spans(*shares):
        settings = {**stage.settings, "small_first": 0.0, "mini_first": 0.0}
        if small:
            settings["image_size"] = stage.settings.get("image_size", options.image_size) // 2
        if mini:
            settings |= {"loss_model": MINI, "loss_model_file": default_weights_file(MINI)}
        cost += (end - begin) * _cost(options, folder, Stage(settings))
    return max(1, round(options.steps * stage.share / cost))


def _cost(options: argparse.Namespace, folder: Path, stage: Stage) -> float:
    """Returns how long a step of this size takes, in steps of the baseline."""
    file = folder / "costs.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    baseline = _variants(options)[0].stages[0]
    key = _costly(stage)
    known[_costly(baseline)] = 1.0
    if key not in known:
        costs = {"this": _step(options, stage), "baseline": _step(options, baseline)}
        times = interleaved(costs, rounds=7)
        seconds = {name: found.summary()["cpu_seconds"] for name, found in times.items()}
        known[key] = round(seconds["this"] / seconds["baseline"], 4)
        with atomic_path(file) as aside:
            aside.write_text(json.dumps(known, indent=1), encoding="utf-8")
    return known[key]


def _costly(stage: Stage) -> str:
    return json.dumps({name: stage.settings[name] for name in _COSTLY if name in stage.settings})


def _step(options: argparse.Namespace, stage: Stage) -> Callable[[], object]:
    """Returns the training step of a stage, on photos of noise."""
    import tensorflow as tf

    from fast_style import objective as tags
    from fast_style.builders import (
        build_network,
        build_objective,
        load_style_pictures,
        step_settings,
    )
    from fast_style.config import load_config
    from fast_style.hardware import resolve_precision
    from fast_style.train_state import TrainState, make_train_step
    from fast_style.transform_net import init_weights

    config = load_config(ROOT / "conf/wave.yml", [*_overrides(options, stage.settings), "steps=1"])
    precision = resolve_precision(config.precision)
    objective = build_objective(
        config, build_network(config, precision), load_style_pictures(config)
    )
    step = make_train_step(
        TrainState(init_weights(config.arch, width=config.width)),
        objective,
        step_settings(config, precision, steps=1),
        batch_size=config.batch_size,
    )
    photos = random_photos(config.batch_size, config.image_size, 0)
    choice = tf.ones([config.batch_size, 1])
    return lambda: step(tf.constant(photos), choice)[0][tags.TOTAL].numpy()


# --- runs and their scores -----------------------------------------------------------------------


def _train(
    options: argparse.Namespace, folder: Path, variant: Variant, steps: Sequence[int]
) -> Path:
    """Trains, or goes on, and returns the folder of the last stage's run."""
    run = None
    for name, stage, count in zip(variant.runs, variant.stages, steps, strict=True):
        command = [sys.executable, str(ROOT / "train.py"), "-c", str(ROOT / "conf/wave.yml")]
        changes = _overrides(options, stage.settings)
        changes += [f"naming={name}", f"model_path={folder}", f"steps={count}"]
        if stage.initial:
            run = _start(folder / f"{name}_start.safetensors", stage)
        if run is not None:
            changes.append(f"init_from={run}")
        for override in [*changes, "log_every_steps=50", "checkpoint_every_steps=200"]:
            command += ["--set", override]
        subprocess.run(command, check=True, stdout=sys.stderr)
        run = folder / name
    assert run is not None
    return run


def _set_others_aside(options: argparse.Namespace, folder: Path, variant: Variant) -> None:
    """Renames runs of a variant's name that were made for other settings, and marks new ones."""
    from fast_style.saving import set_aside

    mark, asked = folder / f"{variant.name}_asked.json", _asked(options, variant)
    if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == asked:
        return
    for name in variant.runs:
        set_aside(folder / name)
    with atomic_path(mark) as aside:
        aside.write_text(json.dumps(asked), encoding="utf-8")


def _start(path: Path, stage: Stage) -> Path:
    """Writes the weights that a stage starts from."""
    from fast_style.checkpoints import Model, save_model
    from fast_style.transform_net import init_weights

    width = stage.settings.get("width", 1.0)
    weights = init_weights("johnson", width=width, seed=stage.settings.get("seed", 0))
    for pattern, factor in stage.initial.items():
        found = fnmatch.filter(weights, pattern)
        if not found:
            raise SystemExit(f"initial: no weight is called like {pattern}")
        weights |= {name: weights[name] * np.float32(factor) for name in found}
    save_model(path, Model("johnson", width, ("start",), weights, {}))
    return path


def _score(options: argparse.Namespace, folder: Path, run: Path) -> dict[str, Any]:
    """Scores a run with the baseline's loss, whatever it was trained with."""
    yardstick = folder / "yardstick.yml"
    baseline = _variants(options)[0].stages[0].settings
    own = {key: value for key, value in baseline.items() if key not in _COSTLY}
    settings = _settings(options, own) | {"naming": "yardstick", "steps": 1}
    with atomic_path(yardstick) as aside:
        aside.write_text(yaml.safe_dump(settings), encoding="utf-8")
    numbers = folder / f"{run.name}.json"
    command = [sys.executable, "-m", "fast_style", "quality", "--model", str(run)]
    command += ["--photos", options.held_out, "--limit", str(options.limit)]
    command += ["--iterations", str(options.iterations), "-c", str(yardstick)]
    command += ["--json", str(numbers), "--cache", str(folder / "curves")]
    subprocess.run(command, check=True, stdout=sys.stderr, cwd=ROOT)
    style = json.loads(numbers.read_text(encoding="utf-8"))["styles"][0]
    terms = [photo["model_terms"] for photo in style["per_photo"]]

    def mean(tag: str) -> int:
        return round(float(np.mean([values[tag] for values in terms])))

    return {
        "n": style["n_median"],
        "n_quartiles": [style["n_lower_quartile"], style["n_upper_quartile"]],
        "content": mean("weighted_losses/weighted_content_loss"),
        "style": mean("weighted_losses/weighted_style_loss"),
        "total": mean("total_loss"),
    }


def _table(done: Sequence[tuple[Variant, dict[str, Any]]]) -> str:
    """Returns all results in Markdown, in the order of the file."""
    lines = [
        "| variant | steps | content | style | total | N | why |",
        "|---|---|---|---|---|---|---|",
    ]
    for variant, found in done:
        numbers = " | ".join(f"{found[key]:,}" for key in ("steps", "content", "style", "total"))
        lines.append(f"| {variant.name} | {numbers} | {_n(found['n'])} | {variant.why} |")
    return "\n".join(lines) + "\n"


def _n(worth: dict[str, Any]) -> str:
    return f"{'>' if worth['censored'] else ''}{worth['value']}"


def _sheet(options: argparse.Namespace, folder: Path, names: Sequence[str]) -> None:
    """Writes the pictures of all variants side by side."""
    import fast_style
    from fast_style.contact_sheet import Cell, contact_sheet
    from fast_style.data import find_photos, read_crops
    from fast_style.images import write_image

    shown = find_photos(options.show or options.held_out)
    photos = read_crops(shown, options.image_size, limit=SHOWN)
    models = {name: fast_style.load(folder / name) for name in names}
    rows = [
        [Cell("photo", photo), *(Cell(name, net.stylize(photo)) for name, net in models.items())]
        for photo in photos
    ]
    write_image(folder / "sheet.jpg", contact_sheet(rows, side=options.image_size))


if __name__ == "__main__":
    main()
