"""The options of eval that say how a picture is stylized."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from fast_style.errors import UsageError
from fast_style.stylize_options import StylizeOptions, parse_tile
from fast_style.terminal import numbers

if TYPE_CHECKING:
    from fast_style.stylize import Stylizer


def stylize_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--style",
        metavar="NAME",
        help="one style of a model of several (default: its first)",
    )
    parser.add_argument(
        "--style-weights",
        metavar="A,B,...",
        help="how much of each style, for models of several styles",
    )
    parser.add_argument(
        "--strength",
        type=float,
        default=1.0,
        metavar="0..1",
        help="how much of the style: 0 is the photo, 1 the full style (default: 1)",
    )
    parser.add_argument(
        "--preserve-color",
        "--preserve-colour",
        action="store_true",
        help="keep the photo's colours and take only brightness from the style",
    )
    parser.add_argument(
        "--stroke-scale",
        type=float,
        default=1.0,
        metavar="0.5..4",
        help="how much larger strokes are; fine detail then comes from the photo (default: 1)",
    )
    parser.add_argument(
        "--grain",
        type=float,
        metavar="0..32",
        help="levels of noise on what the net sees, so that flat parts get strokes too: "
        "3 is enough (default: 0, with a note if results have bare parts)",
    )
    parser.add_argument(
        "--max-size",
        type=int,
        metavar="PX",
        help="scale larger pictures down so that their long side is at most this",
    )
    parser.add_argument(
        "--tile",
        type=parse_tile,
        default="auto",
        metavar="auto|off|PX|fast",
        help=(
            "work in tiles of so many pixels, exactly like the whole picture; auto (the default) "
            "does so where memory is short, fast or fast:PX takes statistics from a thumbnail"
        ),
    )


def stylize_options(options: argparse.Namespace) -> StylizeOptions:
    """Returns what the options say.

    Raises:
      UsageError: If a value is out of its range, or two contradict each other.
    """
    if options.style is not None and options.style_weights is not None:
        raise UsageError("--style: given beside --style-weights; keep one of them")
    style_weights = numbers("--style-weights", options.style_weights)
    try:
        return StylizeOptions(
            style_weights=style_weights,
            strength=options.strength,
            preserve_color=options.preserve_color,
            stroke_scale=options.stroke_scale,
            grain=options.grain or 0.0,
            max_size=options.max_size,
            tile=options.tile,
        )
    except ValueError as error:
        name, _, rest = str(error).partition(":")
        raise UsageError(f"--{name.replace('_', '-')}:{rest}") from error


def fitted(how: StylizeOptions, model: Stylizer, style: str | None) -> StylizeOptions:
    """Returns what the options mean to a model; `style` is what --style says.

    Raises:
      UsageError: If the model has no such style, or another number of styles.
    """
    option = "--style-weights"
    try:
        if how.style_weights is not None:
            model.check_style_weights(how.style_weights)
        if style is not None:
            option = "--style"
            how = dataclasses.replace(how, style_weights=model.one_style(style))
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error
    return how
