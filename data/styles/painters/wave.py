"""Wave: an ink print of breaking waves on cream paper, in indigo and Prussian blue."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .brushes import Canvas, relief, varnish
from .fields import Rng, Sheet, blur, colour, mix, noise, palette, ramp, slope, smoothstep

INK = colour("17244a")
PAPER = colour("efe3c6")
FOAM = colour("f6eed9")
BLUES = palette("1f3a6b 2f5b92 4a80ab 86adc0 c3d3cd")
SKY = palette("e9dcba d3bf98 f1e7cd b9bfae ddcda6 efe2c2 c9b48d 9fb0ae")

# A breaking wave, as its back from the foot over the crest to the tip, and its hollow face from
# the same foot to the same tip; unit box, y downwards, breaking to the right.
BACK = [
    (-0.55, 1.05),
    (-0.22, 0.78),
    (0.02, 0.38),
    (0.27, 0.07),
    (0.56, 0.0),
    (0.82, 0.12),
    (0.97, 0.34),
]
FACE = [
    (0.95, 1.08),
    (0.62, 0.95),
    (0.43, 0.74),
    (0.40, 0.50),
    (0.52, 0.30),
    (0.72, 0.24),
    (0.97, 0.34),
]


def paint_wave(size: int, rng: Rng) -> np.ndarray:
    """Returns the picture, uint8 [H, W, 3], its long side `size` pixels."""
    sheet = Sheet.of(size)
    canvas = Canvas(sheet, _sky(sheet, rng))
    _swell(canvas, 640, 26, 320, rng, pale=0.6)
    _breaker(canvas, (640, 330), (560, 520), rng, bands=14, flip=True)
    _swell(canvas, 760, 40, 420, rng, pale=0.3)
    _breaker(canvas, (60, 60), (850, 800), rng, bands=23, flip=False)
    _swell(canvas, 905, 52, 520, rng, pale=0.0)
    _breaker(canvas, (840, 640), (520, 430), rng, bands=12, flip=True)
    _swell(canvas, 985, 40, 460, rng, pale=0.1)
    picture, _ = canvas.read()
    return _press(sheet, picture, rng)


def curve(points, count: int) -> np.ndarray:
    """Returns a smooth line [count, 2] through points: Catmull-Rom, evenly stepped."""
    p = np.array(points, np.float64)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.linspace(0, 1, 40, endpoint=False)[:, None]
    parts = [
        b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * b - 3 * c + d - a)))
        for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True)
    ]  # fmt: skip
    line = np.concatenate([*parts, p[-2:-1]])
    run = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=-1))])
    even = np.linspace(0, run[-1], count)
    return np.stack([np.interp(even, run, line[:, k]) for k in (0, 1)], axis=-1)


def _sky(sheet: Sheet, rng: Rng) -> np.ndarray:
    """Returns a printed sky: streaming bands of mist with ink contours, and a pale ringed moon."""
    x, y = sheet.grid()
    stream = y / 30 + 1.9 * noise(sheet, 380, rng, octaves=2, stretch=(1.5, 0.8))
    stream += 0.5 * noise(sheet, 120, rng, octaves=2, stretch=(2.2, 0.8))
    # Around the moon the mist turns into rings.
    away = np.hypot(x - 985, y - 262) + 4 * noise(sheet, 120, rng, octaves=2)
    near = smoothstep(330, 120, away)
    stream = stream * (1 - near) + (away / 19 - 2) * near
    index = np.floor(stream).astype(int)
    share = stream - index
    tone = SKY[(index * 5) % len(SKY)]
    shade = mix(tone, SKY[(index * 5 + 2) % len(SKY)], 0.8 * share**2)
    right, down = slope(stream)
    reach = np.minimum(share, 1 - share) / (np.hypot(right, down) * sheet.unit + 1e-4)
    press = 1.5 + 0.7 * noise(sheet, 90, rng, octaves=3)
    shade = mix(shade, INK, 0.75 * smoothstep(press + 0.8, press - 0.8, reach))
    # Between two contours runs a thinner one.
    half = np.abs(share - 0.5) / (np.hypot(right, down) * sheet.unit + 1e-4)
    shade = mix(shade, INK, 0.4 * smoothstep(press * 0.5 + 0.6, press * 0.5 - 0.6, half))
    moon = smoothstep(87, 84, away)
    shade = mix(shade, ramp(palette("f7e6b8 dfae6c"), (y - 170) / 190), moon)
    return mix(shade, INK, 0.85 * smoothstep(3.4, 1.6, np.abs(away - 86)))


def _band(canvas: Canvas, first: np.ndarray, second: np.ndarray, dark, light, rng: Rng) -> None:
    """Fills the strip between two lines in slices that fade from dark to light."""
    edge = np.linspace(0, 1, 5)
    for low, high in pairwise(edge):
        a = first * (1 - low) + second * low
        b = first * (1 - high) + second * high
        shade = mix(dark, light, float(low)) + rng.normal(0, 0.012, 3)
        canvas.polygon(np.concatenate([a, b[::-1]]), shade)


def _breaker(canvas: Canvas, corner, size, rng: Rng, *, bands: int, flip: bool) -> None:
    """Draws a breaking wave: streaming bands from foot to tip, ink lines, and foam claws."""
    back, face = curve(BACK, 160), curve(FACE, 160)
    for line in (back, face):
        if flip:
            line[:, 0] = 1 - line[:, 0]
        line *= size
        line += corner
    unit = size[1] / 800
    # The bands crowd towards the hollow, as on a body seen from inside.
    share = np.linspace(0, 1, bands + 1) ** 0.85
    share[1:-1] += rng.normal(0, 0.15 / bands, bands - 1)
    wobble = rng.normal(0, 1, (bands + 1, 6))
    s = np.linspace(0, 1, 160)
    turns = np.arange(1, 7)
    waves = np.sin(np.pi * s[:, None] * turns) / turns
    lines = []
    for k, t in enumerate(share):
        line = face * (1 - t) + back * t
        ripple = waves @ wobble[k]
        inner = 0.0 if k in (0, bands) else 4.0 * unit
        lines.append(line + inner * ripple[:, None])
    tones = [BLUES[0], FOAM, BLUES[1], BLUES[3], BLUES[0], BLUES[4], BLUES[1], BLUES[2]]
    for k in range(bands):
        tone = tones[(k * 3 + 1) % len(tones)] if k < bands - 1 else BLUES[1]
        _band(canvas, lines[k], lines[k + 1], tone, mix(tone, BLUES[0], 0.22), rng)
        # Fine lines run with the water inside each band.
        for _ in range(3):
            t = rng.uniform(0.15, 0.85)
            first, last = np.sort(rng.integers(0, 160, 2))
            if last - first > 25:
                fine = (lines[k] * (1 - t) + lines[k + 1] * t)[first:last]
                swell = np.sin(np.linspace(0, np.pi, last - first)) ** 0.6
                pen = mix(INK, BLUES[1], rng.uniform(0, 0.6))
                canvas.ink(fine, (0.4 + 2.0 * swell) * (0.5 + unit / 2), pen)
    for k, line in enumerate(lines):
        weight = 4.2 if k in (0, bands) else 2.6
        canvas.ink(line, (1.0 + weight * np.sin(np.pi * s) ** 0.4) * (0.45 + 0.55 * unit), INK)
    # Foam runs down the body in forked veins.
    for _ in range(5 + bands // 2):
        k = int(rng.integers(1, bands))
        first, last = int(rng.integers(15, 70)), int(rng.integers(95, 150))
        vein = lines[k][first:last] + rng.normal(0, 5 * unit, 2)
        sway = np.sin(np.linspace(0, rng.uniform(6, 14), last - first)) * 3 * unit
        vein = vein + np.column_stack([sway, -sway])
        widths = np.linspace(0.5, 7.5, last - first) * (0.4 + 0.6 * unit)
        canvas.ink(vein, widths + 2.6, INK)
        canvas.ink(vein, widths, FOAM)
    _foam(canvas, back, face, unit, rng, -1.0 if flip else 1.0)


def _foam(canvas: Canvas, back, face, unit: float, rng: Rng, side: float) -> None:
    """Crowns a wave with foam: claws along the crest and the lip, and spray before them."""
    claws = []
    for line, low, high, count, lean in ((back, 0.40, 1.0, 30, 1.0), (face, 0.66, 1.0, 17, -1.0)):
        _ribbon(canvas, line[int(low * 159) :], 24 * unit, side * lean, rng)
        for t in np.linspace(low, high, count):
            at = t * 159 + rng.normal(0, 0.6)
            k = int(np.clip(at, 1, 157))
            along = line[k + 1] - line[k - 1]
            along /= np.linalg.norm(along)
            normal = np.array([along[1], -along[0]]) * side
            if lean < 0:
                normal = -normal
            grow = (0.55 + 0.75 * (t - low) / (high - low)) * rng.uniform(0.75, 1.25)
            heading = 0.75 * along + 0.65 * normal
            claws.append((line[k] - normal * 10 * unit, heading, grow * 84 * unit, side * lean))
    shapes = []
    for root, heading, length, bend in claws:
        shapes += _claw(root, np.arctan2(heading[1], heading[0]), length, bend, 2, rng)
    for path, width in shapes:
        canvas.ink(path, width + 4.2 * (0.4 + 0.6 * unit), INK)
    for path, width in shapes:
        canvas.ink(path, width, FOAM)
    for path, width in shapes:
        shadow = path + np.array([0.16, 0.2]) * width[:, None]
        canvas.ink(shadow[:-3], 0.22 * width[:-3], mix(BLUES[3], BLUES[4], rng.random()))
    for _ in range(110):
        line = back if rng.random() < 0.7 else face
        spot = line[int(159 * rng.uniform(0.45, 1.0))]
        spot = (
            spot + rng.normal(0, 1, 2) * (75, 55) * np.array(unit) + (side * 45 * unit, 10 * unit)
        )
        radius = rng.uniform(1.3, 5.5) * (0.4 + 0.6 * unit)
        turn = np.linspace(0, 2 * np.pi, 18)
        lump = 1 + 0.2 * np.cos(2 * turn + rng.uniform(0, 6)) + 0.1 * np.cos(3 * turn)
        ring = np.column_stack([np.cos(turn), np.sin(turn)]) * lump[:, None]
        canvas.polygon(spot + ring * (radius + 1.2), INK)
        canvas.polygon(spot + ring * radius, FOAM)


def _ribbon(canvas: Canvas, line, width: float, side: float, rng: Rng) -> None:
    """Draws the foam that the claws grow from: a ribbon with a scalloped inner edge."""
    t = np.linspace(0, 1, len(line))
    along = np.gradient(line, axis=0)
    inward = side * np.column_stack([-along[:, 1], along[:, 0]])
    inward /= np.linalg.norm(inward, axis=-1, keepdims=True) + 1e-9
    waves = np.abs(np.sin(t * len(line) / 5.5 + rng.uniform(0, 3)))
    deep = (width * np.sin(np.pi * np.clip(t, 0.04, 0.96)) ** 0.5 * (0.55 + 0.6 * waves))[:, None]
    for reach, shade in ((deep + 3, INK), (deep, mix(FOAM, BLUES[4], 0.25)), (0.6 * deep, FOAM)):
        canvas.polygon(np.concatenate([line, (line + inward * reach)[::-1]]), shade)


def _claw(root, heading: float, length: float, bend: float, depth: int, rng: Rng) -> list:
    """Returns the hooked fingers of one claw as (path, widths): a stem, then its branches."""
    t = np.linspace(0, 1, 16)
    turn = heading + bend * (0.25 * t + rng.uniform(1.3, 2.3) * t**2.2)
    step = np.column_stack([np.cos(turn), np.sin(turn)]) * length / 15
    path = root + np.cumsum(step, axis=0)
    width = 0.34 * length * (1 - t) ** 0.75 + 0.03 * length
    fingers = [(path, width)]
    if depth:
        for at in (4, 7, 10):
            where = turn[at] + bend * rng.uniform(-1.25, -0.45)
            size = length * rng.uniform(0.38, 0.6)
            fingers += _claw(path[at], where, size, bend, depth - 1, rng)
    return fingers


def _swell(
    canvas: Canvas, level: float, high: float, long: float, rng: Rng, *, pale: float
) -> None:
    """Draws a rolling sea up to a level: bands in parallel to its crest line, down to the foot."""
    x = np.linspace(-40, canvas.sheet.extent[0] + 40, 220)
    phase = rng.uniform(0, 2 * np.pi, 3)
    crest = level + high * (
        np.sin(2 * np.pi * x / long + phase[0]) * 0.7
        + 0.4 * np.abs(np.sin(np.pi * x / (0.43 * long) + phase[1]))
        + 0.2 * np.sin(2 * np.pi * x / (0.21 * long) + phase[2])
    )
    count = 15
    depth = np.cumsum(rng.uniform(0.5, 1.6, count + 1)) * high * 0.36
    lines = []
    for k in range(count + 1):
        calm = np.exp(-k / 6)
        drift = rng.normal(0, 2.5) * np.sin(x / 60 + rng.uniform(0, 6))
        y = level + (crest - level) * calm + depth[k] + drift
        lines.append(np.column_stack([x, y]))
    lines.append(np.column_stack([x, np.full_like(x, canvas.sheet.extent[1] + 40)]))
    tones = [FOAM, BLUES[2], BLUES[0], BLUES[3], BLUES[1], BLUES[4], BLUES[0], BLUES[1]]
    for k in range(count + 1):
        tone = mix(tones[k % len(tones)], BLUES[4], pale * 0.6)
        _band(canvas, lines[k], lines[k + 1], tone, mix(tone, BLUES[0], 0.25 * (1 - pale)), rng)
    for k, line in enumerate(lines[:-1]):
        press = 0.6 + 0.4 * np.sin(x / 45 + k)
        canvas.ink(line, (3.4 if k == 0 else 1.9) * press, mix(INK, BLUES[2], pale * 0.5))
        for _ in range(16):
            first = rng.integers(0, 200)
            last = min(219, first + rng.integers(8, 24))
            t = rng.random()
            fine = (lines[k] * (1 - t) + lines[k + 1] * t)[first:last]
            if len(fine) > 4 and k < count:
                swell = np.sin(np.linspace(0, np.pi, len(fine)))
                tone = FOAM if rng.random() < 0.35 else INK
                canvas.ink(fine, 0.4 + 1.8 * swell, mix(tone, BLUES[2], pale * 0.5))


def _press(sheet: Sheet, picture: np.ndarray, rng: Rng) -> np.ndarray:
    """Returns the drawing as printed: wood grain in the colour, ink wear, paper fibres."""
    x, y = sheet.grid()
    rings = y + 16 * noise(sheet, 420, rng, octaves=3) + 10 * noise(sheet, 700, rng)
    grain = np.sin(rings / 1.9 + 1.5 * noise(sheet, 200, rng)) * 0.6
    grain += noise(sheet, 5, rng, octaves=2, stretch=(14, 0.7))
    grey = picture @ np.array([0.3, 0.59, 0.11], np.float32)
    darkness = 1 - grey
    picture = picture + (0.030 * grain * (0.35 + darkness))[..., None]
    # Colour blocks take the ink unevenly: mottled where the pad was dry.
    mottle = noise(sheet, 34, rng, octaves=5, gain=0.75)
    picture = picture + (0.035 * mottle * (0.4 + darkness))[..., None] * (1.0, 0.95, 0.8)
    dry = smoothstep(1.3, 2.4, noise(sheet, 7, rng, octaves=3, gain=0.8, stretch=(2.5, 1)))
    picture = mix(picture, PAPER, 0.4 * dry * darkness)
    picture = picture * mix(PAPER, np.ones(3, np.float32), 0.72)
    fibres = noise(sheet, 2.6, rng, octaves=2, gain=0.9)
    cloth = noise(sheet, 9, rng, octaves=2, stretch=(3, 0.6))
    height = 0.05 * fibres + 0.03 * cloth + 0.06 * blur(darkness, 1.2 * sheet.unit)
    picture = relief(picture, height, depth=0.9, gloss=0.0)
    vignette = smoothstep(0.55, 1.1, np.hypot(x / sheet.extent[0] - 0.5, y / sheet.extent[1] - 0.5))
    picture = mix(picture, picture * colour("cdb487"), 0.6 * vignette)
    return varnish(picture, contrast=0.05, saturation=1.05, warmth=0.015)
