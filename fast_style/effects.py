"""What is done to a picture besides the net: grain, strength, the photo's colours and fine detail.

Pictures are uint8 or uint16 [H, W, 3]. Styled ones are changed in place, strip by strip.
"""

from __future__ import annotations

import math

import numpy as np

from fast_style.colour import luma, with_colours_of
from fast_style.resample import Resampler, levels, pixels_like, resized, strips

_BLOCK = 16  # pixels
_DETAIL = 0.7  # With all of the photo's detail, grass and grain cover the strokes.
MAX_GAIN = 1.5
"""Of contrast, when a weakened style is brought back to its strength."""


def grained(photo: np.ndarray, grain: float) -> np.ndarray:
    """Returns a photo with noise, which gives nets something to paint where it is perfectly flat.

    Nets tell strokes from what differs between neighbouring pixels: a clipped shadow or sky, where
    nothing does, they leave bare, and in a tone that has little to do with the photo's.

    Args:
      photo: The photo; not changed.
      grain: Standard deviation of the noise, normal and independent for each value, in levels of
        0..255. 0 gives the photo itself.

    Returns:
      A pure function of the arguments: frames of a film that stand still go on doing so.
    """
    if grain == 0.0:
        return photo
    rng = np.random.default_rng(0)
    noisy = np.empty_like(photo)
    for rows in strips(*photo.shape[:2]):
        noise = rng.standard_normal(photo[rows].shape, np.float32)
        noisy[rows] = pixels_like(levels(photo[rows]) + np.float32(grain) * noise, photo.dtype)
    return noisy


def bare_share(photo: np.ndarray, styled: np.ndarray, alpha: np.ndarray | None = None) -> float:
    """Measures how much of a styled picture is bare because the photo is flat there.

    Args:
      photo: What was stylized, of any size.
      styled: What came out, of any size; of the same type.
      alpha: [H, W] of the photo, if the result has it too: blocks do not count whose first pixel
        nobody sees.

    Returns:
      Share of the styled picture, from 0 to 1, by blocks of 16x16 pixels: those of one colour, up
      to two levels, where the photo is of one up to three.
    """
    bare = _even(styled, 2)
    if bare.any():
        bare &= _even(resized(photo, *styled.shape[:2]), 3)
    if alpha is not None and bare.any():
        rows, columns = (
            np.arange(count) * _BLOCK * size // length
            for count, size, length in zip(bare.shape, alpha.shape, styled.shape[:2], strict=True)
        )
        bare &= alpha[np.ix_(rows, columns)] > 0
    return _BLOCK**2 * int(bare.sum()) / (styled.shape[0] * styled.shape[1])


def _even(picture: np.ndarray, most: int) -> np.ndarray:
    """Tells which whole blocks differ by so many levels at most, [H // 16, W // 16]."""
    height, width = (size // _BLOCK for size in picture.shape[:2])
    even = np.zeros([height, width], bool)
    for row in range(height) if width else ():
        strip = picture[row * _BLOCK : (row + 1) * _BLOCK, : width * _BLOCK]
        # Rows first: they lie together.
        highest = strip.max(axis=0).reshape(width, _BLOCK, 3).max(axis=1)
        apart = highest - strip.min(axis=0).reshape(width, _BLOCK, 3).min(axis=1)
        even[row] = (levels(apart) <= most).all(axis=-1)
    return even


def weaken(styled: np.ndarray, photo: np.ndarray, strength: float) -> None:
    """Moves a styled picture towards the photo.

    A plain average of two pictures is grey: what differs between them, strokes on one side and
    texture on the other, cancels out. So the average's contrast is raised around its mean colour,
    equally in all channels, until its standard deviation lies where `strength` lies between those
    of the photo and of the styled picture, but by no more than half.

    Args:
      styled: The full style; becomes the result.
      photo: Of the same shape and type.
      strength: 0 gives exactly the photo, 1 exactly the styled picture.
    """
    if strength == 1.0:
        return
    if strength == 0.0:
        styled[:] = photo
        return
    mean, gain = _contrast(styled, photo, strength)
    weight = np.float32(strength)
    for rows in strips(*styled.shape[:2]):
        mixed = weight * levels(styled[rows]) + (1 - weight) * levels(photo[rows])
        styled[rows] = pixels_like((mixed - mean) * gain + mean, styled.dtype)


def _contrast(
    styled: np.ndarray, photo: np.ndarray, strength: float
) -> tuple[np.ndarray, np.float32]:
    """Returns the average's mean colour, and the gain that gives it its contrast back."""
    count = styled.shape[0] * styled.shape[1]
    sums, products = np.zeros((2, 3)), np.zeros(3)
    for rows in strips(*styled.shape[:2]):
        # Around the middle, so that float64 sums of squares lose nothing.
        s, p = (levels(x[rows]).astype(np.float64) - 127.5 for x in (styled, photo))
        sums += [s.sum((0, 1)), p.sum((0, 1))]
        products += [np.vdot(s, s), np.vdot(p, p), np.vdot(s, p)]
    means = sums / count
    variances = products / count - [
        means[0] @ means[0],
        means[1] @ means[1],
        means[0] @ means[1],
    ]
    style, original, shared = np.maximum(variances, [0.0, 0.0, -math.inf])
    mixed = (
        strength**2 * style
        + (1 - strength) ** 2 * original
        + 2 * strength * (1 - strength) * shared
    )
    wanted = strength * math.sqrt(style) + (1 - strength) * math.sqrt(original)
    gain = min(wanted / math.sqrt(mixed), MAX_GAIN) if mixed > 1e-6 else 1.0
    mean = strength * means[0] + (1 - strength) * means[1] + 127.5
    return mean.astype(np.float32), np.float32(gain)


def recolour(styled: np.ndarray, photo: np.ndarray) -> None:
    """Gives a styled picture the photo's colours and leaves it its brightness.

    Args:
      styled: Becomes the result.
      photo: Of the same shape and type.
    """
    for rows in strips(*styled.shape[:2]):
        recoloured = with_colours_of(levels(styled[rows]), levels(photo[rows]))
        styled[rows] = pixels_like(recoloured, styled.dtype)


def rescale_styled(styled: np.ndarray, photo: np.ndarray, out: np.ndarray) -> None:
    """Brings a picture that was styled in another size to the photo's.

    One that was styled smaller lacks what the smaller photo could not show. That part of the
    photo's brightness is added, not quite in full.

    Args:
      styled: [h, w, 3].
      photo: [H, W, 3].
      out: [H, W, 3], the result.
    """
    height, width = photo.shape[:2]
    enlarged = Resampler(styled, height, width)
    is_smaller = styled.shape[0] < height or styled.shape[1] < width
    small = resized(photo, *styled.shape[:2]) if is_smaller else photo
    coarse = Resampler(small, height, width)
    for rows in strips(height, width):
        values = enlarged.rows(rows.start, rows.stop)
        if is_smaller:
            detail = luma(levels(photo[rows]) - coarse.rows(rows.start, rows.stop))
            values += np.float32(_DETAIL) * detail[..., None]
        out[rows] = pixels_like(values, out.dtype)
