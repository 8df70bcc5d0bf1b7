"""The commands: their arguments and messages. Only cli*.py and terminal.py print.

TensorFlow is imported by the commands that need it, after their arguments were understood.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shlex
import sys
import urllib.parse
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
from fast_style.cli_prepare import add_prepare_arguments, run_prepare
from fast_style.cli_quality import add_quality_arguments, run_quality
from fast_style.errors import FastStyleError
from fast_style.images import printable
from fast_style.terminal import (
    INTERRUPTED,
    Progress,
    dry_run_argument,
    duration,
    import_tensorflow,
    loss_number,
    numbers,
    overrides_argument,
    precision_argument,
    print_facts,
    report_skipped,
    say,
    terms_line,
)

if TYPE_CHECKING:
    from fast_style.checkpoints import Model
    from fast_style.training import RunHeader, StepReport


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
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output (`| head`) has gone; that is not an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


# --- train ---------------------------------------------------------------------------------------


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c", "--conf", required=True, metavar="FILE", help="the run, such as conf/candy.yml"
    )
    overrides_argument(parser)
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="start over; a run that is already there is renamed, not deleted",
    )
    dry_run_argument(parser)


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

    with contextlib.closing(_terminal()) as observer:
        result = train(config, fresh=options.fresh, observer=observer)
    report_skipped(result.skipped)
    folder = result.model.parent
    if result.first:
        first, last = result.first[tags.TOTAL], result.last[tags.TOTAL]
        print(
            f"total loss {loss_number(first)} at the first step, {loss_number(last)} over the last "
            f"ones ({first / max(last, 1e-9):.1f}x less), in {duration(result.seconds)}"
        )
    ended = (
        f"ended at step {result.steps}: the held-out loss has not improved for "
        f"{config.patience_checkpoints} checkpoints"
    )
    if result.converged and result.first:
        print(ended)
    elif result.converged:
        print(
            f"nothing left to do: {folder} {ended}; raise patience_checkpoints or remove it to go "
            "on, or start over with --fresh"
        )
    elif not result.first and not result.interrupted:
        print(
            f"nothing left to do: {folder} has {result.steps} steps; raise steps (or epoch) to go "
            "on, or start over with --fresh"
        )
    if result.interrupted and not result.steps:
        print("stopped before the first step; there is nothing to save")
        return INTERRUPTED
    if result.interrupted:
        print(f"stopped after step {result.steps} and saved; the same command goes on from there")
    print(f"model:    {result.model}")
    print(f"preview:  {folder / 'preview.jpg'}")
    print(f"stylize:  python eval.py --model {folder} --image photo.jpg")
    print(f"charts:   tensorboard --logdir {folder}")
    return INTERRUPTED if result.interrupted else 0


def _terminal() -> Any:
    """Shows a run: what it is, and its progress."""
    from fast_style import objective as tags
    from fast_style.training import TrainObserver

    class Terminal(TrainObserver):
        progress: Progress | None = None

        def on_start(self, header: RunHeader) -> None:
            print_facts(_header_lines(header))
            for note in header.notes:
                print(f"note: {note}")
            sys.stdout.flush()
            self.progress = Progress(header.steps, start=header.start_step)

        def on_step(self, step: int) -> None:
            assert self.progress is not None
            self.progress.move(step)

        def on_log(self, report: StepReport) -> None:
            assert self.progress is not None
            rate = f"{report.images_per_second:.2f}" if report.images_per_second else "-"
            self.progress.tell(f"{terms_line(report.losses)}  {rate} images/s")

        def on_checkpoint(self, path: Path, validation: Mapping[str, float]) -> None:
            held_out = ""
            if validation:
                held_out = f", held-out total {loss_number(validation[tags.TOTAL])}"
            tqdm.write(f"saved {path}{held_out}")

        def close(self) -> None:
            if self.progress is not None:
                self.progress.close()

    return Terminal()


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
    precision_argument(parser)
    # The 2016 eval.py had these and did nothing with them either.
    parser.add_argument("--loss_model", help=argparse.SUPPRESS)
    parser.add_argument("--image_size", help=argparse.SUPPRESS)


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
            tqdm.write(printable(job.target))
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
    precision_argument(parser)


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
    print(f"wrote {folder} ({precision}; uint8 images [N, H, W, 3] of any size in and out)")
    if precision == "bfloat16":
        print("for machines without fast bfloat16, export with --precision float32")
    print(_export_use(model, folder, name))
    return 0


def _export_use(model: Model, folder: Path, name: str) -> str:
    """Returns how to load and to serve an export, as lines that can be pasted."""
    weights, body = "", '"instances": [<H x W x 3 numbers 0..255>]'
    if (styles := len(model.style_names)) > 1:
        first = [1.0] + [0.0] * (styles - 1)
        weights = f", style_weights=tf.constant([{first}])"
        # By columns: the numbers of a row would have to be named each time.
        body = f'"inputs": {{"images": [<H x W x 3 numbers 0..255>], "style_weights": [{first}]}}'
    volume = shlex.quote(f"{folder.resolve()}:/models/{name}/1")
    return (
        f"load:   run = tf.saved_model.load({str(folder)!r}).signatures['serving_default']\n"
        f"        stylized = run(images=tf.constant(batch){weights})['stylized']\n"
        f"serve:  docker run -p 8501:8501 -v {volume} -e {shlex.quote(f'MODEL_NAME={name}')} "
        "tensorflow/serving\n"
        f"        then POST {{{body}}} to "
        f"http://localhost:8501/v1/models/{urllib.parse.quote(name)}:predict"
    )


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
    "prepare": (
        "Decode and scale photos once, for hardware that trains faster than JPEGs decode.",
        add_prepare_arguments,
        run_prepare,
    ),
}
