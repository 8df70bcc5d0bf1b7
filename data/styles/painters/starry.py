"""Denoised starry: a night of swirling impasto, star halos and a dark cypress flame."""

from __future__ import annotations

from functools import partial

import numpy as np

from .brushes import Canvas, relief, varnish, weave
from .fields import Rng, Sheet, blur, colour, contour_angle, mix, noise, palette, ramp, smoothstep

NIGHT = palette("0b1a3f 143066 1f4a92 3a70b4 6a9cc8 a3c3d0")
HALO = palette("fff6c9 fbdc63 f2b632 c9b860 86b09c 4f86b4")
LAND = palette("0c1a33 16314f 1f4f6b 2d6b73 4b8a86 173a5e")
LEAF = palette("070d12 0f2018 1c3524 31482a 4d5a33 2b2a1a")
# Stars as x, y, halo radius and strength of their swirl.
STARS = [
    (215, 190, 118, 1.0), (590, 95, 56, -0.8), (810, 75, 46, 0.8), (400, 345, 48, 0.7),
    (745, 262, 60, -0.9), (70, 430, 44, -0.7), (1215, 205, 56, 0.8), (385, 70, 36, 0.7),
    (560, 470, 34, -0.6), (1235, 480, 40, 0.7), (905, 430, 38, 0.6), (190, 520, 32, 0.6),
]  # fmt: skip
# The great spirals of the wind: x, y, reach and turning sense.
WINDS = [(600, 300, 185, 1.0), (300, 500, 120, -1.0), (930, 190, 125, -1.0), (60, 330, 95, 1.0)]


def paint_denoised_starry(size: int, rng: Rng) -> np.ndarray:
    """Returns the picture, uint8 [H, W, 3], its long side `size` pixels."""
    sheet = Sheet.of(size)
    reference, angle = _sky(sheet, rng)
    reference, angle = _land(sheet, reference, angle, rng)
    reference, angle, flame = _cypress(sheet, reference, angle, rng)
    canvas = Canvas(sheet, reference)
    stroke = partial(canvas.cover, reference, angle, rng, stop=0.22, taper=0.35, streak=0.045)
    stroke(spacing=13, length=90, width=15, jitter=0.06)
    stroke(spacing=9, length=62, width=9, jitter=0.075)
    stroke(spacing=8, length=44, width=6, jitter=0.09, body=(0.5, 1.0))
    picture, height = canvas.read()
    picture = _denoise(sheet, picture, angle)
    height = blur(height, 0.8 * sheet.unit) + 0.02 * weave(sheet, rng)
    picture = relief(picture, height, depth=1.5, gloss=0.35)
    picture = mix(picture, picture * 0.86, flame * 0.5)
    return varnish(picture, contrast=0.35, saturation=1.18)


def _sky(sheet: Sheet, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sky's colours and the directions of its wind."""
    x, y = sheet.grid()
    # The wind blows along the level lines of a height made of a slope, noise and whirls.
    wind = y * 1.15 + 46 * noise(sheet, 420, rng, octaves=2) - 40 * np.sin(x / 170)
    bands = wind / 30
    shade = _streaks(sheet, bands, 0.0, rng)
    angle = contour_angle(blur(wind, 3 * sheet.unit))
    for cx, cy, reach, sense in WINDS:
        dx, dy = x - cx, (y - cy) * 1.12
        away = np.hypot(dx, dy) + 1e-3
        near = np.exp(-((away / reach) ** 3))
        whirl = np.arctan2(dy, dx) / (2 * np.pi) * 3 * sense + away / 24
        shade = mix(shade, _streaks(sheet, whirl, 0.16, rng), smoothstep(0.1, 0.75, near))
        turn = np.arctan2(dy, dx) + np.pi / 2 - 0.3 * sense
        angle = _blend(angle, turn, near**0.6)
    haze = np.exp(-(((y - 640) / 90) ** 2)) * smoothstep(-1, 1, noise(sheet, 200, rng, octaves=2))
    shade = mix(shade, colour("a9c3b0"), 0.6 * haze)
    for cx, cy, reach, sense in STARS:
        dx, dy = x - cx, y - cy
        away = np.hypot(dx, dy) * (1 + 0.05 * noise(sheet, 50, rng)) + 1e-3
        near = smoothstep(1.9, 0.75, away / reach)
        ring = 0.14 * np.sin(2 * np.pi * away / (0.2 * reach) + np.arctan2(dy, dx) * 2)
        glow = ramp(HALO, away / reach * 0.72 + ring * smoothstep(0.15, 0.4, away / reach))
        shade = mix(shade, glow, near * (0.96 - 0.35 * smoothstep(0.5, 1.4, away / reach)))
        angle = _blend(angle, np.arctan2(dy, dx) + np.pi / 2 + 0.12 * sense, near)
    # The moon's crescent, inside the largest halo.
    cx, cy, reach, _ = STARS[0]
    moon = smoothstep(46, 42, np.hypot(x - cx, y - cy))
    bite = smoothstep(34, 38, np.hypot(x - cx + 19, y - cy + 7))
    shade = mix(shade, colour("f6a81c"), moon * bite)
    shade = mix(shade, colour("fde98a"), moon * (1 - bite) * 0.8)
    return shade, angle


def _streaks(sheet: Sheet, bands: np.ndarray, lift: float, rng: Rng) -> np.ndarray:
    """Returns night colours in streaks along the level lines of `bands`, a period of 3 each."""
    tone = 0.5 + 0.5 * np.sin(2 * np.pi * bands / 3)
    fine = 0.5 + 0.5 * np.sin(2 * np.pi * bands * 4 / 3)
    # Patches of sky are lighter as a whole, so that streaks fade in and out.
    patch = smoothstep(-1.2, 1.5, noise(sheet, 170, rng, octaves=2))
    light = 0.16 + 0.5 * tone * (0.5 + 0.5 * fine) + 0.3 * patch * tone + lift
    shade = ramp(NIGHT, light)
    return mix(shade, colour("c6d3b8"), smoothstep(0.55, 0.95, tone * fine * (0.5 + patch)) * 0.6)


def _blend(angle: np.ndarray, other: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Returns directions turned towards others; opposite directions count as the same."""
    cos = (1 - amount) * np.cos(2 * angle) + amount * np.cos(2 * other)
    sin = (1 - amount) * np.sin(2 * angle) + amount * np.sin(2 * other)
    return np.arctan2(sin, cos) / 2


def _land(sheet: Sheet, reference, angle, rng: Rng):
    """Returns the picture so far with hills, fields and a few lit houses before it."""
    x, y = sheet.grid()
    for k in range(6):
        base = 655 + 58 * k
        crest = base - (95 - 9 * k) * np.sin(x / (235 - 14 * k) + 1.9 * k + 0.6) * 0.55
        crest = crest - 40 * smoothstep(780, 30, x) * (k < 3) + 9 * noise(sheet, 150, rng)
        inside = smoothstep(-1.5, 1.5, y - crest)
        depth = (y - crest) / 110
        fold = 0.5 + 0.5 * np.sin((y - crest) / 8.5 + 1.3 * noise(sheet, 90, rng, octaves=2))
        shade = ramp(LAND[:5], 0.68 - 0.10 * k + 0.3 * fold - 0.35 * np.clip(depth, 0, 1))
        warm = smoothstep(0.6, 1.5, noise(sheet, 110, rng, octaves=2)) * fold
        shade = mix(shade, palette("a9a24f d0b35a 7c9a6a")[k % 3], 0.55 * warm)
        line = smoothstep(5.5, 2.5, np.abs(y - crest))
        reference = mix(mix(reference, shade, inside), LAND[0], 0.85 * line)
        angle = np.where(inside > 0.5, contour_angle(blur(y - crest, 2 * sheet.unit)), angle)
    for _ in range(26):
        hx, hy = rng.uniform(40, 860), rng.uniform(825, 965)
        wide, high = rng.uniform(14, 26), rng.uniform(9, 16)
        wall = (np.abs(x - hx) < wide) & (np.abs(y - hy) < high)
        roof = (y < hy - high) & (y > hy - 2.1 * high + np.abs(x - hx) * high / wide)
        reference = mix(reference, ramp(LAND[1:5], np.full(x.shape, rng.random())), wall * 0.95)
        reference = mix(reference, colour("5b4a52") * rng.uniform(0.5, 1.1), roof * 0.95)
        pane = (np.abs(x - hx - rng.uniform(-8, 8)) < 4.5) & (np.abs(y - hy) < 6)
        reference = mix(reference, HALO[1], pane)
        angle = np.where(wall, np.pi / 2, np.where(roof, 0.4 * np.sign(x - hx), angle))
    return reference, angle


def _cypress(sheet: Sheet, reference, angle, rng: Rng):
    """Returns the picture so far with a tree like a dark flame before it, and where it stands."""
    x, y = sheet.grid()
    flame = np.zeros_like(x)
    for cx, top, wide, sway in (
        (1085, 30, 76, 26),
        (1165, 330, 62, -20),
        (1000, 450, 56, 22),
        (1250, 600, 60, 16),
    ):
        t = np.clip((y - top) / (1060 - top), 0, 1)
        axis = cx + sway * np.sin(t * 8 + 1.5) * (1.1 - t)
        half = wide * t**0.62 * (1 + 0.26 * np.sin(t * 21 + cx))
        lick = 10 * noise(sheet, 42, rng, octaves=2, stretch=(0.7, 1.6)) * t**0.3
        inside = smoothstep(2.5, -2.5, np.abs(x - axis) + lick - half) * (y > top)
        side = (x - axis) / (half + 1)
        lean = np.pi / 2 + 0.62 * np.clip(side, -1, 1) + 0.4 * np.cos(t * 14 + cx)
        tongue = 0.5 + 0.5 * np.sin(side * 7 + 6 * np.sin(t * 9) + 1.2 * noise(sheet, 60, rng))
        shade = ramp(LEAF, 0.05 + 0.75 * tongue * (1 - 0.5 * np.abs(side)))
        reference = mix(reference, shade, inside)
        angle = np.where(inside > 0.5, lean, angle)
        flame = np.maximum(flame, inside)
    return reference, angle, flame


def _denoise(sheet: Sheet, picture: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Returns the picture smoothed along its strokes: bristles melt, edges across them stay."""
    x, y = sheet.grid()
    cos, sin = np.cos(angle), np.sin(angle)
    total = np.zeros_like(picture)
    for step in np.linspace(-7, 7, 9):
        total += sheet.sample(picture, np.stack([x + step * cos, y + step * sin], axis=-1))
    return 0.75 * total / 9 + 0.25 * picture
