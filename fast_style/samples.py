"""Sample photographs for a first run, which come with libraries that people have anyway.

A configuration names them as its folder of photos: `dataset: samples:photos`. They come with
scikit-image and scikit-learn, which the extra `quickstart` installs; nothing of these is imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fast_style.errors import DataError

SAMPLES = "samples:photos"
"""What stands for them where a folder of photos is asked for."""

_PREFIX = "samples:"

# Colour photographs of 300 px and more a side. What else comes along is drawings, textures and
# microscopy.
_PHOTOS = (
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
)


def names_samples(folder: str) -> bool:
    """Tells whether a name means the sample photos.

    Raises:
      DataError: If it begins like them, but there are no such samples.
    """
    if folder.startswith(_PREFIX) and folder != SAMPLES:
        raise DataError(f"{folder}: there are no such samples; did you mean {SAMPLES}?")
    return folder == SAMPLES


def sample_photos() -> tuple[Path, ...]:
    """Lists the sample photos that are installed, in an order that stays.

    Raises:
      DataError: If there are none.
    """
    found = []
    for package, name in _PHOTOS:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            if (path := Path(folder) / name).is_file():
                found.append(path)
    if not found:
        raise DataError(
            f"{SAMPLES}: the sample photos come with scikit-image and scikit-learn; "
            "`pip install 'fast-style[quickstart]'` installs them, in a clone "
            "`pip install -e '.[quickstart]'`"
        )
    return tuple(found)
