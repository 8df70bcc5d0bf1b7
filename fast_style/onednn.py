"""oneDNN's convolutions, on processors where TensorFlow does not choose them by itself."""

from __future__ import annotations

import os
import platform


def prefer_onednn() -> None:
    """Has TensorFlow compute by oneDNN; counts only before TensorFlow is imported.

    Its packages for Linux do so by themselves only on x86 processors that multiply 8-bit integers
    (VNNI, in AVX-512 or AVX) or are newer. Measured on one with AVX2 alone, oneDNN is faster too: a
    training step takes 12 % less time, a 512 px picture 22 % and the losses of vgg_mini 29 %:
    convolutions of few channels gain most. `TF_ENABLE_ONEDNN_OPTS=0` undoes it. On processors of
    other families nothing is changed.

    Runs in processes of their own are equal to the bit there, too; late in one long process, which
    had computed much else before, equal steps were seen to differ.
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
