"""Udnie: a dance of curved planes in warm greys, rust, cream and dark blue."""

from __future__ import annotations

from functools import partial

import numpy as np

from .brushes import Canvas, relief, varnish, weave
from .fields import Rng, Sheet, blur, colour, contour_angle, mix, noise, palette, smoothstep
from .planes import Collage

DARK = colour("14131c")
# Each row: a plane's colour at its leading side, and away from it.
TONES = np.stack(
    [
        palette(
            "2a2a33 1a2340 5a5753 84402a f2e6cb 33302e 1f2f55 9f5834 e8d2a6 6e2c1c 8d877e 16161d"
        ),
        palette(
            "a59a8b 6d7f99 d6c9b2 c99468 b9a78c 94897c 93a2ad dcbc8f a8744e b98860 e6dcc8 5a5f70"
        ),
    ],
    axis=1,
)
WEIGHTS = np.array([12, 11, 9, 10, 12, 9, 7, 8, 8, 6, 8, 8], np.float64)
# The dancers' joints, which the planes turn about, along a rising diagonal.
HUBS = [
    (270, 760),
    (420, 560),
    (600, 640),
    (650, 380),
    (830, 500),
    (960, 260),
    (1080, 620),
    (230, 300),
]


def paint_udnie(size: int, rng: Rng) -> np.ndarray:
    """Returns the picture, uint8 [H, W, 3], its long side `size` pixels."""
    sheet = Sheet.of(size)
    collage = _planes(sheet, rng)
    reference, angle = collage.picture, collage.angle
    canvas = Canvas(sheet, reference)
    stroke = partial(canvas.cover, reference, angle, rng, chroma=0.12, streak=0.035)
    stroke(spacing=12, length=90, width=15, jitter=0.02, stop=0.14)
    stroke(spacing=10, length=60, width=8, jitter=0.03, stop=0.1, ragged=0.5, taper=0.3)
    near = np.clip(0.1 + 3 * blur(collage.edges, 4 * sheet.unit), 0, 1)
    stroke(spacing=4, length=24, width=3.4, jitter=0.03, stop=0.1, where=near)
    picture, height = canvas.read()
    picture = mix(picture, reference, 0.4)
    worn = smoothstep(-1.4, 0.2, noise(sheet, 8, rng, octaves=3))
    picture = mix(picture, DARK, 0.5 * collage.edges * worn)
    # Dry brush over the weave: lights catch on the canvas, darks stay in its pits.
    linen = weave(sheet, rng)
    dry = smoothstep(0.2, 1.4, noise(sheet, 60, rng, octaves=4, gain=0.7))
    picture = picture + (0.03 * linen * (0.4 + dry))[..., None]
    picture = picture * (1 + 0.05 * noise(sheet, 28, rng, octaves=4, gain=0.8))[..., None]
    height = height + 0.04 * linen
    return varnish(
        relief(picture, height, depth=0.8, gloss=0.2), contrast=0.4, saturation=1.15, warmth=0.02
    )


def _planes(sheet: Sheet, rng: Rng) -> Collage:
    """Returns blades and petals, the large ones below, that wheel about the joints."""
    base = noise(sheet, 480, rng, octaves=3)
    ground = mix(colour("4e4a47"), colour("c4b394"), smoothstep(-1.2, 1.2, base))
    collage = Collage(sheet, ground, contour_angle(blur(base, 4 * sheet.unit)), rng, waver=1.8)
    total = 260
    for k in range(total):
        scale = 0.42 + 2.1 * (1 - k / total) ** 2.2
        hub = np.array(HUBS[int(rng.integers(len(HUBS)))]) + rng.normal(0, 55, 2)
        if k < 60 or k % 5 == 0:
            hub = rng.uniform(0, 1, 2) * sheet.extent
        # A blade: from the joint outwards, turning, with its sides bowed the same way.
        aim = rng.uniform(0, 2 * np.pi)
        reach = scale * rng.uniform(140, 400)
        spread = scale * rng.uniform(35, 150)
        out, side = np.array([np.cos(aim), np.sin(aim)]), np.array([-np.sin(aim), np.cos(aim)])
        root = hub + out * reach * rng.uniform(-0.15, 0.2)
        tip = hub + out * reach
        corners = [
            root - side * spread * rng.uniform(0.05, 0.5),
            tip - side * spread * rng.uniform(0.0, 0.9),
        ]
        if rng.random() < 0.7:
            corners.append(
                tip + side * spread * rng.uniform(0.2, 1.0) - out * reach * rng.uniform(0, 0.3)
            )
        corners.append(root + side * spread * rng.uniform(0.2, 0.8))
        corners = np.array(corners)
        bow = rng.uniform(0.05, 0.34) * rng.choice([-1, 1])
        bulges = rng.uniform(-0.06, 0.22, len(corners))
        bulges[0], bulges[-2] = bow, -0.8 * bow
        lead = int(rng.choice([0, 0, len(corners) - 2, 1]))
        plane = collage.cut(corners, bulges, lead)
        near, far = TONES[rng.choice(len(TONES), p=WEIGHTS / WEIGHTS.sum())]
        fade = scale * rng.uniform(30, 100)
        collage.lay(plane, near, far, fade, DARK, veil=rng.uniform(0.12, 0.6))
    return collage
