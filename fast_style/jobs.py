"""Which picture or film goes where: from the arguments of eval to files to read and write."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fast_style.data import find_photos
from fast_style.errors import UsageError
from fast_style.images import OUTPUT_SUFFIXES, check_outputs, printable
from fast_style.video import FILM_OUTPUT_SUFFIXES, FILM_SUFFIXES

GENERATED_FOLDER = Path("generated")
"""Where pictures go unless told otherwise."""

FORMATS = {
    "jpg": (".jpg", ".jpeg"),
    "png": (".png",),
    "webp": (".webp",),
    "tiff": (".tiff", ".tif"),
}
"""What --format takes, and the endings of such files, the usual one first."""

_ADVICE = "give pictures, or a folder of some"


@dataclass(frozen=True)
class Job:
    """One picture or film to stylize."""

    source: Path
    target: Path

    @property
    def is_film(self) -> bool:
        """Whether the source is a film, by its ending."""
        return _is_film(self.source)


def plan_jobs(
    sources: Sequence[str], output: str | None, style: str, *, form: str | None = None
) -> list[Job]:
    """Decides what is read and where each result is written.

    Without an output, results are `generated/<name>_<style><suffix>`. With one, a single picture is
    written to it as a file (if it has a suffix, does not end in a slash and is no folder), and
    everything else goes into it as a folder under its own name. Folders keep their tree, and so
    does a pattern below its first wildcard.

    Args:
      sources: Pictures, films, folders that are searched recursively for pictures, and patterns
        (`*`, `?`, `[...]`, and `**` for any folders) that no shell has expanded.
      output: What the user asked for; none for the default.
      style: The model's name, part of the results' names.
      form: A key of `FORMATS`, for pictures; none keeps the format of each, or takes PNG for GIF
        and JPEG for others that are not written. Films keep theirs, or become MP4.

    Returns:
      A job per picture or film, in order.

    Raises:
      UsageError: If a folder has no pictures, a pattern fits nothing, two results have one
        name, the output contradicts the format, or a result would replace a source or could not be
        written.
    """
    sources = list(dict.fromkeys(sources))
    found: list[tuple[Path, Path]] = []  # (picture, its place relative to the output folder)
    for source in sources:
        found += _pictures_of(source)
    single_file = output is not None and _names_a_file(output, sources)
    if output is not None and not single_file and _looks_like_a_file(output):
        raise UsageError(
            f"{printable(output)}: names one file, but there are {len(found)} to write; "
            "name a folder"
        )
    if output is not None and single_file and form is not None and not _is_film(sources[0]):
        if Path(output).suffix.lower() not in FORMATS[form]:
            raise UsageError(
                f"{printable(output)}: is not a name for --format {form}; leave out one of the two"
            )
    jobs = []
    for path, place in dict.fromkeys(found):
        if output is not None and single_file:
            target = Path(output)
        elif output is not None:
            target = Path(output) / place.with_name(path.stem + _suffix(path, form))
        else:
            name = f"{path.stem}_{style}{_suffix(path, form)}"
            target = GENERATED_FOLDER / place.with_name(name)
        jobs.append(Job(path, target))
    _check_targets(jobs)
    return jobs


def without_existing(jobs: Sequence[Job]) -> list[Job]:
    """Returns the jobs that have no result yet."""
    return [job for job in jobs if not os.path.exists(job.target)]


def _pictures_of(source: str) -> list[tuple[Path, Path]]:
    """Returns the pictures of an argument, each with its place below the output folder."""
    # os.path, because Path's own questions raise on names too long and folders without permission.
    if os.path.isdir(source):
        root = Path(source)
        return [(path, path.relative_to(root)) for path in find_photos(root, advice=_ADVICE)]
    if not _is_pattern(source):
        return [(Path(source), Path(Path(source).name))]
    fixed = Path(os.path.dirname(re.split(r"[*?[]", source, maxsplit=1)[0]))
    pictures = []
    for match in sorted(glob.glob(source, recursive=True)):
        if os.path.isdir(match):
            # Of a folder and of its parent, `**` gives both.
            if not source.rstrip("/").endswith("**"):
                pictures += [
                    (path, path.relative_to(fixed)) for path in find_photos(match, advice=_ADVICE)
                ]
        else:
            pictures.append((Path(match), Path(match).relative_to(fixed)))
    if not pictures:
        raise UsageError(
            f"{printable(source)}: no picture fits this pattern; check it, or name a folder"
        )
    return pictures


def _is_film(path: str | Path) -> bool:
    return Path(path).suffix.lower() in FILM_SUFFIXES


def _is_pattern(source: str) -> bool:
    return glob.has_magic(source) and not os.path.lexists(source)


def _suffix(path: Path, form: str | None) -> str:
    own = path.suffix.lower()
    if _is_film(path):
        return path.suffix if own in FILM_OUTPUT_SUFFIXES else ".mp4"
    if form is not None:
        return path.suffix if own in FORMATS[form] else FORMATS[form][0]
    if own in OUTPUT_SUFFIXES:
        return path.suffix
    return ".png" if own == ".gif" else ".jpg"


def _names_a_file(output: str, sources: Sequence[str]) -> bool:
    if len(sources) != 1 or os.path.isdir(sources[0]) or _is_pattern(sources[0]):
        return False
    a_folder = output.endswith(("/", os.sep)) or os.path.isdir(output)
    return not a_folder and bool(Path(output).suffix)


def _looks_like_a_file(output: str) -> bool:
    place = Path(output)
    a_file = place.suffix.lower() in (*OUTPUT_SUFFIXES, *FILM_OUTPUT_SUFFIXES)
    return a_file and not os.path.isdir(place) and output[-1] != "/"


def _check_targets(jobs: Sequence[Job]) -> None:
    sources = [job.source for job in jobs]
    check_outputs((job.target for job in jobs if not job.is_film), sources)
    check_outputs(
        (job.target for job in jobs if job.is_film),
        sources,
        suffixes=FILM_OUTPUT_SUFFIXES,
        kind="films",
    )
    taken: dict[str, Path] = {}
    for job in jobs:
        target = os.path.realpath(job.target)  # Path.resolve raises on links in a circle.
        if target in taken:
            raise UsageError(
                f"{printable(job.target)}: both {printable(taken[target])} and "
                f"{printable(job.source)} would be written there; "
                "stylize them one after the other with different -o"
            )
        taken[target] = job.source
