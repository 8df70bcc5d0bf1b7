"""Feathers: layered plumage in teal, orange, violet and gold, barb by barb along a flow."""

from __future__ import annotations

import numpy as np

from .brushes import Canvas, relief, scatter, trace, varnish, weave
from .fields import Rng, Sheet, blur, colour, mix, noise, palette, ramp, smoothstep

DARK = colour("0d0b1c")
# Each scheme runs from the quill outwards; the plumage drifts from one to the next.
SCHEMES = np.stack(
    [
        palette("06303a 0f6d74 1fa79b 7fd0b0 e9d38a"),
        palette("0a2146 1c5a8c 2b93a8 4fc0a4 c7dca0"),
        palette("23103f 51257a 8a4aa5 c685b4 f0c28f"),
        palette("3d0f2c 8c1f4b cf4554 ee8350 f8c766"),
        palette("4a1a0c a63f12 e07a1d f3a93a fbe0a0"),
        palette("3a2a0c 8a6416 c99a2c e9c75a f7ecc0"),
    ]
)
# The breast that all feathers point away from.
ROOT = np.array([-60.0, 1180.0])
BARB = 7  # pieces that a barb is coloured in


def paint_feathers(size: int, rng: Rng) -> np.ndarray:
    """Returns the picture, uint8 [H, W, 3], its long side `size` pixels."""
    sheet = Sheet.of(size)
    x, y = sheet.grid()
    # The plumage fans out from a breast below the lower left corner, turning like a wing.
    dx, dy = x - ROOT[0], y - ROOT[1]
    away = np.hypot(dx, dy)
    angle = np.arctan2(dy, dx) - 0.75 + 1.25 * smoothstep(150, 1450, away)
    angle = angle + 0.32 * noise(sheet, 430, rng, octaves=2) + 0.18 * np.sin(away / 150)
    tint = away / 250 + 1.1 * np.arctan2(dy, dx) + 0.8 * noise(sheet, 360, rng, octaves=2)
    base = ramp(SCHEMES[:, 1] * 0.55, 0.5 + 0.5 * np.sin(tint * 1.3))
    canvas = Canvas(sheet, base, detail=3)
    canvas.cover(base, angle, rng, spacing=12, length=90, width=10, jitter=0.05, taper=0.8)
    for spacing, length, share in (
        (150, 560, 1.0),
        (112, 400, 0.9),
        (92, 270, 0.6),
        (74, 165, 0.4),
    ):
        _layer(canvas, angle, tint, spacing, length, share, rng)
    _down(canvas, angle, tint, rng)
    picture, height = canvas.read()
    height = blur(height, 0.6 * sheet.unit) + 0.03 * weave(sheet, rng)
    picture = relief(picture, height, depth=1.1, gloss=0.4)
    sheen = smoothstep(0.4, 1.8, noise(sheet, 150, rng, octaves=2))
    picture = picture * (1 + 0.14 * sheen - 0.06)[..., None]
    return varnish(picture, contrast=0.35, saturation=1.12)


def _layer(
    canvas: Canvas,
    angle,
    tint,
    spacing: float,
    length: float,
    share: float,
    rng: Rng,
) -> None:
    """Lays one layer of feathers like shingles: each tip over the root of the next."""
    sheet = canvas.sheet
    starts = scatter(sheet, spacing, rng)
    starts = starts[rng.random(len(starts)) < share]
    order = np.argsort(rng.normal(0, spacing * 0.6, len(starts)) - np.hypot(*(starts - ROOT).T))
    starts = starts[order]
    lengths = length * rng.uniform(0.75, 1.25, len(starts))
    quills = trace(sheet, angle, starts, lengths, 25)
    tones = sheet.sample(tint, starts)
    for quill, tone, size in zip(quills, tones, lengths, strict=True):
        _feather(canvas, quill, float(tone), float(size), rng)


def _feather(canvas: Canvas, quill: np.ndarray, tone: float, length: float, rng: Rng) -> None:
    """Draws one feather: its shadow, its barbs on both sides, and its quill."""
    # No barb is finer than a pixel or so.
    count = int(np.clip(length / max(2.1, 1 / canvas.sheet.unit), 8, 240))
    s = np.linspace(0.06, 1.0, count)
    grow = rng.uniform(0.15, 0.23) * length
    vane = grow * np.sin(np.pi * np.clip(s, 0, 0.995) ** 0.62) ** 0.55
    place = s * (len(quill) - 1)
    low = np.minimum(place.astype(int), len(quill) - 2)
    part = (place - low)[:, None]
    root = quill[low] * (1 - part) + quill[low + 1] * part
    along = quill[low + 1] - quill[low]
    along = along / (np.linalg.norm(along, axis=-1, keepdims=True) + 1e-9)
    q = np.linspace(0, 1, BARB + 1)
    scheme = SCHEMES[int(np.floor(tone + rng.normal(0, 0.7))) % len(SCHEMES)]
    other = SCHEMES[rng.integers(len(SCHEMES))]
    kind = int(rng.integers(4))
    stripes, phase = rng.uniform(3, 7), rng.uniform(0, 1)
    pieces, shades, bodies = [], [], []
    for side in (-1.0, 1.0):
        normal = side * np.stack([-along[:, 1], along[:, 0]], axis=-1)
        # Barbs part in a few places, as they do when a feather is ruffled.
        rip = np.interp(s, np.linspace(0, 1, 9), rng.normal(0, 0.16, 9))
        lean = 0.55 + 0.9 * s**3 + rip + rng.normal(0, 0.03, count)
        first = np.cos(lean)[:, None] * along + np.sin(lean)[:, None] * normal
        bent = np.cos(lean * 0.45)[:, None] * along + np.sin(lean * 0.45)[:, None] * normal
        reach = (vane * rng.uniform(0.86, 1.1, count) * 1.25)[:, None, None]
        curve = (
            first[:, None] * q[None, :, None]
            + (bent - first)[:, None] * (q**2)[None, :, None] * 0.6
        )
        barb = root[:, None] + reach * curve
        pieces.append(np.stack([barb[:, :-1], barb[:, 1:]], axis=2).reshape(-1, 2, 2))
        middle = (q[:-1] + q[1:]) / 2
        shade = _pattern(s, middle, scheme, other, kind, stripes, phase)
        shade = shade * (1 + rng.normal(0, 0.10, (count, 1, 1))) * (0.94 if side < 0 else 1.06)
        shades.append(shade.reshape(-1, 3))
        bodies.append(np.repeat(rng.random(count), BARB))
    barbs, shade, body = np.concatenate(pieces), np.concatenate(shades), np.concatenate(bodies)
    # A barb thins out towards its end; those of the two sides come one after the other.
    pen = 1.75 * length / count * np.tile(np.linspace(1.15, 0.4, BARB), 2 * count)
    drop = np.array([0.010, 0.016]) * length + 1.5
    dark = np.tile(mix(DARK, shade.mean(0), 0.25), (len(barbs), 1))
    canvas.brush(barbs + drop, pen * 1.1, dark, rng, bristle=50, ragged=0, body=(0.1, 0.2))
    order = np.argsort(np.tile(np.repeat(np.arange(count), BARB), 2), kind="stable")
    low_body, high_body = 0.3 + 0.35 * body.min(), 0.9
    canvas.brush(
        barbs[order], pen, shade[order], rng,
        bristle=50, streak=0.03, ragged=0, body=(low_body, high_body),
    )  # fmt: skip
    thick = (1.0 + 0.009 * length) * np.linspace(1.0, 0.25, len(quill))
    tip = max(3, int(0.93 * len(quill)))
    canvas.ink(quill[:tip] + 0.8, thick[:tip] + 1.0, DARK, thickness=0.5)
    canvas.ink(quill[:tip], thick[:tip], mix(scheme[4], colour("fff3d6"), 0.4), thickness=1.0)


def _pattern(s, q, scheme, other, kind: int, stripes: float, phase: float) -> np.ndarray:
    """Returns a feather's colours [S, Q, 3] by the places along its quill and along its barbs."""
    a, b = np.meshgrid(s, q, indexing="ij")
    shade = ramp(scheme, 0.18 + 0.5 * a + 0.34 * b)
    if kind == 0:  # barred
        bar = smoothstep(0.1, 0.6, np.sin(2 * np.pi * (stripes * (a + 0.12 * b) + phase)))
        shade = mix(shade, ramp(other, 0.25 + 0.6 * b), bar * 0.85)
    elif kind == 1:  # an eye near the tip
        away = np.hypot((a - 0.76) / 0.19, b / 0.62)
        eye = ramp(
            np.stack([DARK, colour("14307a"), other[2], scheme[4], scheme[0], other[3]]), away * 0.8
        )
        shade = mix(shade, eye, smoothstep(1.25, 1.1, away))
    elif kind == 2:  # a pale or bright fringe
        fringe = smoothstep(0.62, 0.86, b + 0.5 * smoothstep(0.8, 1, a))
        shade = mix(shade, other[3], fringe * 0.9)
        shade = mix(shade, scheme[0], smoothstep(0.3, 0.05, b) * 0.6)
    else:  # a tip of another colour
        shade = mix(shade, ramp(other, 0.3 + 0.6 * b), smoothstep(0.5, 0.75, a + 0.12 * b))
    return shade


def _down(canvas: Canvas, angle, tint, rng: Rng) -> None:
    """Strews loose barbs and gold flecks along the flow."""
    sheet = canvas.sheet
    starts = scatter(sheet, 40, rng)
    starts = starts[rng.random(len(starts)) < 0.5]
    turned = angle + 0.7 * noise(sheet, 55, rng)
    paths = trace(sheet, turned, starts, rng.uniform(14, 60, len(starts)), 9)
    index = np.floor(sheet.sample(tint, starts) + rng.normal(0, 1, len(starts))).astype(int)
    shades = SCHEMES[index % len(SCHEMES), rng.integers(3, 5, len(starts))]
    swell = np.sin(np.linspace(0.05, np.pi - 0.05, 9))
    pens = rng.uniform(1.4, 3.0, len(starts))
    for path, shade, pen in zip(paths, shades, pens, strict=True):
        canvas.ink(path + 1.0, (pen + 1.2) * swell, DARK)
        canvas.ink(path, pen * swell, shade, thickness=0.9)
