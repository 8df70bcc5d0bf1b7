"""Times one picture through the net, warm: `python benchmarks/stylize.py --reference`.

From uint8 array to uint8 array, as `model.stylize` does it. Prints one JSON line per measurement.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from common import common_arguments, emit, interleaved, random_photos, set_threads, wait


def main() -> None:
    """Reads the command line and measures each size in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    common_arguments(parser, rounds=11)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024], metavar="PX")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--reference", action="store_true", help="the plain float32 net, in turns")
    parser.add_argument("--profile", action="store_true", help="where the time of a picture goes")
    options = parser.parse_args()
    set_threads(options.threads)

    from fast_style.checkpoints import Model
    from fast_style.stylize import Stylizer
    from fast_style.transform_net import init_weights

    weights = init_weights("johnson", width=options.width, seed=options.seed)
    model = Stylizer(
        Model("johnson", options.width, ("random",), weights), precision=options.precision
    )
    plain = None
    if options.reference:
        import reference

        plain = reference.make_stylize(seed=options.seed)
    for size in options.sizes:
        photo: np.ndarray = random_photos(1, size, options.seed)[0]
        candidates: dict[str, Any] = {"picture": lambda photo=photo: model.stylize(photo)}
        if plain is not None:
            candidates["reference"] = lambda photo=photo, plain=plain: wait(plain(photo[None]))
        times = interleaved(candidates, rounds=options.rounds, warmup=options.warmup)
        settings = {"size": size, "width": options.width, "precision": model.precision}
        for name, measured in times.items():
            made = settings if name == "picture" else {**settings, "precision": "float32"}
            emit("stylize", name, measured.summary(), **made)
        if plain is not None:
            ours, theirs = times["picture"].summary(), times["reference"].summary()
            ratio = {k: round(theirs[k] / ours[k], 2) for k in ("seconds", "cpu_seconds", "least")}
            emit("stylize", "reference / picture", ratio, **settings)
        if options.profile:
            from profiling import breakdown

            emit("stylize", "profile", breakdown(candidates["picture"], 3), **settings)


if __name__ == "__main__":
    main()
