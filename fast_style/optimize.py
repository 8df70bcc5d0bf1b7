"""Style transfer without a trained network: the picture is the variable (Gatys et al., 2015).

Reads top to bottom as a run: check what was asked for, prepare the sizes, and for each size, from
coarse to fine, compute the targets and lower the loss. It prints nothing; an `OptimizeObserver` is
told.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fast_style import descent, lbfgs
from fast_style import objective as tags
from fast_style.colour import with_colours_of
from fast_style.errors import FastStyleError, ImageError
from fast_style.hardware import describe_device, resolve_precision
from fast_style.images import (
    check_output,
    fit_long_side,
    read_image,
    read_opaque,
    resize,
    to_uint8,
    write_image,
)
from fast_style.loss_net import MEAN_RGB, LossNetwork, build_loss_network
from fast_style.objective import style_grams
from fast_style.optimize_config import OptimizeConfig
from fast_style.picture_loss import PictureLoss, default_layer_weights, make_evaluation

SMALLEST_SIDE = 32  # px: below this a VGG's deepest layers have nothing left to see
_NOISE = 25.0  # levels, standard deviation
_RANGE = (0.0, 255.0)


@dataclass(frozen=True)
class OptimizeHeader:
    """What is about to be done.

    Attributes:
      device: What computes.
      precision: 'float32' or 'bfloat16'.
      loss_model: Name of the loss network.
      loss_model_file: The weights file in use.
      sizes: (height, width) of each scale.
      optimizer: Its name.
      steps: Steps in all.
    """

    device: str
    precision: str
    loss_model: str
    loss_model_file: Path
    sizes: tuple[tuple[int, int], ...]
    optimizer: str
    steps: int


@dataclass(frozen=True)
class OptimizeReport:
    """One finished step.

    Attributes:
      step: Steps done at all sizes, this one included.
      steps: Steps in all.
      size: (height, width) now worked on.
      losses: {tag of `objective`: value} of the picture after this step.
    """

    step: int
    steps: int
    size: tuple[int, int]
    losses: Mapping[str, float]


@dataclass(frozen=True)
class OptimizeResult:
    """What was made.

    Attributes:
      picture: [H, W, 3] uint8 of the final size.
      first: Losses of the picture that the last size started from.
      last: Losses at the end.
      steps: Steps done.
      seconds: Time spent on them, with what each size needs before its first.
      notes: Sentences a person should read.
      interrupted: Whether a person stopped it.
    """

    picture: np.ndarray
    first: Mapping[str, float]
    last: Mapping[str, float]
    steps: int
    seconds: float
    notes: tuple[str, ...] = ()
    interrupted: bool = False


class OptimizeObserver:
    """Is told what happens; every method may be left as it is."""

    def on_start(self, header: OptimizeHeader) -> None:
        """Called once, before the first step."""

    def on_step(self, report: OptimizeReport) -> None:
        """Called after every step."""

    def on_log(self, report: OptimizeReport) -> None:
        """Called every `log_every_steps` steps, and after the first and the last of each size."""

    def on_picture(self, path: Path) -> None:
        """Called when a picture of a step was written."""


# --- pictures ------------------------------------------------------------------------------------


def blend_of(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """Turns the weights of styles into shares that sum to 1; none means equal ones.

    Raises:
      FastStyleError: If there are not `count` of them, one is below 0 or not finite, or all are 0.
    """
    if weights is None:
        return (1.0 / count,) * count
    if len(weights) != count:
        raise FastStyleError(
            f"--style-weights: expected {count} numbers, one per style, got {len(weights)}"
        )
    if not all(np.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
        shown = ", ".join(f"{weight:g}" for weight in weights)
        raise FastStyleError(
            f"--style-weights: expected numbers of at least 0 and one above it, got {shown}"
        )
    total = sum(weights)
    return tuple(weight / total for weight in weights)


def scale_sizes(
    height: int, width: int, *, size: int | None, size_side: str, scales: int
) -> tuple[tuple[int, int], ...]:
    """Returns the (height, width) of each scale, from coarse to fine.

    Args:
      height: The photo's.
      width: The photo's.
      size: Of the last scale; none keeps the photo's.
      size_side: 'long_side' or 'height': what `size` is of.
      scales: Each is twice the one before; those with a side below `SMALLEST_SIDE` are left out.

    Raises:
      ImageError: If the last scale has such a side.
    """
    factor = 1.0
    if size is not None:
        factor = size / (height if size_side == "height" else max(height, width))
    sizes = []
    for level in reversed(range(scales)):
        scaled = factor / 2**level
        sizes.append((max(1, round(height * scaled)), max(1, round(width * scaled))))
    if min(sizes[-1]) < SMALLEST_SIDE:
        raise ImageError(
            f"the photo would be optimized at {sizes[-1][1]}x{sizes[-1][0]} px, but both sides "
            f"must have at least {SMALLEST_SIDE}; choose a larger photo or a larger size"
        )
    return tuple(pair for pair in sizes if min(pair) >= SMALLEST_SIDE)


def fit_style(
    style: np.ndarray, height: int, width: int, *, fit: str, scale: float = 1.0
) -> np.ndarray:
    """Scales a style picture to go with a picture of height x width.

    No side becomes shorter than `SMALLEST_SIDE`.

    Args:
      style: [H, W, 3] uint8.
      height: The picture's.
      width: The picture's.
      fit: 'long_side' or 'width', to equal the picture's, or 'stretch' to both its sides.
      scale: Factor on the result's sides.

    Returns:
      [H', W', 3] uint8.
    """
    if fit == "stretch":
        sides = (max(round(side * scale), SMALLEST_SIDE) for side in (height, width))
        return resize(style, *sides)
    if fit == "width":
        factor = scale * width / style.shape[1]
    else:
        factor = scale * max(height, width) / max(style.shape[:2])
    factor = max(factor, SMALLEST_SIDE / min(style.shape[:2]))
    return fit_long_side(style, round(factor * max(style.shape[:2])))


def noise_picture(height: int, width: int, seed: int) -> np.ndarray:
    """Returns grey noise around the mean colour that the networks subtract.

    Returns:
      [height, width, 3] float32, 0..255; a pure function of its arguments.
    """
    noise = np.random.default_rng(seed).normal(0.0, _NOISE, (height, width, 3))
    return np.clip(np.array(MEAN_RGB) + noise, *_RANGE).astype(np.float32)


# --- from the configuration to arguments ---------------------------------------------------------


def layer_weights(config: OptimizeConfig) -> tuple[dict[str, float], dict[str, float]]:
    """Returns {content layer: weight} and {style layer: weight}, without those of weight 0."""
    content = default_layer_weights(config.normalization, config.content_layers)
    if (blend := config.content_weight_blend) is not None:
        content = dict(zip(config.content_layers, (blend, 1.0 - blend), strict=True))
    style = default_layer_weights(config.normalization, config.style_layers)
    if config.style_layer_weights is not None:
        style = dict(zip(config.style_layers, config.style_layer_weights, strict=True))
    return _nonzero(content), _nonzero(style)


def _nonzero(weights: Mapping[str, float]) -> dict[str, float]:
    return {layer: weight for layer, weight in weights.items() if weight}


def build_network(config: OptimizeConfig, precision: Literal["float32", "bfloat16"]) -> LossNetwork:
    """Builds the loss network, no deeper than layers of a weight above 0 need."""
    content, style = layer_weights(config)
    return build_loss_network(
        config.loss_model,
        config.loss_model_file,
        tuple(dict.fromkeys((*content, *style))),
        dtype=precision,
        pooling="avg" if config.pooling == "avg" else "max",
        exclude_scopes=config.checkpoint_exclude_scopes,
    )


def build_picture_loss(
    config: OptimizeConfig,
    network: LossNetwork,
    styles: Sequence[np.ndarray],
    blend: Sequence[float],
    height: int,
    width: int,
) -> PictureLoss:
    """Builds the loss of pictures of height x width.

    Args:
      config: The run.
      network: The loss network.
      styles: uint8 [H, W, 3] each, of any size.
      blend: The share of each.
      height: The picture's.
      width: The picture's.
    """
    content, style = layer_weights(config)
    fitted = [
        fit_style(picture, height, width, fit=config.style_fit, scale=config.style_scale)
        for picture in styles
    ]
    return PictureLoss(
        network=network,
        normalization=config.normalization,
        content_layers=content,
        style_layers=style,
        target_grams=style_grams(network, tuple(style), fitted),
        blend=blend,
        content_weight=config.content_weight,
        style_weight=config.style_weight,
        tv_weight=config.tv_weight,
        tv_form=config.tv_form,
    )


def build_precision(config: OptimizeConfig) -> Literal["float32", "bfloat16"]:
    """Returns what to compute in."""
    if config.precision == "auto" and config.optimizer == "lbfgs":
        return "float32"
    return resolve_precision(config.precision)


# --- the run -------------------------------------------------------------------------------------


def optimize(
    config: OptimizeConfig,
    content: str | os.PathLike[str],
    styles: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    style_weights: Sequence[float] | None = None,
    observer: OptimizeObserver | None = None,
) -> OptimizeResult:
    """Reads a photo and style pictures, and writes the photo in their style.

    With `save_every_steps`, pictures of steps are written beside the result: out.step-00100.png.

    Args:
      config: How.
      content: The photo.
      styles: One or more style pictures.
      output: Where the result goes; its ending decides the format.
      style_weights: How much of each style; they need not sum to 1. None: the same of each.
      observer: Is told what happens.

    Returns:
      What was made. Ctrl-C ends the work early; the picture so far is written.

    Raises:
      FastStyleError: For everything a person can put right, before the work; and when a loss is
        not finite, with nothing written but pictures of earlier steps.
    """
    observer = observer or OptimizeObserver()
    sources = [content, *styles, *([config.start_image] if config.start_image else [])]
    target = Path(output)
    check_output(target, sources)
    shares = blend_of(style_weights, len(styles))
    photo = read_image(content)
    paintings = [read_opaque(path) for path in styles]
    start = None if config.start_image is None else read_image(config.start_image)

    def save(picture: np.ndarray, step: int) -> None:
        path = target.with_name(f"{target.stem}.step-{step:05d}{target.suffix}")
        write_image(path, picture)
        observer.on_picture(path)

    run = _Run(config, photo, paintings, shares, start, observer, save)
    result = run.all_scales()
    write_image(target, result.picture)
    return result


class _Run:
    """A run in progress: what its steps share."""

    def __init__(
        self,
        config: OptimizeConfig,
        photo: np.ndarray,
        styles: Sequence[np.ndarray],
        blend: Sequence[float],
        start: np.ndarray | None,
        observer: OptimizeObserver,
        save: Callable[[np.ndarray, int], None],
    ) -> None:
        self.config = config
        self.photo = photo
        self.styles = styles
        self.blend = blend
        self.start = start
        self.observer = observer
        self.save = save
        self.sizes = scale_sizes(
            *photo.shape[:2],
            size=config.size,
            size_side=config.size_side,
            scales=config.scales,
        )
        coarse = config.steps if config.coarse_steps is None else config.coarse_steps
        self.plan = [coarse] * (len(self.sizes) - 1) + [config.steps]
        self.final_photo = resize(photo, *self.sizes[-1])
        self.picture = self._first_picture()
        self.done = 0
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.notes: list[str] = []

    def _first_picture(self) -> np.ndarray:
        """Returns float32 of the coarsest size."""
        size = self.sizes[0]
        if self.config.start == "noise":
            return noise_picture(*size, self.config.seed)
        start = self.photo if self.start is None else self.start
        return resize(start, *size).astype(np.float32)

    def all_scales(self) -> OptimizeResult:
        config = self.config
        precision = build_precision(config)
        network = build_network(config, precision)
        self.observer.on_start(
            OptimizeHeader(
                device=describe_device(),
                precision=precision,
                loss_model=config.loss_model,
                loss_model_file=network.weights_file,
                sizes=self.sizes,
                optimizer=config.optimizer,
                steps=sum(self.plan),
            )
        )
        began = time.perf_counter()
        interrupted = False
        try:
            for size, steps in zip(self.sizes, self.plan, strict=True):
                self._one_scale(network, size, steps)
        except KeyboardInterrupt:
            if not self.done:  # There is nothing to write but the start.
                raise
            interrupted = True
        return OptimizeResult(
            picture=self.finished(),
            first=self.first,
            last=self.last,
            steps=self.done,
            seconds=time.perf_counter() - began,
            notes=tuple(self.notes),
            interrupted=interrupted,
        )

    def _one_scale(self, network: LossNetwork, size: tuple[int, int], steps: int) -> None:
        config = self.config
        photo = resize(self.photo, *size)
        loss = build_picture_loss(config, network, self.styles, self.blend, *size)
        evaluation = make_evaluation(loss, photo)
        if self.picture.shape != photo.shape:
            self.picture = resize(to_uint8(self.picture), *size).astype(np.float32)
        self.first = {}
        newest: Mapping[str, float] = {}
        before = self.done

        def loss_and_gradient(picture: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal newest
            newest, gradient = evaluation(picture)
            if not self.first:
                self.first = self.last = newest
            return newest[tags.TOTAL], gradient

        def on_iteration(iteration: int, _: float, picture: np.ndarray) -> None:
            # Both minimizers evaluate a picture that they keep last, so these are its terms.
            self.picture, self.last = picture, newest
            self.done = before + iteration
            report = OptimizeReport(self.done, sum(self.plan), size, self.last)
            self.observer.on_step(report)
            if iteration in (1, steps) or self.done % config.log_every_steps == 0:
                self.observer.on_log(report)
            if config.save_every_steps and self.done % config.save_every_steps == 0:
                self.save(self.finished(), self.done)

        if config.optimizer == "lbfgs":
            found = lbfgs.minimize(
                loss_and_gradient, self.picture, iterations=steps, on_iteration=on_iteration
            )
            if found.stopped:
                self.notes.append(f"at {size[1]}x{size[0]} px, L-BFGS stopped: {found.stopped}")
        else:
            self._descend(loss_and_gradient, on_iteration, steps)

    def _descend(
        self,
        loss_and_gradient: lbfgs.LossAndGradient,
        on_iteration: lbfgs.OnIteration,
        steps: int,
    ) -> None:
        config = self.config
        direction = descent.plain_direction()
        if config.optimizer == "adam":
            direction = descent.adam_direction(
                beta_1=config.adam_beta_1,
                beta_2=config.adam_beta_2,
                epsilon=config.adam_epsilon,
            )
        descent.minimize(
            loss_and_gradient,
            self.picture,
            iterations=steps,
            direction=direction,
            learning_rate=lambda step: descent.decayed_rate(
                config.learning_rate,
                step,
                decay_rate=config.decay_rate,
                every=config.decay_every_steps,
            ),
            unit=255.0 / config.pixel_range,
            on_iteration=on_iteration,
            bounds=_RANGE if config.clip_each_step else None,
        )

    def finished(self) -> np.ndarray:
        """Returns the picture so far as it is written: final size, colours, uint8."""
        picture = to_uint8(self.picture)
        if picture.shape != self.final_photo.shape:
            picture = resize(picture, *self.final_photo.shape[:2])
        if self.config.preserve_color:
            picture = to_uint8(with_colours_of(picture, self.final_photo))
        return picture
