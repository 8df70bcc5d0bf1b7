"""Pictures in labelled rows on one sheet, to compare them at a glance."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fast_style.images import fit_long_side

_GAP = 12
_FONT_SIZE = 14
_LINE_HEIGHT = 18
_PAPER, _INK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet.

    Attributes:
      label: Written below it; lines end with line breaks, and long ones are wrapped.
      picture: [H, W, 3] uint8.
    """

    label: str
    picture: np.ndarray


def contact_sheet(rows: Sequence[Sequence[Cell]], *, side: int) -> np.ndarray:
    """Draws pictures in rows, each with its label below.

    Args:
      rows: At least one row of at least one cell; they need not be equally long.
      side: Pictures of a longer long side are shrunk to it, in px; smaller ones stay as they are.

    Returns:
      [H, W, 3] uint8.

    Raises:
      ValueError: If a row is empty or there is none.
    """
    if not rows or not all(rows):
        raise ValueError("expected at least one row, and at least one cell in each")
    shown = [[_fit(cell.picture, side) for cell in row] for row in rows]
    width = max(picture.shape[1] for row in shown for picture in row)
    labels = [[_wrap(cell.label, width) for cell in row] for row in rows]
    heights = [max(picture.shape[0] for picture in row) for row in shown]
    texts = [_LINE_HEIGHT * max(map(len, row)) for row in labels]
    columns = max(map(len, rows))
    sheet = Image.new(
        "RGB",
        (
            _GAP + columns * (width + _GAP),
            _GAP + sum(heights) + sum(texts) + len(rows) * 2 * _GAP,
        ),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    top = _GAP
    for pictures, lines_of, height, text in zip(shown, labels, heights, texts, strict=True):
        for column, (picture, lines) in enumerate(zip(pictures, lines_of, strict=True)):
            left = _GAP + column * (width + _GAP)
            sheet.paste(Image.fromarray(picture), (left, top))
            for number, line in enumerate(lines):
                place = (left, top + height + _GAP // 2 + number * _LINE_HEIGHT)
                draw.text(place, line, fill=_INK, font=_font())
        top += height + text + 2 * _GAP
    return np.array(sheet)


def _fit(picture: np.ndarray, side: int) -> np.ndarray:
    return fit_long_side(picture, side) if max(picture.shape[:2]) > side else picture


def _wrap(label: str, width: int) -> list[str]:
    """Breaks a label into lines that fit, between words where that is possible."""
    lines = []
    for paragraph in label.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if line and _font().getlength(longer) > width:
                lines.append(line)
                longer = word
            while len(longer) > 1 and _font().getlength(longer) > width:
                cut = next(
                    (
                        n
                        for n in range(len(longer) - 1, 1, -1)
                        if _font().getlength(longer[:n]) <= width
                    ),
                    1,
                )
                lines.append(longer[:cut])
                longer = longer[cut:]
            line = longer
        lines.append(line)
    return lines


@functools.cache
def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Pillow's own font: no file is looked for, so sheets look the same everywhere."""
    return ImageFont.load_default(_FONT_SIZE)
