"""Measures lines along the borders: `python benchmarks/borders.py --photos DIR MODEL...`.

How far the mean colour of the outer two pixels is from that of the 9th to the 24th, over all
photos of a folder, cut to squares, and all styles of a net: a line that is there whatever the photo
stands out, what photos have at one border or another averages out. In levels, of the colour in
which it is most, at each side; 'photos' are the photos themselves. Prints one JSON line for each.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from common import emit

_SIDES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "top": lambda picture: picture,
    "bottom": lambda picture: picture[::-1],
    "left": lambda picture: picture.transpose(1, 0, 2),
    "right": lambda picture: picture[:, ::-1].transpose(1, 0, 2),
}


def main() -> None:
    """Reads the command line and measures each net."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--photos", required=True, metavar="DIR", help="photos no run learnt from")
    parser.add_argument("--size", type=int, default=256, metavar="PX")
    options = parser.parse_args()

    import fast_style
    from fast_style.data import find_photos
    from fast_style.images import cover_crop, read_image

    photos = [cover_crop(read_image(path), options.size) for path in find_photos(options.photos)]
    settings = {"size": options.size, "count": len(photos)}
    emit("borders", "photos", lines(photos), **settings)
    for path in options.models:
        net = fast_style.load(path)
        for name in net.model.style_names:
            mix = net.one_style(name)
            styled = [net.stylize(photo, style_weights=mix) for photo in photos]
            found = lines(styled)
            emit("borders", path, found, style=name, **settings)


def lines(pictures: Sequence[np.ndarray]) -> dict[str, float]:
    """Returns how strong lines along each border are, in levels."""
    found = {}
    for name, turned in _SIDES.items():
        sides = [turned(picture).astype(np.float64) for picture in pictures]
        apart = [side[:2].mean((0, 1)) - side[8:24].mean((0, 1)) for side in sides]
        found[name] = round(float(np.abs(np.mean(apart, 0)).max()), 1)
    return found


if __name__ == "__main__":
    main()
