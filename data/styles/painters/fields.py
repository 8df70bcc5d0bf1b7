"""Fields to paint from: noise, flow, cells and blurs, all seeded and in plain NumPy.

Every picture is designed on a sheet whose long side is 1280 units, whatever the size in pixels;
lengths and positions below are in those units unless they say pixels. A field is a float32 array
[H, W] over the sheet's pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

Rng = np.random.Generator

LONG_SIDE = 1280.0
SHORT_SIDE = 1024.0


@dataclass(frozen=True)
class Sheet:
    """The paper: its size in pixels and the pixels per design unit."""

    height: int
    width: int
    unit: float

    @classmethod
    def of(cls, size: int, *, portrait: bool = False) -> Sheet:
        """Returns a 5:4 sheet whose long side is `size` pixels."""
        short = round(size * SHORT_SIDE / LONG_SIDE)
        height, width = (size, short) if portrait else (short, size)
        return cls(height, width, size / LONG_SIDE)

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height in design units."""
        return self.width / self.unit, self.height / self.unit

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns x and y of each pixel's centre, [H, W] each."""
        y, x = np.mgrid[0 : self.height, 0 : self.width].astype(np.float32)
        return (x + 0.5) / self.unit, (y + 0.5) / self.unit

    def sample(self, field: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Returns the field's value at points [..., 2] given as (x, y); outside: the border's."""
        column = np.clip((points[..., 0] * self.unit).astype(np.int32), 0, self.width - 1)
        row = np.clip((points[..., 1] * self.unit).astype(np.int32), 0, self.height - 1)
        return field[row, column]


def colour(code: str) -> np.ndarray:
    """Returns the RGB of a hexadecimal code like 'e0203a', float32 in 0..1."""
    return np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)], np.float32) / 255


def palette(codes: str) -> np.ndarray:
    """Returns the colours of codes divided by spaces, [N, 3]."""
    return np.stack([colour(code) for code in codes.split()])


def ramp(colours: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Returns colours blended along an even scale: t = 0 gives the first, t = 1 the last."""
    place = np.clip(t, 0, 1) * (len(colours) - 1)
    low = np.minimum(place.astype(np.int32), len(colours) - 2)
    part = (place - low)[..., None]
    return colours[low] * (1 - part) + colours[low + 1] * part


def mix(a: np.ndarray, b: np.ndarray, amount: np.ndarray | float) -> np.ndarray:
    """Returns a over b by amount; a field of amounts is spread over the colour channels."""
    part = np.asarray(amount, np.float32)
    if part.ndim == 2:
        part = part[..., None]
    return a * (1 - part) + b * part


def smoothstep(
    low: float | np.ndarray, high: float | np.ndarray, x: np.ndarray | float
) -> np.ndarray:
    """Returns 0 below low, 1 above high and a smooth rise between (falling if low > high)."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def noise(
    sheet: Sheet,
    cell: float,
    rng: Rng,
    *,
    octaves: int = 1,
    gain: float = 0.5,
    stretch: tuple[float, float] = (1.0, 1.0),
) -> np.ndarray:
    """Returns smooth value noise of mean 0 and standard deviation 1.

    Args:
      sheet: The sheet to cover.
      cell: Size of the coarsest octave's grains.
      rng: The source of randomness.
      octaves: How many octaves to sum, each half the size of the one before.
      gain: Strength of each octave against the one before.
      stretch: Factors for the grains' width and height.
    """
    total = np.zeros((sheet.height, sheet.width), np.float32)
    strength = 1.0
    for octave in range(octaves):
        wide, high = (cell * s * 0.5**octave for s in stretch)
        across, down = sheet.extent[0] / wide, sheet.extent[1] / high
        rows, columns = int(np.ceil(down)) + 3, int(np.ceil(across)) + 3
        lattice = rng.standard_normal((rows, columns)).astype(np.float32)
        left, top = rng.random(2) + 0.5
        box = (left, top, left + across, top + down)
        grown = Image.fromarray(lattice).resize(
            (sheet.width, sheet.height), Image.Resampling.BICUBIC, box=box
        )
        total += strength * np.asarray(grown)
        strength *= gain
    return (total - total.mean()) / (total.std() + 1e-6)


def blur(field: np.ndarray, radius: float) -> np.ndarray:
    """Returns the field [H, W] or [H, W, C] blurred by three boxes; `radius` in pixels."""
    half = round(radius)
    if half < 1:
        return field
    for axis in (0, 1):
        pad = [(0, 0)] * field.ndim
        for _ in range(3):
            pad[axis] = (half + 1, half)
            run = np.cumsum(np.pad(field, pad, mode="edge"), axis=axis, dtype=np.float64)
            size = field.shape[axis]
            high = np.take(run, np.arange(2 * half + 1, 2 * half + 1 + size), axis=axis)
            low = np.take(run, np.arange(size), axis=axis)
            field = ((high - low) / (2 * half + 1)).astype(np.float32)
    return field


def slope(field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the field's derivatives along x and y, per pixel."""
    down, right = np.gradient(field)
    return right, down


def contour_angle(field: np.ndarray) -> np.ndarray:
    """Returns the direction of the field's level lines, in radians."""
    right, down = slope(field)
    return np.arctan2(right, -down)


def cells(
    sheet: Sheet, seeds: np.ndarray, angles: np.ndarray, ratio: float, power: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the Voronoi cells of seeds, each with its own turned and stretched metric.

    The distance from a seed is the `power` norm in the seed's turned axes, with its long axis
    divided by `ratio`: power 2 gives soft cells, larger powers give bricks. The sheet is worked
    through in square tiles, each against the seeds around it only.

    Args:
      sheet: The sheet.
      seeds: [N, 2] positions.
      angles: [N] direction of each seed's long axis, in radians.
      ratio: Length of a cell against its width.
      power: The norm's exponent, 1 or more.

    Returns:
      The index of the nearest seed, int32 [H, W], and the gap between the distances to the
      second nearest and the nearest, [H, W]: 0 on a border.
    """
    x, y = sheet.grid()
    owner = np.zeros(x.shape, np.int32)
    gap = np.zeros(x.shape, np.float32)
    pitch = float(np.sqrt(np.prod(sheet.extent) / len(seeds)))
    tile = max(4, round(1.5 * pitch * sheet.unit))
    turn = np.stack([np.cos(angles), np.sin(angles)])
    for top in range(0, sheet.height, tile):
        for left in range(0, sheet.width, tile):
            part = np.s_[top : top + tile, left : left + tile]
            px, py = x[part], y[part]
            away = np.maximum(
                np.abs(seeds[:, 0] - px.mean()) - np.ptp(px) / 2,
                np.abs(seeds[:, 1] - py.mean()) - np.ptp(py) / 2,
            )
            near = np.flatnonzero(away < 3.2 * pitch * ratio)
            if len(near) < 2:
                near = np.argsort(away)[:8]
            dx = px[None] - seeds[near, 0, None, None]
            dy = py[None] - seeds[near, 1, None, None]
            cos, sin = (part[near, None, None] for part in turn)
            along = np.abs(dx * cos + dy * sin) / ratio
            across = np.abs(dy * cos - dx * sin)
            if np.isinf(power):
                distance = np.maximum(along, across)
            else:
                distance = (along**power + across**power) ** (1 / power)
            two = np.argpartition(distance, 1, axis=0)[:2]
            values = np.take_along_axis(distance, two, axis=0)
            owner[part] = near[two[0]]
            gap[part] = values[1] - values[0]
    return owner, gap
