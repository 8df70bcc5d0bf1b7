"""What is wrong with a styled picture, measured.

Nets that train badly, or have only begun to, leave marks that are known from all implementations:
flat or saturated pictures, a checkerboard from the layers that enlarge, dots, coloured noise, a
frame from the padding at the border. Each is measured in the styled picture; what the photo or the
style picture has of it too is no fault. That is for warnings, not for judging: measures are blind
to much that eyes see, and a mark that is told is there to be seen at four times the size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

# A net that answers every photo with one colour has lost nearly all of the photo's contrast; styles
# of few colours keep a quarter or more.
_LEAST_CONTRAST = 0.1
# Below this standard deviation, in levels, a photo itself has nothing to keep.
_PLAIN_PHOTO = 4.0
# A style of flat black and white can saturate this share of the pixel values above the photo's and
# the style's own; patches that tanh holds at its ends go far beyond.
_MOST_SATURATED = 0.25

_MOST_GRID = 7.0  # levels; nets that have seen a few hundred photos leave 4 to 6
_WINDOW = 64  # Of the spectra, in pixels: periods 2, 4 and 8 are frequencies of their own.
_PEAK = 3.0  # A line of the spectrum has so many times the power of what lies beside it.

_MOST_DOTS = 5.0  # in 10,000 pixels; nets that work leave 2
_DOT_HEIGHT = 40.0  # levels above or below what is around it
_DOT_ALONE = 0.5  # of which nothing around it has so large a part

_HUE_SCALES = (3, 7)  # pixels
_MOST_NOISE = 16.0  # levels

_MOST_FRAME = 14.0  # levels; nets that leave none reach 2 above the photo's
_FRAME_WIDTHS = (2, 4, 8, 16)  # pixels
_FRAME_PARTS = 8  # of a side, at most


@dataclass(frozen=True)
class Marks:
    """What is measured in one picture.

    Attributes:
      contrast: Standard deviation of its values, in levels, averaged over the channels.
      saturated: Share of its values at 0 or 255.
      grid: See `grid`.
      dots: See `dots`.
      colour_noise: See `colour_noise`, at each of `_HUE_SCALES`.
      frame: See `frame`.
    """

    contrast: float
    saturated: float
    grid: float
    dots: float
    colour_noise: tuple[float, ...]
    frame: float


def marks_of(picture: np.ndarray) -> Marks:
    """Measures a picture.

    Args:
      picture: uint8 [H, W, 3].
    """
    return Marks(
        contrast=float(picture.std(axis=(0, 1), dtype=np.float64).mean()),
        saturated=float(np.mean((picture == 0) | (picture == 255))),
        grid=grid(picture),
        dots=dots(picture),
        colour_noise=tuple(colour_noise(picture, scale) for scale in _HUE_SCALES),
        frame=frame(picture),
    )


def picture_faults(photo: Marks, styled: Marks, style: Marks) -> list[str]:
    """Says what is wrong with a styled picture.

    - Flat: its contrast is less than a tenth of the photo's. Nothing else is said of such a
      picture.
    - Saturated: the share of its values at 0 or 255 exceeds that of the photo and that of the
      style picture by more than a quarter.
    - A grid, of more than 7 levels above theirs.
    - Dots, more than 5 in 10,000 pixels above theirs.
    - Coloured noise, of more than 16 levels above theirs.
    - A frame, of more than 14 levels above the photo's.

    Args:
      photo: What was styled.
      styled: What came out.
      style: The picture whose style it took, at the size that was trained with. Strokes of a
        styled picture are as large as they were there, whatever the photo's size.

    Returns:
      What is wrong, each a clause for a person; nothing if nothing is.
    """
    if photo.contrast >= _PLAIN_PHOTO and styled.contrast < _LEAST_CONTRAST * photo.contrast:
        return [
            f"it is flat: a contrast of {styled.contrast:.1f} levels, and the photo has "
            f"{photo.contrast:.1f}"
        ]
    faults = []
    expected = max(photo.saturated, style.saturated)
    if styled.saturated > expected + _MOST_SATURATED:
        faults.append(
            f"it is saturated: {styled.saturated:.0%} of its values are 0 or 255, in the photo and "
            f"the style picture at most {expected:.0%}"
        )
    noise = max(
        zip(styled.colour_noise, photo.colour_noise, style.colour_noise, strict=True),
        key=lambda found: found[0] - max(found[1:]),
    )
    for found, expected, most, clause in (
        (
            styled.grid,
            max(photo.grid, style.grid),
            _MOST_GRID,
            "it shows a grid of 2, 4 or 8 pixels, {:.1f} levels strong",
        ),
        (
            styled.dots,
            max(photo.dots, style.dots),
            _MOST_DOTS,
            "it has dots, {:.1f} in 10,000 pixels",
        ),
        (noise[0], max(noise[1:]), _MOST_NOISE, "its colours are noisy, by {:.1f} levels"),
    ):
        if found > expected + most:
            faults.append(
                f"{clause.format(found)}, the photo and the style picture at most {expected:.1f}"
            )
    if styled.frame > photo.frame + _MOST_FRAME:
        faults.append(
            f"it has a frame that is {styled.frame:.1f} levels off what is inside, in the photo "
            f"{photo.frame:.1f}"
        )
    return faults


def grid(picture: np.ndarray) -> float:
    """Measures regular patterns with periods of 2, 4 and 8 pixels, such as a checkerboard.

    They are lines in the spectrum, wherever in the picture they are and whatever their phase: the
    power of windows of 64x64 pixels, averaged, at those frequencies, above what frequencies beside
    them have, where it is three times as much or more. Texture has no such lines.

    Args:
      picture: uint8 [H, W, 3].

    Returns:
      Root mean square, in levels: in pictures of 192 pixels a side and more, in the half by half
      where it is most. 0 for those of less than 128, which hold too few windows.
    """
    height, width = picture.shape[:2]
    if min(height, width) < 2 * _WINDOW:
        return 0.0
    rows, columns = _starts(height), _starts(width)
    taper = np.hanning(_WINDOW + 1)[:_WINDOW]
    taper = np.outer(taper, taper)
    power = np.empty((len(rows), len(columns), _WINDOW, _WINDOW))
    for y, row in enumerate(rows):
        for x, column in enumerate(columns):
            window = picture[row : row + _WINDOW, column : column + _WINDOW].astype(np.float64)
            window = (window - window.mean(axis=(0, 1))) * taper[..., None]
            power[y, x] = np.mean(np.abs(np.fft.fft2(window, axes=(0, 1))) ** 2, axis=-1)
    power /= taper.sum() ** 2
    return max(
        float(np.sqrt(_lines(power[up:down, left:right].mean(axis=(0, 1)))))
        for up, down in _halves(len(rows))
        for left, right in _halves(len(columns))
    )


def _starts(length: int) -> list[int]:
    """Returns where windows begin that overlap by half, the last by more, and cover a length."""
    last = length - _WINDOW
    return [*range(0, last, _WINDOW // 2), last]


def _halves(count: int) -> Iterator[tuple[int, int]]:
    """Yields ranges of half of so many windows, each from about the middle of the one before.

    Of fewer than five there is one range: half of them would hardly be a mean.
    """
    size = count if count < 5 else (count + 1) // 2
    for start in sorted({*range(0, count - size, max(1, size // 2)), count - size}):
        yield start, start + size


def _lines(power: np.ndarray) -> float:
    """Returns the power of the lines of a spectrum, [64, 64]."""
    total = 0.0
    for row in range(0, _WINDOW, _WINDOW // 8):
        for column in range(0, _WINDOW, _WINDOW // 8):
            beside = _beside(power, row, column)
            if (row or column) and power[row, column] > _PEAK * beside:
                total += power[row, column] - beside
    return total


def _beside(power: np.ndarray, row: int, column: int) -> float:
    """Returns the power around a frequency, along the axis that has more of it.

    The taper spreads a line by one frequency to each side.
    """
    away = (-4, -3, 3, 4)
    along = [power[(row + step) % _WINDOW, column] for step in away]
    across = [power[row, (column + step) % _WINDOW] for step in away]
    return float(max(np.median(along), np.median(across)))


def dots(picture: np.ndarray) -> float:
    """Counts specks of up to 4 pixels.

    A speck's brightness is off the median of the 7x7 pixels around it by 40 levels or more, and by
    more than any other's there; in the ring of 13x13 pixels around those, no pixel is off by half
    as much in its direction, as those of a line or of strokes would be.

    Args:
      picture: uint8 [H, W, 3].

    Returns:
      Specks in 10,000 pixels; 0 for pictures of less than 13 pixels a side.
    """
    if min(picture.shape[:2]) < 13:
        return 0.0
    grey = Image.fromarray(picture).convert("L")
    brightness = np.asarray(grey, np.float64)
    median = np.asarray(grey.filter(ImageFilter.MedianFilter(7)), np.float64)
    off = np.abs(brightness - median)
    # Pixels of a flat speck are equally far off: the last of them in reading order counts.
    ranked = off * off.size + np.arange(off.size).reshape(off.shape)
    highest = np.lib.stride_tricks.sliding_window_view(ranked, 7, 0).max(axis=-1)
    highest = np.lib.stride_tricks.sliding_window_view(highest, 7, 1).max(axis=-1)
    inner = np.s_[6:-6, 6:-6]
    rows, columns = np.nonzero((ranked[inner] == highest[3:-3, 3:-3]) & (off[inner] >= _DOT_HEIGHT))
    if not len(rows):
        return 0.0
    ring = np.ones((13, 13), bool)
    ring[3:-3, 3:-3] = False
    around = np.lib.stride_tricks.sliding_window_view(brightness, (13, 13))[rows, columns][:, ring]
    middle = median[inner][rows, columns]
    height = brightness[inner][rows, columns] - middle
    others = ((around - middle[:, None]) * np.sign(height)[:, None]).max(axis=-1)
    return 1e4 * int(np.sum(others < _DOT_ALONE * np.abs(height))) / off.size


def colour_noise(picture: np.ndarray, scale: int) -> float:
    """Measures how much hues change from place to place.

    Args:
      picture: uint8 [H, W, 3].
      scale: How far apart places are, in pixels; odd.

    Returns:
      Root mean square of what red - green, and the mean of both - blue, differ from their means
      over that many pixels a side; the larger of the two, in levels. 0 for pictures of fewer
      pixels a side.
    """
    if min(picture.shape[:2]) < scale:
        return 0.0
    red, green, blue = np.moveaxis(picture.astype(np.float64), -1, 0)
    inner = np.s_[scale // 2 : -(scale // 2), scale // 2 : -(scale // 2)]
    found = []
    for hue in (red - green, (red + green) / 2.0 - blue):
        sums = np.cumsum(np.cumsum(np.pad(hue, ((1, 0), (1, 0))), axis=0), axis=1)
        box = sums[scale:, scale:] - sums[:-scale, scale:] - sums[scale:, :-scale]
        around = (box + sums[:-scale, :-scale]) / scale**2
        found.append(float(np.sqrt(np.mean((hue[inner] - around) ** 2))))
    return max(found)


def frame(picture: np.ndarray) -> float:
    """Measures a border that differs from what is inside, in the same way all around.

    Each side is cut into 4 to 8 parts. Where three quarters of the parts of each side differ, it
    is a frame; where but a few do, somebody stands in the middle.

    Args:
      picture: uint8 [H, W, 3].

    Returns:
      The mean of the outer w pixels less that of those from 2w to 4w, at the lower quartile of a
      side's parts, on the side where it is least, in the channel and for the width w of 2, 4, 8 and
      16 where it is most, in levels; or the same of what is darker outside. 0 where the sides do
      not agree in its sign. Widths of more than a sixteenth of the picture are left out.
    """
    # A side without its corners, 4w each, then holds 4 parts of 2w at least.
    widths = [width for width in _FRAME_WIDTHS if 16 * width <= min(picture.shape[:2])]
    return max((_frame(picture, width) for width in widths), default=0.0)


def _frame(picture: np.ndarray, width: int) -> float:
    turned = picture.swapaxes(0, 1)
    brighter, darker = [], []
    for side in (picture, picture[::-1], turned, turned[::-1]):
        side = side[: 4 * width, 4 * width : -4 * width].astype(np.float64)
        parts = np.array_split(side, min(_FRAME_PARTS, side.shape[1] // (2 * width)), axis=1)
        steps = [p[:width].mean(axis=(0, 1)) - p[2 * width :].mean(axis=(0, 1)) for p in parts]
        brighter.append(np.quantile(steps, 0.25, axis=0))
        darker.append(-np.quantile(steps, 0.75, axis=0))
    return max(0.0, float(np.min(brighter, axis=0).max()), float(np.min(darker, axis=0).max()))
