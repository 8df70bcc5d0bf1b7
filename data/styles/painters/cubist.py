"""Cubist: overlapping translucent shards in ochre, umber and grey-blue, hatched and contoured."""

from __future__ import annotations

import numpy as np

from .brushes import Canvas, relief, varnish, weave
from .fields import Sheet, blur, colour, mix, noise, palette, smoothstep

HUES = palette("b98a45 7a5a36 d6b778 53606e 8a97a0 3b3a3c e5d5ac 9c6a34 6d7a80 4a3626 c7a25e 2a3442 a4502c")
WEIGHTS = np.array([12, 11, 11, 9, 9, 8, 9, 9, 8, 8, 9, 6, 3], np.float64)
DARK = colour("15120f")
CREAM = colour("efe2bf")


def paint_cubist(size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the picture, uint8 [H, W, 3], its long side `size` pixels."""
    sheet = Sheet.of(size)
    reference, angle, edges, shards = _shards(sheet, rng)
    reference, edges = _guitar(sheet, reference, edges, rng)
    canvas = Canvas(sheet, reference)
    canvas.cover(reference, angle, rng, spacing=11, length=46, width=13, jitter=0.04, stop=0.18)
    canvas.cover(
        reference, angle, rng, spacing=7, length=26, width=7, jitter=0.055, stop=0.15, ragged=0.35
    )
    near = np.clip(0.12 + 2.0 * blur(edges, 5 * sheet.unit), 0, 1)
    canvas.cover(
        reference, angle, rng, spacing=4, length=20, width=3.2, jitter=0.05, stop=0.12, where=near
    )
    _hatch(canvas, shards, rng)
    _lines(canvas, shards, rng)
    picture, height = canvas.read()
    linen = weave(sheet, rng)
    picture = picture + (0.03 * linen)[..., None]
    dust = noise(sheet, 3.0, rng, octaves=2)
    picture = picture + (0.015 * dust)[..., None]
    height = height + 0.05 * linen
    return varnish(relief(picture, height, depth=0.85, gloss=0.2), contrast=0.45, saturation=1.08)


def _shards(sheet: Sheet, rng):
    """Returns the colours, directions and edges of many shards, and their corners [K][M, 2].

    Each shard is dark at one of its sides and thins out from there, so that lower ones show.
    """
    x, y = sheet.grid()
    picture = mix(colour("4c4238"), colour("b39c6c"), smoothstep(-1.4, 1.4, noise(sheet, 420, rng, octaves=3)))
    angle = 0.8 + 0.5 * noise(sheet, 300, rng)
    edges = np.zeros_like(x)
    shards = []
    total = 170
    # Cubist scaffolding: most sides keep to a few leading directions.
    leads = np.array([0.08, 0.62, 1.18, 1.66, 2.2, 2.75])
    for k in range(total):
        scale = 1.2 - 0.75 * k / total
        middle = np.array([640, 520]) + rng.normal(0, 1, 2) * (330, 250)
        if k % 4 == 0:
            middle = rng.uniform(0, 1, 2) * (1280, 1024)
        corners = _corners(middle, scale * rng.uniform(70, 250), leads, rng)
        wave = 1.6 * noise(sheet, 130, rng)
        sides = []
        for a, b in zip(corners, np.roll(corners, -1, axis=0)):
            along = (b - a) / (np.linalg.norm(b - a) + 1e-6)
            sides.append((y - a[1]) * along[0] - (x - a[0]) * along[1] + wave)
        depth = np.min(sides, axis=0)
        inside = smoothstep(-1.0, 1.0, depth)
        lead = sides[int(rng.integers(len(sides)))]
        fade = np.exp(-np.clip(lead, 0, None) / (scale * rng.uniform(40, 160)))
        hue = HUES[rng.choice(len(HUES), p=WEIGHTS / WEIGHTS.sum())]
        if rng.random() < 0.5:
            shade = hue * (1.15 - 0.55 * fade)[..., None]
        else:
            shade = mix(hue, CREAM, 0.5 * fade)
        cover = inside * np.clip(0.22 + 0.72 * fade, 0, 1)
        picture = mix(picture, shade, cover)
        # The next plane lies in this one's shadow.
        shadow = np.exp(-np.clip(-depth, 0, None) / 13) * (depth < 0) * smoothstep(-60, 20, lead)
        picture = mix(picture, DARK, 0.18 * shadow)
        line = smoothstep(2.6, 0.8, np.abs(depth))
        press = smoothstep(-0.7, 0.9, noise(sheet, 100, rng))
        picture = mix(picture, DARK, 0.7 * line * press)
        edges = np.maximum(edges * (1 - 0.6 * cover), line)
        tilt = leads[int(rng.integers(len(leads)))]
        angle = np.where(cover > 0.3, tilt, angle)
        shards.append(corners)
    return picture, angle, edges, shards


def _corners(middle, reach: float, leads, rng) -> np.ndarray:
    """Returns the corners of a triangle or quadrangle about a point, in turning order."""
    count = int(rng.choice([3, 4, 4, 5]))
    turns = np.sort(rng.choice(np.concatenate([leads, leads + np.pi]), count, replace=False))
    turns = turns + rng.normal(0, 0.06, count)
    out = reach * rng.uniform(0.55, 1.35, count)
    return middle + np.column_stack([np.cos(turns), np.sin(turns)]) * out[:, None]


def _guitar(sheet: Sheet, picture, edges, rng):
    """Returns the picture with the broken curves of a guitar and a bottle, and the edges."""
    x, y = sheet.grid()
    arcs = [
        (560, 660, 215, 0.5, 3.3), (640, 430, 150, 3.4, 5.6), (585, 610, 62, 0.0, 6.3),
        (585, 610, 74, 1.2, 4.4), (770, 640, 205, -1.0, 1.3), (690, 415, 130, -0.9, 0.9),
        (930, 360, 70, 2.6, 6.4), (930, 700, 112, -0.3, 2.9), (330, 330, 120, 1.9, 5.2),
        (340, 340, 78, -1.4, 2.2), (905, 250, 40, 3.1, 6.3), (250, 760, 160, 4.0, 6.2),
    ]  # fmt: skip
    for cx, cy, radius, low, high in arcs:
        dx, dy = x - cx, y - cy
        away = np.hypot(dx, dy * 0.93) + 2 * noise(sheet, 150, rng)
        turn = np.mod(np.arctan2(dy, dx) - low, 2 * np.pi)
        part = smoothstep(0, 0.12, turn) * smoothstep(high - low, high - low - 0.12, turn)
        inner = radius - away
        fade = np.exp(-np.clip(inner, 0, None) / (0.35 * radius)) * (inner > 0)
        hue = HUES[int(rng.integers(len(HUES)))]
        picture = mix(picture, hue * 0.75, 0.7 * fade * part)
        glow = np.exp(-np.clip(-inner, 0, None) / 20) * (inner < 0)
        picture = mix(picture, CREAM, 0.5 * glow * part)
        line = smoothstep(4.0, 1.6, np.abs(inner)) * part
        picture = mix(picture, DARK, 0.85 * line)
        edges = np.maximum(edges, line)
    hole = smoothstep(52, 48, np.hypot(x - 585, (y - 610) * 0.93))
    return mix(picture, DARK, 0.8 * hole), edges


def _hatch(canvas: Canvas, shards, rng) -> None:
    """Hatches some shards from one side, in dark, rust or cream lines."""
    for corners in shards:
        if rng.random() < 0.45:
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
            paths, rng.uniform(1.2, 2.6, count), np.tile(tone, (count, 1)), rng,
            streak=0.05, ragged=0.3, taper=0.5,
        )  # fmt: skip


def _lines(canvas: Canvas, shards, rng) -> None:
    """Draws strings, and contours that overshoot the shards' corners."""
    for corners in shards[::2]:
        pick = int(rng.integers(len(corners)))
        a, b = corners[pick], corners[(pick + 1) % len(corners)]
        over = rng.uniform(-0.1, 0.35)
        t = np.linspace(-over, 1 + over, 12)[:, None]
        path = a + (b - a) * t + rng.normal(0, 0.5, (12, 2))
        pen = rng.uniform(1.5, 5.0) * np.sin(np.linspace(0.25, 2.8, 12))
        canvas.ink(path, pen, DARK if rng.random() < 0.8 else CREAM)
    for k in range(6):
        first = np.array([430 + 13 * k, 905 - 3 * k])
        last = np.array([800 + 10 * k, 95 + 4 * k])
        path = first + (last - first) * np.linspace(0, 1, 30)[:, None] + rng.normal(0, 0.4, (30, 2))
        canvas.ink(path + (2, 2), 2.2, CREAM)
        canvas.ink(path, 2.0, DARK)
