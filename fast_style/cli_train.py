"""The command `train`: its arguments, and what it shows of a run."""

from __future__ import annotations

import argparse
import contextlib
import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from fast_style.images import printable
from fast_style.jobs import plan_jobs
from fast_style.samples import names_samples, sample_photos
from fast_style.stopping import stop_on_signals
from fast_style.terminal import (
    Progress,
    TimedProgress,
    dry_run_argument,
    duration,
    fresh_argument,
    import_tensorflow,
    loss_number,
    outliving_output,
    overrides_argument,
    print_facts,
    report_skipped,
    say,
    tell_signal,
    tell_start,
    terms_line,
)

if TYPE_CHECKING:
    from fast_style.config import RunConfig
    from fast_style.run_events import RunHeader, StepReport, TrainObserver, TrainResult

_log = logging.getLogger(__name__)


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what `train` takes."""
    parser.add_argument(
        "-c", "--conf", required=True, metavar="FILE", help="the run, such as conf/candy.yml"
    )
    overrides_argument(parser)
    fresh_argument(parser)
    dry_run_argument(parser)
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--quiet", action="store_true", help="show warnings and errors alone")
    shown.add_argument(
        "--log-json",
        action="store_true",
        help="write one JSON object a line to the standard output, and nothing else",
    )


def run_train(options: argparse.Namespace) -> int:
    """Trains, and returns the exit code: 0, or 128 and the signal that stopped it.

    Raises:
      FastStyleError: As `training.train` does.
    """
    from fast_style.cluster import find_cluster
    from fast_style.config import config_to_yaml, load_config

    cluster = find_cluster()
    config = load_config(options.conf, options.overrides)
    if options.dry_run:
        print(config_to_yaml(config), end="")
        return 0
    for_people = not (options.quiet or options.log_json)
    if for_people and cluster.size > 1:
        say(
            f"{cluster.name(cluster.index)} of {cluster.size}: waiting for the others"
            + ("" if cluster.is_chief else f"; {cluster.name(0)}, reports")
        )
    for_people = for_people and cluster.is_chief
    if for_people:
        print(config_to_yaml(config))
    if cluster.is_chief:
        fields = {"config": config.to_dict()}
        _log.info("configuration", extra={"event": "config", "fields": fields})
    with stop_on_signals(tell_signal) as stop:
        try:
            import_tensorflow()
            from fast_style.run_events import LoggingObserver
            from fast_style.training import train

            with contextlib.ExitStack() as stack:
                observer: TrainObserver = LoggingObserver()
                if for_people:
                    observer = stack.enter_context(contextlib.closing(_terminal()))
                result = train(
                    config, fresh=options.fresh, observer=observer, stop=stop, cluster=cluster
                )
        except KeyboardInterrupt:
            say("stopped before the first step; there is nothing to save")
            return stop.exit_code
    if for_people:
        report_skipped(result.skipped)
        _summarize(config, result)
    if cluster.is_chief and names_samples(config.dataset) and not result.interrupted:
        _tell_picture(_stylize_sample(config, result), aloud=for_people)
    return stop.exit_code if result.interrupted else 0


@outliving_output
def _summarize(config: RunConfig, result: TrainResult) -> None:
    """Prints what a run came to."""
    from fast_style import objective as tags

    folder = result.model.parent
    if result.first and result.last:
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
    elif not result.first and not result.interrupted and not result.skipped_steps:
        used, length = "", "steps (or epoch)"
        if config.minutes is not None:
            used, length = f", and its {duration(60.0 * config.minutes)} are over", "minutes"
        print(
            f"nothing left to do: {folder} has {result.steps} steps{used}; raise {length} to go "
            "on, or start over with --fresh"
        )
    if result.interrupted and not result.steps:
        print("stopped before the first step; there is nothing to save")
        return
    if result.interrupted:
        print(f"stopped after step {result.steps} and saved; the same command goes on from there")
    rate = f", {result.images_per_second:.2f} images/s" if result.images_per_second else ""
    facts = [("done", f"{result.steps:,} steps in all, {duration(result.seconds)} now{rate}")]
    if result.last:
        facts.append(("last losses", terms_line(result.last)))
    if result.skipped or result.skipped_steps:
        left_out = f"{len(result.skipped)} photos (unreadable), "
        left_out += f"{len(result.skipped_steps)} batches (not finite)"
        facts.append(("skipped", left_out))
    of_step = ""
    if result.model_step != result.steps:
        of_step = f" (of step {result.model_step:,}, with the lowest held-out loss)"
    photo = shlex.quote(_picture_to_stylize(config))
    facts += [
        ("model", f"{result.model}{of_step}"),
        ("preview", str(folder / "preview.jpg")),
        ("stylize", f"python eval.py --model {folder} --image {photo}"),
        ("charts", f"tensorboard --logdir {folder}"),
    ]
    print_facts(facts)


def _stylize_sample(config: RunConfig, result: TrainResult) -> Path:
    """Stylizes the first of the sample photos that a run was trained on, and says where it is."""
    from fast_style.pipeline import run_jobs
    from fast_style.stylize import load

    [job] = plan_jobs([_picture_to_stylize(config)], None, config.naming, form="jpg")
    [outcome] = run_jobs([job], load(result.model, precision=config.precision).stylize)
    if outcome.error is not None:
        raise outcome.error
    return job.target


def _tell_picture(path: Path, *, aloud: bool) -> None:
    _log.info("picture: %s", path, extra={"event": "picture", "fields": {"path": str(path)}})
    if aloud:
        outliving_output(print_facts)([("picture", printable(path))])


def _picture_to_stylize(config: RunConfig) -> str:
    """Names a photo that shows what was trained: one that is there, if we know any."""
    return str(sample_photos()[0]) if names_samples(config.dataset) else "photo.jpg"


def _terminal() -> Any:
    """Shows a run: what it is, and its progress."""
    from fast_style import objective as tags
    from fast_style.run_events import TrainObserver

    class Terminal(TrainObserver):
        progress: Progress | None = None

        def on_start(self, header: RunHeader) -> None:
            tell_start(_header_lines(header), header.notes)
            if header.steps is None:
                assert header.minutes is not None
                self.progress = TimedProgress(60.0 * header.minutes, spent=header.seconds)
            else:
                self.progress = Progress(header.steps, start=header.start_step, costs=header.costs)

        @outliving_output
        def on_step(self, step: int) -> None:
            assert self.progress is not None
            self.progress.move(step)

        @outliving_output
        def on_log(self, report: StepReport) -> None:
            assert self.progress is not None
            rate = f"{report.images_per_second:.2f}" if report.images_per_second else "-"
            self.progress.tell(f"{terms_line(report.losses)}  {rate} images/s")

        @outliving_output
        def on_checkpoint(self, path: Path, validation: Mapping[str, float]) -> None:
            held_out = ""
            if validation:
                held_out = f", held-out total {loss_number(validation[tags.TOTAL])}"
            tqdm.write(f"saved {path}{held_out}")

        def close(self) -> None:
            if self.progress is not None:
                self.progress.close()

    return Terminal()


def _amount(header: RunHeader, share: float) -> str:
    """Says how much of a run a share is, in steps or in time."""
    if header.minutes is not None:
        return duration(60.0 * share * header.minutes)
    assert header.steps is not None
    return f"{round(share * header.steps):,}"


def _header_lines(header: RunHeader) -> list[tuple[str, str]]:
    small = f", the first {_amount(header, header.small_first)} on half the size"
    mini = f", the first {_amount(header, header.mini_first)} judged by vgg_mini"
    quick = (small if header.small_first else "") + (mini if header.mini_first else "")
    resumed = ""
    if header.start_step:
        resumed = f", {header.start_step:,} done before"
        if header.minutes is not None:
            resumed = f", {duration(header.seconds)} of it over, {header.start_step:,} steps done"
    origin = f", from {header.init_from}" if header.init_from else ""
    return [
        ("device", header.device),
        ("precision", header.precision),
        ("loss network", f"{header.loss_model}, {header.loss_model_file}"),
        ("photos", f"{header.photos:,}"),
        ("steps" if header.minutes is None else "time", _amount(header, 1.0) + quick + resumed),
        ("transform net", f"{header.arch}, {header.weights:,} weights{origin}"),
        ("run", str(header.folder)),
        ("style seen as", ", ".join(map(str, header.targets))),
    ]
