"""Arguments, progress bars and messages: the only module that prints.

TensorFlow is imported by the commands that need it, after their arguments were understood.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from fast_style.cli_optimize import (
    add_optimize_arguments,
    add_preview_arguments,
    run_optimize,
    run_preview,
)
from fast_style.cli_quality import add_quality_arguments, run_quality
from fast_style.errors import FastStyleError
from fast_style.terminal import duration, import_tensorflow, numbers, say

if TYPE_CHECKING:
    from fast_style.training import RunHeader, StepReport, TrainObserver

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


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
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        code = _COMMANDS[options.command][2](options)
        sys.stdout.flush()
        return code
    except FastStyleError as error:
        say(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt as stop:
        say(str(stop) or "stopped")
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output (`| head`) has gone; that is not an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


# --- train ---------------------------------------------------------------------------------------


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c", "--conf", required=True, metavar="FILE", help="the run, such as conf/candy.yml"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override a key of the file; may be repeated",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="start over; a run that is already there is renamed, not deleted",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved configuration and stop"
    )


def _train(options: argparse.Namespace) -> int:
    from fast_style.config import config_to_yaml, load_config

    config = load_config(options.conf, options.overrides)
    if options.dry_run:
        print(config_to_yaml(config), end="")
        return 0
    print(config_to_yaml(config))
    import_tensorflow()
    from fast_style import objective as tags
    from fast_style.training import train

    with _training_observer() as observer:
        result = train(config, fresh=options.fresh, observer=observer)
    _report_skipped(result.skipped)
    folder = result.model.parent
    if result.first:
        first, last = result.first[tags.TOTAL], result.last[tags.TOTAL]
        print(
            f"total loss {first:,.0f} at the first step, {last:,.0f} over the last ones "
            f"({first / max(last, 1e-9):.1f}x less), in {duration(result.seconds)}"
        )
    else:
        print(
            f"nothing left to do: {folder} has {result.steps} steps; raise steps (or epoch) to go "
            "on, or start over with --fresh"
        )
    if result.converged:
        print(
            f"ended at step {result.steps}: the held-out loss has not improved for "
            f"{config.patience_checkpoints} checkpoints"
        )
    if result.interrupted:
        print(f"stopped after step {result.steps} and saved; the same command goes on from there")
    print(f"model:    {result.model}")
    print(f"preview:  {folder / 'preview.jpg'}")
    print(f"stylize:  python eval.py --model {folder} --image photo.jpg")
    print(f"charts:   tensorboard --logdir {folder}")
    return _INTERRUPTED if result.interrupted else 0


def _report_skipped(skipped: Mapping[Path, str]) -> None:
    if not skipped:
        return
    count = len(skipped)
    say(f"{count} photo{'s' if count != 1 else ''} could not be read and {_was(count)} left out:")
    for path, reason in sorted(skipped.items()):
        say(f"  {reason if str(path) in reason else f'{path}: {reason}'}")


def _was(count: int) -> str:
    return "was" if count == 1 else "were"


@contextlib.contextmanager
def _training_observer() -> Iterator[TrainObserver]:
    """Shows a run: a bar on a terminal, a line per report elsewhere (files, CI, `| tee`)."""
    from fast_style import objective as tags
    from fast_style.training import TrainObserver

    class Terminal(TrainObserver):
        bar: Any = None
        steps = 0
        began = 0.0
        start_step = 0

        def on_start(self, header: RunHeader) -> None:
            for label, value in _header_lines(header):
                print(f"{label + ':':<14} {value}")
            for note in header.notes:
                print(f"note: {note}")
            sys.stdout.flush()
            self.steps, self.start_step = header.steps, header.start_step
            if sys.stderr.isatty():
                self.bar = tqdm(
                    total=header.steps,
                    initial=header.start_step,
                    unit="step",
                    dynamic_ncols=True,
                    bar_format="{percentage:3.0f}% |{bar:12}| {n_fmt}/{total_fmt} "
                    "{postfix[0]} {remaining} left",
                    # A list, for the `postfix[0]` of the format.
                    postfix=["tracing the graph"],  # pyright: ignore[reportArgumentType]
                )

        def on_step(self, step: int) -> None:
            if self.bar is not None:
                self.bar.update(1)

        def on_log(self, report: StepReport) -> None:
            losses = report.losses
            if report.step == self.start_step + 1:
                self.began = time.monotonic()
            rate = f"{report.images_per_second:.2f}" if report.images_per_second else "-"
            text = (
                f"content {losses[tags.WEIGHTED_CONTENT]:,.0f}  "
                f"style {losses[tags.WEIGHTED_STYLE]:,.0f}  "
                f"tv {losses[tags.WEIGHTED_VARIATION]:,.0f}  "
                f"total {losses[tags.TOTAL]:,.0f}  {rate} images/s"
            )
            if self.bar is not None:
                self.bar.postfix[0] = text
                self.bar.refresh()
            else:
                left = ""
                if report.step > self.start_step + 1:
                    # The first step holds the tracing and would spoil the estimate.
                    pace = (time.monotonic() - self.began) / (report.step - self.start_step - 1)
                    left = f"  {duration(pace * (self.steps - report.step))} left"
                print(f"step {report.step}/{self.steps}  {text}{left}", flush=True)

        def on_checkpoint(self, path: Path, validation: Mapping[str, float]) -> None:
            held_out = f", held-out total {validation[tags.TOTAL]:,.0f}" if validation else ""
            tqdm.write(f"saved {path}{held_out}")

    observer = Terminal()
    try:
        yield observer
    finally:
        if observer.bar is not None:
            observer.bar.close()


def _header_lines(header: RunHeader) -> list[tuple[str, str]]:
    resumed = f", {header.start_step:,} done before" if header.start_step else ""
    return [
        ("device", header.device),
        ("precision", header.precision),
        ("loss network", f"{header.loss_model}, {header.loss_model_file}"),
        ("photos", f"{header.photos:,}"),
        ("steps", f"{header.steps:,}{resumed}"),
        ("transform net", f"{header.arch}, {header.weights:,} weights"),
        ("run", str(header.folder)),
        ("style seen as", ", ".join(map(str, header.targets))),
    ]


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
        help="pictures, and folders of pictures",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="a file for one picture, a folder for more (default: generated/NAME_STYLE.jpg)",
    )
    parser.add_argument(
        "--style-weights",
        metavar="A,B,...",
        help="how much of each style, for models of several styles",
    )
    _precision_argument(parser)
    # The 2016 eval.py had these and did nothing with them either.
    parser.add_argument("--loss_model", help=argparse.SUPPRESS)
    parser.add_argument("--image_size", help=argparse.SUPPRESS)


def _precision_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="what to compute in (default: what suits this machine)",
    )


def _eval(options: argparse.Namespace) -> int:
    from fast_style.jobs import plan_pictures, stylize_file

    style_weights = numbers("--style-weights", options.style_weights)
    import_tensorflow()
    from fast_style.stylize import load

    model = load(options.model, precision=options.precision)
    jobs = plan_pictures(options.images, options.output, model.model.label)
    if style_weights is not None:
        try:
            model.check_style_weights(style_weights)
        except ValueError as error:
            raise FastStyleError(f"--style-weights: {error}") from error
    failures = []
    many = len(jobs) > 1
    for job in tqdm(jobs, unit="picture", disable=not (many and sys.stderr.isatty())):
        try:
            stylize_file(model, job, style_weights)
        except FastStyleError as error:
            if not many:
                raise
            failures.append(str(error))
        else:
            tqdm.write(str(job.target))
    if failures:
        say(f"{len(failures)} of {len(jobs)} pictures failed:")
        for failure in failures:
            say(f"  {failure}")
    return 1 if failures else 0


# --- export --------------------------------------------------------------------------------------


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-m",
        "--model",
        "--model_file",
        required=True,
        metavar="PATH",
        help="a run's folder, a .safetensors file, or a checkpoint",
    )
    parser.add_argument("-n", "--model_name", metavar="NAME", help="name of the exported model")
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="where to write (default: exported/NAME)"
    )
    _precision_argument(parser)


def _export(options: argparse.Namespace) -> int:
    import_tensorflow()
    from fast_style.checkpoints import load_model
    from fast_style.exporting import export_saved_model
    from fast_style.hardware import resolve_precision

    model = load_model(options.model)
    name = options.model_name or model.label
    precision = resolve_precision(options.precision)
    folder = export_saved_model(
        model, options.output or Path("exported") / name, precision=precision
    )
    several = len(model.style_names) > 1
    weights = f", style_weights=tf.constant([{[1.0] * len(model.style_names)}])" if several else ""
    print(f"wrote {folder} ({precision}; uint8 images [N, H, W, 3] of any size in and out)")
    if precision == "bfloat16":
        print("for machines without fast bfloat16, export with --precision float32")
    print(
        f"load:   run = tf.saved_model.load({str(folder)!r}).signatures['serving_default']\n"
        f"        stylized = run(images=tf.constant(batch){weights})['stylized']\n"
        f'serve:  docker run -p 8501:8501 -v "$PWD/{folder}:/models/{name}/1" '
        f"-e MODEL_NAME={name} tensorflow/serving\n"
        f'        then POST {{"instances": [<H x W x 3 numbers 0..255>]}} to '
        f"http://localhost:8501/v1/models/{name}:predict"
    )
    return 0


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
    "train": ("Train a transform net as a YAML file describes.", _train_arguments, _train),
    "eval": ("Stylize pictures with a trained model.", _eval_arguments, _eval),
    "export": ("Write a trained model as a SavedModel.", _export_arguments, _export),
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
    "fetch": ("Download loss networks and photo sets.", _fetch_arguments, _fetch),
}
