"""Planes: translucent pieces with straight or curved sides, laid over each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .fields import Rng, Sheet, contour_angle, mix, noise, smoothstep


@dataclass(frozen=True)
class Plane:
    """One piece: where on the sheet it lies, and distances from its sides, positive inside."""

    part: tuple[slice, slice]
    depth: np.ndarray
    lead: np.ndarray


class Collage:
    """Planes over a ground: the colours, the directions of the brush and the contours so far.

    Attributes:
      picture: [H, W, 3] in 0..1.
      angle: [H, W] in radians.
      edges: [H, W], 1 on a contour.
    """

    def __init__(
        self,
        sheet: Sheet,
        ground: np.ndarray,
        angle: np.ndarray,
        rng: Rng,
        waver: float,
    ):
        """Begins on a ground; `waver` is how far a hand strays from a side it draws."""
        self.sheet = sheet
        self.picture = ground.astype(np.float32)
        self.angle = angle
        self.edges = np.zeros(angle.shape, np.float32)
        self._grid = sheet.grid()
        # A few sheets of noise serve all planes in turn.
        self._wavers = [waver * noise(sheet, 150, rng, octaves=2) for _ in range(5)]
        self._presses = [smoothstep(-0.9, 0.7, noise(sheet, 110, rng)) for _ in range(5)]
        self._turn = 0

    def cut(self, corners: np.ndarray, bulges: np.ndarray, lead: int) -> Plane:
        """Returns the plane between corners [M, 2], given in turning order.

        Each side bulges out by its share of its length, and its distance is taken along the
        side's normal; `lead` is the side that the plane will be shaded from.
        """
        following = np.roll(corners, -1, axis=0)
        lengths = np.linalg.norm(following - corners, axis=-1) + 1e-6
        margin = 30 + float(np.max(np.clip(bulges, 0, None) * lengths))
        low = np.floor((corners.min(0) - margin) * self.sheet.unit).astype(int)
        high = np.ceil((corners.max(0) + margin) * self.sheet.unit).astype(int)
        part = (
            slice(max(low[1], 0), max(high[1], 0)),
            slice(max(low[0], 0), max(high[0], 0)),
        )
        x, y = (axis[part] for axis in self._grid)
        self._turn += 1
        waver = self._wavers[self._turn % len(self._wavers)][part]
        sides = []
        for a, b, length, bulge in zip(corners, following, lengths, bulges, strict=True):
            ux, uy = (b - a) / length
            along = ((x - a[0]) * ux + (y - a[1]) * uy) / length
            across = (y - a[1]) * ux - (x - a[0]) * uy
            bow = 4 * np.clip(along, -0.3, 1.3) * (1 - np.clip(along, -0.3, 1.3))
            sides.append(across + bulge * length * bow + waver)
        return Plane(part, np.min(sides, axis=0), sides[lead])

    def lay(
        self,
        plane: Plane,
        near: np.ndarray,
        far: np.ndarray,
        fade: float,
        ink: np.ndarray,
        *,
        veil: float = 0.2,
        follow: bool = True,
        contour: float = 0.75,
        tilt: float = 0.0,
    ) -> None:
        """Lays a plane down.

        Args:
          plane: The plane.
          near: [3] its colour at its leading side.
          far: [3] its colour away from it.
          fade: Distance over which it thins out and goes from `near` to `far`.
          ink: [3] colour of its shadow and contour.
          veil: How much of the plane covers what lies below, far from the leading side.
          follow: Whether brush strokes run along the leading side, else along `tilt`.
          contour: Strength of the contour.
          tilt: Direction of the brush strokes in radians.
        """
        part, depth, lead = plane.part, plane.depth, plane.lead
        if not depth.size or min(depth.shape) < 2:
            return
        inside = smoothstep(-1.0, 1.0, depth)
        strength = np.exp(-np.clip(lead, 0, None) / fade)
        shade = mix(far, near, strength)
        cover = inside * (veil + (0.95 - veil) * strength)
        picture = mix(self.picture[part], shade, cover)
        shadow = np.exp(-np.clip(-depth, 0, None) / 9) * (depth < 0)
        picture = mix(picture, ink, 0.3 * shadow * smoothstep(40, 0, np.abs(lead)))
        press = self._presses[self._turn % len(self._presses)][part]
        line = smoothstep(2.6, 0.9, np.abs(depth)) * press * contour
        self.picture[part] = mix(picture, ink, line)
        self.edges[part] = np.maximum(self.edges[part] * (1 - 0.7 * cover), line)
        turn = contour_angle(lead) if follow else np.full_like(depth, tilt)
        self.angle[part] = np.where(cover > 0.35, turn, self.angle[part])
