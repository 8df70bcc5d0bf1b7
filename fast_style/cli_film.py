"""The command line of films: their part of eval, and flicker."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from tqdm import tqdm

from fast_style.errors import FastStyleError, UsageError
from fast_style.images import printable
from fast_style.jobs import Job
from fast_style.opening import DEFAULT_MAX_PIXELS
from fast_style.pipeline import Outcome, as_failure
from fast_style.steady import UNCHANGED, Steadier, flicker
from fast_style.terminal import say
from fast_style.video import DEFAULT_QUALITY, read_frames, stylize_film


def check_film_options(jobs: Sequence[Job], options: argparse.Namespace) -> None:
    """Refuses options that would do nothing for the films, or for want of films.

    Raises:
      UsageError: If --format is given with a film, or --temporal without any.
    """
    film = next((job.source for job in jobs if job.is_film), None)
    if film is not None and options.format is not None:
        raise UsageError(
            f"--format {options.format}: is for pictures and {printable(film)} is a film; leave it "
            "out, or name a film with -o NAME.mp4"
        )
    if film is None and options.temporal > 0.0:
        raise UsageError(
            f"--temporal {options.temporal:g}: is for films and there is none; leave it out"
        )


def run_films(
    jobs: Iterable[Job],
    stylize: Callable[[np.ndarray], np.ndarray],
    temporal: float,
    *,
    quality: int = DEFAULT_QUALITY,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Iterator[Outcome]:
    """Stylizes films with a bar over the frames of each; a bad one does not stop the others.

    Args:
      jobs: The films.
      stylize: One frame, uint8 [H, W, 3].
      temporal: 0 to 1, see `Steadier`.
      quality: 1 to 100, see `stylize_film`.
      max_pixels: Films with larger frames are refused.

    Yields:
      An outcome per film.
    """
    for job in jobs:
        steadier = Steadier(temporal)

        def steadied(frame: np.ndarray, steadier: Steadier = steadier) -> np.ndarray:
            return steadier.steady(frame, stylize(frame))

        with tqdm(
            desc=printable(job.source.name),
            unit="frame",
            dynamic_ncols=True,
            leave=False,
            disable=not sys.stderr.isatty(),
        ) as bar:

            def progress(done: int, total: int | None, bar: tqdm = bar) -> None:
                bar.total = total
                bar.update(done - bar.n)

            try:
                result = stylize_film(
                    job.source,
                    job.target,
                    steadied,
                    quality=quality,
                    max_pixels=max_pixels,
                    progress=progress,
                )
            except Exception as error:  # One bad film does not stop the rest.
                outcome = Outcome(job, error=as_failure(job, error))
            else:
                outcome = Outcome(job, result.notes)
        yield outcome


def add_flicker_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of flicker."""
    parser.add_argument("film", metavar="CLIP", help="a styled film")
    parser.add_argument(
        "--input",
        metavar="ORIGINAL",
        help="what it was made of: only what stands still in it counts (default: every pixel)",
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def run_flicker(options: argparse.Namespace) -> int:
    """Runs flicker and returns its exit code."""
    original = None if options.input is None else read_frames(options.input)
    try:
        result = flicker(read_frames(options.film), original)
    except ValueError as error:
        raise FastStyleError(
            f"{printable(options.film)} and {printable(options.input or '')}: {error}; "
            "give a film and the one it was made of"
        ) from error
    if not result.frames:
        raise FastStyleError(
            f"{printable(options.film)}: no two frames of one scene follow each other"
        )
    if options.json:
        facts = {
            "flicker": round(result.levels, 4),
            "frames_compared": result.frames,
            "share_of_pixels": round(result.counted, 4),
            "where": "everywhere" if original is None else "input unchanged",
            "unchanged_below": None if original is None else UNCHANGED,
        }
        print(json.dumps(facts))
        return 0
    print(f"flicker {result.levels:.2f} levels of 255 between neighbouring frames, ", end="")
    if original is None:
        print("everywhere, motion included")
        say("note: with --input ORIGINAL only what stands still in it counts")
    else:
        print(f"where the input stands still ({result.counted:.0%} of the picture)")
    return 0
