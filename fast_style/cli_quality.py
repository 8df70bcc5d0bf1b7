"""The `quality` command: its arguments, its progress and its table."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fast_style.curves import STARTS, CurveCache, default_cache_folder, from_start
from fast_style.errors import FastStyleError, UsageError
from fast_style.files import atomic_path, check_folder
from fast_style.images import check_output
from fast_style.terminal import (
    Progress,
    import_tensorflow,
    positive,
    precision_argument,
    report_skipped,
)

if TYPE_CHECKING:
    from fast_style.quality import PhotoScore, StyleScore

_MOST_PHOTOS = 32  # Photo sets have thousands, and each photo takes about a minute.


def add_quality_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what `quality` takes."""
    parser.add_argument(
        "--model",
        required=True,
        metavar="PATH",
        help="a run's folder, a .safetensors file, or a checkpoint",
    )
    parser.add_argument(
        "--photos",
        metavar="DIR",
        help="photos that training did not see (default: val_dataset of the model's run)",
    )
    parser.add_argument(
        "--limit",
        type=positive,
        default=_MOST_PHOTOS,
        metavar="N",
        help="how many of them, the first by name (default: %(default)s)",
    )
    parser.add_argument(
        "--iterations",
        type=positive,
        default=200,
        metavar="N",
        help="length of the L-BFGS curves (default: %(default)s)",
    )
    parser.add_argument(
        "--start",
        choices=STARTS,
        default=STARTS[0],
        help="what L-BFGS starts from: the photo, or grey noise, from where it needs more "
        "iterations (default: %(default)s)",
    )
    parser.add_argument(
        "--style",
        action="append",
        default=[],
        dest="styles",
        metavar="NAME",
        help="one style of a model of several; may be repeated (default: all)",
    )
    parser.add_argument(
        "-c",
        "--conf",
        metavar="FILE",
        help="the run, for models that do not say how they were made",
    )
    parser.add_argument(
        "--loss-model-file", metavar="FILE", help="where the loss network's weights are now"
    )
    parser.add_argument(
        "--style-image",
        action="append",
        default=[],
        dest="style_images",
        metavar="FILE",
        help="where the style picture is now; NAME=FILE for one of several",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="all numbers (.json); a plot is written beside it (default: beside the model)",
    )
    parser.add_argument("--report", metavar="FILE", help="a page (.html) with pictures and curves")
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="where curves are kept (default: ~/.cache/fast-style/curves)",
    )
    precision_argument(parser, default="float32", why="the same on every machine")


def run_quality(options: argparse.Namespace) -> int:
    """Measures a model, prints a table, and writes the JSON file, the plot and the report.

    Raises:
      FastStyleError: For what a person can put right; nothing is then written but curves.
      KeyboardInterrupt: If stopped; finished curves are kept.
    """
    if importlib.util.find_spec("scipy") is None:
        raise FastStyleError(
            "quality compares with SciPy's L-BFGS, and SciPy is not installed; run: "
            "pip install 'fast-style[optimize]'"
        )
    from fast_style.config import load_config

    config = load_config(options.conf) if options.conf else None
    report = _output("--report", options.report, (".html", ".htm"))
    numbers = _output("--json", options.json, (".json",))
    import_tensorflow()
    from fast_style.checkpoints import MODEL_FILE, load_model
    from fast_style.quality import (
        choose_styles,
        measure_quality,
        model_config,
        quality_to_dict,
        relocate,
    )
    from fast_style.quality_report import write_plot, write_report

    _compute_reproducibly()
    model = load_model(options.model)
    if numbers is None:
        # Of two checkpoints in a folder, each has its own.
        name = model.source.name
        of_the_run = Path(options.model).is_dir() or name == MODEL_FILE
        stem = "quality" if of_the_run else f"{name.removesuffix('.safetensors')}.quality"
        stem += "" if options.start == "photo" else f"_{options.start}"
        # What comes along may be far from where it was asked for.
        beside = model.source.parent if Path(options.model).exists() else Path()
        numbers = _output("--json", str(beside / f"{stem}.json"), (".json",))
    assert numbers is not None
    plot = numbers.with_name(f"{numbers.stem}.png")
    config = config or model_config(model)
    styles = choose_styles(config, options.styles)
    config, styles = relocate(config, styles, options.style_images, options.loss_model_file)
    photos = _photos(options.photos, config.val_dataset)
    cache = CurveCache(Path(options.cache) if options.cache else default_cache_folder())
    check_output(plot, [*photos, *(style.image for style in styles)])
    chosen = photos[: options.limit]
    some = f" (the first {len(chosen):,} of {len(photos):,})" if len(chosen) < len(photos) else ""
    print(f"model:   {model.source}")
    folder = options.photos or config.val_dataset
    print(f"photos:  {folder}, {len(chosen)}{some}, {config.image_size} px", flush=True)
    try:
        with contextlib.closing(_terminal(options.iterations)) as observer:
            quality = measure_quality(
                model,
                config,
                chosen,
                styles=styles,
                iterations=options.iterations,
                start=options.start,
                cache=cache,
                precision=options.precision,
                observer=observer,
            )
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(
            f"stopped; finished curves are kept in {cache.folder}, and the same command goes on "
            "from there"
        ) from stop
    for style in quality.styles:
        print(f"\n{_table(style)}\n\n{_summary(style, options.start)}")
    report_skipped(quality.skipped)
    with atomic_path(numbers) as aside:
        aside.write_text(json.dumps(quality_to_dict(quality), indent=1) + "\n", encoding="utf-8")
    write_plot(plot, quality)
    print(f"\nnumbers: {numbers}\nplot:    {plot}")
    if report is not None:
        write_report(report, quality)
        print(f"report:  {report}")
    return 0


def _output(option: str, text: str | None, endings: tuple[str, ...]) -> Path | None:
    """Checks now, not after an hour, that a file can be written.

    Raises:
      FastStyleError: If it cannot.
    """
    if text is None:
        return None
    path = Path(text)
    if path.is_dir() or not path.name:
        raise FastStyleError(f"{text}: this is a folder; name the file to write in it")
    if path.suffix.lower() not in endings:
        raise UsageError(f"{option} {text}: end the name in {endings[0]}")
    check_folder(path.parent)
    return path


def _photos(folder: str | None, val_dataset: str | None) -> tuple[Path, ...]:
    from fast_style.data import find_photos

    folder = folder or val_dataset
    if folder is None:
        raise FastStyleError(
            "the model's run had no val_dataset; say with --photos which photos to measure on, "
            "a folder of some that training did not see"
        )
    return find_photos(folder, advice="give a folder of held-out photos with --photos")


def _compute_reproducibly() -> None:
    """Makes a GPU give the same curve every time, and in true float32. CPUs do so anyway."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()
        tf.config.experimental.enable_tensor_float_32_execution(False)


def _terminal(iterations: int) -> Any:
    """Shows the curves' progress."""
    from fast_style.quality import QualityObserver

    class Terminal(QualityObserver):
        progress: Progress | None = None
        computed = 0  # Curves.
        computing = False

        def on_start(self, curves: int, known: int, notes: Sequence[str]) -> None:
            print(f"curves:  {curves} of {iterations} iterations, {known} known already")
            for note in notes:
                print(f"note: {note}")
            sys.stdout.flush()
            if curves > known:
                # To the error stream: the output is the table.
                self.progress = Progress(
                    curves - known, "curve", parts=iterations, lines=sys.stderr
                )

        def on_curve(self, path: Path, style: str) -> None:
            assert self.progress is not None
            self.computing = True
            self.progress.describe(f"iterations, {path.name} ({style})")

        def on_iteration(self, iteration: int) -> None:
            assert self.progress is not None
            self.progress.move(self.computed * iterations + iteration)

        def on_photo(self, score: PhotoScore, style: str) -> None:
            if not self.computing:
                return
            assert self.progress is not None
            self.computing = False
            self.computed += 1
            self.progress.move(self.computed * iterations)  # A curve may have ended early.
            self.progress.tell(f"{score.path.name} ({style})  N {score.worth}")

        def close(self) -> None:
            if self.progress is not None:
                self.progress.close()

    return Terminal()


def _table(style: StyleScore) -> str:
    from fast_style import objective as tags

    rows: list[tuple[str, ...]] = [
        ("photo", "N", "content", "style", "tv", "total", "photo itself")
    ]
    terms = (tags.WEIGHTED_CONTENT, tags.WEIGHTED_STYLE, tags.WEIGHTED_VARIATION, tags.TOTAL)
    for photo in style.photos:
        losses = [*(photo.terms[tag] for tag in terms), photo.photo_loss]
        rows.append((photo.path.name, str(photo.worth), *(f"{loss:,.0f}" for loss in losses)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    )


def _summary(style: StyleScore, start: str) -> str:
    count = len(style.photos)
    return (
        f"{style.name}: "
        f"median N {style.worth()}, quartiles {style.worth(0.25)} to {style.worth(0.75)}, over "
        f"{count} photo{'s' if count != 1 else ''}\n"
        f"(one pass of the model is as good as N iterations of L-BFGS{from_start(start)} "
        "on the same loss)"
    )
