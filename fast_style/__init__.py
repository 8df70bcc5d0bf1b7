"""Fast neural style transfer: train a net for a style, then stylize any picture in one pass.

    import fast_style
    model = fast_style.load("models/candy")
    styled = model.stylize(image)  # uint8 [H, W, 3] in and out; a list gives a list

Importing this package loads neither TensorFlow nor any file; `load` does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fast_style.stylize import Stylizer, load

__all__ = ["Stylizer", "load"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("fast_style.stylize"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
