"""Makes pictures as training makes them, and has both networks judge them.

Transform nets learn style pictures by the losses of the distilled network itself, since what it
does not see, they learn to hide there. Their answers to photos, at several stages, are then scored
by it and by its teacher.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from fast_style import objective as tags
from fast_style.data import find_photos
from fast_style.distill_config import DistillConfig
from fast_style.distill_report import DistillReport, agreements
from fast_style.errors import DataError, ImageError
from fast_style.images import cover_crop, load_training_crop, read_opaque
from fast_style.loss_net import LossNetwork
from fast_style.objective import Objective, style_grams
from fast_style.stylize import stylize_batch
from fast_style.train_state import StepSettings, TrainState, make_train_step
from fast_style.transform_net import init_weights

STAGES = (10, 25, 50, 100)
"""Steps after which a net's pictures are scored."""

ARCH, WIDTH = "johnson", 0.5
"""Of the nets that are trained to see what the networks say."""

STYLE_WEIGHTS = (20.0, 300.0)
"""What they learn with, from and to."""

_NETS = 4
_BATCH, _LEARNING_RATE = 4, 2e-3

_log = logging.getLogger(__name__)


def compare(
    own: LossNetwork,
    teacher: LossNetwork,
    photos: Sequence[Path],
    styles: Sequence[Path],
    *,
    content_layer: str,
    size: int = 256,
    pairs: int = 52,
    stages: Sequence[int] = STAGES,
    seed: int = 0,
    precision: str = "float32",
    on_step: Callable[[int, int], None] | None = None,
) -> DistillReport:
    """Scores `pairs` * len(stages) triples of a picture, a photo and a style by both networks.

    Up to four nets are trained, each for a style and a style weight of its own, and the photos are
    divided among them.

    Args:
      own: The distilled network, whose losses the nets are trained with.
      teacher: Its teacher, built for layers of the same order.
      photos: Held-out photos; those that cannot be read are left out, with a warning in the log.
      styles: Held-out style pictures; so are these.
      content_layer: Where contents are compared: a layer without the network's name.
      size: Side of the pictures in px.
      pairs: How many pairs of a net and a photo are scored at each stage.
      stages: After how many steps.
      seed: Decides which nets learn which style, the style weights, and where the nets begin.
      precision: What the nets compute in.
      on_step: Is told how many training steps of how many are done.

    Raises:
      DataError: If no photo or no style picture can be read.
    """
    rng = np.random.default_rng(seed)
    pictures = _readable_styles(styles, size)
    crops = _crops(photos, size)
    nets = min(_NETS, pairs)
    order = rng.permutation(len(pictures))
    low, high = STYLE_WEIGHTS
    weights = low * (high / low) ** rng.random(nets)
    rows: tuple[list[list[float]], list[list[float]]] = ([], [])
    for net in range(nets):
        picture = pictures[order[net % len(pictures)]]
        judges = [
            Objective(
                network=network,
                content_layers=(_named(network, content_layer),),
                target_grams=style_grams(network, network.layers, [picture]),
                style_weights=weights[net : net + 1].astype(np.float32),
                content_weight=1.0,
                tv_weight=0.0,
            )
            for network in (own, teacher)
        ]
        shown = np.stack([next(crops) for _ in range(net, pairs, nets)])

        def stepped(done: int, net: int = net) -> None:
            if on_step is not None:
                on_step(net * max(stages) + done, nets * max(stages))

        for styled in _trained(judges[0], shown, stages, seed + net, precision, stepped):
            for row, judge in zip(rows, judges, strict=True):
                row += _verdicts(judge, styled, shown)
    names = ("total", "content", *(f"style {layer.split('/')[-1]}" for layer in own.layers))
    values = [np.array(row) for row in rows]
    return DistillReport(names, values[0], values[1], agreements(names, values[0], values[1]))


def find_held_out(config: DistillConfig) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Lists the held-out photos and style pictures for the report; none where it has none.

    Raises:
      DataError: If there are none in a folder that is named, or none that can be read.
    """
    if config.val_dataset is None or config.val_styles is None:
        return (), ()
    advice = "point `val_styles` at a folder of style pictures"
    photos = find_photos(config.val_dataset, advice="point `val_dataset` at a folder of photos")
    styles = find_photos(config.val_styles, advice=advice)
    next(_crops(photos, 1))
    _readable_styles(styles, 1)
    return photos, styles


def _trained(
    objective: Objective,
    photos: np.ndarray,
    stages: Sequence[int],
    seed: int,
    precision: str,
    on_step: Callable[[int], None],
) -> Iterator[np.ndarray]:
    """Trains a net on photos, and gives its answers to them, uint8 [N, H, W, 3], at each stage."""
    state = TrainState(init_weights(ARCH, width=WIDTH, seed=seed))
    take_step = make_train_step(
        state,
        objective,
        StepSettings(
            arch=ARCH,
            precision=precision,
            learning_rate=_LEARNING_RATE,
            image_size=photos.shape[1],
            gradient_clip=1.5,
        ),
        batch_size=_BATCH,
    )
    rng = np.random.default_rng(seed)
    for done in range(1, max(stages) + 1):
        batch = photos[rng.integers(len(photos), size=_BATCH)]
        take_step(tf.constant(batch), tf.ones([_BATCH, 1]))
        if done in stages:
            styled = [
                stylize_batch(
                    ARCH, state.weights, tf.constant(photo[None]), tf.ones([1, 1]), precision
                )
                for photo in photos
            ]
            yield np.concatenate(styled)
        on_step(done)


def _verdicts(judge: Objective, styled: np.ndarray, photos: np.ndarray) -> list[list[float]]:
    """Returns total, content and each layer's style loss of each picture."""
    columns = [
        tags.TOTAL,
        tags.CONTENT,
        *(tags.STYLE_LAYER + layer for layer in judge.target_grams),
    ]
    found = []
    for picture, photo in zip(styled, photos, strict=True):
        one = tf.constant(picture[None], tf.float32), tf.constant(photo[None])
        terms = judge.score(*one, tf.ones([1, 1]))
        found.append([float(terms[column]) for column in columns])
    return found


def _readable_styles(styles: Sequence[Path], size: int) -> list[np.ndarray]:
    pictures = []
    for path in styles:
        try:
            pictures.append(cover_crop(read_opaque(path), size))
        except ImageError as error:
            _log.warning("style picture left out: %s", error)
    if not pictures:
        raise DataError(f"none of the {len(styles)} style pictures can be read")
    return pictures


def _crops(photos: Sequence[Path], size: int) -> Iterator[np.ndarray]:
    """Gives the centre crops of photos in turn, over and over."""
    left = list(photos)
    while left:
        for path in tuple(left):
            try:
                crop = load_training_crop(path, size)
            except ImageError as error:
                _log.warning("photo left out: %s", error)
                left.remove(path)
                continue
            yield crop
    raise DataError(f"none of the {len(photos)} photos can be read")


def _named(network: LossNetwork, layer: str) -> str:
    return next(name for name in network.layers if name.endswith(layer))
