"""The yardstick's curves: how L-BFGS lowers the loss of a photo, iteration by iteration.

A curve starts at the photo itself, or at grey noise; Johnson et al. (2016, section 4.1) start from
white noise. Where it crosses a model's loss is the number of iterations that the model is worth.
Curves take minutes and depend on nothing that training changes, so they are kept on disk.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fast_style.errors import FastStyleError
from fast_style.files import atomic_path
from fast_style.images import to_uint8
from fast_style.lbfgs import LossAndGradient, minimize

STARTS = ("photo", "noise")
"""What a curve may start from: the photo itself, or grey noise."""

SNAPSHOTS = (50, 100, 200)
"""Iterations at which the picture itself is kept too, besides the last one."""

# Part of every key: raise it when a change to the optimiser or the loss changes curves.
_ALGORITHM = "L-BFGS-B, memory 10, pixels 0..255, float32 loss, 1"

_log = logging.getLogger(__name__)


def from_start(start: str) -> str:
    """Returns ' from noise' for texts about curves, and nothing for those from the photo.

    Args:
      start: One of `STARTS`.
    """
    return "" if start == "photo" else f" from {start}"


@dataclass(frozen=True)
class Iterations:
    """How many iterations of L-BFGS something is worth.

    Attributes:
      value: The number, at least 0.
      censored: It is worth more than `value`, and nobody looked how much.
    """

    value: float
    censored: bool = False

    def __str__(self) -> str:
        """Returns '12.3', or '>200'."""
        if self.censored:
            return f">{self.value:.1f}".removesuffix(".0")
        return f"{self.value:.1f}"

    def to_dict(self) -> dict[str, Any]:
        """Returns it for JSON, with one decimal."""
        return {"value": round(self.value, 1), "censored": self.censored}


@dataclass(frozen=True)
class Curve:
    """One run of L-BFGS.

    Attributes:
      losses: float64 [n + 1]; losses[0] is that of the start, losses[k] that after k iterations.
      snapshots: {iteration: uint8 [H, W, 3]}, those of `SNAPSHOTS` that were reached, and the last.
      evaluations: How often the loss and its gradient were computed; none: not known, because the
        curve was cut from a longer one.
      ended: It stopped by itself, so that more iterations than these do not exist.
    """

    losses: np.ndarray
    snapshots: Mapping[int, np.ndarray]
    evaluations: int | None
    ended: bool

    @property
    def iterations(self) -> int:
        """How many iterations were done."""
        return len(self.losses) - 1

    def serves(self, iterations: int) -> bool:
        """Whether it holds all that a run of so many iterations would."""
        return self.ended or self.iterations >= iterations

    def first(self, iterations: int) -> Curve:
        """Returns the curve that a run of so many iterations would have had.

        It may lack the picture of its last iteration, if that was none of `SNAPSHOTS`.
        """
        if self.iterations <= iterations:
            return self
        kept = {at: picture for at, picture in self.snapshots.items() if at <= iterations}
        return Curve(self.losses[: iterations + 1], kept, evaluations=None, ended=False)


def optimize_photo(
    loss_and_gradient: LossAndGradient,
    start: np.ndarray,
    iterations: int,
    on_iteration: Callable[[int], None] | None = None,
) -> Curve:
    """Runs L-BFGS from a photo, or another picture of its size.

    Args:
      loss_and_gradient: float32 [H, W, 3] -> (loss, gradient of the same shape).
      start: uint8 or float32 [H, W, 3], 0..255.
      iterations: How many, at least 1.
      on_iteration: Is told the number of iterations done.

    Raises:
      FastStyleError: If SciPy is not installed, or a loss is not finite.
    """
    snapshots: dict[int, np.ndarray] = {}

    def after(iteration: int, loss: float, picture: np.ndarray) -> None:
        if iteration in SNAPSHOTS:
            snapshots[iteration] = to_uint8(picture)
        if on_iteration is not None:
            on_iteration(iteration)

    result = minimize(
        loss_and_gradient, start.astype(np.float32), iterations=iterations, on_iteration=after
    )
    losses = np.array([result.start_loss, *result.losses])
    snapshots[len(result.losses)] = to_uint8(result.picture)
    return Curve(losses, snapshots, result.evaluations, ended=bool(result.stopped))


def equivalent_iterations(losses: np.ndarray, loss: float, iterations: int) -> Iterations:
    """Returns after how many iterations a curve first is as low as a loss.

    Between two iterations the curve is taken as a straight line. A loss that is not below that of
    the start is worth 0 iterations; one below the whole curve is worth more than `iterations`,
    also when L-BFGS gave up before.

    Args:
      losses: [n + 1] with the start's own first; n is at most `iterations`.
      loss: The model's.
      iterations: How many iterations were asked for.
    """
    if not loss < losses[0]:
        return Iterations(0.0)
    reached = np.flatnonzero(losses <= loss)
    if not len(reached):
        return Iterations(float(iterations), censored=True)
    after = int(reached[0])
    above, below = float(losses[after - 1]), float(losses[after])
    return Iterations(after - 1 + (above - loss) / (above - below))


def quantile(values: Sequence[Iterations], share: float) -> Iterations:
    """Returns a quantile, with straight lines between ranks as NumPy has it.

    Of a censored value only its lower bound is known. A quantile that depends on one is the least
    that it can be, and censored.

    Args:
      values: At least one.
      share: 0..1; 0.5 for the median.
    """
    ranked = sorted(values, key=lambda item: (item.censored, item.value))
    place = share * (len(ranked) - 1)
    low, high = math.floor(place), math.ceil(place)
    value = ranked[low].value + (place - low) * (ranked[high].value - ranked[low].value)
    return Iterations(value, censored=ranked[low].censored or ranked[high].censored)


# --- on disk -------------------------------------------------------------------------------------


def curve_key(arrays: Sequence[np.ndarray], settings: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of all that decides a curve, in hexadecimal.

    SciPy's version is part of it, because its L-BFGS was rewritten before and may be again.

    Args:
      arrays: The photo and the style picture as the loss network sees them.
      settings: JSON-able: layers, weights, the hash of the loss network's weights.
    """
    described = {
        "algorithm": _ALGORITHM,
        "scipy": _scipy_version(),
        "snapshots": SNAPSHOTS,
        "arrays": [[str(array.dtype), list(array.shape)] for array in arrays],
        **settings,
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _scipy_version() -> str:
    import importlib.metadata  # Slow, and every command imports this module.

    try:
        return importlib.metadata.version("scipy")
    except importlib.metadata.PackageNotFoundError:
        return ""  # Nothing can be computed then, and no curve has this key.


def default_cache_folder() -> Path:
    """Returns `$XDG_CACHE_HOME/fast-style/curves`, or the same below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fast-style" / "curves"


class CurveCache:
    """A folder with one .npz file per curve, named by its key."""

    def __init__(self, folder: Path) -> None:
        """Takes a folder, which need not exist."""
        self.folder = folder

    def get(self, key: str, iterations: int) -> Curve | None:
        """Returns a kept curve of at least so many iterations, cut to them; none if there is none.

        A damaged file counts as none, and is replaced by the next `put`.
        """
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            curve = _read_curve(path)
        # Damage shows as nearly anything: zip's, zlib's and NumPy's errors have no common parent.
        except Exception as error:
            _log.info("%s: damaged, computed again (%s)", path, error)
            return None
        return curve.first(iterations) if curve.serves(iterations) else None

    def put(self, key: str, curve: Curve) -> None:
        """Keeps a curve. A folder that cannot be written costs a warning, not the curve."""
        arrays: dict[str, Any] = {
            "losses": curve.losses,
            "evaluations": -1 if curve.evaluations is None else curve.evaluations,
            "ended": curve.ended,
            **{f"picture_{at}": picture for at, picture in curve.snapshots.items()},
        }
        try:
            with atomic_path(self._path(key)) as aside, aside.open("wb") as file:
                np.savez_compressed(file, **arrays)
        except FastStyleError as error:
            _log.warning("this curve is not kept: %s", error)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npz"


def _read_curve(path: Path) -> Curve:
    # Opened here, because NumPy leaves a damaged file open.
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        losses = np.asarray(file["losses"], np.float64)
        snapshots = {
            int(name.removeprefix("picture_")): file[name]
            for name in file.files
            if name.startswith("picture_")
        }
        evaluations, ended = int(file["evaluations"]), bool(file["ended"])
    if losses.ndim != 1 or not len(losses) or not np.isfinite(losses).all():
        raise ValueError("its losses are not a list of finite numbers")
    if any(picture.dtype != np.uint8 or picture.ndim != 3 for picture in snapshots.values()):
        raise ValueError("its pictures are not uint8 [H, W, 3]")
    return Curve(losses, snapshots, evaluations if evaluations >= 0 else None, ended)
