"""Mosaic: a bird, a sun, a tree and the sea in glass cells with dark leading."""

from __future__ import annotations

import numpy as np

from .brushes import relief, scatter, varnish
from .fields import Rng, Sheet, blur, cells, colour, contour_angle, mix, noise, palette, smoothstep

# Length of a cell against its width.
RATIO = 1.55
LEAD = colour("14100f")
PLUMES = (
    "c4283a e2553f 8f1c3c f08a4a",
    "7a2a7c a8479a 4c1f66 d67fb0",
    "e08a28 f3b94a c4621f f9df8a",
    "1f8a8c 49b8a4 14606e a4dcb4",
)
SUN = np.array([930.0, 285.0])


class Scene:
    """Regions over each other: for every pixel which one, its lines, and its palette's scale.

    Attributes:
      region: [H, W] index of the region on top.
      flow: [H, W] field whose level lines the cells follow.
      borders: [H, W], 1 on the leading between regions.
      palettes: Each region's colours.
    """

    def __init__(self, sheet: Sheet):
        """Begins with nothing: the first region added must fill the sheet."""
        self.sheet = sheet
        self.region = np.full((sheet.height, sheet.width), -1)
        self.flow = np.zeros(self.region.shape, np.float32)
        self.borders = np.zeros(self.region.shape, np.float32)
        self.palettes: list[np.ndarray] = []

    def add(self, depth: np.ndarray, flow: np.ndarray, codes: str, line: float = 5.0) -> None:
        """Lays a region where `depth` (distance inside its border) is positive."""
        inside = depth > 0
        self.region[inside] = len(self.palettes)
        self.flow = np.where(inside, flow, self.flow).astype(np.float32)
        right, down = np.gradient(depth)
        steep = np.hypot(right, down) * self.sheet.unit + 1e-4
        edge = smoothstep(line / 2 + 1.2, line / 2 - 0.8, np.abs(depth) / steep)
        self.borders = np.maximum(self.borders * ~inside, edge)
        self.palettes.append(palette(codes))


def paint_mosaic(size: int, rng: Rng) -> np.ndarray:
    """Returns the picture, uint8 [H, W, 3], its long side `size` pixels."""
    sheet = Sheet.of(size)
    x, y = sheet.grid()
    scene = _compose(sheet, rng)
    angle = contour_angle(blur(scene.flow, 1.5 * sheet.unit))
    pitch = 23.0
    seeds = _settle(size, scatter(sheet, pitch, rng), angle, sheet)
    owner, gap = cells(sheet, seeds, sheet.sample(angle, seeds), RATIO, 4)
    shade = _glass(scene, seeds, owner, rng)
    # Each cell tilts its own way, so that the glass catches the light piece by piece.
    tilt = rng.normal(0, 1, (len(seeds), 2))[owner]
    local = (x - seeds[owner, 0]) * tilt[..., 0] + (y - seeds[owner, 1]) * tilt[..., 1]
    shade = shade * (1 + 0.13 * np.clip(local / pitch, -2, 2))[..., None]
    streak = noise(sheet, 14, rng, octaves=3, gain=0.7)
    shade = shade * (1 + 0.07 * streak)[..., None]
    glow = smoothstep(0, 10, gap)
    shade = shade * (0.72 + 0.36 * glow)[..., None]
    seams = gap + 0.8 * noise(sheet, 16, rng, octaves=2)
    lead = np.maximum(smoothstep(3.4, 1.6, seams), scene.borders)
    bubbles = smoothstep(2.0, 2.5, noise(sheet, 4.5, rng)) * (1 - lead)
    shade = mix(shade, np.minimum(shade * 1.5 + 0.12, 1), 0.6 * bubbles)
    picture = mix(shade, LEAD, 0.94 * lead)
    # Glass bulges within its leading, and the leading itself is a round bead.
    height = 0.55 * smoothstep(0, 9, gap) + 0.10 * streak + 0.45 * blur(lead, 1.6 * sheet.unit)
    height = height + 0.06 * noise(sheet, 3, rng, octaves=2)
    picture = relief(picture, height, depth=0.75, gloss=0.8, soften=0.8 * sheet.unit)
    shine = smoothstep(0.55, 1.0, glow) * smoothstep(0.25, 0.5, -local / pitch) * (1 - lead)
    picture = picture + 0.10 * shine[..., None]
    return varnish(picture, contrast=0.4, saturation=1.15)


def _settle(size: int, seeds: np.ndarray, angle: np.ndarray, sheet: Sheet) -> np.ndarray:
    """Returns the seeds after a few rounds of moving to their cells' middles, on a small sheet."""
    small = Sheet.of(min(size, 420))
    x, y = small.grid()
    for _ in range(4):
        owner, _ = cells(small, seeds, sheet.sample(angle, seeds), RATIO, 4)
        flat = owner.ravel()
        count = np.bincount(flat, minlength=len(seeds))
        total = [np.bincount(flat, part.ravel(), minlength=len(seeds)) for part in (x, y)]
        middle = np.stack(total, axis=-1) / np.maximum(count, 1)[:, None]
        seeds = np.where(count[:, None] > 0, middle, seeds)
    return seeds


def _glass(scene: Scene, seeds: np.ndarray, owner: np.ndarray, rng: Rng) -> np.ndarray:
    """Returns every pixel's glass: its region's colours in rows, each cell a little apart."""
    sheet = scene.sheet
    row = sheet.sample(scene.flow, seeds) / 40 + rng.normal(0, 0.22, len(seeds))
    odd = rng.random(len(seeds))
    jitter = rng.normal(0, 0.055, (len(seeds), 1)) + rng.normal(0, 0.03, (len(seeds), 3))
    shade = np.zeros((*owner.shape, 3), np.float32)
    for index, colours in enumerate(scene.palettes):
        pick = np.floor(row).astype(int) % len(colours)
        pick = np.where(odd < 0.16, rng.integers(0, len(colours), len(seeds)), pick)
        glass = colours[pick] * (1 + jitter * 2.2)
        part = scene.region == index
        shade[part] = glass[owner[part]]
    return np.clip(shade, 0.02, 1)


def _compose(sheet: Sheet, rng: Rng) -> Scene:
    """Returns the scene, from the sky to the bird."""
    x, y = sheet.grid()
    scene = Scene(sheet)
    warp = noise(sheet, 260, rng, octaves=2)
    sun = np.hypot(x - SUN[0], y - SUN[1])
    everywhere = np.full_like(x, 9.0)
    scene.add(everywhere, sun + 16 * warp, "2b5f9e 3f86b5 6fb0c4 24478a 9cc7c4 356fa6 e2c98f")
    around = np.arctan2(y - SUN[1], x - SUN[0])
    for reach, count, codes in (
        (400, 9, "7fb7c8 a9cfc4 5d9cc0 d3dcc0"),
        (300, 13, "e0652a c83c2c f08a34 d9482a"),
        (215, 18, "f2a531 f6c84f e8772a f4b23f"),
    ):
        bent = around + 0.0016 * sun
        rays = reach * (0.74 + 0.26 * np.sin(bent * count) ** 2) + 4 * warp - sun
        scene.add(rays, sun, codes)
    scene.add(128 - sun, sun, "f8d35e f3b43a fbe7a0 f0a028")
    scene.add(58 - sun, sun, "fdf0bd f9d873 f6e4a4")
    _hills(scene, x, y, warp)
    _tree(scene, x, y, warp)
    _sea(scene, x, y, warp)
    _bird(scene, x, y, warp)
    return scene


def _hills(scene: Scene, x, y, warp) -> None:
    for base, high, long, shift, codes in (
        (600, 70, 300, 0.4, "5a7f4a 7fa05a 3f6b4a a9b85e 4d8460"),
        (690, 60, 210, 2.1, "8a3b2e b5533a 6f2d33 c9763f 93453a"),
        (770, 44, 260, 4.2, "2f6b52 4f9160 24524d 86ab5c 377a63"),
    ):
        crest = base + high * np.sin(x / long + shift) + 10 * warp
        scene.add(y - crest, y - crest, codes)


def _tree(scene: Scene, x, y, warp) -> None:
    trunk = 215 + 34 * np.sin(y / 120 + 0.5) + 0.00016 * (y - 620) ** 2
    half = 34 + 0.00035 * (y - 560) ** 2
    scene.add(
        half - np.abs(x - trunk) - 400 * (y < 330),
        (x - trunk) * 1.2,
        "5b2f24 8a4b2c 3f2026 a9683a 6e3a2a",
    )
    crowns = [
        (90, 260, 118), (250, 150, 132), (345, 300, 104), (140, 410, 92), (60, 110, 88),
        (330, 430, 72), (215, 300, 96),
    ]  # fmt: skip
    codes = ("2f7d4f 57a35a 1f5c4a 9cc25a 3b8f63", "4f8f3a 86b548 2f6b3f c9cf5a 6aa04a")
    for k, (cx, cy, radius) in enumerate(crowns):
        away = np.hypot(x - cx, y - cy) + 5 * warp
        scene.add(radius - away, away, codes[k % 2])
    for k in range(14):
        cx, cy, radius = crowns[k % len(crowns)]
        turn = 2.4 * k + 0.7
        fx, fy = cx + 0.55 * radius * np.cos(turn), cy + 0.55 * radius * np.sin(turn)
        away = np.hypot(x - fx, y - fy)
        scene.add(20 - away, away, "c8202f e2483a a3162f f07a3c", line=4)


def _sea(scene: Scene, x, y, warp) -> None:
    for k, codes in enumerate(
        (
            "1f5f86 2f86a0 174a78 62b0b0 dfe6c8",
            "16406f 2a6c9a 0f2f5c 4a9cb4 d6e2cf",
            "0f2f5c 1f5a8c 2d7fa5 143d70",
        )
    ):
        swell = np.abs(np.sin(x / 92 + 1.3 * k))
        crest = 850 + 62 * k - 40 * swell + 8 * warp
        scene.add(y - crest, y - crest + 10 * swell, codes)


def _bird(scene: Scene, x, y, warp) -> None:
    # Tail: long bent plumes that fall to the right.
    for k in range(6):
        t = np.clip((x - 690) / 520, 0, 1)
        middle = 640 + (k - 2.2) * (14 + 74 * t) + 120 * t**2 - 60 * np.sin(2.6 * t)
        here = (x > 640) * smoothstep(1.0, 0.93, (x - 690) / 520)
        half = (16 + 22 * t) * here - 14 * (1 - here)
        codes = PLUMES[k % len(PLUMES)]
        scene.add(half - np.abs(y - middle), (y - middle) * 1.1, codes, line=4.5)
        tip = np.hypot(x - 1175, y - np.interp(1.0, [0, 1], [0, 640 + (k - 2.2) * 88 + 120 - 31]))
        scene.add(31 - tip, tip, "f6d765 2c3f8c f2ead0 1b7f86", line=4)
    # The far wing: two fans of plumes from the shoulder.
    _fan(scene, x, y, (640, 600, 400), np.linspace(-1.95, -0.35, 9), "c4283a e2553f f08a4a 8f1c3c")
    _fan(scene, x, y, (640, 600, 285), np.linspace(-1.85, -0.25, 8), "e08a28 f3b94a f9df8a c4621f")
    # Body, neck and head along a bent spine.
    spine = [(740, 660, 66), (690, 650, 98), (630, 620, 112), (575, 570, 100), (535, 505, 74),
             (512, 440, 54), (500, 385, 50)]  # fmt: skip
    body = np.full_like(x, -1e3)
    for cx, cy, radius in spine:
        body = np.maximum(body, radius - np.hypot(x - cx, y - cy))
    body = blur(body, 8 * scene.sheet.unit) + 2 * warp
    scene.add(body, body + 0.3 * x, "f2ead0 e6c98a d9dfd0 f7d68a c9b8c8 efe0b8", line=6)
    beak = np.minimum(34 - 0.36 * (490 - x) - np.abs(y - 385 - 0.10 * (490 - x)) * 1.6, 476 - x)
    scene.add(beak, y - 385, "f0a028 d9701f f6c84f", line=4.5)
    eye = np.hypot(x - 492, y - 372)
    scene.add(15 - eye, eye, "f8ecc0 c8202f", line=4)
    scene.add(6.5 - eye, eye, "15131a", line=2)
    # The near wing lies folded on the body.
    _fan(scene, x, y, (560, 545, 330), np.linspace(-0.32, 0.62, 6), "c4283a e8773a 8f1c3c f3b94a")
    _fan(scene, x, y, (555, 545, 215), np.linspace(-0.42, 0.85, 6), "1f6f9c 3aa0b4 8fd0c4 174f86")
    _fan(scene, x, y, (550, 545, 115), np.linspace(-0.5, 1.05, 5), "7a2a7c a8479a 4c1f66 d67fb0")


def _fan(scene: Scene, x, y, shoulder, turns: np.ndarray, codes: str) -> None:
    """Adds bent blades that spread from a shoulder (x, y, reach)."""
    left, top, reach = shoulder
    for turn in turns:
        dx, dy = x - left, y - top
        along = dx * np.cos(turn) + dy * np.sin(turn)
        across = dy * np.cos(turn) - dx * np.sin(turn) - 0.0004 * along**2
        t = np.clip(along / reach, 0, 1)
        half = reach * 0.125 * np.sqrt(np.clip(t * 1.6, 0, 1) * np.clip(9 * (1 - t), 0, 1))
        blade = (along > 0) & (along < reach)
        depth = np.where(blade, half - np.abs(across), -np.abs(across) - 5)
        scene.add(depth, across * 1.3 + 0.25 * along, codes, line=5)
