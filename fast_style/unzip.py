"""Unpacks a zip archive that came from elsewhere without trusting what it says about itself."""

from __future__ import annotations

import re
import stat
import unicodedata
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from fast_style.download import CHUNK_BYTES, Progress, format_bytes, require_space
from fast_style.errors import FastStyleError

# Photos hardly shrink in a zip; a file that grows a hundredfold was made to fill the disk.
_LARGEST_RATIO = 100
# What Windows refuses or reads as something else: a photo set must unpack alike everywhere.
_UNSAFE_PART = re.compile(
    r'[\x00-\x1f<>:"|?*\\]|[ .]$|^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)', re.IGNORECASE
)


def unzip(archive: Path, folder: Path, *, limit_bytes: int, progress: Progress) -> None:
    """Unpacks every file of `archive` into the new folder `folder`.

    All names and sizes are checked before the first byte is written. Where all files lie in one
    top folder, that folder is left out. Permissions and times of the archive are not kept.

    Args:
      archive: A zip file.
      folder: Must not exist; on an error, what was unpacked so far is left for the caller.
      limit_bytes: Largest sum of unpacked sizes.
      progress: Told after each chunk, with stage 'unpack'.

    Raises:
      FastStyleError: If the archive is damaged, would write outside the folder, holds links, names
        that some system cannot hold, one name twice, or more than `limit_bytes`; or if the disk
        is too small.
    """
    try:
        with zipfile.ZipFile(archive) as zipped:
            files = _checked_files(archive, zipped.infolist(), limit_bytes)
            total = sum(info.file_size for info, _ in files)
            require_space(archive.name, folder.parent, total)
            folder.mkdir()
            done = 0
            for info, path in files:
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                # Reading to the end is what makes zipfile compare the CRC.
                with zipped.open(info) as source, open(target, "xb") as copy:
                    while chunk := source.read(CHUNK_BYTES):
                        copy.write(chunk)
                        done += len(chunk)
                        progress(done, total, "unpack")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise FastStyleError(
            f"{archive}: this archive is damaged ({error}); delete it and run the same again"
        ) from error
    except OSError as error:
        raise FastStyleError(
            f"{archive}: cannot be unpacked beside itself ({error.strerror or error}); "
            "free some space or change the folder's permissions, then run the same again"
        ) from error


def _checked_files(
    archive: Path, entries: list[zipfile.ZipInfo], limit_bytes: int
) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """Returns the archive's files with the relative paths they unpack to."""

    def refuse(name: str, problem: str) -> FastStyleError:
        return FastStyleError(
            f"{archive}: refused, because its entry {name!r} {problem}; "
            "delete this archive and get it from its official place"
        )

    files: list[tuple[zipfile.ZipInfo, PurePosixPath]] = []
    for info in entries:
        # zipfile shortens a name at a zero byte; what it began as tells.
        name = info.orig_filename
        if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
            raise refuse(name, "has an absolute path")
        parts = name.removesuffix("/").split("/")
        if ".." in re.split(r"[/\\]", name):
            raise refuse(name, "leads out of the folder")
        if any(part in ("", ".") or _UNSAFE_PART.search(part) for part in parts):
            raise refuse(name, "has a name that is not safe on every system")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise refuse(name, "is a link or a device, not a file")
        if info.flag_bits & 0x1:
            raise refuse(name, "is encrypted")
        if info.file_size > _LARGEST_RATIO * max(info.compress_size, 1):
            raise refuse(name, f"would grow more than {_LARGEST_RATIO} times")
        if not info.is_dir():
            files.append((info, PurePosixPath(*parts)))
    total = sum(info.file_size for info, _ in files)
    if total > limit_bytes:
        raise FastStyleError(
            f"{archive}: refused, because it would unpack to {format_bytes(total)} where at most "
            f"{format_bytes(limit_bytes)} are expected; delete this archive and get it from its "
            "official place"
        )
    seen: set[str] = set()
    folders: set[str] = set()
    for info, path in files:
        # Some file systems see no difference between cases, or between two codings of an accent.
        key = _folded(path)
        if key in seen:
            raise refuse(info.filename, "comes twice")
        seen.add(key)
        folders.update(_folded(parent) for parent in path.parents)
    for info, path in files:
        if _folded(path) in folders:
            raise refuse(info.filename, "is both a file and a folder")
    if len({path.parts[0] for _, path in files}) == 1 and all(len(p.parts) > 1 for _, p in files):
        files = [(info, PurePosixPath(*path.parts[1:])) for info, path in files]
    return files


def _folded(path: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()
