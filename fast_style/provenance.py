"""How an artefact was made: hashes, versions and the commit, for the header of a model file."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

_PACKAGES = ("fast-style", "tensorflow", "tensorflow-cpu", "tf-slim", "keras", "numpy", "pillow")
_CHUNK_BYTES = 1 << 20


def file_sha256(*paths: Path) -> str:
    """Returns the SHA-256 of a file's bytes, or of several files' one after another, in hex."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def names_sha256(files: Iterable[Path], folder: Path) -> str:
    """Returns the SHA-256 of files' names within a folder, in their order, in hex.

    Files elsewhere, such as sample photos, count by their own name alone.
    """
    digest = hashlib.sha256()
    for file in files:
        inside = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.name
        digest.update(os.fsencode(inside) + b"\0")
    return digest.hexdigest()


def package_versions() -> dict[str, str]:
    """Returns the versions of the packages that decide a result, those that are installed."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_commit() -> str | None:
    """Returns the commit this code is checked out at; none if it is not a git checkout.

    Where files of it were changed since, ' with changes' follows.
    """
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None

    def ask(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        commit = ask("rev-parse", "HEAD")
        return f"{commit} with changes" if ask("status", "--porcelain", "--", ".") else commit
    except (OSError, subprocess.SubprocessError):
        return None
