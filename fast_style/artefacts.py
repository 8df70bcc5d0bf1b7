"""What is wrong with a styled picture, seen without looking at it.

Nets that train badly, or have only begun to, leave marks that are known from all implementations:
flat or saturated pictures, a checkerboard from the layers that enlarge, dots, coloured noise, a
frame from the padding at the border. Each is measured in the styled picture; what the photo or the
style picture has of it too is no fault. Thresholds lie above what nets that work left on photos,
and below what anybody sees.
"""

from __future__ import annotations

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

_MOST_GRID = 5.0  # levels
_WINDOW = 32  # Of the spectra, in pixels: periods 2 and 4 are frequencies of their own.
_PEAK = 3.0  # A line of the spectrum has so many times the power of what lies beside it.

_MOST_DOTS = 10.0  # in 10,000 pixels
_DOT_HEIGHT = 40.0  # levels above or below what is around it
_CALM_RING = 15.0  # levels of contrast around a dot; texture has more

_MOST_NOISE = 16.0  # levels

_MOST_FRAME = 20.0  # levels
_FRAME_WIDTH = 4  # pixels


def picture_faults(photo: np.ndarray, styled: np.ndarray, style: np.ndarray) -> list[str]:
    """Says what is wrong with a styled picture.

    - Flat: the standard deviation of its values, averaged over the channels, is less than a tenth
      of the photo's. Nothing else is said of such a picture.
    - Saturated: the share of its values at 0 or 255 exceeds that of the photo and that of the
      style picture by more than a quarter.
    - A grid: `grid` of more than 5 levels above theirs.
    - Dots: `dots` of more than 10 in 10,000 pixels above theirs.
    - Coloured noise: `colour_noise` of more than 16 levels above theirs.
    - A frame: `frame` of more than 20 levels above the photo's.

    Args:
      photo: uint8 [H, W, 3], what was styled.
      styled: uint8 [H', W', 3].
      style: uint8 [H'', W'', 3], the picture whose style it took, at the size that was trained
        with.

    Returns:
      What is wrong, each a clause for a person; nothing if nothing is.
    """
    photo_contrast, contrast = _contrast(photo), _contrast(styled)
    if photo_contrast >= _PLAIN_PHOTO and contrast < _LEAST_CONTRAST * photo_contrast:
        return [
            f"it is flat: a contrast of {contrast:.1f} levels, and the photo has "
            f"{photo_contrast:.1f}"
        ]
    faults = []
    share, expected = _saturated(styled), max(_saturated(photo), _saturated(style))
    if share > expected + _MOST_SATURATED:
        faults.append(
            f"it is saturated: {share:.0%} of its values are 0 or 255, in the photo and the style "
            f"picture at most {expected:.0%}"
        )
    for measure, most, clause in (
        (grid, _MOST_GRID, "it shows a grid of 2 or 4 pixels, {:.1f} levels strong"),
        (dots, _MOST_DOTS, "it has dots, {:.0f} in 10,000 pixels"),
        (colour_noise, _MOST_NOISE, "its colours are noisy, by {:.0f} levels"),
    ):
        found, expected = measure(styled), max(measure(photo), measure(style))
        if found > expected + most:
            faults.append(
                f"{clause.format(found)}, the photo and the style picture at most {expected:.1f}"
            )
    found, expected = frame(styled), frame(photo)
    if found > expected + _MOST_FRAME:
        faults.append(f"it has a frame, {found:.0f} levels off what is inside, the photo's")
        faults[-1] += f" is {expected:.0f} off"
    return faults


def grid(picture: np.ndarray) -> float:
    """Measures regular patterns with periods of 2 and 4 pixels, what is called a checkerboard.

    They are lines in the spectrum, wherever in the picture they are and whatever their phase: the
    power of windows of 32x32 pixels, averaged, at those frequencies, above what frequencies
    beside them have, where it is three times as much or more. Texture has no such lines.

    Args:
      picture: uint8 [H, W, 3].

    Returns:
      Root mean square, in levels; 0 for pictures of less than 32 pixels a side.
    """
    height, width = picture.shape[:2]
    if min(height, width) < _WINDOW:
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(picture, (_WINDOW, _WINDOW), (0, 1))
    windows = windows[:: _WINDOW // 2, :: _WINDOW // 2].astype(np.float64)  # [y, x, 3, 32, 32]
    windows = windows - windows.mean(axis=(-2, -1), keepdims=True)
    taper = np.hanning(_WINDOW + 1)[:_WINDOW]
    taper = np.outer(taper, taper)
    power = np.mean(np.abs(np.fft.fft2(windows * taper)) ** 2, axis=(0, 1, 2)) / taper.sum() ** 2
    lines = range(0, _WINDOW, _WINDOW // 4)
    total = 0.0
    for row in lines:
        for column in lines:
            beside = _beside(power, row, column)
            if (row or column) and power[row, column] > _PEAK * beside:
                total += power[row, column] - beside
    return float(np.sqrt(total))


def _beside(power: np.ndarray, row: int, column: int) -> float:
    """Returns the power around a frequency, along the axis that has more of it.

    The taper spreads a line by one frequency to each side.
    """
    away = (-4, -3, 3, 4)
    along = [power[(row + step) % _WINDOW, column] for step in away]
    across = [power[row, (column + step) % _WINDOW] for step in away]
    return float(max(np.median(along), np.median(across)))


def dots(picture: np.ndarray) -> float:
    """Counts specks of up to 3 pixels in calm surroundings.

    A speck's brightness is 40 levels or more off the median of the 7x7 pixels around it, more than
    any other's there, and the ring of 13x13 pixels around those has a contrast below 15 levels.

    Args:
      picture: uint8 [H, W, 3].

    Returns:
      Specks in 10,000 pixels.
    """
    grey = Image.fromarray(picture).convert("L")
    brightness = np.asarray(grey, np.float64)
    off = np.abs(brightness - np.asarray(grey.filter(ImageFilter.MedianFilter(7)), np.float64))
    highest = Image.fromarray(off.astype(np.uint8)).filter(ImageFilter.MaxFilter(7))
    specks = (off == np.asarray(highest)) & (off >= _DOT_HEIGHT)
    rows, columns = np.nonzero(specks[6:-6, 6:-6])
    if not len(rows):
        return 0.0
    square = np.lib.stride_tricks.sliding_window_view(brightness, (13, 13))[rows, columns]
    ring = np.ones((13, 13), bool)
    ring[3:-3, 3:-3] = False
    count = np.count_nonzero(square[:, ring].std(axis=-1) < _CALM_RING)
    return 1e4 * count / brightness.size


def colour_noise(picture: np.ndarray) -> float:
    """Measures how much hues change from pixel to pixel.

    Args:
      picture: uint8 [H, W, 3].

    Returns:
      Root mean square of what red - green, and the mean of both - blue, differ from their means
      over 3x3 pixels; the larger of the two, in levels. 0 for pictures of less than 3 pixels a
      side.
    """
    if min(picture.shape[:2]) < 3:
        return 0.0
    red, green, blue = np.moveaxis(picture.astype(np.float64), -1, 0)
    found = []
    for hue in (red - green, (red + green) / 2.0 - blue):
        rows = hue[:-2] + hue[1:-1] + hue[2:]
        around = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9.0
        found.append(np.sqrt(np.mean((hue[1:-1, 1:-1] - around) ** 2)))
    return float(max(found))


def frame(picture: np.ndarray) -> float:
    """Measures a border that differs from what is inside, in the same way on all four sides.

    Args:
      picture: uint8 [H, W, 3].

    Returns:
      The mean of the outer 4 pixels against that of pixels 9 to 16, on the side where it is least,
      in the channel where it is most, in levels; 0 where the sides do not agree in its sign, and
      for pictures of less than 48 pixels a side.
    """
    if min(picture.shape[:2]) < 12 * _FRAME_WIDTH:
        return 0.0
    turned = picture.swapaxes(0, 1)
    steps = []
    for side in (picture, picture[::-1], turned, turned[::-1]):
        side = side[: 4 * _FRAME_WIDTH, 4 * _FRAME_WIDTH : -4 * _FRAME_WIDTH].astype(np.float64)
        outer, inner = side[:_FRAME_WIDTH], side[2 * _FRAME_WIDTH :]
        steps.append(outer.mean(axis=(0, 1)) - inner.mean(axis=(0, 1)))
    agree = np.abs(np.sum(np.sign(steps), axis=0)) == 4
    return float(np.max(np.abs(steps).min(axis=0) * agree))


def _contrast(picture: np.ndarray) -> float:
    return float(picture.std(axis=(0, 1), dtype=np.float64).mean())


def _saturated(picture: np.ndarray) -> float:
    return float(np.mean((picture == 0) | (picture == 255)))
