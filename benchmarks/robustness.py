"""Does training hold? Forty short runs: five styles, both precisions, started and afresh, twice.

    python benchmarks/robustness.py --photos DIR --held-out DIR -o OUT

Each run has a seed of its own. Twenty start from the net that comes along, as the files in `conf/`
do, and twenty afresh, which is harder. That net knows the styles in `conf/`: with `--style`, five
times, they are pictures of your own, with all else as in `conf/wave.yml`. Steps whose numbers were
not finite, warnings about previews and losses are read from the run's log; then photos that no run
has seen are stylized at twice the size and measured with `fast_style.artefacts`. What measures do
not see, eyes must: `started.jpg` and `afresh.jpg` have a row for each style. A run that fails is a
result, too.

Started again, it trains what is not trained yet, and again what failed. It prints one line of JSON
for each run, and leaves `table.md` and the runs in OUT. With `--only`, several processes share it;
the last to end, or one more call, makes the whole table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import emit, overrides

from fast_style.files import atomic_path

ROOT = Path(__file__).resolve().parents[1]
_KINDS = ("started", "afresh")
_STOPPED = (129, 130, 143, -1, -2, -15)  # By a signal that a person or the system sent.
_STYLES = [ROOT / f"conf/{name}.yml" for name in ("candy", "mosaic", "wave", "scream", "feathers")]


@dataclass(frozen=True)
class Run:
    """One of the runs.

    Attributes:
      source: Its style's file in `conf/`, or the style picture itself.
      precision: float32 or bfloat16.
      kind: 'started' from the net that comes along, or 'afresh'.
      seed: Of everything random.
    """

    source: Path
    precision: str
    kind: str
    seed: int

    @property
    def name(self) -> str:
        """Names its folder."""
        return f"{self.style}_{self.precision}_{self.kind}_{self.seed}"

    @property
    def style(self) -> str:
        """Names its style."""
        return self.source.stem

    @property
    def base(self) -> Path:
        """Names the file of settings that it starts with."""
        return self.source if self.source.suffix == ".yml" else ROOT / "conf/wave.yml"


def main() -> None:
    """Trains the runs that were not yet, and looks at all that were."""
    options = _arguments()
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    runs = _runs(options)
    for run in runs:
        events = _log(options, folder, run)
        if options.only in (None, run.style) and (events is None or _errors(events)):
            _train(options, folder, run)
    done = []
    for run in runs:
        events = _log(options, folder, run)
        if events is not None:
            found = _look(options, folder, run, events)
            emit("robustness", run.name, found)
            done.append((run, found))
    with atomic_path(folder / "table.md") as aside:
        aside.write_text(_table(done), encoding="utf-8")
    for kind in options.start or _KINDS:
        shown = [run for run, found in done if run.kind == kind and "failed" not in found]
        if shown:
            _sheet(options, folder / f"{kind}.jpg", shown)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--photos", required=True, help="a folder to train on")
    parser.add_argument("--held-out", required=True, help="a folder to look at")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--limit", type=int, default=4, help="held-out photos to measure")
    parser.add_argument("--show", metavar="DIR", help="photo of the sheets (default: --held-out)")
    parser.add_argument("--style", action="append", metavar="FILE", help="picture; may be repeated")
    parser.add_argument("--start", action="append", choices=_KINDS, help="(default: both)")
    parser.add_argument("--only", metavar="NAME", help="style to train now")
    parser.add_argument("-o", "--output", required=True)
    return parser.parse_args()


def _runs(options: argparse.Namespace) -> list[Run]:
    """Returns all forty, or those of the starts asked for."""
    sources = [Path(file).resolve() for file in options.style or ()]
    kinds = [
        (source, precision, kind)
        for source in sources or _STYLES
        for kind in _KINDS
        for precision in ("float32", "bfloat16")
        for _ in range(2)
    ]
    runs = [Run(*kind, seed) for seed, kind in enumerate(kinds)]
    return [run for run in runs if run.kind in (options.start or _KINDS)]


def _settings(options: argparse.Namespace, run: Run) -> dict[str, Any]:
    """Returns what a run changes in its style's file."""
    from fast_style.config import load_config
    from fast_style.run_parts import at_image_size

    config = at_image_size(load_config(run.base), options.image_size)
    picture = run.source if run.base != run.source else ROOT / str(config.style_image)
    return {
        "style_image": str(picture),
        "dataset": options.photos,
        "loss_model": "vgg_mini",
        "loss_model_file": str(ROOT / "pretrained/vgg_mini.safetensors"),
        "style_weight": config.style_weight,
        "image_size": config.image_size,
        "style_size": config.style_size,
        "batch_size": options.batch_size,
        "steps": options.steps,
        "precision": run.precision,
        "seed": run.seed,
        "random_crop": True,
        "random_flip": True,
        "init_from": "pretrained/johnson.safetensors" if run.kind == "started" else None,
    }


def _overrides(options: argparse.Namespace, run: Run) -> list[str]:
    """Returns the settings as `--set` takes them."""
    return overrides(_settings(options, run))


def _config(options: argparse.Namespace, run: Run) -> Any:
    """Returns the configuration of a run, but for its name and folder."""
    from fast_style.config import load_config

    return load_config(run.base, _overrides(options, run))


def _asked(options: argparse.Namespace, run: Run) -> Any:
    """Returns what a run depends on, as JSON has it."""
    return json.loads(json.dumps(_config(options, run).to_dict()))


def _log(options: argparse.Namespace, folder: Path, run: Run) -> list[dict[str, Any]] | None:
    """Returns the events of a run that was trained before, as now asked for."""
    file = folder / f"{run.name}.json"
    record = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return record["events"] if record.get("asked") == _asked(options, run) else None


def _errors(events: Sequence[dict[str, Any]]) -> list[str]:
    """Returns why a run failed; nothing if it did not."""
    return [event["message"] for event in events if event["event"] == "error"]


def _train(options: argparse.Namespace, folder: Path, run: Run) -> None:
    """Trains afresh and keeps the events of the run's log."""
    command = [sys.executable, str(ROOT / "train.py"), "-c", str(run.base)]
    for override in (
        *_overrides(options, run),
        *(f"naming={run.name}", f"model_path={folder}"),
        f"checkpoint_every_steps={max(1, options.steps // 4)}",
    ):
        command += ["--set", override]
    print(f"{run.name}: training", file=sys.stderr, flush=True)
    ran = subprocess.run([*command, "--fresh", "--log-json"], stdout=subprocess.PIPE, text=True)
    if ran.returncode in _STOPPED:
        raise SystemExit(f"{run.name} was stopped (exit code {ran.returncode})")
    # A process that is killed may leave half a line.
    lines = [line for line in ran.stdout.splitlines() if line.endswith("}")]
    events = [json.loads(line) for line in lines]
    if ran.returncode and not _errors(events):
        events.append({"event": "error", "message": f"exit code {ran.returncode}"})
    with atomic_path(folder / f"{run.name}.json") as aside:
        record = {"asked": _asked(options, run), "events": events}
        aside.write_text(json.dumps(record), encoding="utf-8")


def _look(
    options: argparse.Namespace, folder: Path, run: Run, events: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Returns what the log and the pictures say."""
    import fast_style
    from fast_style.artefacts import marks_of, picture_faults
    from fast_style.builders import load_style_pictures
    from fast_style.data import find_photos, read_crops

    found: dict[str, Any] = {
        "warnings": [e["message"] for e in events if e["event"] == "preview_fault"]
    }
    errors = _errors(events)
    if errors:
        return {**found, "failed": " ".join(errors[-1].split())}
    (end,) = (event for event in events if event["event"] == "end")
    (style,) = load_style_pictures(_config(options, run))
    net = fast_style.load(folder / run.name)
    photos = read_crops(find_photos(options.held_out), 2 * options.image_size, limit=options.limit)
    style_marks = marks_of(style)
    faults = [
        picture_faults(marks_of(photo), marks_of(net.stylize(photo)), style_marks)
        for photo in photos
    ]
    return {
        **found,
        "first": round(end["first"]["total_loss"]) if end["first"] else None,
        "last": round(end["last"]["total_loss"]) if end["last"] else None,
        "not_finite": len(end["skipped_steps"]),
        "pictures": len(photos),
        "faulty": sum(map(bool, faults)),
        "faults": [fault for found in faults for fault in found],
    }


def _table(done: Sequence[tuple[Run, dict[str, Any]]]) -> str:
    """Returns all results in Markdown."""
    lines = [
        "| run | seed | total loss, first finite step | mean of the last 20 | steps not finite "
        "| previews warned about | faulty pictures | one of their faults |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run, found in done:
        head = f"| {run.name} | {run.seed} |"
        if "failed" in found:
            lines.append(f"{head} failed: {found['failed']} | | | {len(found['warnings'])} | | |")
            continue
        losses = f"{_thousands(found['first'])} | {_thousands(found['last'])}"
        losses += f" | {found['not_finite']}"
        lines.append(
            f"{head} {losses} | {len(found['warnings'])} "
            f"| {found['faulty']} of {found['pictures']} | {next(iter(found['faults']), '')} |"
        )
    return "\n".join(lines) + "\n"


def _thousands(loss: int | None) -> str:
    return "none" if loss is None else f"{loss:,}"


def _sheet(options: argparse.Namespace, path: Path, runs: Sequence[Run]) -> None:
    """Writes a row for each style: its picture, and one of each run."""
    import fast_style
    from fast_style.builders import load_style_pictures
    from fast_style.contact_sheet import Cell, contact_sheet
    from fast_style.data import find_photos, read_crops
    from fast_style.images import write_image

    side = 2 * options.image_size
    (photo,) = read_crops(find_photos(options.show or options.held_out), side, limit=1)
    cells: dict[str, list[Cell]] = {}
    for run in runs:
        if run.style not in cells:
            (style,) = load_style_pictures(_config(options, run))
            cells[run.style] = [Cell(f"{run.style}, as it is learnt", style)]
        styled = fast_style.load(path.parent / run.name).stylize(photo)
        cells[run.style].append(Cell(f"{run.style} {run.precision}, seed {run.seed}", styled))
    write_image(path, contact_sheet(list(cells.values()), side=side))


if __name__ == "__main__":
    main()
