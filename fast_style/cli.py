"""The commands: their arguments and messages. Only cli*.py, run_log.py and terminal.py print.

TensorFlow is imported by the commands that need it, after their arguments were understood.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from fast_style.cli_distill import add_distill_arguments, run_distill
from fast_style.cli_export import add_export_arguments, run_export
from fast_style.cli_film import (
    add_flicker_arguments,
    check_film_options,
    run_films,
    run_flicker,
)
from fast_style.cli_optimize import (
    add_optimize_arguments,
    add_preview_arguments,
    run_optimize,
    run_preview,
)
from fast_style.cli_prepare import add_prepare_arguments, run_prepare
from fast_style.cli_quality import add_quality_arguments, run_quality
from fast_style.cli_serve import add_serve_arguments, run_serve
from fast_style.cli_stylize import fitted, stylize_arguments, stylize_options
from fast_style.cli_train import add_train_arguments, run_train
from fast_style.errors import FastStyleError, first_few
from fast_style.files import safe_label
from fast_style.images import printable
from fast_style.jobs import FORMATS, plan_jobs, without_existing
from fast_style.opening import DEFAULT_MAX_PIXELS
from fast_style.run_log import log_messages, report_error
from fast_style.terminal import (
    INTERRUPTED,
    import_tensorflow,
    percentage,
    positive,
    precision_argument,
    say,
    share,
    turn_away,
)

if TYPE_CHECKING:
    import numpy as np

    from fast_style.pipeline import Outcome

_TOO_BARE = 0.005  # Share of a result from which grain is advised.
_MOST_NAMED = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `python -m fast_style` (or `fast-style`) and returns its exit code.

    Args:
      arguments: Without the program's name; none takes the process's own.
    """
    parser = argparse.ArgumentParser(
        prog="fast_style", description="Train, run and export fast neural style transfer networks."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, add_arguments, _) in _COMMANDS.items():
        add_arguments(commands.add_parser(name, help=summary, description=summary))
    return _run(parser.parse_args(arguments))


def script(command: str, arguments: Sequence[str] | None = None) -> int:
    """Runs one command as a script of its own, such as `python train.py`."""
    summary, add_arguments, _ = _COMMANDS[command]
    parser = argparse.ArgumentParser(prog=f"{command}.py", description=summary)
    add_arguments(parser)
    parser.set_defaults(command=command)
    return _run(parser.parse_args(arguments))


def _run(options: argparse.Namespace) -> int:
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        as_json = getattr(options, "log_json", False)  # `train` and `serve` have it.
        with log_messages(as_json=as_json):
            try:
                code = _COMMANDS[options.command][2](options)
            except FastStyleError as error:
                report_error(error, as_json=as_json)
                return error.exit_code
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as stop:
        say(str(stop) or "stopped")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output (`| head`) has gone; that is not an error.
        turn_away(sys.stdout)
        return 0


# --- eval ----------------------------------------------------------------------------------------


def _eval_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        "--model_file",
        required=True,
        metavar="PATH",
        help="a run's folder, a .safetensors file, or a checkpoint (2016 ones too)",
    )
    parser.add_argument(
        "--image",
        "--image_file",
        dest="images",
        required=True,
        nargs="+",
        metavar="PATH",
        help="pictures, folders of pictures, films, and patterns such as 'trip/*.jpg'",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="a file for one picture, a folder for more (default: generated/NAME_STYLE.jpg)",
    )
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        help="what pictures are written as (default: each as it came)",
    )
    parser.add_argument(
        "--quality",
        type=percentage,
        default=95,
        metavar="1..100",
        help="of JPEG, WebP and films (default: 95)",
    )
    parser.add_argument(
        "--skip-existing", action="store_true", help="leave out pictures that have a result already"
    )
    parser.add_argument(
        "--max-pixels",
        type=positive,
        default=DEFAULT_MAX_PIXELS,
        metavar="N",
        help="refuse pictures and frames of more pixels, which may be meant to exhaust the memory "
        f"(default: {DEFAULT_MAX_PIXELS:,})",
    )
    parser.add_argument(
        "--temporal",
        type=share,
        default=0.0,
        metavar="0..1",
        help="steady films: how much of the frame before is kept where nothing moves (default: 0)",
    )
    stylize_arguments(parser)
    precision_argument(parser)
    # The 2016 eval.py had these and did nothing with them either.
    parser.add_argument("--loss_model", help=argparse.SUPPRESS)
    parser.add_argument("--image_size", help=argparse.SUPPRESS)


def _eval(options: argparse.Namespace) -> int:
    from fast_style.pipeline import run_jobs

    how = stylize_options(options)
    import_tensorflow()
    from fast_style.memory import release_library_pages
    from fast_style.stylize import load

    model = load(options.model, precision=options.precision)
    release_library_pages()
    how = fitted(how, model, options.style)
    label = model.model.label
    if options.style is not None and len(model.model.style_names) > 1:
        label += f"_{safe_label(options.style)}"
    jobs = plan_jobs(options.images, options.output, label, form=options.format)
    check_film_options(jobs, options)
    if options.skip_existing:
        planned, jobs = len(jobs), without_existing(jobs)
        if skipped := planned - len(jobs):
            say(f"{skipped} of {planned} files have a result already and are left as they are")

    def stylize(images: list[np.ndarray]) -> list[np.ndarray]:
        return model.stylize(images, **dataclasses.asdict(how))

    # Who has said how much grain there is to be has thought of it.
    advise_grain = options.grain is None and how.strength > 0.0
    pictures = run_jobs(
        [job for job in jobs if not job.is_film],
        stylize,
        quality=options.quality,
        max_pixels=options.max_pixels,
        measure_bare=advise_grain,
    )
    films = run_films(
        (job for job in jobs if job.is_film),
        lambda frame: stylize([frame])[0],
        options.temporal,
        quality=options.quality,
        max_pixels=options.max_pixels,
    )
    with contextlib.closing(pictures):
        return _report_outcomes(itertools.chain(pictures, films), len(jobs))


def _report_outcomes(outcomes: Iterable[Outcome], count: int) -> int:
    """Shows progress, results, and in the end what is bare or failed; returns the exit code."""
    failures = []
    bare = []
    many = count > 1
    bar = tqdm(
        outcomes,
        total=count,
        unit="file",
        dynamic_ncols=True,
        disable=not (many and sys.stderr.isatty()),
    )
    for outcome in bar:
        if outcome.error is None:
            tqdm.write(printable(outcome.job.target))
        elif not many:
            raise outcome.error
        else:
            failures.append(str(outcome.error))
        for note in outcome.notes:
            say(f"note: {printable(outcome.job.source)}: {note}")
        if outcome.bare_share > _TOO_BARE:
            bare.append((outcome.bare_share, printable(outcome.job.target)))
    if bare:
        bare.sort(key=lambda found: -found[0])
        named = first_few([f"{name} ({share:.0%})" for share, name in bare], _MOST_NAMED)
        say(
            "note: nets paint nothing where a photo is perfectly flat, as in parts of "
            f"{named}; --grain 3 has them paint there, too"
        )
    if failures:
        say(f"{len(failures)} of {count} files failed:")
        for failure in failures:
            say(f"  {failure}")
    return 1 if failures else 0


# --- fetch ---------------------------------------------------------------------------------------


def _fetch_arguments(parser: argparse.ArgumentParser) -> None:
    from fast_style.fetch import ASSETS

    parser.add_argument("names", nargs="+", metavar="NAME", help=", ".join(ASSETS))


def _fetch(options: argparse.Namespace) -> int:
    from fast_style.fetch import fetch

    for name in options.names:
        with _transfer_bar(name) as progress:
            path = fetch(name, progress=progress)
        print(path)
    return 0


@contextlib.contextmanager
def _transfer_bar(name: str) -> Iterator[Any]:
    bar: Any = None
    stage = ""

    def progress(done: int, total: int | None, now: str) -> None:
        nonlocal bar, stage
        if bar is None:
            bar = tqdm(
                unit="B", unit_scale=True, dynamic_ncols=True, disable=not sys.stderr.isatty()
            )
        if now != stage:
            stage = now
            bar.set_description(f"{name}: {now}", refresh=False)
        bar.total = total
        bar.n = done
        bar.update(0)

    try:
        yield progress
    finally:
        if bar is not None:
            bar.close()


_COMMANDS = {
    "train": (
        "Train a transform net as a YAML file describes.",
        add_train_arguments,
        run_train,
    ),
    "eval": ("Stylize pictures and films with a trained model.", _eval_arguments, _eval),
    "export": (
        "Write a trained model for other runtimes, and prove that it gives the same pictures.",
        add_export_arguments,
        run_export,
    ),
    "optimize": (
        "Stylize one picture by optimizing its pixels: slow, for any style.",
        add_optimize_arguments,
        run_optimize,
    ),
    "preview": (
        "See in a minute what a training run is heading for.",
        add_preview_arguments,
        run_preview,
    ),
    "quality": (
        "Measure a model: it equals how many iterations of L-BFGS?",
        add_quality_arguments,
        run_quality,
    ),
    "flicker": (
        "Measure how much a styled film flickers.",
        add_flicker_arguments,
        run_flicker,
    ),
    "distill": (
        "Make a small loss network that reports the losses of a large one.",
        add_distill_arguments,
        run_distill,
    ),
    "serve": (
        "Stylize pictures over HTTP, with a page to try it.",
        add_serve_arguments,
        run_serve,
    ),
    "fetch": ("Download loss networks and photo sets.", _fetch_arguments, _fetch),
    "prepare": (
        "Decode and scale photos once, for hardware that trains faster than JPEGs decode.",
        add_prepare_arguments,
        run_prepare,
    ),
}
