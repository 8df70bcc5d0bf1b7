"""Cubist: overlapping translucent shards in ochre, umber and grey-blue, hatched and contoured."""

from __future__ import annotations

from functools import partial

import numpy as np

from .brushes import Canvas, relief, varnish, weave
from .fields import Rng, Sheet, blur, colour, mix, noise, palette, smoothstep
from .planes import Collage

HUES = palette(
    "b98a45 7a5a36 d6b778 4f647c 8fa3b2 3b3a3c e5d5ac 9c6a34 6a8090 4a3626 c7a25e 2a3442 a4502c"
)
WEIGHTS = np.array([12, 11, 11, 9, 9, 8, 9, 9, 8, 8, 9, 6, 3], np.float64)
DARK = colour("15120f")
CREAM = colour("efe2bf")
# Cubist scaffolding: most sides keep to a few leading directions, in radians.
LEADS = np.array([0.08, 0.62, 1.18, 1.66, 2.2, 2.75])
# What is left of a guitar, a bottle and a bowl: arcs as x, y, radius, first and last angle.
ARCS = [
    (560, 660, 215, 0.5, 3.3), (640, 430, 150, 3.4, 5.6), (585, 610, 62, 0.0, 6.3),
    (585, 610, 74, 1.2, 4.4), (770, 640, 205, -1.0, 1.3), (690, 415, 130, -0.9, 0.9),
    (930, 360, 70, 2.6, 6.4), (930, 700, 112, -0.3, 2.9), (330, 330, 120, 1.9, 5.2),
    (340, 340, 78, -1.4, 2.2), (905, 250, 40, 3.1, 6.3), (250, 760, 160, 4.0, 6.2),
]  # fmt: skip


def paint_cubist(size: int, rng: Rng) -> np.ndarray:
    """Returns the picture, uint8 [H, W, 3], its long side `size` pixels."""
    sheet = Sheet.of(size)
    collage, shards = _shards(sheet, rng)
    angle = collage.angle
    reference, edges = _guitar(sheet, collage.picture, collage.edges, rng)
    # The still life stands in the light, the corners recede.
    x, y = sheet.grid()
    away = np.hypot((x - 640) / 640, (y - 500) / 512) + 0.12 * noise(sheet, 260, rng, octaves=2)
    reference = reference * (1.28 - 0.5 * smoothstep(0.15, 1.25, away))[..., None]
    canvas = Canvas(sheet, np.clip(reference, 0, 1))
    stroke = partial(canvas.cover, reference, angle, rng, chroma=0.15, streak=0.035)
    stroke(spacing=11, length=42, width=13, jitter=0.025, stop=0.14)
    stroke(spacing=8, length=28, width=7, jitter=0.04, stop=0.1, ragged=0.35)
    near = np.clip(0.1 + 3 * blur(edges, 4 * sheet.unit), 0, 1)
    stroke(spacing=4, length=18, width=3.2, jitter=0.03, stop=0.1, where=near)
    picture, height = canvas.read()
    canvas = Canvas(sheet, mix(picture, reference, 0.3), height)
    _hatch(canvas, shards, rng)
    _lines(canvas, shards, rng)
    picture, height = canvas.read()
    worn = smoothstep(-1.4, 0.2, noise(sheet, 8, rng, octaves=3))
    picture = mix(picture, DARK, 0.45 * edges * worn)
    linen = weave(sheet, rng)
    picture = picture * (1 + 0.05 * noise(sheet, 24, rng, octaves=4, gain=0.8))[..., None]
    picture = picture + (0.025 * linen + 0.015 * noise(sheet, 3, rng, octaves=2))[..., None]
    height = height + 0.04 * linen
    return varnish(relief(picture, height, depth=0.85, gloss=0.2), contrast=0.45, saturation=1.15)


def _shards(sheet: Sheet, rng: Rng) -> tuple[Collage, list[np.ndarray]]:
    """Returns the shards laid over each other, and the corners of each."""
    base = noise(sheet, 420, rng, octaves=3)
    ground = mix(colour("4c4238"), colour("b39c6c"), smoothstep(-1.4, 1.4, base))
    collage = Collage(sheet, ground, 0.8 + 0.5 * noise(sheet, 300, rng), rng, waver=1.2)
    shards = []
    total = 230
    for k in range(total):
        scale = 1.25 - 0.85 * (k / total) ** 0.8
        middle = np.array([640, 520]) + rng.normal(0, 1, 2) * (330, 250)
        if k % 3 == 0:
            middle = rng.uniform(0, 1, 2) * sheet.extent
        corners = _corners(middle, scale * rng.uniform(70, 250), rng)
        plane = collage.cut(corners, np.zeros(len(corners)), int(rng.integers(len(corners))))
        hue = HUES[rng.choice(len(HUES), p=WEIGHTS / WEIGHTS.sum())]
        near, far = (
            (hue * 0.4, hue * 1.3) if rng.random() < 0.5 else (mix(hue, CREAM, 0.75), hue * 0.85)
        )
        collage.lay(
            plane, near, far, scale * rng.uniform(30, 120), DARK, veil=rng.uniform(0.15, 0.55),
            follow=rng.random() < 0.4, tilt=float(rng.choice(LEADS)), contour=0.85,
        )  # fmt: skip
        shards.append(corners)
    return collage, shards


def _corners(middle, reach: float, rng: Rng) -> np.ndarray:
    """Returns the corners of a triangle to pentagon about a point, in turning order."""
    count = int(rng.choice([3, 4, 4, 5]))
    turns = np.sort(rng.choice(np.concatenate([LEADS, LEADS + np.pi]), count, replace=False))
    turns = turns + rng.normal(0, 0.06, count)
    out = reach * rng.uniform(0.55, 1.35, count)
    return middle + np.column_stack([np.cos(turns), np.sin(turns)]) * out[:, None]


def _guitar(sheet: Sheet, picture, edges, rng: Rng):
    """Returns the picture with the broken curves of the still life, and the edges."""
    x, y = sheet.grid()
    for cx, cy, radius, low, high in ARCS:
        dx, dy = x - cx, y - cy
        away = np.hypot(dx, dy * 0.93) + 2 * noise(sheet, 150, rng)
        turn = np.mod(np.arctan2(dy, dx) - low, 2 * np.pi)
        part = smoothstep(0, 0.12, turn) * smoothstep(high - low, high - low - 0.12, turn)
        inner = radius - away
        fade = np.exp(-np.clip(inner, 0, None) / (0.3 * radius)) * (inner > 0)
        hue = HUES[int(rng.integers(len(HUES)))]
        picture = mix(picture, hue * 0.6, 0.75 * fade * part)
        glow = np.exp(-np.clip(-inner, 0, None) / 20) * (inner < 0)
        picture = mix(picture, CREAM, 0.6 * glow * part)
        line = smoothstep(4.6, 2.0, np.abs(inner)) * part
        picture = mix(picture, DARK, 0.9 * line)
        edges = np.maximum(edges, line)
    hole = smoothstep(52, 48, np.hypot(x - 585, (y - 610) * 0.93))
    return mix(picture, DARK, 0.8 * hole), edges


def _hatch(canvas: Canvas, shards, rng: Rng) -> None:
    """Hatches some shards from one side, in dark, rust or cream lines."""
    for corners in shards:
        if rng.random() < 0.5:
            continue
        pick = int(rng.integers(len(corners)))
        a, b, c = (corners[(pick + k) % len(corners)] for k in range(3))
        size = np.linalg.norm(b - a)
        count = int(size / rng.uniform(5, 9))
        if count < 3:
            continue
        tone = (DARK, CREAM, colour("5a3a22"), colour("2c3946"))[int(rng.integers(4))]
        t = np.linspace(0.04, rng.uniform(0.5, 0.96), count)
        starts = a + (b - a) * t[:, None] + rng.normal(0, 1.0, (count, 2))
        reach = rng.uniform(0.12, 0.4) * (1 - 0.6 * t * rng.random())
        ends = starts + (c - b) * (reach * rng.uniform(0.8, 1.1, count))[:, None]
        paths = starts[:, None] + (ends - starts)[:, None] * np.linspace(0, 1, 5)[None, :, None]
        paths = paths + rng.normal(0, 0.4, paths.shape)
        canvas.brush(
            paths, rng.uniform(1.2, 2.4, count), np.tile(tone, (count, 1)), rng,
            streak=0.05, ragged=0.3, taper=0.5,
        )  # fmt: skip


def _lines(canvas: Canvas, shards, rng: Rng) -> None:
    """Draws contours that overshoot the shards' corners, and the guitar's strings."""
    for corners in shards[::2]:
        pick = int(rng.integers(len(corners)))
        a, b = corners[pick], corners[(pick + 1) % len(corners)]
        over = rng.uniform(-0.1, 0.3)
        t = np.linspace(-over, 1 + over, 12)[:, None]
        path = a + (b - a) * t + rng.normal(0, 0.5, (12, 2))
        pen = rng.uniform(1.5, 5.0) * np.sin(np.linspace(0.25, 2.8, 12))
        canvas.ink(path, pen, DARK if rng.random() < 0.85 else CREAM)
    for k in range(6):
        first = np.array([430 + 13 * k, 905 - 3 * k])
        last = np.array([800 + 10 * k, 95 + 4 * k])
        path = first + (last - first) * np.linspace(0, 1, 30)[:, None] + rng.normal(0, 0.4, (30, 2))
        canvas.ink(path + (2, 2), 2.2, mix(CREAM, HUES[0], 0.35))
        canvas.ink(path, 2.0, DARK)
