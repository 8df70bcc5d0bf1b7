"""The `distill` command: its arguments, its progress and its messages."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fast_style.images import printable
from fast_style.stopping import stop_on_signals
from fast_style.terminal import (
    Progress,
    dry_run_argument,
    duration,
    import_tensorflow,
    overrides_argument,
    print_facts,
    say,
    tell_signal,
)


def add_distill_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what `distill` takes."""
    parser.add_argument(
        "-c",
        "--conf",
        metavar="FILE",
        help="how, such as conf/distill/vgg_mini.yml (default: as that file)",
    )
    overrides_argument(parser)
    parser.add_argument(
        "--report-only", action="store_true", help="only compare `output` with its teacher"
    )
    dry_run_argument(parser)


def run_distill(options: argparse.Namespace) -> int:
    """Distils a loss network and reports on it; the exit code is 128 and a signal if stopped."""
    from fast_style.distill_config import distill_config_to_yaml, load_distill_config

    config = load_distill_config(options.conf, options.overrides)
    if options.dry_run:
        print(distill_config_to_yaml(config), end="")
        return 0
    with stop_on_signals(tell_signal) as stop:
        try:
            import_tensorflow()
            if not options.report_only:
                from fast_style.distill import distill

                with contextlib.closing(_terminal(config.steps)) as observer:
                    result = distill(config, observer=observer, stop=stop)
                if result.output is None:
                    print(
                        f"stopped after step {result.steps} and saved; the same command goes on "
                        "from there"
                    )
                    return stop.exit_code
                print_facts(
                    [
                        ("done", f"{result.steps:,} steps, {duration(result.seconds)} now"),
                        ("network", printable(result.output)),
                        ("use", f"--set loss_model=vgg_mini --set loss_model_file={result.output}"),
                    ]
                )
            _report(config)
        except KeyboardInterrupt:
            say("stopped")
            return stop.exit_code
    return 0


def _report(config: Any) -> None:
    """Compares the network with its teacher on what both have not seen, where there is any."""
    from fast_style.data import find_photos
    from fast_style.distill_report import compare, table_lines, write_distill_report
    from fast_style.files import make_folder
    from fast_style.loss_models import MINI
    from fast_style.loss_net import build_loss_network

    if config.val_dataset is None or config.val_styles is None:
        say("no report: it needs val_dataset and val_styles, photos and style pictures held out")
        return
    advice = "point `val_styles` at a folder of style pictures"
    photos = find_photos(config.val_dataset, advice="point `val_dataset` at a folder of photos")
    styles = find_photos(config.val_styles, advice=advice)
    own = build_loss_network(MINI, config.output, [f"{MINI}/{name}" for name in config.layers])
    teacher = build_loss_network(
        config.teacher, config.teacher_file, [f"{config.teacher}/{name}" for name in config.layers]
    )
    with tqdm(unit="photo", dynamic_ncols=True, disable=not sys.stderr.isatty()) as bar:

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
            on_step=on_step,
        )
    print(*table_lines(report), sep="\n")
    title = f"vgg_mini and its teacher, {config.teacher}"
    for path in write_distill_report(make_folder(config.run_folder), report, title):
        print(printable(path))


def _terminal(steps: int) -> Any:
    """Shows what is done, and its progress."""
    from fast_style.distill import DistillHeader, DistillObserver

    class Terminal(DistillObserver):
        progress: Progress | None = None

        def on_start(self, header: DistillHeader) -> None:
            resumed = f", {header.start_step:,} done before" if header.start_step else ""
            print_facts(
                [
                    ("device", header.device),
                    ("precision", header.precision),
                    ("teacher", f"{header.teacher}, {header.teacher_file}"),
                    ("pictures", f"{header.photos:,} photos, {header.styles} styles"),
                    ("network", f"{header.weights:,} weights"),
                    ("steps", f"{header.steps:,}{resumed}"),
                ]
            )
            for note in header.notes:
                print(f"note: {note}")
            sys.stdout.flush()
            self.progress = Progress(steps, start=header.start_step)

        def on_step(self, step: int) -> None:
            assert self.progress is not None
            self.progress.move(step)

        def on_log(self, step: int, losses: Mapping[str, float]) -> None:
            assert self.progress is not None
            errors = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
            self.progress.tell(errors)

        def on_checkpoint(self, path: Path) -> None:
            tqdm.write(f"saved {printable(path)}")

        def close(self) -> None:
            if self.progress is not None:
                self.progress.close()

    return Terminal()
