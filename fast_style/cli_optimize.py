"""The `optimize` and `preview` commands: their arguments, their progress and their messages."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fast_style.terminal import duration, import_tensorflow, numbers

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_FOLDER = Path("generated")
_BAR = "{percentage:3.0f}% |{bar:12}| {n_fmt}/{total_fmt} {postfix[0]} {remaining} left"


# --- optimize ------------------------------------------------------------------------------------


def add_optimize_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what `optimize` takes."""
    parser.add_argument("--content", required=True, metavar="PATH", help="the photo")
    parser.add_argument(
        "--style",
        action="append",
        required=True,
        dest="styles",
        metavar="PATH",
        help="a style picture; may be repeated",
    )
    parser.add_argument(
        "--style-weights",
        metavar="A,B,...",
        help="how much of each style (default: the same of each)",
    )
    parser.add_argument(
        "-c",
        "--conf",
        metavar="FILE",
        help="how, such as conf/optimize/keras_vgg19.yml (default: as conf/optimize/default.yml)",
    )
    _overrides_argument(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="where the result goes (default: generated/CONTENT_STYLE.png)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved configuration and stop"
    )


def _overrides_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override a key of the file; may be repeated",
    )


def run_optimize(options: argparse.Namespace) -> int:
    """Optimizes one picture and returns the exit code: 130 if it was stopped before its end.

    Raises:
      FastStyleError: For what a person can put right.
      KeyboardInterrupt: If stopped before there was a picture to write.
    """
    from fast_style.optimize_config import load_optimize_config, optimize_config_to_yaml

    config = load_optimize_config(options.conf, options.overrides)
    if options.dry_run:
        print(optimize_config_to_yaml(config), end="")
        return 0
    style_weights = numbers("--style-weights", options.style_weights)
    output = options.output
    if output is None:
        style = "_".join(Path(path).stem for path in options.styles)
        output = _FOLDER / f"{Path(options.content).stem}_{style}.png"
    import_tensorflow()
    from fast_style import objective as tags
    from fast_style.optimize import optimize

    observer = _terminal()
    try:
        result = optimize(
            config,
            options.content,
            options.styles,
            output,
            style_weights=style_weights,
            observer=observer,
        )
    finally:
        observer.close()
    for note in result.notes:
        print(f"note: {note}")
    if result.interrupted:
        print(f"stopped after step {result.steps}; the picture so far was written")
    if result.first:
        first, last = result.first[tags.TOTAL], result.last[tags.TOTAL]
        print(
            f"total loss {_loss(first)} at the start of the last size, {_loss(last)} now, "
            f"{result.steps} steps in {duration(result.seconds)}"
        )
    print(output)
    return _INTERRUPTED if result.interrupted else 0


def _terminal() -> Any:
    """Shows the work: a bar on a terminal, a line per report elsewhere (files, CI, `| tee`)."""
    from fast_style.optimize import OptimizeHeader, OptimizeObserver, OptimizeReport

    class Terminal(OptimizeObserver):
        progress: _Progress | None = None

        def on_start(self, header: OptimizeHeader) -> None:
            sizes = ", ".join(f"{width}x{height}" for height, width in header.sizes)
            for label, value in (
                ("device", header.device),
                ("precision", header.precision),
                ("loss network", f"{header.loss_model}, {header.loss_model_file}"),
                ("sizes", f"{sizes} px"),
                ("steps", f"{header.steps} of {header.optimizer}"),
            ):
                print(f"{label + ':':<14} {value}")
            sys.stdout.flush()
            self.progress = _Progress(header.steps, "step")

        def on_step(self, report: OptimizeReport) -> None:
            assert self.progress is not None
            self.progress.move(report.step)

        def on_log(self, report: OptimizeReport) -> None:
            assert self.progress is not None
            height, width = report.size
            self.progress.tell(report.step, f"{width}x{height}  {_terms(report.losses)}")

        def on_picture(self, path: Path) -> None:
            tqdm.write(f"saved {path}")

        def close(self) -> None:
            if self.progress is not None:
                self.progress.close()

    return Terminal()


class _Progress:
    """A bar on a terminal, lines elsewhere."""

    def __init__(self, steps: int, unit: str) -> None:
        self._steps = steps
        self._began = time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=steps,
                unit=unit,
                dynamic_ncols=True,
                bar_format=_BAR,
                # A list, for the `postfix[0]` of the format.
                postfix=["tracing the graph"],  # pyright: ignore[reportArgumentType]
            )

    def move(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def tell(self, step: int, text: str) -> None:

        if self._bar is not None:
            self._bar.postfix[0] = text
            self._bar.refresh()
            return
        spent = time.monotonic() - self._began
        print(
            f"step {step}/{self._steps}  {text}  {duration(spent)} so far",
            flush=True,
        )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _terms(losses: Mapping[str, float]) -> str:
    from fast_style import objective as tags

    return (
        f"content {_loss(losses[tags.WEIGHTED_CONTENT])}  "
        f"style {_loss(losses[tags.WEIGHTED_STYLE])}  "
        f"tv {_loss(losses[tags.WEIGHTED_VARIATION])}  "
        f"total {_loss(losses[tags.TOTAL])}"
    )


def _loss(value: float) -> str:
    """Whole numbers from a hundred on, four digits below: recipes differ by powers of ten."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


# --- preview -------------------------------------------------------------------------------------


def add_preview_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what `preview` takes."""
    parser.add_argument(
        "-c", "--conf", required=True, metavar="FILE", help="the run, such as conf/candy.yml"
    )
    _overrides_argument(parser)
    parser.add_argument(
        "--photo",
        metavar="PATH",
        help="the photo (default: preview_image of the run, or the first of its data set)",
    )
    parser.add_argument(
        "--steps",
        type=_positive,
        default=100,
        metavar="N",
        help="optimization steps per picture (default: %(default)s)",
    )
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        dest="grids",
        metavar="KEY=A,B,...",
        help="a picture for each value, such as style_weight=50,100,200; may be repeated",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="where the sheet goes (default: generated/preview_NAMING.jpg)",
    )


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return value


def run_preview(options: argparse.Namespace) -> int:
    """Shows what a run would learn and returns the exit code: 130 if stopped before its end.

    Raises:
      FastStyleError: For what a person can put right.
      KeyboardInterrupt: If stopped before there was a picture to show.
    """
    from fast_style.config import load_config

    base = load_config(options.conf, options.overrides)
    output = Path(options.output or _FOLDER / f"preview_{base.naming}.jpg")
    import_tensorflow()
    from fast_style.images import write_image
    from fast_style.optimize import check_output
    from fast_style.preview import (
        Preview,
        grid_settings,
        preview,
        preview_photo,
        preview_sheet,
    )

    variants = [
        (settings, load_config(options.conf, [*options.overrides, *settings]))
        for settings in grid_settings(options.grids)
    ]
    photo = Path(options.photo) if options.photo else preview_photo(base)
    check_output(output, [photo, *(style.image for style in base.style_specs)])
    steps = options.steps * sum(len(config.style_specs) for _, config in variants)
    done: list[Preview] = []
    interrupted = False
    began = time.monotonic()
    print(f"photo:         {photo}")
    progress = _Progress(steps, "step")

    def on_step(step: int, _: int, losses: Mapping[str, float]) -> None:
        progress.move(step)
        if step % 10 == 0 or step in (1, steps):
            progress.tell(step, _terms(losses))

    try:
        for item in preview(variants, photo, steps=options.steps, on_step=on_step):
            done.append(item)
            name = ", ".join([item.style, *item.settings])
            tqdm.write(f"{name}: {_terms(item.first)} at first")
            tqdm.write(f"{name}: {_terms(item.last)} after {options.steps} steps")
    except KeyboardInterrupt:
        if not done:
            raise
        interrupted = True
    finally:
        progress.close()
    write_image(output, preview_sheet(done))
    if interrupted:
        print(f"stopped with {len(done)} of {len(variants)} cells; the sheet shows these")
    print(f"{output}  ({duration(time.monotonic() - began)})")
    return _INTERRUPTED if interrupted else 0
