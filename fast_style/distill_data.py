"""The pictures that a loss network is distilled on: what losses see during training.

Photos alone will not do: a net in training shows its loss network washed-out colours, patterns,
noise, and pictures that were painted to please it. So a part of every batch comes from a *studio*
of pictures that are being optimized for the losses of the network in the making, from photos, noise
and blends, each for some style and for some tens of steps. Whatever that network sees wrongly,
they soon show.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fast_style.errors import DataError, ImageError
from fast_style.images import fit_long_side, load_training_crop, read_opaque, resize

_log = logging.getLogger(__name__)

_LARGEST_STYLE = 512  # px, long side kept in memory
_LIFE = 50  # Mean number of steps that a picture is optimized for.
_STEP_SIZES = (1.0, 8.0)  # Levels of 255, root mean square.
_STYLE_WEIGHTS = (5.0, 1000.0)
_MOMENTUM = 0.8


@dataclass(frozen=True)
class Scene:
    """What one step of distillation looks at; all arrays [N, size, size, 3] float32 0..255.

    Attributes:
      seats: Which pictures of the studio are looked at, [P].
      styled: Those pictures, and A answers of nets where `Apprentices.join` added some,
        [P + A, ...].
      photos: The photos they are of, [P + A, ...].
      styles: A crop of the style picture of each, [P + A, ...].
      style_weights: [P + A] float32, the weight of its style loss.
      others: Photos, noise and blends, [Q, ...].
    """

    seats: np.ndarray
    styled: np.ndarray
    photos: np.ndarray
    styles: np.ndarray
    style_weights: np.ndarray
    others: np.ndarray


class Studio:
    """Pictures to distil on. What it shows depends on its seed, the step and `improve` alone.

    Attributes:
      style_files: The style pictures that could be read.
    """

    def __init__(
        self,
        photos: Sequence[Path],
        styles: Sequence[Path],
        *,
        size: int,
        seed: int,
        seats: int = 48,
    ) -> None:
        """Reads the style pictures and fills the studio.

        Args:
          photos: Photos; those that cannot be read are left out, with a warning in the log.
          styles: Style pictures; so are these.
          size: Side of the pictures in px.
          seed: Decides everything.
          seats: How many pictures are being optimized.

        Raises:
          DataError: If no photo or no style picture can be read.
        """
        self._photos = list(photos)
        self._size, self._seed = size, seed
        self._left_out: set[Path] = set()
        found = {}
        for path in styles:
            try:
                found[path] = fit_long_side(read_opaque(path), _LARGEST_STYLE)
            except ImageError as error:
                self._leave_out(path, error)
        if not found:
            raise DataError(f"none of the {len(styles)} style pictures can be read")
        self.style_files, self._styles = tuple(found), list(found.values())
        shape = (seats, size, size, 3)
        self.styled = np.zeros(shape, np.float32)
        self.photos = np.zeros(shape, np.float32)
        self.momentum = np.zeros(shape, np.float32)
        # Columns: style, style weight, size of a step, steps left.
        self.plan = np.zeros((seats, 4), np.float32)
        rng = np.random.default_rng([seed, 0])
        for seat in range(seats):
            self._seat(seat, rng)

    def state(self) -> dict[str, np.ndarray]:
        """Returns what has to be kept so as to go on later; `restore` is the way back."""
        return {
            "studio/styled": self.styled,
            "studio/photos": self.photos,
            "studio/momentum": self.momentum,
            "studio/plan": self.plan,
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from a kept state."""
        for name, value in self.state().items():
            value[:] = state[name]

    def scene(self, step: int, *, seats: int, others: int) -> Scene:
        """Returns what a step looks at.

        Args:
          step: From 0.
          seats: How many pictures of the studio, in turn.
          others: How many other pictures.
        """
        rng = np.random.default_rng([self._seed, 1, step])
        chosen = (step * seats + np.arange(seats)) % len(self.plan)
        plan = self.plan[chosen]
        return Scene(
            seats=chosen,
            styled=self.styled[chosen],
            photos=self.photos[chosen],
            styles=np.stack([self._style_crop(int(style), rng) for style in plan[:, 0]]),
            style_weights=plan[:, 1].copy(),
            others=np.stack([self._other(rng) for _ in range(others)]),
        )

    def improve(self, step: int, scene: Scene, gradients: np.ndarray) -> None:
        """Takes one step of descent on a scene's pictures, and begins new ones in place of old.

        Args:
          step: The scene's.
          scene: The scene.
          gradients: Of the loss by its first P `styled`, same shape.
        """
        rng = np.random.default_rng([self._seed, 2, step])
        for index, seat in enumerate(scene.seats):
            self.plan[seat, 3] -= 1
            gradient = gradients[index]
            length = float(np.sqrt(np.mean(np.square(gradient, dtype=np.float64))))
            if self.plan[seat, 3] <= 0 or not np.isfinite(length):
                self._seat(int(seat), rng)
                continue
            self.momentum[seat] *= _MOMENTUM
            self.momentum[seat] += (1.0 - _MOMENTUM) * gradient / max(length, 1e-20)
            self.styled[seat] -= self.plan[seat, 2] * self.momentum[seat]
            np.clip(self.styled[seat], 0.0, 255.0, out=self.styled[seat])

    def _seat(self, seat: int, rng: np.random.Generator) -> None:
        """Begins a new picture."""
        photo = self.photo(rng)
        style = int(rng.integers(len(self._styles)))
        start = rng.random()
        if start < 0.5:
            first = photo
        elif start < 0.7:
            first = _noise(self._size, rng)
        elif start < 0.85:
            first = _blend(photo, self._style_crop(style, rng), rng)
        else:
            first = _jittered(_blend(photo, _noise(self._size, rng), rng), rng)
        self.photos[seat], self.styled[seat], self.momentum[seat] = photo, first, 0.0
        self.plan[seat] = (
            style,
            log_uniform(*_STYLE_WEIGHTS, rng),
            log_uniform(*_STEP_SIZES, rng),
            1 + rng.geometric(1.0 / _LIFE),
        )

    def style(self, rng: np.random.Generator) -> np.ndarray:
        """Returns a crop of one of the style pictures: [size, size, 3] float32, 0..255."""
        return self._style_crop(int(rng.integers(len(self._styles))), rng)

    def _leave_out(self, path: Path, error: ImageError) -> None:
        """Tells of a picture that cannot be read, once."""
        if path not in self._left_out:
            self._left_out.add(path)
            _log.warning("picture left out: %s", error)

    def photo(self, rng: np.random.Generator) -> np.ndarray:
        """Returns a square of a photo, more or less of it: [size, size, 3] float32, 0..255.

        Raises:
          DataError: If twenty photos in a row cannot be read.
        """
        for _ in range(20):
            path = self._photos[int(rng.integers(len(self._photos)))]
            side = int(self._size * log_uniform(1.0, 2.0, rng))
            try:
                crop = load_training_crop(
                    path,
                    side,
                    offset=(float(rng.random()), float(rng.random())),
                    flip=bool(rng.random() < 0.5),
                )
            except ImageError as error:
                self._leave_out(path, error)
                continue
            top, left = rng.integers(side - self._size + 1, size=2)
            return crop[top : top + self._size, left : left + self._size].astype(np.float32)
        raise DataError("20 photos in a row cannot be read; replace them or name another folder")

    def _style_crop(self, style: int, rng: np.random.Generator) -> np.ndarray:
        picture = self._styles[style]
        height, width = picture.shape[:2]
        side = int(min(height, width, self._size * log_uniform(1.0, 2.5, rng)))
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        crop = picture[top : top + side, left : left + side]
        return resize(crop, self._size, self._size).astype(np.float32)

    def _other(self, rng: np.random.Generator) -> np.ndarray:
        kind = rng.random()
        if kind < 0.6:
            picture = self.photo(rng)
            return _jittered(picture, rng) if rng.random() < 0.3 else picture
        if kind < 0.75:
            return _noise(self._size, rng)
        other = self.style(rng) if kind < 0.9 else _noise(self._size, rng)
        return _jittered(_blend(self.photo(rng), other, rng), rng)


def _noise(size: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of any colour, from flat to pixel by pixel."""
    side = max(1, int(size / log_uniform(1.0, size, rng)))
    coarse = rng.normal(size=(side, side, 3))
    if rng.random() < 0.5:
        coarse = coarse.mean(axis=2, keepdims=True) + 0.3 * coarse
    levels = rng.uniform(30, 225, 3) + log_uniform(2.0, 80.0, rng) * coarse
    return resize(np.clip(levels, 0, 255).astype(np.uint8), size, size).astype(np.float32)


def _blend(first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    share = rng.random()
    return (share * first + (1.0 - share) * second).astype(np.float32)


def _jittered(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same with other contrast, colours and noise."""
    mean = picture.mean(axis=(0, 1))
    grey = picture.mean(axis=2, keepdims=True)
    picture = grey + rng.uniform(0.0, 2.0) * (picture - grey)
    picture = mean + log_uniform(0.3, 3.0, rng) * (picture - mean) + rng.normal(0, 20, 3)
    if rng.random() < 0.5:
        picture = picture + rng.normal(0, rng.uniform(1, 25), picture.shape)
    return np.clip(picture, 0.0, 255.0).astype(np.float32)


def log_uniform(low: float, high: float, rng: np.random.Generator) -> float:
    """Returns a number between two positive ones whose logarithm is uniform."""
    return float(low * (high / low) ** rng.random())
