"""Do files for other runtimes give the pictures of the native net? Measures it.

The reference is the native net in float32, rounded to levels. Every format is asked for the same
pictures: a photo in five sizes, odd ones among them, a flat grey and noise.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fast_style.checkpoints import Model
from fast_style.images import resize, to_uint8
from fast_style.stylize import Stylizer

Run = Callable[[np.ndarray], np.ndarray]
"""Stylizes one picture in the model's first style: uint8 [H, W, 3] to the same."""

SIZES = ((512, 512), (256, 384), (171, 233), (64, 97), (33, 17))
"""Heights and widths of the photo; time is measured on the first."""

_OTHER_SIZE = (113, 150)  # Of flat grey and of noise.
_GREY = 119
_RUNS = 3
_STABLE_PSNR = 40.0


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far a format may be from the native net.

    Attributes:
      levels: Largest difference of a pixel; none allows any.
      psnr: Least peak signal-to-noise ratio in dB of each picture; none allows any.
    """

    levels: int | None = None
    psnr: float | None = None

    def __str__(self) -> str:
        """Says it in words."""
        if self.levels is not None:
            return f"at most {self.levels} level{'' if self.levels == 1 else 's'}"
        return f"at least {self.psnr:g} dB"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What one picture came to.

    Attributes:
      picture: 'photo', 'grey' or 'noise'.
      height: In pixels.
      width: In pixels.
      max: Largest difference to the native float32 result, in levels.
      mean: Mean absolute difference, in levels.
      psnr: Peak signal-to-noise ratio in dB; none where there is no difference.
      judged: Whether it counts: see `ParityCheck.unjudged`.
    """

    picture: str
    height: int
    width: int
    max: int
    mean: float
    psnr: float | None
    judged: bool = True


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What one file came to.

    Attributes:
      differences: Picture by picture.
      milliseconds: Median time for the picture of 512x512 px, after one that does not count.
      tolerance: What was asked of it.
    """

    differences: tuple[Difference, ...]
    milliseconds: float
    tolerance: Tolerance

    @property
    def max(self) -> int:
        """The largest difference that counts, in levels."""
        return max(difference.max for difference in self._judged)

    @property
    def mean(self) -> float:
        """The mean of the pictures' mean differences, of those that count, in levels."""
        return float(np.mean([difference.mean for difference in self._judged]))

    @property
    def psnr(self) -> float:
        """The least of those that count, in dB; infinite where nothing differs."""
        return min(math.inf if d.psnr is None else d.psnr for d in self._judged)

    @property
    def _judged(self) -> list[Difference]:
        return [difference for difference in self.differences if difference.judged]

    @property
    def passed(self) -> bool:
        """Whether every picture is within the tolerance."""
        levels, psnr = self.tolerance.levels, self.tolerance.psnr
        return (levels is None or self.max <= levels) and (psnr is None or self.psnr >= psnr)

    def as_json(self) -> dict[str, Any]:
        """Returns all of it in types of JSON."""
        return {
            "passed": self.passed,
            "tolerance": str(self.tolerance),
            "max": self.max,
            "mean": self.mean,
            "psnr": None if math.isinf(self.psnr) else self.psnr,
            "milliseconds": self.milliseconds,
            "pictures": [asdict(difference) for difference in self.differences],
        }


class ParityCheck:
    """The pictures and the native results, computed once for all formats of a model.

    Attributes:
      milliseconds: Of the native net in float32, as in `Parity`.
      unjudged: Names of pictures that are measured and do not count. That is the flat one, if the
        native net is unstable there: every norm of a map without contrast enlarges rounding, in
        turn, up to 1 / sqrt(epsilon)-fold, and what results depends on the order of additions.
    """

    def __init__(self, model: Model, photo: np.ndarray | None = None) -> None:
        """Computes the reference.

        Args:
          model: The trained net.
          photo: uint8 [H, W, 3]; scaled to each size. None takes a painted landscape.
        """
        self._pictures = test_pictures(photo)
        stylizer = Stylizer(model, precision="float32")

        def native(picture: np.ndarray) -> np.ndarray:
            return stylizer.stylize(picture, tile="off")

        self._expected = [native(picture) for _, picture in self._pictures]
        self.unjudged = {
            name
            for (name, picture), expected in zip(self._pictures, self._expected, strict=True)
            if name == "grey" and _is_unstable(native, picture, expected)
        }
        self.milliseconds = _milliseconds(native, self._pictures[0][1])

    def measure(self, run: Run, tolerance: Tolerance) -> Parity:
        """Compares a format with the native net, and times it.

        Raises:
          ValueError: If a result is not of its picture's shape and type.
        """
        differences = []
        for (name, picture), expected in zip(self._pictures, self._expected, strict=True):
            found = difference(name, run(picture), expected)
            differences.append(replace(found, judged=name not in self.unjudged))
        return Parity(
            differences=tuple(differences),
            milliseconds=_milliseconds(run, self._pictures[0][1]),
            tolerance=tolerance,
        )


def _is_unstable(native: Run, picture: np.ndarray, expected: np.ndarray) -> bool:
    """Whether one pixel, brighter by one level, changes the result to less than 40 dB."""
    changed = picture.copy()
    changed[picture.shape[0] // 2, picture.shape[1] // 2] += 1
    psnr = difference("", native(changed), expected).psnr
    return psnr is not None and psnr < _STABLE_PSNR


def difference(name: str, got: np.ndarray, expected: np.ndarray) -> Difference:
    """Compares two pictures.

    PSNR = 10 * log10(255^2 / mean squared difference).

    Args:
      name: What the picture shows.
      got: uint8 [H, W, 3].
      expected: The same shape.

    Raises:
      ValueError: If `got` is of another shape or type.
    """
    if got.shape != expected.shape or got.dtype != np.uint8:
        raise ValueError(
            f"expected a picture of uint8 {list(expected.shape)}, got {got.dtype} {list(got.shape)}"
        )
    apart = np.abs(got.astype(np.int64) - expected.astype(np.int64))
    squared = float(np.mean(np.square(apart)))
    return Difference(
        picture=name,
        height=got.shape[0],
        width=got.shape[1],
        max=int(apart.max()),
        mean=float(apart.mean()),
        psnr=10.0 * math.log10(255.0**2 / squared) if squared else None,
    )


def test_pictures(photo: np.ndarray | None = None) -> list[tuple[str, np.ndarray]]:
    """Returns (what it shows, uint8 [H, W, 3]) in the order of `SIZES`, then grey and noise."""
    photo = _landscape() if photo is None else photo
    grey = np.full((*_OTHER_SIZE, 3), _GREY, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, grey.shape, dtype=np.uint8)
    scaled = [("photo", resize(photo, height, width)) for height, width in SIZES]
    return [*scaled, ("grey", grey), ("noise", noise)]


def _landscape() -> np.ndarray:
    """Paints what photos have: a smooth sky, a hard horizon, a bright disc, fine texture."""
    size = 512
    y, x = np.mgrid[0:size, 0:size] / size
    rng = np.random.default_rng(1)
    sky = np.stack([90 + 120 * y, 140 + 70 * y, 235 - 40 * y], -1)
    grain = sum(
        np.kron(rng.standard_normal((size // step, size // step)), np.ones((step, step))) / count
        for count, step in enumerate((32, 8, 2, 1), start=1)
    )
    ground = np.array([70.0, 105.0, 50.0]) + 22.0 * np.asarray(grain)[..., None]
    horizon = 0.55 + 0.06 * np.sin(9 * x) + 0.02 * np.sin(41 * x)
    picture = np.where((y > horizon)[..., None], ground, sky)
    disc = np.hypot(y - 0.22, x - 0.7) < 0.09
    picture[disc] = (250.0, 235.0, 190.0)
    return to_uint8(picture)


def _milliseconds(run: Run, picture: np.ndarray) -> float:
    """The median of a few runs, on a picture that was run before."""
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        run(picture)
        times.append(time.perf_counter() - start)
    return 1000.0 * float(np.median(times))
