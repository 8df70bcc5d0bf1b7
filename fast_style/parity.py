"""Do files for other runtimes give the pictures of the native net? Measures it.

The reference is the native net in float32, rounded to levels. Every format is asked for the same
pictures: a photo, flat grey and noise in the first style, each in five sizes, odd ones among them;
and the smallest photo in every other style and in a mix, through every signature that it has.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from fast_style.checkpoints import Model
from fast_style.hardware import portable
from fast_style.images import read_image, resize
from fast_style.stylize import Stylizer, make_stylize_function

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Stylizes one picture: uint8 [H, W, 3] and style weights, float32 [S], to uint8 [H, W, 3]."""

SIZES = ((512, 512), (256, 384), (171, 233), (64, 97), (33, 17))
"""Heights and widths of each picture; time is measured on the first photo, styles on the last."""

PHOTO = Path(__file__).with_name("chelsea.jpg")
"""Chelsea, by Stéfan van der Walt (CC0, from scikit-image)."""

FLAT = "grey"
"""Name of the pictures of one colour."""

_GREY = 119
_RUNS = 3


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
class Signature:
    """One way into a file.

    Attributes:
      run: Stylizes by it.
      mixes: Whether it takes style weights; else it gives the first style.
      name: None for formats that have one signature.
    """

    run: Run
    mixes: bool
    name: str | None = None


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
      style_weights: What it was stylized with.
      signature: The `Signature` it went through.
      judged: Whether it counts: see `ParityCheck`.
    """

    picture: str
    height: int
    width: int
    max: int
    mean: float
    psnr: float | None
    style_weights: tuple[float, ...] = (1.0,)
    signature: str | None = None
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


@dataclass(frozen=True, kw_only=True)
class _Case:
    """A picture, how it is stylized, and what the native net makes of it."""

    name: str
    picture: np.ndarray
    mix: np.ndarray
    expected: np.ndarray


class ParityCheck:
    """The pictures and the native results, computed once for all formats of a model.

    Flat pictures are measured, and count where both the net as TensorFlow computes it, in the
    file's precision, and the file give one colour for each of them; `Stylizer` does by other means.
    Every map of a flat picture is flat, but for rounding, and norms enlarge rounding up to
    1 / sqrt(epsilon)-fold, one after another: it takes additions in the same order at every pixel
    to get one colour at all, which no runtime promises. `slim2016` with its epsilon of 1e-9 turns
    every flat picture into noise in float32, `johnson` in bfloat16 and, on some processors and in
    some runtimes, in float32, and there is nothing to agree with. One size that comes out flat says
    nothing, so all sizes count, or none.

    Attributes:
      photo: The picture file.
      milliseconds: Of the native net in float32, as in `Parity`.
    """

    def __init__(self, model: Model, photo: Path = PHOTO) -> None:
        """Computes the reference.

        Args:
          model: The trained net.
          photo: A picture file; scaled to each size.

        Raises:
          ImageError: If it cannot be read.
        """
        self.photo = photo
        self._model = model
        self._keeps_flat: dict[str, bool] = {}
        native = _native(model)
        mixes = style_mixes(len(model.style_names))

        def case(name: str, picture: np.ndarray, mix: np.ndarray) -> _Case:
            return _Case(name=name, picture=picture, mix=mix, expected=native(picture, mix))

        pictures = test_pictures(read_image(photo))
        self._cases = [case(name, picture, mixes[0]) for name, picture in pictures]
        smallest = pictures[len(SIZES) - 1][1]
        self._styles = [case("photo", smallest, mix) for mix in mixes]
        self.milliseconds = self._milliseconds(native)

    def measure(
        self, signatures: Sequence[Signature], tolerance: Tolerance, *, precision: str = "float32"
    ) -> Parity:
        """Compares a format with the native net, and times it.

        Args:
          signatures: Of the format; the first is asked for all pictures, and timed.
          tolerance: What is asked of it.
          precision: What it computes in: 'float32', 'bfloat16' or 'int8'.

        Raises:
          ValueError: If a result is not of its picture's shape and type.
        """
        main, *_ = signatures
        kind = "bfloat16" if precision == "bfloat16" else "float32"
        if kind not in self._keeps_flat:
            self._keeps_flat[kind] = self._is_kept_flat(kind)
        got = [main.run(case.picture, case.mix) for case in self._cases]
        differences = [
            _compared(main, case, styled) for case, styled in zip(self._cases, got, strict=True)
        ]
        flat = [case.name == FLAT for case in self._cases]
        if not (self._keeps_flat[kind] and all(map(_is_flat, itertools.compress(got, flat)))):
            differences = [replace(d, judged=d.picture != FLAT) for d in differences]
        for signature in signatures:
            cases = self._styles if signature.mixes else self._styles[:1]
            # The first style of the main signature is among the pictures above.
            cases = cases[1:] if signature is main else cases
            differences += [
                _compared(signature, case, signature.run(case.picture, case.mix)) for case in cases
            ]
        return Parity(
            differences=tuple(differences),
            milliseconds=self._milliseconds(main.run),
            tolerance=tolerance,
        )

    def _is_kept_flat(self, precision: str) -> bool:
        """Whether the net as TensorFlow computes it leaves each of the flat pictures flat."""
        run = _computed(self._model, precision)
        return all(
            difference(case.name, run(case.picture, case.mix), case.expected).max <= 1
            for case in self._cases
            if case.name == FLAT
        )

    def _milliseconds(self, run: Run) -> float:
        """The median of a few runs, on a picture that was run before."""
        first = self._cases[0]
        times = []
        for _ in range(_RUNS):
            start = time.perf_counter()
            run(first.picture, first.mix)
            times.append(time.perf_counter() - start)
        return 1000.0 * float(np.median(times))


def _native(model: Model) -> Run:
    stylizer = Stylizer(model, precision="float32")
    return lambda picture, mix: stylizer.stylize(picture, style_weights=list(mix), tile="off")


def _computed(model: Model, precision: str) -> Run:
    """Returns the net as TensorFlow computes it, with nothing that suits this machine alone."""
    with portable():
        run = make_stylize_function(model, precision, batch_size=1).get_concrete_function()
    return lambda picture, mix: run(tf.constant(picture[None]), tf.constant(mix[None]))[0].numpy()


def _compared(signature: Signature, case: _Case, got: np.ndarray) -> Difference:
    found = difference(case.name, got, case.expected)
    mix = tuple(round(float(weight), 6) for weight in case.mix)
    return replace(found, style_weights=mix, signature=signature.name)


def _is_flat(picture: np.ndarray) -> bool:
    """Whether it has one colour; rounding to levels may make two of it."""
    return bool(np.all(np.ptp(picture, axis=(0, 1)) <= 1))


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


def test_pictures(photo: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Returns (what it shows, uint8 [H, W, 3]): photo, grey and noise, each in all of `SIZES`."""
    rng = np.random.default_rng(0)
    made = {
        "photo": lambda height, width: resize(photo, height, width),
        FLAT: lambda height, width: np.full((height, width, 3), _GREY, np.uint8),
        "noise": lambda height, width: rng.integers(0, 256, (height, width, 3), np.uint8),
    }
    return [(name, make(*size)) for name, make in made.items() for size in SIZES]


def style_mixes(styles: int) -> np.ndarray:
    """Returns style weights to compare, float32 [N, S]: each style, and of several an uneven mix.

    Uneven, so that styles that changed places show.
    """
    uneven = np.arange(1, styles + 1) / sum(range(1, styles + 1))
    mixes = np.eye(styles) if styles == 1 else np.vstack([np.eye(styles), uneven])
    return mixes.astype(np.float32)
