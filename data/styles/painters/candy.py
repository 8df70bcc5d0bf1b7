"""Candy: glazed discs, lollipop spirals and wrappers, with dark blue contours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .brushes import Canvas, relief, scatter, varnish, weave
from .fields import (
    Rng,
    Sheet,
    blur,
    colour,
    contour_angle,
    mix,
    noise,
    palette,
    smoothstep,
)

INK = colour("0b1236")
SWEETS = palette(
    "d8142f ff6a13 ffeecb 149a9c f5a623 b80f2e f24a66 "
    "23b3a6 fbdc9a 1d3180 ff8a2a c81e34 ffc04d e8401c"
)
GROUND = palette("c8102e 0b1b54 e8401c 0e7f95 f39a1e 7c1246 1a3fa0 f0c987 d9252a 0c5f78")


@dataclass(frozen=True)
class Disc:
    """One sweet: where it lies, how its bands run, and which colours they take."""

    x: float
    y: float
    radius: float
    pitch: float
    arms: int
    twist: float
    colours: np.ndarray


def paint_candy(size: int, rng: Rng) -> np.ndarray:
    """Returns the picture, uint8 [H, W, 3], its long side `size` pixels."""
    sheet = Sheet.of(size)
    reference, angle, lines = _wrappers(sheet, rng)
    discs = _discs(sheet, rng)
    for disc in discs:
        reference, angle, lines = _lay(sheet, disc, reference, angle, lines, rng)
    # Broken colour: the paint of a band is never mixed through.
    drift = np.stack([noise(sheet, 26, rng, octaves=3, gain=0.8) for _ in range(3)], axis=-1)
    reference = np.clip(
        reference * (1 + 0.07 * drift.mean(-1, keepdims=True)) + 0.035 * drift, 0, 1
    )
    under = mix(reference, INK, lines)
    canvas = Canvas(sheet, under)
    canvas.cover(under, angle, rng, spacing=11, length=60, width=13, stop=0.3, jitter=0.07)
    canvas.cover(under, angle, rng, spacing=6, length=34, width=6.5, stop=0.22, jitter=0.08)
    edges = np.clip(blur(lines, 3 * sheet.unit) * 2.5, 0, 1)
    canvas.cover(under, angle, rng, spacing=3.5, length=16, width=3, stop=0.2, where=edges)
    picture, height = canvas.read()
    worn = smoothstep(-1.3, 0.3, noise(sheet, 9, rng, octaves=3))
    canvas = Canvas(sheet, mix(picture, INK, 0.6 * lines * worn), height)
    _dabs(canvas, discs, rng)
    _gloss(canvas, discs, rng)
    picture, height = canvas.read()
    height = height + 0.05 * weave(sheet, rng)
    return varnish(relief(picture, height, depth=1.0, gloss=0.5), contrast=0.35, saturation=1.08)


def _wrappers(sheet: Sheet, rng: Rng):
    """Returns the ground's colours, directions and contours: swirling coloured bands."""
    x, y = sheet.grid()
    swirl = 1.1 * noise(sheet, 420, rng, octaves=3, gain=0.45)
    swirl += 0.5 * np.sin(x / 130 + 1.2 * noise(sheet, 300, rng)) + y / 500
    bands = swirl * 5.0
    index = np.floor(bands).astype(int)
    near = np.minimum(bands - index, 1 - bands + index)
    # Divided by the slope, so that the contour keeps its width where bands are broad.
    right, down = np.gradient(bands)
    steep = np.hypot(right, down) * sheet.unit + 1e-4
    reach = near / steep
    shade = GROUND[index % len(GROUND)] * (0.95 + 0.1 * noise(sheet, 90, rng, octaves=3))[..., None]
    lines = smoothstep(5.5, 2.5, reach + 1.2 * noise(sheet, 30, rng))
    return shade, contour_angle(swirl), lines


def _discs(sheet: Sheet, rng: Rng) -> list[Disc]:
    """Returns the sweets from the back to the front: a crowd, then the large ones."""
    large = [
        (430, 600, 318), (1030, 330, 262), (965, 890, 205), (120, 150, 172), (640, 118, 138),
        (1270, 690, 128), (60, 960, 120), (700, 900, 92), (800, 560, 108),
    ]  # fmt: skip
    wide, high = sheet.extent
    crowd: list[tuple[float, float, float]] = []
    for _ in range(500):
        radius = float(20 + 75 * rng.random() ** 1.7)
        x, y = rng.uniform(0, wide), rng.uniform(0, high)
        gaps = [np.hypot(x - a, y - b) - radius - c for a, b, c in large + crowd]
        if min(gaps) > -0.3 * radius:
            crowd.append((x, y, radius))
    kinds = iter(rng.permutation(3 * (len(large) // 3 + 1)) % 3)
    discs = []
    for x, y, radius in sorted(crowd, key=lambda d: d[2]) + sorted(large, key=lambda d: d[2]):
        kind = next(kinds) if radius > 90 else rng.integers(0, 2)
        # A band meets its own colour again after a full turn only if the arms share them out.
        hues = int(rng.integers(3, 5))
        # Neighbours in the table go well together.
        row = np.roll(SWEETS, -int(rng.integers(len(SWEETS))), axis=0)
        picked = row[:hues]
        pitch = radius / rng.uniform(8, 12) if radius > 90 else radius / rng.integers(3, 6)
        if kind == 0:
            discs.append(Disc(x, y, radius, pitch, 0, 0.0, row[: hues + 3]))
        elif kind == 1:
            arms = hues * int(rng.choice([-1, 1]))
            discs.append(Disc(x, y, radius, pitch, arms, 0.0, picked))
        else:
            arms, twist = hues * int(rng.integers(3, 5)), rng.uniform(0.5, 1.3) / radius
            discs.append(Disc(x, y, radius, pitch, arms, twist * rng.choice([-1, 1]), picked))
    return discs


def _lay(sheet: Sheet, disc: Disc, reference, angle, lines, rng: Rng):
    """Returns the colours, directions and contours with a sweet and its shadow on top."""
    x, y = sheet.grid()
    wobble = noise(sheet, 70, rng, octaves=2)
    dx, dy = x - disc.x, y - disc.y
    radius = np.hypot(dx, dy) + (1.0 + 0.009 * disc.radius) * wobble
    around = np.arctan2(dy, dx)
    bent = around
    if disc.twist:
        bands = (bent / (2 * np.pi) + disc.twist * radius) * disc.arms
        width = 2 * np.pi * radius / disc.arms
    else:
        bands = radius / disc.pitch + disc.arms * bent / (2 * np.pi)
        width = np.full_like(radius, disc.pitch)
    bands = bands + 0.08 * wobble
    index = np.floor(bands).astype(int)
    share = bands - index
    # Each band is a rounded rib: dark in its valleys, light on its back.
    rib = 0.72 + 0.42 * np.sin(np.pi * np.clip(share, 0, 1)) ** 0.8
    shade = disc.colours[index % len(disc.colours)] * rib[..., None]
    edge = np.clip(radius / disc.radius, 0, 1)
    dome = 1.08 - 0.26 * edge**3 * (dx + dy) / (1.4 * disc.radius)
    shade = np.clip(shade * dome[..., None], 0, 1.02)
    inside = smoothstep(disc.radius + 1, disc.radius - 1, radius)
    near = np.minimum(share, 1 - share) * width
    thin = 0.7 + 0.009 * disc.radius
    line = smoothstep(thin + 1.2, thin - 0.8, near + 0.6 * wobble)
    thick = 2.2 + 0.014 * disc.radius
    rim = smoothstep(thick + 1.5, thick - 1.5, np.abs(radius - disc.radius) + 0.8 * wobble)
    shift = 0.07 * disc.radius
    under = np.hypot(dx - shift, dy - 1.4 * shift)
    shadow = smoothstep(1.12 * disc.radius, 0.92 * disc.radius, under) * 0.5
    reference = mix(reference, INK * 0.6, shadow)
    reference = mix(reference, shade, inside)
    lines = np.maximum(lines * (1 - inside), np.maximum(inside * line, rim))
    turn = contour_angle(bands) if disc.arms else around + np.pi / 2
    return reference, np.where(inside > 0.5, turn, angle), lines


def _dabs(canvas: Canvas, discs: list[Disc], rng: Rng) -> None:
    """Sets rows of thick dabs along the rings, and sprinkles between the sweets."""
    rows = []
    for disc in discs:
        if disc.radius < 45:
            continue
        for ring in rng.choice(np.arange(0.25, 0.98, 0.08), 3 if disc.radius > 90 else 1, False):
            size = rng.uniform(5.5, 9.5) + 0.01 * disc.radius
            count = int(2 * np.pi * ring * disc.radius / (size * rng.uniform(1.7, 2.6)))
            around = np.arange(count) * 2 * np.pi / count + rng.normal(0, 0.02, count)
            out = ring * disc.radius + rng.normal(0, 1.0, count)
            spots = np.stack([np.cos(around), np.sin(around)], -1) * out[:, None]
            hue = SWEETS[rng.integers(0, len(SWEETS))]
            rows.append(
                np.column_stack(
                    [spots + (disc.x, disc.y), around + np.pi / 2, np.full(count, size)]
                    + [np.tile(hue, (count, 1))]
                )
            )
    free = scatter(canvas.sheet, 34, rng)
    for disc in discs:
        free = free[np.hypot(free[:, 0] - disc.x, free[:, 1] - disc.y) > disc.radius + 6]
    loose = rng.integers(0, len(SWEETS), len(free))
    sizes = rng.uniform(5, 11, len(free))
    rows.append(np.column_stack([free, rng.uniform(0, np.pi, len(free)), sizes, SWEETS[loose]]))
    dabs = np.concatenate(rows)
    heading = np.stack([np.cos(dabs[:, 2]), np.sin(dabs[:, 2])], -1)
    reach = dabs[:, 3, None, None] * 0.62 * np.linspace(-1, 1, 5)[None, :, None]
    paths = dabs[:, None, :2] + heading[:, None] * reach * rng.uniform(0.8, 1.3, (len(dabs), 1, 1))
    dark = np.tile(INK, (len(dabs), 1))
    canvas.brush(paths + 1.2, dabs[:, 3] + 2.4, dark, rng, ragged=0.0, bristle=1.0, body=(0.2, 0.4))
    canvas.brush(
        paths, dabs[:, 3], dabs[:, 4:], rng, ragged=0.0, bristle=1.0, streak=0.08, body=(0.5, 0.9)
    )


def _gloss(canvas: Canvas, discs: list[Disc], rng: Rng) -> None:
    """Draws the cream highlights on the sweets' upper left."""
    for disc in discs:
        for ring, spread, width in ((0.82, 0.55, 0.07), (0.58, 0.3, 0.045)):
            turn = np.linspace(-spread, spread, 12) - 2.3 + rng.normal(0, 0.12)
            arc = np.stack([np.cos(turn), np.sin(turn)], -1) * disc.radius * ring
            arc = arc + (disc.x, disc.y)
            canvas.brush(
                arc[None], np.array([max(2.5, width * disc.radius)]), colour("fffaf0")[None], rng,
                taper=0.9, streak=0.04, ragged=0.35, bristle=1.4, body=(0.6, 1.0),
            )  # fmt: skip
