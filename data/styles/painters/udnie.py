"""Udnie: a dance of curved planes in warm greys, rust, cream and dark blue."""

from __future__ import annotations

import numpy as np

from .brushes import Canvas, relief, varnish, weave
from .fields import Sheet, blur, colour, contour_angle, mix, noise, palette, smoothstep

HUES = palette("8f877c b7aa98 5c5753 a4532f e6d6b5 1f2c47 c07a4c 3a4a66 d8c3a0 70706f 7c3a26 2b2a31")
WEIGHTS = np.array([14, 13, 10, 10, 12, 9, 8, 7, 10, 9, 5, 5], np.float64)
DARK = colour("17161f")


def paint_udnie(size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the picture, uint8 [H, W, 3], its long side `size` pixels."""
    sheet = Sheet.of(size)
    reference, angle, edges = _planes(sheet, rng)
    canvas = Canvas(sheet, reference)
    canvas.cover(reference, angle, rng, spacing=13, length=80, width=16, jitter=0.035, stop=0.16)
    canvas.cover(
        reference, angle, rng, spacing=9, length=54, width=8, jitter=0.045, stop=0.13, ragged=0.35
    )
    near = np.clip(0.15 + 2.2 * blur(edges, 5 * sheet.unit), 0, 1)
    canvas.cover(
        reference, angle, rng, spacing=4.5, length=26, width=3.6, jitter=0.05, stop=0.12, where=near
    )
    picture, height = canvas.read()
    # Dry brush over the weave: lights catch on the canvas, darks stay in its pits.
    linen = weave(sheet, rng)
    dry = smoothstep(0.2, 1.4, noise(sheet, 60, rng, octaves=4, gain=0.7))
    picture = picture + (0.035 * linen * (0.4 + dry))[..., None]
    height = height + 0.05 * linen
    return varnish(relief(picture, height, depth=0.8, gloss=0.2), contrast=0.4, saturation=1.12, warmth=0.02)


def _planes(sheet: Sheet, rng):
    """Returns the colours, directions and edges of many planes, the later over the earlier.

    A plane is what two arcs cut out of each other. It is shaded from one of them: full and dark
    at the edge, thinning out across the plane until what lies below shows through.
    """
    x, y = sheet.grid()
    base = noise(sheet, 500, rng, octaves=3)
    picture = mix(colour("6b655f"), colour("c9b999"), smoothstep(-1.3, 1.3, base))
    angle = contour_angle(blur(base, 4 * sheet.unit))
    edges = np.zeros_like(x)
    # The dancers: the planes turn about a few centres along a diagonal.
    hubs = [(330, 660), (560, 430), (760, 560), (960, 330), (640, 800), (1080, 700), (200, 260)]
    for k in range(120):
        hx, hy = hubs[int(rng.integers(len(hubs)))] + rng.normal(0, 75, 2)
        scale = 1.25 - 0.7 * k / 120
        radius = scale * rng.uniform(90, 420)
        aim = rng.uniform(0, 2 * np.pi)
        cx, cy = hx + np.cos(aim) * radius * 0.9, hy + np.sin(aim) * radius * 0.9
        wave = 3.5 * noise(sheet, 190, rng)
        away = np.hypot(x - cx, y - cy) + wave
        inner = radius - away
        # The second arc bounds the plane to a blade or a crescent.
        other = radius * rng.uniform(0.6, 1.5)
        tilt = aim + rng.uniform(0.6, 2.4) * rng.choice([-1, 1])
        ox, oy = cx + np.cos(tilt) * radius * 0.75, cy + np.sin(tilt) * radius * 0.75
        second = (other - np.hypot(x - ox, y - oy) - wave) * rng.choice([-1, 1], p=[0.35, 0.65])
        inside = smoothstep(-1.2, 1.2, inner) * smoothstep(-1.2, 1.2, second)
        fade = np.exp(-np.clip(inner, 0, None) / (scale * rng.uniform(45, 210)))
        hue = HUES[rng.choice(len(HUES), p=WEIGHTS / WEIGHTS.sum())]
        streaks = 0.12 * np.sin(away / rng.uniform(6, 15) + wave)
        shade = hue * (1.12 - 0.42 * fade + 0.6 * streaks * fade)[..., None]
        cover = inside * np.clip(0.18 + 0.8 * fade + streaks * 0.5, 0, 1)
        picture = mix(picture, shade, cover)
        # Light gathers beyond the edge, as if the plane stood before the next one.
        beyond = np.exp(-np.clip(-inner, 0, None) / 16) * (inner < 0) * smoothstep(-1, 1, second)
        picture = mix(picture, colour("efe2c6"), 0.22 * beyond)
        line = smoothstep(3.4, 1.0, np.abs(inner)) * smoothstep(-1, 1, second)
        press = smoothstep(-0.6, 1.0, noise(sheet, 120, rng))
        picture = mix(picture, DARK, 0.75 * line * press)
        edges = np.maximum(edges * (1 - 0.6 * cover), line)
        angle = np.where(cover > 0.35, np.arctan2(y - cy, x - cx) + np.pi / 2, angle)
    return picture, angle, edges
