"""The `optimize` and `preview` commands: their arguments, their progress and their messages."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fast_style.images import check_output, printable, write_image
from fast_style.jobs import GENERATED_FOLDER
from fast_style.terminal import (
    INTERRUPTED,
    Progress,
    dry_run_argument,
    duration,
    import_tensorflow,
    loss_number,
    numbers,
    overrides_argument,
    positive,
    print_facts,
    terms_line,
)

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
    overrides_argument(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="where the result goes (default: generated/CONTENT_STYLE.png)",
    )
    dry_run_argument(parser)


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
        output = GENERATED_FOLDER / f"{Path(options.content).stem}_{style}.png"
    import_tensorflow()
    from fast_style import objective as tags
    from fast_style.optimize import optimize

    with contextlib.closing(_terminal()) as observer:
        result = optimize(
            config,
            options.content,
            options.styles,
            output,
            style_weights=style_weights,
            observer=observer,
        )
    for note in result.notes:
        print(f"note: {note}")
    if result.interrupted:
        print(f"stopped after step {result.steps}; the picture so far was written")
    if result.first:
        first, last = result.first[tags.TOTAL], result.last[tags.TOTAL]
        print(
            f"total loss {loss_number(first)} at the start of the last size, "
            f"{loss_number(last)} now, {result.steps} steps in {duration(result.seconds)}"
        )
    print(printable(output))
    return INTERRUPTED if result.interrupted else 0


def _terminal() -> Any:
    """Shows what is done, and its progress."""
    from fast_style.optimize import OptimizeHeader, OptimizeObserver, OptimizeReport

    class Terminal(OptimizeObserver):
        progress: Progress | None = None

        def on_start(self, header: OptimizeHeader) -> None:
            sizes = ", ".join(f"{width}x{height}" for height, width in header.sizes)
            print_facts(
                [
                    ("device", header.device),
                    ("precision", header.precision),
                    ("loss network", f"{header.loss_model}, {header.loss_model_file}"),
                    ("sizes", f"{sizes} px"),
                    ("steps", f"{header.steps} of {header.optimizer}"),
                ]
            )
            self.progress = Progress(header.steps)

        def on_step(self, report: OptimizeReport) -> None:
            assert self.progress is not None
            self.progress.move(report.step)

        def on_log(self, report: OptimizeReport) -> None:
            assert self.progress is not None
            height, width = report.size
            self.progress.tell(f"{width}x{height}  {terms_line(report.losses)}")

        def on_picture(self, path: Path) -> None:
            tqdm.write(f"saved {printable(path)}")

        def close(self) -> None:
            if self.progress is not None:
                self.progress.close()

    return Terminal()


# --- preview -------------------------------------------------------------------------------------


def add_preview_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what `preview` takes."""
    parser.add_argument(
        "-c", "--conf", required=True, metavar="FILE", help="the run, such as conf/candy.yml"
    )
    overrides_argument(parser)
    parser.add_argument(
        "--photo",
        metavar="PATH",
        help="the photo (default: preview_image of the run, or the first of its data set)",
    )
    parser.add_argument(
        "--steps",
        type=positive,
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


def run_preview(options: argparse.Namespace) -> int:
    """Shows what a run would learn and returns the exit code: 130 if stopped before its end.

    Raises:
      FastStyleError: For what a person can put right.
      KeyboardInterrupt: If stopped before there was a picture to show.
    """
    from fast_style.config import load_config

    base = load_config(options.conf, options.overrides)
    output = Path(options.output or GENERATED_FOLDER / f"preview_{base.naming}.jpg")
    import_tensorflow()
    from fast_style.prepare import check_prepared
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
    if options.photo:
        photo = Path(options.photo)
    else:
        for _, config in variants:
            check_prepared(config.dataset, config.image_size)
        photo = preview_photo(base)
    check_output(output, [photo, *(style.image for style in base.style_specs)])
    cells = sum(len(config.style_specs) for _, config in variants)
    steps = options.steps * cells
    done: list[Preview] = []
    interrupted = False
    began = time.monotonic()
    print_facts([("photo", printable(photo))])
    progress = Progress(steps)

    def on_step(step: int, _: int, losses: Mapping[str, float]) -> None:
        progress.move(step)
        if step % 10 == 0 or step in (1, steps):
            progress.tell(terms_line(losses))

    try:
        for item in preview(variants, photo, steps=options.steps, on_step=on_step):
            done.append(item)
            name = ", ".join([item.style, *item.settings])
            tqdm.write(f"{name}: {terms_line(item.first)} at first")
            tqdm.write(f"{name}: {terms_line(item.last)} after {options.steps} steps")
    except KeyboardInterrupt:
        if not done:
            raise
        interrupted = True
    finally:
        progress.close()
    write_image(output, preview_sheet(done))
    if interrupted:
        print(f"stopped with {len(done)} of {cells} cells; the sheet shows these")
    print(f"{printable(output)}  ({duration(time.monotonic() - began)})")
    return INTERRUPTED if interrupted else 0
