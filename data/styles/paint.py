"""Paints the style pictures: `python data/styles/paint.py [NAME ...] [--size N] [--seed N]`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from painters.candy import paint_candy
from PIL import Image

Painter = Callable[[int, np.random.Generator], np.ndarray]

PAINTERS: dict[str, Painter] = {
    "candy": paint_candy,
}
