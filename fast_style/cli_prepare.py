"""The `prepare` command: its arguments and messages."""

from __future__ import annotations

import argparse
import sys

from tqdm import tqdm

from fast_style.images import printable
from fast_style.terminal import positive, report_skipped


def add_prepare_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what `prepare` takes."""
    parser.add_argument("photos", metavar="DIR", help="a folder of photos, searched recursively")
    parser.add_argument(
        "-o", "--output", required=True, metavar="DIR", help="the prepared folder, outside of it"
    )
    parser.add_argument(
        "--size",
        type=positive,
        default=256,
        metavar="PX",
        help="short side: the largest image_size to train with (default: %(default)s)",
    )
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="threads (default: one per processor)"
    )


def run_prepare(options: argparse.Namespace) -> int:
    """Prepares a folder and says how to train with it."""
    from fast_style.prepare import prepare_photos

    with tqdm(unit="photo", dynamic_ncols=True, disable=not sys.stderr.isatty()) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = prepare_photos(
            options.photos,
            options.output,
            size=options.size,
            workers=options.workers,
            progress=progress,
        )
    report_skipped(result.skipped)
    there = result.photos - result.written
    print(
        f"{result.photos:,} photos in {printable(result.folder)}, "
        f"{result.total_bytes / 1e9:.2f} GB"
        + (f"; {there:,} of them were there before" if there else "")
    )
    print(
        f"train:  python train.py -c conf/candy.yml --set dataset={printable(result.folder)} "
        f"(image_size up to {options.size})"
    )
    return 0
