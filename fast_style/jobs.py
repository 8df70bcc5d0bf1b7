"""Which picture goes where: from the arguments of eval to a list of files to read and write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fast_style.data import find_photos
from fast_style.errors import FastStyleError
from fast_style.images import (
    OUTPUT_SUFFIXES,
    check_outputs,
    printable,
    read_image,
    write_image,
)
from fast_style.stylize_options import StylizeOptions

if TYPE_CHECKING:
    from fast_style.stylize import Stylizer

GENERATED_FOLDER = Path("generated")
"""Where pictures go unless told otherwise."""

_ADVICE = "give pictures, or a folder of some"


@dataclass(frozen=True)
class Job:
    """One picture to stylize."""

    source: Path
    target: Path


def plan_pictures(sources: Sequence[str], output: str | None, style: str) -> list[Job]:
    """Decides what is read and where each result is written.

    Without an output, results are `generated/<name>_<style><suffix>`; folders keep their tree.
    With one, a single picture is written to it as a file (if it has a suffix, does not
    end in a slash and is no folder), and everything else goes into it as a folder.

    Args:
      sources: Pictures, and folders that are searched recursively.
      output: What the user asked for; none for the default.
      style: The model's name, part of the results' names.

    Returns:
      A job per picture, in order.

    Raises:
      FastStyleError: If a folder has no pictures, two results have one name, or a result would
        replace a source or could not be written.
    """
    sources = list(dict.fromkeys(sources))
    found: list[tuple[Path, Path]] = []  # (picture, its place relative to the output folder)
    for source in map(Path, sources):
        if source.is_dir():
            found += [
                (path, path.relative_to(source)) for path in find_photos(source, advice=_ADVICE)
            ]
        else:
            found.append((source, Path(source.name)))
    single_file = output is not None and _names_a_file(output, sources)
    if output is not None and not single_file and _looks_like_a_picture(output):
        raise FastStyleError(
            f"{printable(output)}: names a picture, but there are {len(found)} to write; "
            "name a folder"
        )
    jobs = []
    for path, place in dict.fromkeys(found):
        if single_file:
            assert output is not None
            target = Path(output)
        else:
            suffix = path.suffix if path.suffix.lower() in OUTPUT_SUFFIXES else ".jpg"
            folder = Path(output) if output is not None else GENERATED_FOLDER
            target = folder / place.parent / f"{path.stem}_{style}{suffix}"
        jobs.append(Job(path, target))
    _check_targets(jobs)
    return jobs


def _names_a_file(output: str, sources: Sequence[str]) -> bool:
    if len(sources) != 1 or Path(sources[0]).is_dir():
        return False
    a_folder = output.endswith(("/", os.sep)) or Path(output).is_dir()
    return not a_folder and bool(Path(output).suffix)


def _looks_like_a_picture(output: str) -> bool:
    place = Path(output)
    return place.suffix.lower() in OUTPUT_SUFFIXES and not place.is_dir() and output[-1] != "/"


def _check_targets(jobs: Sequence[Job]) -> None:
    check_outputs((job.target for job in jobs), (job.source for job in jobs))
    taken: dict[Path, Path] = {}
    for job in jobs:
        target = job.target.resolve()
        if target in taken:
            raise FastStyleError(
                f"{printable(job.target)}: both {printable(taken[target])} and "
                f"{printable(job.source)} would be written there; "
                "stylize them one after the other with different -o"
            )
        taken[target] = job.source


def stylize_file(model: Stylizer, job: Job, options: StylizeOptions | None = None) -> None:
    """Reads, stylizes and writes one picture.

    Args:
      model: What stylizes it.
      job: Where it is, and where the result goes.
      options: How; none for the defaults.

    Raises:
      FastStyleError: If it cannot be read or written.
    """
    image = read_image(job.source)
    write_image(job.target, model.stylize(image, **asdict(options or StylizeOptions())))
