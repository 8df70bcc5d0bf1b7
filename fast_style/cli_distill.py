"""The `distill` command: its arguments, its progress and its messages."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from fast_style.errors import ConfigError, WeightsError
from fast_style.images import printable
from fast_style.stopping import stop_on_signals
from fast_style.terminal import (
    Progress,
    dry_run_argument,
    duration,
    fresh_argument,
    import_tensorflow,
    outliving_output,
    overrides_argument,
    print_facts,
    say,
    tell_signal,
    tell_start,
)

if TYPE_CHECKING:
    from fast_style.distill import DistillHeader, DistillResult
    from fast_style.distill_config import DistillConfig
    from fast_style.distill_report import DistillReport

_HELD_OUT_MISSING = "it needs val_dataset and val_styles, photos and style pictures held out"


def add_distill_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what `distill` takes."""
    parser.add_argument(
        "-c",
        "--conf",
        metavar="FILE",
        help="how, such as conf/distill/vgg_mini.yml (default: as that file)",
    )
    overrides_argument(parser)
    fresh_argument(parser)
    parser.add_argument(
        "--report-only", action="store_true", help="only compare `output` with its teacher"
    )
    dry_run_argument(parser)


def run_distill(options: argparse.Namespace) -> int:
    """Distils a loss network and reports on it; the exit code is 128 and a signal if stopped.

    Raises:
      FastStyleError: As `distill.distill` does, or if there is nothing to report on.
    """
    from fast_style.distill_config import distill_config_to_yaml, load_distill_config

    config = load_distill_config(options.conf, options.overrides)
    if options.dry_run:
        print(distill_config_to_yaml(config), end="")
        return 0
    if options.report_only:
        _check_reportable(config)
    with stop_on_signals(tell_signal) as stop:
        try:
            import_tensorflow()
            if not options.report_only:
                from fast_style.distill import distill

                with contextlib.closing(_terminal()) as observer:
                    result = distill(config, fresh=options.fresh, observer=observer, stop=stop)
                _summarize(result)
                if result.output is None:
                    return stop.exit_code
            _report(config)
        except KeyboardInterrupt:
            say("stopped")
            return stop.exit_code
    return 0


def _check_reportable(config: DistillConfig) -> None:
    """Raises an error unless there is a network, and something to compare it on."""
    if config.val_dataset is None:
        raise ConfigError("--report-only", [_HELD_OUT_MISSING])
    if not Path(config.output).is_file():
        raise WeightsError(
            f"{printable(config.output)}: there is no such network to report on; point `output` at "
            "it, or leave out --report-only to make it"
        )


@outliving_output
def _summarize(result: DistillResult) -> None:
    """Prints what a run came to."""
    if result.output is None:
        print(f"stopped after step {result.steps} and saved; the same command goes on from there")
        return
    file = shlex.quote(str(result.output))
    print_facts(
        [
            ("done", f"{result.steps:,} steps, {duration(result.seconds)} now"),
            ("network", printable(result.output)),
            ("use", f"--set loss_model=vgg_mini --set loss_model_file={file}"),
        ]
    )


def _report(config: DistillConfig) -> None:
    """Compares the network with its teacher on what both have not seen, where there is any."""
    from fast_style.distill_compare import compare, find_held_out
    from fast_style.distill_report import write_distill_report
    from fast_style.files import make_folder
    from fast_style.hardware import resolve_precision
    from fast_style.loss_models import MINI
    from fast_style.loss_net import build_loss_network

    photos, styles = find_held_out(config)
    if not photos:
        say(f"no report: {_HELD_OUT_MISSING}")
        return
    precision = resolve_precision(config.precision)
    layers = [f"{MINI}/{name}" for name in config.layers]
    own = build_loss_network(MINI, config.output, layers, dtype=precision, key="output")
    teacher = build_loss_network(
        config.teacher,
        config.teacher_file,
        [f"{config.teacher}/{name}" for name in config.layers],
        key="teacher_file",
    )
    with tqdm(unit="step", dynamic_ncols=True, disable=not sys.stderr.isatty()) as bar:

        def on_step(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = compare(
            own,
            teacher,
            photos,
            styles,
            content_layer=config.content_layer,
            pairs=config.report_photos,
            size=config.report_size,
            precision=precision,
            on_step=on_step,
        )
    title = f"vgg_mini and its teacher, {config.teacher}"
    _tell_report(report, write_distill_report(make_folder(config.run_folder), report, title))


@outliving_output
def _tell_report(report: DistillReport, files: Sequence[Path]) -> None:
    from fast_style.distill_report import table_lines

    print(*table_lines(report), *map(printable, files), sep="\n", flush=True)


def _terminal() -> Any:
    """Shows what is done, and its progress."""
    from fast_style.distill import DistillObserver

    class Terminal(DistillObserver):
        progress: Progress | None = None

        def on_start(self, header: DistillHeader) -> None:
            resumed = f", {header.start_step:,} done before" if header.start_step else ""
            facts = [
                ("device", header.device),
                ("precision", header.precision),
                ("teacher", f"{header.teacher}, {header.teacher_file}"),
                ("pictures", f"{header.photos:,} photos, {header.styles} styles"),
                ("network", f"{header.weights:,} weights"),
                ("steps", f"{header.steps:,}{resumed}"),
            ]
            tell_start(facts, header.notes)
            self.progress = Progress(header.steps, start=header.start_step)

        @outliving_output
        def on_step(self, step: int) -> None:
            assert self.progress is not None
            self.progress.move(step)

        @outliving_output
        def on_log(self, step: int, losses: Mapping[str, float]) -> None:
            assert self.progress is not None
            errors = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
            self.progress.tell(errors)

        @outliving_output
        def on_checkpoint(self, path: Path) -> None:
            tqdm.write(f"saved {printable(path)}")

        def close(self) -> None:
            if self.progress is not None:
                self.progress.close()

    return Terminal()
