"""Brushes: bristled strokes and ink drawn with Pillow, relief light, grain and varnish."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .fields import Rng, Sheet, blur, noise, slope

# How many strokes are worked out at once; bounds the memory, changes nothing else.
CHUNK = 3000


def trace(
    sheet: Sheet, angle: np.ndarray, starts: np.ndarray, lengths: np.ndarray, steps: int
) -> np.ndarray:
    """Returns paths [N, steps, 2] that follow a field of directions from their middle points.

    Args:
      sheet: The sheet.
      angle: [H, W] directions in radians; a direction and its opposite count as the same.
      starts: [N, 2] middle points.
      lengths: [N] lengths of the whole paths.
      steps: Points on each path.
    """
    stride = lengths / (steps - 1)
    halves = []
    for sign in (-1.0, 1.0):
        point = starts.astype(np.float64)
        last = None
        half = []
        for _ in range(steps // 2):
            turn = sheet.sample(angle, point)
            step = np.stack([np.cos(turn), np.sin(turn)], axis=-1) * sign
            if last is not None:
                step *= np.where((step * last).sum(-1, keepdims=True) < 0, -1.0, 1.0)
            last = step
            point = point + step * stride[:, None]
            half.append(point)
        halves.append(half)
    middle = [starts.astype(np.float64)] if steps % 2 else []
    return np.stack(halves[0][::-1] + middle + halves[1], axis=1)


def scatter(sheet: Sheet, spacing: float, rng: Rng) -> np.ndarray:
    """Returns the points [N, 2] of a shaken grid that overlaps the borders, in random order."""
    wide, high = sheet.extent
    x, y = np.meshgrid(
        np.arange(-spacing, wide + spacing, spacing), np.arange(-spacing, high + spacing, spacing)
    )
    points = np.stack([x.ravel(), y.ravel()], axis=-1)
    points += rng.uniform(-0.6, 0.6, points.shape) * spacing
    return points[rng.permutation(len(points))]


class Canvas:
    """A picture in progress: colour, and the paint's thickness for the light to catch."""

    def __init__(
        self,
        sheet: Sheet,
        ground: np.ndarray,
        thickness: np.ndarray | float = 0.0,
        *,
        detail: int = 2,
    ):
        """Begins on a ground.

        Args:
          sheet: The sheet.
          ground: [H, W, 3] or one colour [3], in 0..1.
          thickness: [H, W] or one number, in 0..1.
          detail: Strokes are drawn at this multiple of the sheet's pixels and averaged down.
        """
        self.sheet = sheet
        self._detail = detail
        self._scale = sheet.unit * detail
        base = np.broadcast_to(ground, (sheet.height, sheet.width, 3))
        size = (sheet.width * detail, sheet.height * detail)
        level = np.broadcast_to(np.asarray(thickness), base.shape[:2])
        self._image = Image.fromarray(to_bytes(base)).resize(size).convert("RGBA")
        # Pillow draws the fourth channel like the others, so it serves as thickness.
        self._image.putalpha(Image.fromarray(to_bytes(level)).resize(size))
        self._draw = ImageDraw.Draw(self._image)

    def brush(
        self,
        paths: np.ndarray,
        widths: np.ndarray,
        colours: np.ndarray,
        rng: Rng,
        *,
        bristle: float = 1.8,
        streak: float = 0.05,
        chroma: float = 0.33,
        ragged: float = 0.2,
        taper: float = 0.0,
        body: tuple[float, float] = (0.35, 0.9),
    ) -> None:
        """Draws strokes of many bristles, each with its own shade, ends and thickness.

        Args:
          paths: [N, T, 2] middle lines.
          widths: [N].
          colours: [N, 3] in 0..1.
          rng: The source of randomness.
          bristle: Width of one bristle.
          streak: Standard deviation of the bristles' shades within a stroke.
          chroma: How much the bristles differ in hue, against how much they do in light.
          ragged: Largest share of a stroke's length that a bristle may miss at its end.
          taper: 0 keeps a stroke's width, 1 draws it to points.
          body: Thickness of the thinnest and the thickest paint.
        """
        for first in range(0, len(paths), CHUNK):
            part = slice(first, first + CHUNK)
            lines, shade, thick, pens = _bristles(
                paths[part], widths[part], colours[part], rng, bristle, streak, chroma,
                ragged, taper, body, self._scale,
            )  # fmt: skip
            for line, rgb, height, pen in zip(lines, shade, thick, pens, strict=True):
                self._draw.line(line, fill=(*rgb, height), width=pen)

    def cover(
        self,
        reference: np.ndarray,
        angle: np.ndarray,
        rng: Rng,
        *,
        spacing: float,
        length: float,
        width: float,
        jitter: float = 0.03,
        stop: float = 0.25,
        where: np.ndarray | None = None,
        confine: bool = False,
        chroma: float = 0.4,
        steps: int = 9,
        **brush,
    ) -> None:
        """Repaints a reference with strokes along a field of directions.

        Args:
          reference: [H, W, 3] colours to take.
          angle: [H, W] directions in radians.
          rng: The source of randomness.
          spacing: Distance between strokes.
          length: Mean length of a stroke.
          width: Mean width of a stroke.
          jitter: Standard deviation of the strokes' shades.
          stop: A stroke ends where the reference departs from its colour by this much.
          where: [H, W] chance of a stroke; everywhere by default.
          confine: Whether strokes also end where `where` falls below one half.
          chroma: How much strokes and bristles differ in hue, against how much they do in light.
          steps: Points on each stroke.
          **brush: More for `brush`.
        """
        # Strokes closer than pixels would only hide each other.
        starts = scatter(self.sheet, max(spacing, 1 / self.sheet.unit), rng)
        if where is not None:
            starts = starts[rng.random(len(starts)) < self.sheet.sample(where, starts)]
        count = len(starts)
        if not count:
            return
        lengths = length * rng.uniform(0.6, 1.4, count)
        paths = trace(self.sheet, angle, starts, lengths, steps)
        # Either end may come first: a ragged end points both ways.
        paths = np.where(rng.random((count, 1, 1)) < 0.5, paths, paths[:, ::-1])
        seen = self.sheet.sample(reference, paths)
        middle = steps // 2
        base = seen[:, middle]
        strange = np.abs(seen - base[:, None]).max(-1) > stop
        if where is not None and confine:
            strange |= self.sheet.sample(where, paths) < 0.5
        low = np.where(strange[:, :middle], np.arange(1, middle + 1), 0).max(1)
        high = np.where(strange[:, middle:], np.arange(middle, steps), steps).min(1) - 1
        spread = np.linspace(0, 1, steps)[None]
        place = low[:, None] + (np.maximum(high, low) - low)[:, None] * spread
        paths = _along(paths, place[:, None])[:, 0]
        shades = base + rng.normal(0, jitter, (count, 1))
        shades = shades + rng.normal(0, jitter * chroma, (count, 3))
        widths = width * rng.uniform(0.7, 1.3, count)
        self.brush(paths, widths, shades, rng, chroma=chroma, **brush)

    def ink(
        self,
        path: np.ndarray,
        widths: np.ndarray | float,
        shade: np.ndarray,
        *,
        thickness: float = 0.5,
    ) -> None:
        """Draws one line [T, 2] whose width may change along it."""
        half = np.broadcast_to(np.asarray(widths, np.float64) / 2, path.shape[:1])[:, None]
        side = _normals(path[None])[0] * half
        self.polygon(np.concatenate([path + side, (path - side)[::-1]]), shade, thickness=thickness)

    def polygon(self, points: np.ndarray, shade: np.ndarray, *, thickness: float = 0.3) -> None:
        """Fills a polygon [T, 2] with one colour."""
        red, green, blue = (int(v) for v in to_bytes(shade))
        flat = (points * self._scale).ravel().tolist()
        self._draw.polygon(flat, fill=(red, green, blue, round(255 * thickness)))

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the colours [H, W, 3] and the thickness [H, W], both in 0..1."""
        # Channel by channel: as one picture with alpha, thin paint would lose its colour.
        size = (self.sheet.width, self.sheet.height)
        bands = [
            np.asarray(band.resize(size, Image.Resampling.BOX), np.float32) / 255
            for band in self._image.split()
        ]
        return np.stack(bands[:3], axis=-1), bands[3]


def _normals(paths: np.ndarray) -> np.ndarray:
    """Returns unit vectors [N, T, 2] to the side of paths [N, T, 2]."""
    along = np.gradient(paths, axis=1)
    side = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    return side / (np.linalg.norm(side, axis=-1, keepdims=True) + 1e-9)


def _along(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Returns values [N, T, C] at fractional indices [N, B, S], as [N, B, S, C]."""
    low = np.clip(place.astype(np.int32), 0, values.shape[1] - 2)
    part = (place - low)[..., None]
    row = np.arange(len(values))[:, None, None]
    return values[row, low] * (1 - part) + values[row, low + 1] * part


def _bristles(
    paths, widths, colours, rng: Rng, bristle, streak, chroma, ragged, taper, body, scale
):
    """Returns the bristles of strokes as flat lines, colours, thicknesses and pen widths."""
    count, steps, _ = paths.shape
    finest = max(bristle, 1.0 / scale)
    hairs = int(np.clip(round(float(np.median(widths)) / finest), 1, 24))
    across = np.linspace(-1, 1, hairs) if hairs > 1 else np.zeros(1)
    size = np.linalg.norm(np.diff(paths, axis=1), axis=-1).sum(-1) + 1e-6
    cap = (1 - np.sqrt(1 - (0.97 * across) ** 2)) * (widths / 2 / size)[:, None]
    start = np.minimum(cap + ragged / 3 * rng.random((count, hairs)) ** 2, 0.45)
    end = np.maximum(1 - cap - ragged * rng.random((count, hairs)) ** 2, 0.55)
    share = start[..., None] + (end - start)[..., None] * np.linspace(0, 1, steps)
    place = share * (steps - 1)
    narrow = 1 - taper * (1 - np.sqrt(np.clip(4 * share * (1 - share), 0, 1)))
    wander = rng.normal(0, 0.5 / hairs, (count, hairs))[..., None]
    offset = (
        (across[None, :, None] + wander) * narrow * (widths * (1 - 1 / hairs) / 2)[:, None, None]
    )
    points = _along(paths, place) + _along(_normals(paths), place) * offset[..., None]
    shade = rng.normal(0, streak, (count, hairs, 1))
    shade = shade + rng.normal(0, streak * chroma, (count, hairs, 3))
    # Paint gathers in ridges at a stroke's sides.
    thick = rng.random((count, hairs)) * 0.75 + 0.25 * np.abs(across) ** 3
    thick = body[0] + (body[1] - body[0]) * thick
    pens = np.maximum(1, np.round(widths * scale / hairs * 1.35)).astype(int)
    return (
        (points * scale).reshape(count * hairs, steps * 2).tolist(),
        to_bytes(colours[:, None] + shade).reshape(-1, 3).tolist(),
        to_bytes(thick).ravel().tolist(),
        np.repeat(pens, hairs).tolist(),
    )


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Returns values in 0..1 as uint8, clipped and rounded."""
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def relief(
    picture: np.ndarray,
    height: np.ndarray,
    *,
    depth: float = 1.0,
    gloss: float = 0.3,
    soften: float = 0.0,
) -> np.ndarray:
    """Returns the picture lit from the upper left over a relief.

    Args:
      picture: [H, W, 3] in 0..1.
      height: [H, W] in 0..1.
      depth: Strength of the light and shade on slopes.
      gloss: Strength of the highlights on slopes that face the light.
      soften: Blur of the relief, in pixels.
    """
    right, down = slope(blur(height, soften))
    facing = np.clip((right + down) * depth, -0.6, 0.6)[..., None]
    shine = np.clip(facing - 0.12, 0, 1) ** 2
    return picture * (1 + facing) + gloss * shine * 4


def weave(sheet: Sheet, rng: Rng, pitch: float = 3.2) -> np.ndarray:
    """Returns the relief of a linen canvas, [H, W] of mean 0 and about -1..1."""
    x, y = sheet.grid()
    x = x + 1.2 * noise(sheet, 60, rng, octaves=2)
    y = y + 1.2 * noise(sheet, 60, rng, octaves=2)
    over = np.sin(2 * np.pi * x / pitch) * np.sin(2 * np.pi * y / pitch)
    return (over * (0.7 + 0.3 * noise(sheet, 12, rng))).astype(np.float32)


def varnish(
    picture: np.ndarray, *, contrast: float = 0.25, saturation: float = 1.1, warmth: float = 0.0
) -> np.ndarray:
    """Returns the finished picture as uint8: an S-shaped tone curve, saturation and a warm tint."""
    picture = np.clip(picture, 0, 1)
    curved = picture * picture * (3 - 2 * picture)
    picture = picture * (1 - contrast) + curved * contrast
    grey = picture @ np.array([0.3, 0.59, 0.11], np.float32)
    picture = grey[..., None] + (picture - grey[..., None]) * saturation
    tint = np.array([1 + warmth, 1 + 0.3 * warmth, 1 - warmth], np.float32)
    return to_bytes(picture * tint)
