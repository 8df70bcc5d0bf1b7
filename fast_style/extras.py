"""What a picture file holds beside its colours, and how that travels from one file to another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image

from fast_style.colour_profiles import profile_mode

_EXIF_HEAD = b"Exif\0\0"
_JPEG_SEGMENT = 65_533  # bytes
_ORIENTATION = int(ExifTags.Base.Orientation)
_EXIF_FOLDER = int(ExifTags.IFD.Exif)
_MAKER_NOTE = int(ExifTags.Base.MakerNote)
_PIXEL_WIDTH, _PIXEL_HEIGHT = 40962, 40963

# Tags of TIFF that describe how the pixels of one file are stored, or hold a copy of something that
# travels by itself: sizes, strips, tiles, palettes, JPEG tables, XMP, IPTC, ICC.
_STRUCTURAL = {
    *range(254, 260), 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284, *range(288, 294),
    297, 301, *range(317, 326), *range(330, 348), 400, *range(512, 522), *range(529, 533), 559,
    700, 33723, 34377, 34675, 34677, 37724, 42112, 42113, 282, 283, 296,
}  # fmt: skip


@dataclass(frozen=True)
class Extras:
    """What is carried over beside the colours.

    Attributes:
      alpha: [H, W], uint8 or uint16 over its whole range; none if everything is opaque.
      exif: As Pillow takes it, without an orientation.
      icc_profile: What the RGB numbers mean; none is sRGB.
      dpi: Horizontal and vertical resolution in pixels per inch.
    """

    alpha: np.ndarray | None = None
    exif: bytes | None = None
    icc_profile: bytes | None = None
    dpi: tuple[float, float] | None = None

    def exif_for(self, width: int, height: int, *, jpeg: bool = False) -> bytes | None:
        """Returns the EXIF of a result.

        Args:
          width: Of the result, which replaces that of the original.
          height: Likewise.
          jpeg: Leaves out the maker's note, and if need be all, where JPEG has no room.
        """
        if self.exif is None:
            return None
        exif = parse_exif(self.exif)
        folder = exif.get_ifd(_EXIF_FOLDER)
        for tag, size in ((_PIXEL_WIDTH, width), (_PIXEL_HEIGHT, height)):
            if tag in folder:
                folder[tag] = size
        data = exif.tobytes()
        if jpeg and len(data) > _JPEG_SEGMENT:
            folder.pop(_MAKER_NOTE, None)
            data = exif.tobytes()
        return None if jpeg and len(data) > _JPEG_SEGMENT else data


def parse_exif(data: bytes) -> Image.Exif:
    """Reads the EXIF that `Extras` holds."""
    exif = Image.Exif()
    exif.load(data)
    return exif


def read_extras(image: Image.Image) -> tuple[Extras, list[str]]:
    """Collects what a loaded picture holds beside its pixels, alpha apart.

    Returns:
      It, and a note for each thing that is too damaged to be carried over.
    """
    notes = []
    exif, readable = _carried_exif(image)
    if not readable:
        notes.append("its EXIF data are damaged and left out")
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile:
        profile = None
    elif profile_mode(profile) is None:
        notes.append("its colour profile is damaged or of an unknown kind, and left out")
        profile = None
    return Extras(exif=exif, icc_profile=profile, dpi=_resolution(image.info.get("dpi"))), notes


def orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation of a loaded picture, 1 to 8.

    Asked only after loading: Pillow turns TIFFs while loading them, and then drops the tag.
    """
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        return value if isinstance(value, int) and 1 <= value <= 8 else 1
    except Exception:  # Broken metadata raise nearly anything, and are no reason to lose a photo.
        return 1


def _carried_exif(image: Image.Image) -> tuple[bytes | None, bool]:
    """Returns what can be carried over, if anything, and whether all could be read."""
    try:
        stored = image.getexif()
        raw = image.info.get("exif")
        if not len(stored) and not stored.get_ifd(_EXIF_FOLDER):
            return None, not (isinstance(raw, bytes) and len(raw) > len(_EXIF_HEAD) + 14)
        carried = parse_exif(stored.tobytes())  # A copy that needs the file no more.
        for tag in (_ORIENTATION, *_STRUCTURAL):
            if tag in carried:
                del carried[tag]
        return (carried.tobytes() if len(carried) else None), True
    except Exception:  # As above.
        return None, False


def _resolution(value: object) -> tuple[float, float] | None:
    if not isinstance(value, Iterable):
        return None
    try:
        found = tuple(float(part) for part in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if len(found) != 2 or not all(1.0 <= part <= 100_000.0 for part in found):
        return None
    return found[0], found[1]
