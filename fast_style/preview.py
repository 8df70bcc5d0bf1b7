"""What a run would learn, before it is trained: its loss, minimized over one photo's pixels."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from fast_style import descent
from fast_style import objective as tags
from fast_style.builders import build_network, build_objective, load_style_pictures
from fast_style.config import RunConfig
from fast_style.contact_sheet import Cell, contact_sheet
from fast_style.data import find_photos
from fast_style.errors import DataError, FastStyleError, ImageError
from fast_style.hardware import resolve_precision
from fast_style.images import load_training_crop, to_uint8
from fast_style.objective import Objective
from fast_style.picture_loss import Evaluation, Evaluator, picture_loss_of

GRID_KEYS = ("style_weight", "style_size", "content_weight", "tv_weight", "image_size")
"""Keys that a grid may vary: those that change the loss or the pictures, not the network."""

_LEARNING_RATE = 10.0  # Levels of 0..255 per step; 6 and 20 were slower.
_MOST_CELLS = 100
_COLUMNS = 6

OnStep = Callable[[int, int, Mapping[str, float]], None]
"""Is told (steps done over all cells, steps in all, loss terms) after each."""


@dataclass(frozen=True)
class Preview:
    """One picture that a run would aim at.

    Attributes:
      settings: The varied keys, such as ('style_weight=50',); empty without a grid.
      style: Name of the style.
      photo: uint8 [S, S, 3], cropped as training does.
      style_picture: uint8 [H, W, 3], as training sees it.
      picture: uint8 [S, S, 3], the result.
      first: Losses of the photo itself, by the tags of `objective`.
      last: Losses of the result.
    """

    settings: tuple[str, ...]
    style: str
    photo: np.ndarray
    style_picture: np.ndarray
    picture: np.ndarray
    first: Mapping[str, float]
    last: Mapping[str, float]


def grid_settings(grids: Sequence[str]) -> list[tuple[str, ...]]:
    """Turns 'key=a,b,c' texts into the settings of each cell, the last key varying fastest.

    Returns:
      One tuple of 'key=value' texts per cell; without grids, one empty tuple.

    Raises:
      FastStyleError: If a text is not of that form, its key is not one of `GRID_KEYS` or is
        repeated, or there would be more than 100 cells.
    """
    axes: dict[str, list[str]] = {}
    for text in grids:
        key, _, values = text.partition("=")
        key, settings = key.strip(), [value.strip() for value in values.split(",")]
        if key not in GRID_KEYS or not all(settings):
            raise FastStyleError(
                "--grid: expected key=value,value,... such as style_weight=50,100,200, with a key "
                f"of {', '.join(GRID_KEYS)}, got {text!r}"
            )
        if key in axes:
            raise FastStyleError(f"--grid: {key} is given twice; list its values in one")
        axes[key] = [f"{key}={value}" for value in settings]
    cells = list(itertools.product(*axes.values()))
    if len(cells) > _MOST_CELLS:
        raise FastStyleError(
            f"--grid: {len(cells)} cells are more than {_MOST_CELLS}; name fewer values"
        )
    return cells


def preview_photo(config: RunConfig) -> Path:
    """Returns the photo that a run's preview shows.

    That is `preview_image`, or the first of the data set that can be read.

    Raises:
      DataError: If there is none.
    """
    if config.preview_image is not None:
        return Path(config.preview_image)
    photos = find_photos(config.dataset, advice="name a photo with --photo")
    for photo in photos:
        try:
            load_training_crop(photo, config.image_size)
        except ImageError as error:
            reason = error
        else:
            return photo
    raise DataError(
        f"{config.dataset}: none of {len(photos)} photos can be read ({reason}); name a photo with "
        "--photo"
    )


def preview(
    variants: Sequence[tuple[tuple[str, ...], RunConfig]],
    photo: Path,
    *,
    steps: int,
    on_step: OnStep | None = None,
) -> Iterator[Preview]:
    """Minimizes, over a photo's pixels, exactly the loss that training would use.

    That is what a perfect network would paint. 100 steps of Adam from the photo, at 10 levels a
    step, reach the loss of about 60 iterations of L-BFGS, in less time; a network trained well
    reaches that of 50 to 100 (Johnson et al., 2016, Figure 5).

    Args:
      variants: (settings, run) of each cell; the runs differ in `GRID_KEYS` only.
      photo: Scaled and centre-cropped to each run's `image_size`.
      steps: Steps for each picture, at least 1.
      on_step: Is told after each.

    Yields:
      One per variant and style.

    Raises:
      FastStyleError: If something cannot be read, before any work.
    """
    # Neither the files nor the Gram matrices depend on the weights, which grids vary most.
    sources: dict[tuple[int, int | None], tuple[np.ndarray, list[np.ndarray]]] = {}
    for _, run in variants:
        if (sizes := (run.image_size, run.style_size)) not in sources:
            crop = load_training_crop(photo, run.image_size)
            sources[sizes] = crop, load_style_pictures(run)
    first_run = variants[0][1]
    network = build_network(first_run, resolve_precision(first_run.precision))
    evaluator = Evaluator(network)
    objectives: dict[tuple[int, int | None], Objective] = {}
    total = steps * sum(len(run.style_specs) for _, run in variants)
    done = 0
    for settings, run in variants:
        sizes = run.image_size, run.style_size
        crop, pictures = sources[sizes]
        if sizes not in objectives:
            objectives[sizes] = build_objective(run, network, pictures)
        objective = _with_weights_of(run, objectives[sizes])
        targets = objective.content_targets(tf.constant(crop[None]))
        for index, style in enumerate(run.style_specs):
            before = done

            def after(losses: Mapping[str, float], iteration: int, before: int = before) -> None:
                if on_step is not None:
                    on_step(before + iteration, total, losses)

            evaluation = evaluator.evaluation(picture_loss_of(objective, index), targets)
            picture, first, last = _minimize(evaluation, crop, steps, after)
            done += steps
            yield Preview(settings, style.name, crop, pictures[index], picture, first, last)


def _with_weights_of(run: RunConfig, objective: Objective) -> Objective:
    """Returns a loss of the same pictures with the weights of a run."""
    return dataclasses.replace(
        objective,
        style_weights=np.array([style.weight for style in run.style_specs], np.float32),
        content_weight=run.content_weight,
        tv_weight=run.tv_weight,
    )


def _minimize(
    evaluation: Evaluation,
    photo: np.ndarray,
    steps: int,
    after: Callable[[Mapping[str, float], int], None],
) -> tuple[np.ndarray, Mapping[str, float], Mapping[str, float]]:
    evaluated: list[Mapping[str, float]] = []

    def loss_and_gradient(picture: np.ndarray) -> tuple[float, np.ndarray]:
        terms, gradient = evaluation(picture)
        # The first and the newest.
        evaluated[1:] = [terms]
        return terms[tags.TOTAL], gradient

    found = descent.minimize(
        loss_and_gradient,
        photo.astype(np.float32),
        iterations=steps,
        direction=descent.adam_direction(beta_1=0.9, beta_2=0.999, epsilon=1e-8),
        learning_rate=lambda _step: _LEARNING_RATE,
        on_iteration=lambda iteration, _loss, _picture: after(evaluated[-1], iteration),
    )
    return to_uint8(found.picture), evaluated[0], evaluated[-1]


def preview_sheet(previews: Sequence[Preview]) -> np.ndarray:
    """Lays out previews: a row with the photo and the style pictures, then the results.

    Returns:
      [H, W, 3] uint8.
    """
    side = max(item.photo.shape[0] for item in previews)
    styles: dict[tuple[str, tuple[int, ...]], Cell] = {}
    for item in previews:
        height, width = item.style_picture.shape[:2]
        label = f"style {item.style}, as training sees it: {width}x{height}"
        styles.setdefault((item.style, item.style_picture.shape), Cell(label, item.style_picture))
    cells = [Cell("photo", max((item.photo for item in previews), key=len)), *styles.values()]
    several = len({item.style for item in previews}) > 1
    results = [_result_cell(item, several) for item in previews]
    if len(results) == 1:
        return contact_sheet([[*cells, *results]], side=side)
    rows = [*_rows(cells, _COLUMNS), *_rows(results, _columns(previews))]
    return contact_sheet(rows, side=side)


def _rows(cells: Sequence[Cell], columns: int) -> list[Sequence[Cell]]:
    return [cells[at : at + columns] for at in range(0, len(cells), columns)]


def _columns(previews: Sequence[Preview]) -> int:
    """Returns how many results go in a row: the values of the key that varies fastest."""
    last = [item.settings[-1] for item in previews if item.settings]
    values = len(dict.fromkeys(last)) * len({item.style for item in previews})
    return values if 2 <= values <= _COLUMNS else _COLUMNS


def _result_cell(item: Preview, name_the_style: bool) -> Cell:
    words = [setting.replace("=", " ") for setting in item.settings]
    if name_the_style:
        words.insert(0, item.style)
    losses = f"content {item.last[tags.CONTENT]:,.0f}, style {item.last[tags.STYLE]:,.2f}"
    return Cell("\n".join([", ".join(words) or "result", losses]), item.picture)
