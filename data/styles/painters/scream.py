"""Scream: undulating bands of burning sky over blue-green land, and a bridge's diagonal."""

from __future__ import annotations

from functools import partial

import numpy as np

from .brushes import Canvas, relief, varnish, weave
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

FIRE = palette(
    "c8391b f08a24 a8261a f6b544 dd5a1e f3d27a b5321f e97a20 c9d0a0 d4461c f2a03a 8fb0a0"
)
FJORD = palette("12233f 1d4a5e 27657a 0f1c33 3b7f86 6a9a8c 1a3550 8aa98a 20506b 142b46")
PLANK = palette("5b2c1d 8a4a28 b8743c 3d2330 9c6a4a 6d3b2a c9925a 45505f")
DARK = colour("131427")


def paint_scream(size: int, rng: Rng) -> np.ndarray:
    """Returns the picture, uint8 [H, W, 3], its long side (it stands upright) `size` pixels."""
    sheet = Sheet.of(size, portrait=True)
    reference, angle = _sky(sheet, rng)
    reference, angle = _fjord(sheet, reference, angle, rng)
    reference, angle, deck = _bridge(sheet, reference, angle, rng)
    canvas = Canvas(sheet, reference * 0.8)
    _paint(canvas, reference, angle, 1.0 - 0.35 * deck, rng)
    _rails(canvas, rng)
    reference, angle, figures = _walkers(sheet, canvas.read()[0], angle, rng)
    _paint(canvas, reference, angle, figures, rng)
    canvas.cover(
        reference, angle, rng, spacing=6, length=60, width=3.4, jitter=0.05, stop=0.2,
        where=figures, confine=True, ragged=0.4, taper=0.6,
    )  # fmt: skip
    picture, height = canvas.read()
    # Thin paint on board: the weave shows where strokes are sparse, some crayon lies on top.
    grain = noise(sheet, 2.4, rng, octaves=2, gain=0.8)
    picture = picture + (0.022 * grain)[..., None]
    height = height + 0.03 * weave(sheet, rng) + 0.015 * grain
    return varnish(relief(picture, height, depth=0.9, gloss=0.25), contrast=0.3, saturation=1.1)


def _paint(canvas: Canvas, reference, angle, where, rng: Rng) -> None:
    """Covers a part of the board with three layers of ever finer sinuous strokes."""
    stroke = partial(
        canvas.cover, reference, angle, rng, steps=15, streak=0.06, where=where, confine=True
    )
    stroke(spacing=14, length=190, width=15, jitter=0.05, stop=0.4)
    stroke(spacing=11, length=160, width=8, jitter=0.06, stop=0.36, ragged=0.4, taper=0.5)
    stroke(
        spacing=9.5,
        length=110,
        width=4.5,
        jitter=0.08,
        stop=0.3,
        ragged=0.5,
        taper=0.7,
        body=(0.5, 1.0),
    )


def _bands(field: np.ndarray, colours: np.ndarray, soft: float) -> np.ndarray:
    """Returns colours in bands along a field, one per unit, softened where they meet."""
    index = np.floor(field).astype(int)
    share = smoothstep(1 - soft, 1, field - index)
    return mix(colours[index % len(colours)], colours[(index + 1) % len(colours)], share)


def _sky(sheet: Sheet, rng: Rng):
    """Returns the sky's colours and directions: long horizontal waves."""
    x, y = sheet.grid()
    sway = 34 * np.sin(x / 165 + 0.9 + y / 260) + 20 * np.sin(x / 83 + y / 110 + 2.0)
    sway += 26 * noise(sheet, 420, rng, octaves=2, stretch=(1.0, 0.7))
    field = (y + sway * (0.45 + y / 520)) / 19
    field = field + 0.8 * noise(sheet, 240, rng, octaves=2, stretch=(2.0, 0.5))
    shade = _bands(field, FIRE, 0.5)
    glow = smoothstep(300, 470, y + sway)
    shade = mix(shade, colour("f3c35a"), 0.35 * glow)
    return shade, contour_angle(blur(field, 2 * sheet.unit))


def _fjord(sheet: Sheet, reference, angle, rng: Rng):
    """Returns the picture so far with swirling water and land before it."""
    x, y = sheet.grid()
    shore = 520 - 46 * np.sin(x / 210 + 0.4) - 26 * smoothstep(560, 1024, x) * np.sin(x / 60)
    inside = smoothstep(-2, 2, y - shore + 5 * noise(sheet, 60, rng, octaves=2))
    # A great eddy of water in the middle, and land rising like a wave at the right.
    dx, dy = x - 560, (y - 690) * 1.7
    eddy = (
        np.hypot(dx, dy)
        + 30 * noise(sheet, 260, rng, octaves=2)
        + 26 * np.sin(2 * np.arctan2(dy, dx) + 1)
    )
    water = eddy / 17
    dx, dy = x - 1190, y - 820
    land = np.hypot(dx * 0.85, dy) + 30 * noise(sheet, 200, rng, octaves=2)
    land += 32 * np.sin(3 * np.arctan2(dy, dx) + land / 110)
    rising = smoothstep(470, 430, land)
    field = np.where(rising > 0.5, land / 15, water)
    shade = mix(_bands(water, FJORD, 0.6), _bands(land / 15 + 3, FJORD[::-1], 0.6), rising)
    lit = (
        smoothstep(0.5, 1.0, np.sin(water * 1.1)) * np.exp(-(((y - 590) / 70) ** 2)) * (1 - rising)
    )
    shade = mix(shade, colour("eab65c"), 0.75 * lit)
    rim = smoothstep(9, 3, np.abs(land - 450)) * inside
    shade = mix(shade, DARK, 0.8 * rim)
    edge = np.abs(y - shore)
    shade = mix(shade, DARK, 0.7 * smoothstep(12, 4, edge))
    turn = np.where(inside > 0.5, contour_angle(blur(field, 2 * sheet.unit)), angle)
    turn = np.where(edge < 14, contour_angle(y - shore), turn)
    turn = np.where((np.abs(land - 450) < 12) & (inside > 0.5), contour_angle(land), turn)
    return mix(reference, shade, inside), turn


def _bridge(sheet: Sheet, reference, angle, rng: Rng):
    """Returns the picture so far with the bridge's deck before it, and where the deck is."""
    x, y = sheet.grid()
    # Planks run to a vanishing point at the far left.
    vx, vy = -60.0, 500.0
    heading = np.arctan2(y - vy, x - vx)
    inside = smoothstep(0.568, 0.574, heading + 0.004 * noise(sheet, 40, rng, octaves=2))
    field = heading * 21 + 0.10 * noise(sheet, 160, rng, octaves=2)
    shade = _bands(field, PLANK, 0.25) * (0.9 + 0.12 * noise(sheet, 50, rng, octaves=3))[..., None]
    share = field - np.floor(field)
    gap = smoothstep(0.09, 0.03, np.minimum(share, 1 - share))
    shade = mix(shade, DARK, 0.8 * gap)
    shade = mix(shade, FIRE[1], 0.3 * smoothstep(0.3, 1.2, noise(sheet, 150, rng, octaves=2)))
    return mix(reference, shade, inside), np.where(inside > 0.5, heading, angle), inside


def _walkers(sheet: Sheet, reference, angle, rng: Rng):
    """Returns the picture so far with swaying dark figures seen from behind, and where they are."""
    figures = np.zeros((sheet.height, sheet.width), np.float32)
    x, y = sheet.grid()
    for cx, head, foot, wide in ((665, 700, 1285, 92), (255, 555, 742, 20), (205, 560, 725, 18)):
        tall = foot - head
        t = (y - head) / tall
        axis = cx + 0.05 * tall * np.sin(t * 5.2 + 0.6) * smoothstep(0.05, 0.5, t)
        half = wide * (0.52 + 0.62 * smoothstep(0.10, 0.30, t) - 0.30 * smoothstep(0.3, 0.62, t)
                       + 0.42 * smoothstep(0.55, 1.05, t))  # fmt: skip
        body = smoothstep(3, -3, np.abs(x - axis) - half + 3 * noise(sheet, 40, rng))
        body = body * (t > 0.13) * (t < 1.02)
        side = (x - axis) / half
        fold = side * 5 + 1.6 * np.sin(t * 7) + 0.5 * noise(sheet, 90, rng, octaves=2)
        coat = _bands(fold + 20, palette("15182e 1f2f4a 0e1022 2c4a5c 231f3d 3c5a63"), 0.5)
        reference = mix(reference, coat, body)
        angle = np.where(body > 0.5, contour_angle(blur(fold, 2 * sheet.unit)), angle)
        hx, hy = (x - axis) / (0.50 * wide), (y - head - 0.07 * tall) / (0.11 * tall)
        skull = smoothstep(1.06, 0.96, np.hypot(hx, hy))
        comb = hx * 3.4 * (1 - 0.25 * hy) + 9 + 0.4 * noise(sheet, 50, rng)
        hair = _bands(comb, palette("4a2a22 8c5a34 2b1b22 a87642 5d3626 c79a5b"), 0.5)
        cheek = smoothstep(-0.15, -0.45, hx + 0.25 * hy**2) * smoothstep(-0.7, -0.3, hy)
        hair = mix(hair, colour("dcb684") * (1 - 0.25 * np.abs(hy))[..., None], cheek)
        reference = mix(reference, hair, skull)
        angle = np.where(skull > 0.5, contour_angle(comb), angle)
        figures = np.maximum(figures, np.maximum(body, skull))
        rim = smoothstep(0.16, 0.08, np.abs(np.hypot(hx, hy) - 0.97))
        rim = np.maximum(rim * (t < 0.17), body * smoothstep(7, 3, half - np.abs(x - axis)))
        reference = mix(reference, DARK, 0.75 * rim)
    return reference, angle, figures


def _rails(canvas: Canvas, rng: Rng) -> None:
    """Draws the bridge's railing: three long beams and posts, in quick straight strokes."""
    far = np.array([-60.0, 500.0])
    for slant, width in ((0.36, 17), (0.455, 11), (0.556, 20)):
        for _ in range(9):
            lean = slant + rng.normal(0, 0.0035)
            first, last = np.sort(rng.uniform(40, 1500, 2))
            if last - first < 250:
                continue
            run = np.linspace(first, last, 9)[:, None]
            path = far + run * (np.cos(lean), np.sin(lean))
            shade = PLANK[rng.integers(0, len(PLANK))] * rng.uniform(0.7, 1.15)
            size = width * (0.25 + 0.75 * last / 1400) * rng.uniform(0.35, 0.8)
            canvas.brush(path[None], np.array([size]), shade[None], rng, ragged=0.2, streak=0.08)
        edge = np.linspace(60, 1500, 30)
        for shift, tone in ((0.008, DARK), (-0.008, FIRE[5] * 0.9)):
            lean = slant + shift * (1 + 0.3 * rng.normal())
            path = far + edge[:, None] * (np.cos(lean), np.sin(lean))
            pen = (0.8 + 4.0 * edge / 1500) * (0.7 + 0.3 * np.sin(edge / 60))
            canvas.ink(path, pen * (1.0 if shift > 0 else 0.55), tone)
    for run in (230, 330, 460, 640, 880, 1210):
        top = far + run * np.array([np.cos(0.36), np.sin(0.36)])
        foot = np.array([top[0], far[1] + (top[0] - far[0]) * np.tan(0.56)])
        for _ in range(4):
            path = np.linspace(top, foot, 7) + rng.normal(0, 0.003 * run, (1, 2)) * (1, 0)
            shade = PLANK[rng.integers(0, 4)] * rng.uniform(0.6, 1.1)
            canvas.brush(path[None], np.array([0.016 * run]), shade[None], rng, streak=0.08)
