"""ICC colour profiles of picture files: which can be carried over, and conversion to sRGB."""

from __future__ import annotations

import io

from PIL import Image

try:
    from PIL import ImageCms
except ImportError:  # A Pillow that was built without LittleCMS.
    ImageCms = None

_HEADER = 128  # bytes, ICC.1:2022, 7.2
_SPACES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK", b"Lab ": "LAB"}


def profile_mode(profile: bytes) -> str | None:
    """Returns which kind of pixels a profile describes.

    Returns:
      A mode of Pillow's (RGB, L, CMYK, LAB); none if the profile is damaged or of another space.
    """
    if len(profile) < _HEADER or profile[36:40] != b"acsp":
        return None
    if int.from_bytes(profile[:4], "big") > len(profile):
        return None
    if ImageCms is not None:
        try:
            ImageCms.ImageCmsProfile(io.BytesIO(profile))
        except (OSError, ImageCms.PyCMSError):
            return None
    return _SPACES.get(profile[16:20])


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image | None:
    """Converts 8-bit pixels to sRGB, by the profile's own rendering intent.

    Args:
      image: Of the mode that `profile_mode` returns for the profile.
      profile: What its numbers mean; none is CIE L*a*b* (D50).

    Returns:
      The same picture in mode RGB; none if it cannot be converted.
    """
    if ImageCms is None:
        return None
    try:
        source = (
            ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
            if profile is None
            else ImageCms.ImageCmsProfile(io.BytesIO(profile))
        )
        return ImageCms.profileToProfile(
            image,
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent(ImageCms.getDefaultIntent(source)),
            outputMode="RGB",
        )
    except (OSError, ValueError, ImageCms.PyCMSError):
        return None
