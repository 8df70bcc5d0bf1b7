"""A small world to train in: seconds instead of hours, and no downloads.

The loss network is a VGG16 of random weights that ends at conv2_2; photos are smooth noise.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import weight_files
from PIL import Image

from fast_style.config import RunConfig, config_from_dict, config_to_yaml

SHALLOW, DEEP = "vgg_16/conv1/conv1_2", "vgg_16/conv2/conv2_2"
PHOTO_COUNT = 7


@dataclass(frozen=True)
class World:
    """What every tiny run reads; nobody writes here.

    Attributes:
      weights: The loss network's file.
      photos: A folder of `PHOTO_COUNT` pictures, 48x40 and 40x52 px.
      held_out: A folder of two more.
      style: A picture to learn from.
      other_style: Another one.
    """

    weights: Path
    photos: Path
    held_out: Path
    style: Path
    other_style: Path

    def settings(self, folder: Path, **changes: Any) -> dict[str, Any]:
        """The keys of a run that writes into `folder`/models; a change to None drops the key."""
        keys: dict[str, Any] = {
            "naming": "tiny",
            "style_image": str(self.style),
            "style_weight": 100.0,
            "dataset": str(self.photos),
            "model_path": str(folder / "models"),
            "loss_model_file": str(self.weights),
            "content_layers": [DEEP],
            "style_layers": [SHALLOW, DEEP],
            "image_size": 32,
            "batch_size": 2,
            "width": 0.125,
            "precision": "float32",
            "steps": 4,
            "log_every_steps": 1,
            "summary_every_steps": 1,
        }
        return {k: v for k, v in (keys | changes).items() if v is not None}

    def config(self, folder: Path, **changes: Any) -> RunConfig:
        """The same as a checked configuration."""
        return config_from_dict(self.settings(folder, **changes), "tiny")

    def config_file(self, folder: Path, **changes: Any) -> Path:
        """The same as a file, `folder`/tiny.yml."""
        path = folder / "tiny.yml"
        path.write_text(config_to_yaml(self.config(folder, **changes)), encoding="utf-8")
        return path


def smooth_picture(height: int, width: int, seed: int) -> np.ndarray:
    """Blurred noise over the whole range of colours, uint8 [H, W, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    enlarged = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(enlarged)


def save_picture(path: Path, height: int, width: int, seed: int) -> Path:
    Image.fromarray(smooth_picture(height, width, seed)).save(path)
    return path


def make_world(folder: Path) -> World:
    for name in ("photos/more", "held_out"):
        (folder / name).mkdir(parents=True)
    for seed in range(PHOTO_COUNT):
        name = f"more/{seed}.png" if seed % 3 == 2 else f"{seed}.jpg"
        height, width = (48, 40) if seed % 2 else (40, 52)
        save_picture(folder / "photos" / name, height, width, seed)
    for seed in (20, 21):
        save_picture(folder / "held_out" / f"{seed}.jpg", 44, 36, seed)
    return World(
        weights=weight_files.save_npz(
            folder / "vgg_16.npz", weight_files.random_vgg("vgg_16", "conv2_2")
        ),
        photos=folder / "photos",
        held_out=folder / "held_out",
        style=save_picture(folder / "style.png", 60, 50, 10),
        other_style=save_picture(folder / "other.png", 50, 70, 11),
    )


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[Path]:
    """Makes `folder` the current one for the block: runs write `generated/` there."""
    before = Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)
