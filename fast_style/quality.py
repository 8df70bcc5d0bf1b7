"""How good a model is: how many iterations of L-BFGS on the same loss it is worth.

For each held-out photo, the loss of the model's picture is looked up on the curve of L-BFGS, which
starts from the same photo, or from noise, and lowers the same loss: the one of the model's own run.
A network that is worth N iterations does in one pass what optimization does in N (Johnson et al.,
2016, Figure 5, compare so, from white noise; theirs were worth 50 to 100).

Both sides are scored in float32 by one compiled function. Of the model the picture is scored that
a person gets, rounded to 8 bits; L-BFGS may keep its fractions, so the model is never flattered.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from fast_style import objective as tags
from fast_style.builders import build_network, build_objective, load_style_pictures
from fast_style.checkpoints import Model
from fast_style.config import RunConfig, StyleSpec, config_from_dict
from fast_style.curves import (
    STARTS,
    Curve,
    CurveCache,
    Iterations,
    curve_key,
    equivalent_iterations,
    optimize_photo,
    quantile,
)
from fast_style.errors import DataError, FastStyleError, ImageError, ModelError
from fast_style.images import cover_crop, read_image
from fast_style.lbfgs import LossAndGradient
from fast_style.optimize import noise_picture
from fast_style.picture_loss import Evaluation, Evaluator, picture_loss_of
from fast_style.provenance import file_sha256, package_versions
from fast_style.stylize import Stylizer


@dataclass(frozen=True)
class PhotoScore:
    """One photo in one style.

    Attributes:
      path: The photo's file.
      photo: uint8 [S, S, 3], its centre crop.
      styled: uint8 [S, S, 3], the model's picture.
      terms: {TensorBoard tag: value} of the model's picture.
      photo_loss: The photo's own loss, unchanged.
      curve: L-BFGS's.
      worth: Where the curve crosses the model's loss.
    """

    path: Path
    photo: np.ndarray
    styled: np.ndarray
    terms: Mapping[str, float]
    photo_loss: float
    curve: Curve
    worth: Iterations

    @property
    def loss(self) -> float:
        """The model's loss: the weighted sum of its terms."""
        return self.terms[tags.TOTAL]

    @property
    def start_loss(self) -> float:
        """The loss that L-BFGS starts from: the photo's own, or that of noise."""
        return float(self.curve.losses[0])


@dataclass(frozen=True)
class StyleScore:
    """All photos in one style.

    Attributes:
      name: The style's.
      weight: Its style weight.
      photos: At least one.
    """

    name: str
    weight: float
    photos: tuple[PhotoScore, ...]

    def worth(self, share: float = 0.5) -> Iterations:
        """Returns a quantile over the photos, the median by default."""
        return quantile([photo.worth for photo in self.photos], share)


@dataclass(frozen=True)
class Quality:
    """What was measured.

    Attributes:
      model: The model.
      config: Its run, whose loss was used.
      loss_model_sha256: Hash of the loss network's weights.
      precision: What the model computed in.
      iterations: Length of the curves.
      start: What they start from, 'photo' or 'noise'.
      styles: One entry per style.
      skipped: {photo: why it could not be read}.
      notes: Sentences a person should read.
      seconds: How long it took.
    """

    model: Model
    config: RunConfig
    loss_model_sha256: str
    precision: str
    iterations: int
    start: str
    styles: tuple[StyleScore, ...]
    skipped: Mapping[Path, str]
    notes: tuple[str, ...]
    seconds: float


class QualityObserver:
    """Is told what happens while a model is measured; every method may be left as it is."""

    def on_start(self, curves: int, known: int, notes: Sequence[str]) -> None:
        """Called once: how many curves are needed, and how many of them need no computing."""

    def on_curve(self, path: Path, style: str) -> None:
        """Called before a curve is computed."""

    def on_iteration(self, iteration: int) -> None:
        """Called after each iteration of L-BFGS."""

    def on_photo(self, score: PhotoScore, style: str) -> None:
        """Called when a photo has its number."""


# --- from a model to the loss it was trained with ------------------------------------------------


def model_config(model: Model) -> RunConfig:
    """Returns the configuration of the run that made a model.

    Raises:
      ModelError: If the model does not say how it was made.
      ConfigError: If what it says is of another version.
    """
    config = model.metadata.get("config")
    if not config:
        raise ModelError(
            f"{model.source}: does not say how it was made, as checkpoints of the 2016 "
            "implementation do not; give its configuration with -c, such as -c conf/candy.yml"
        )
    return config_from_dict(config, f"{model.source}: its configuration")


def choose_styles(config: RunConfig, names: Sequence[str]) -> tuple[StyleSpec, ...]:
    """Returns the styles with these names, all without any.

    Raises:
      FastStyleError: If a name is not one of them.
    """
    known = {style.name: style for style in config.style_specs}
    if unknown := [name for name in names if name not in known]:
        raise FastStyleError(
            f"--style {unknown[0]}: no such style in this model; choose from {', '.join(known)}"
        )
    return tuple(known[name] for name in dict.fromkeys(names)) or config.style_specs


def relocate(
    config: RunConfig,
    styles: Sequence[StyleSpec],
    style_images: Sequence[str] = (),
    loss_model_file: str | None = None,
) -> tuple[RunConfig, tuple[StyleSpec, ...]]:
    """Replaces paths of a run whose files have moved since.

    Args:
      config: The run.
      styles: The styles that are measured.
      style_images: 'NAME=PATH' each, or a single path if there is a single style.
      loss_model_file: Where the loss network's weights are; none leaves them where they were.

    Returns:
      The run and the styles, with the new paths.

    Raises:
      FastStyleError: If it is not clear whose picture one is, or a picture is not there.
    """
    if loss_model_file is not None:
        config = dataclasses.replace(config, loss_model_file=loss_model_file)
    names = [style.name for style in styles]
    moved: dict[str, str] = {}
    for text in style_images:
        name, equals, path = text.partition("=")
        if equals and name in names:
            moved[name] = path
        elif len(styles) == 1 and len(style_images) == 1:
            moved[names[0]] = text
        else:
            raise FastStyleError(
                f"--style-image {text}: whose picture is this? Write NAME=PATH, with a name out of "
                f"{', '.join(names)}"
            )
    found = tuple(
        dataclasses.replace(style, image=moved.get(style.name, style.image)) for style in styles
    )
    for style in found:
        if not Path(style.image).is_file():
            raise FastStyleError(
                f"{style.image}: no such file, and the loss needs the style picture of "
                f"{style.name!r}; say where it is with --style-image"
            )
    return config, found


# Keys of a run that its loss follows from; files are compared by their contents.
_LOSS_KEYS = (
    "style_weight",
    "content_weight",
    "tv_weight",
    "content_layers",
    "style_layers",
    "style_size",
    "image_size",
    "loss_model",
)


def _check_provenance(
    model: Model, config: RunConfig, styles: Sequence[StyleSpec], weights_sha256: str
) -> list[str]:
    """Compares the loss in use with what the model was saved with."""
    hashes = model.metadata.get("style_sha256")
    recorded = dict(
        zip(model.style_names, hashes if isinstance(hashes, list) else [], strict=False)
    )
    notes = []
    for style in styles:
        now = file_sha256(Path(style.image))
        # A single style is the model's only one, whatever another configuration calls it.
        name = style.name if len(recorded) != 1 else next(iter(recorded))
        then = str(recorded.get(name, now))
        if then != now:
            notes.append(
                f"{style.image} is not the picture that {style.name!r} was trained with (SHA-256 "
                f"{now[:12]}..., then {then[:12]}...), so N is about another loss"
            )
    then_config = model.metadata.get("config")
    if isinstance(then_config, Mapping):
        given = config.to_dict()
        for key in _LOSS_KEYS:
            if key in then_config and then_config[key] != given[key]:
                notes.append(
                    f"{key} is {given[key]}, and the model was trained with {then_config[key]}, "
                    "so N is about another loss"
                )
    then = str(model.metadata.get("loss_model_sha256", weights_sha256))
    if then != weights_sha256:
        notes.append(
            "the loss network's weights are not those of the training (SHA-256 "
            f"{weights_sha256[:12]}..., then {then[:12]}...), so N is about another loss"
        )
    return notes


# --- measuring -----------------------------------------------------------------------------------


def measure_quality(
    model: Model,
    config: RunConfig,
    photos: Sequence[Path],
    *,
    styles: Sequence[StyleSpec] | None = None,
    iterations: int = 200,
    start: str = "photo",
    cache: CurveCache | None = None,
    precision: str = "float32",
    observer: QualityObserver | None = None,
) -> Quality:
    """Measures what a model is worth on photos, in iterations of L-BFGS.

    Args:
      model: The model.
      config: Its run; decides the loss and the size of the pictures.
      photos: Files that training did not see; centre-cropped to `image_size`.
      styles: Those of `config.style_specs` to measure, their paths where the files are now; none
        means all.
      iterations: Length of the curves, at least 1.
      start: What L-BFGS starts from, one of `curves.STARTS`: 'photo', or 'noise', grey and the same
        for all photos, from where it needs more iterations, so that N is larger.
      cache: Keeps curves; none computes every one.
      precision: What the model computes in. float32 gives the same numbers on every machine.
      observer: Is told what happens. An exception (Ctrl-C) loses no curve that was finished.

    Raises:
      FastStyleError: If the model does not fit the configuration, a file it names is missing, or
        no photo can be read.
      ValueError: If `start` is none of them.
    """
    if start not in STARTS:
        raise ValueError(f"start: expected one of {', '.join(STARTS)}, got {start!r}")
    began = time.monotonic()
    observer = observer or QualityObserver()
    all_names = [style.name for style in config.style_specs]
    # A single style needs no name: checkpoints of the 2016 implementation have none.
    if len(all_names) != len(model.style_names) or (
        len(all_names) > 1 and all_names != list(model.style_names)
    ):
        raise ModelError(
            f"{model.source}: its styles are {', '.join(model.style_names)}, and those of the "
            f"configuration {', '.join(all_names)}; give the configuration it was trained with"
        )
    styles = tuple(styles or config.style_specs)
    measured = _only_styles(config, styles)
    pictures = load_style_pictures(measured)
    network = build_network(measured, "float32")
    objective = build_objective(measured, network, pictures)
    notes = _check_provenance(model, config, styles, network.sha256)
    crops, skipped = _read_crops(photos, config.image_size)

    settings = _curve_settings(measured, network.sha256)
    noise = (
        [noise_picture(config.image_size, config.image_size, seed=0)] if start == "noise" else []
    )
    keys = {
        (path, style.name): curve_key(
            [crop, picture, *noise], {**settings, "style_weight": style.weight}
        )
        for path, crop in crops.items()
        for style, picture in zip(styles, pictures, strict=True)
    }
    curves: dict[tuple[Path, str], Curve] = {}
    if cache is not None:
        found = {place: cache.get(key, iterations) for place, key in keys.items()}
        curves = {place: curve for place, curve in found.items() if curve is not None}
    observer.on_start(len(keys), len(curves), notes)

    stylizer = Stylizer(model, precision=precision)
    evaluator = Evaluator(network)
    scores: dict[str, list[PhotoScore]] = {style.name: [] for style in styles}
    for path, crop in crops.items():
        targets = objective.content_targets(tf.constant(crop[None]))
        for index, style in enumerate(styles):
            evaluation = evaluator.evaluation(picture_loss_of(objective, index), targets)
            curve = curves.get((path, style.name))
            if curve is None:
                observer.on_curve(path, style.name)
                curve = optimize_photo(
                    _total_of(evaluation),
                    noise[0] if noise else crop,
                    iterations,
                    observer.on_iteration,
                )
                if cache is not None:
                    cache.put(keys[path, style.name], curve)
            choice = np.eye(len(all_names))[all_names.index(style.name)]
            styled = stylizer.stylize(crop, style_weights=list(choice))
            terms, _ = evaluation(styled.astype(np.float32))
            worth = equivalent_iterations(curve.losses, terms[tags.TOTAL], iterations)
            photo_loss = curve.losses[0]
            if noise:
                photo_loss = evaluation(crop.astype(np.float32))[0][tags.TOTAL]
            score = PhotoScore(path, crop, styled, terms, float(photo_loss), curve, worth)
            scores[style.name].append(score)
            observer.on_photo(score, style.name)
    return Quality(
        model=model,
        config=measured,
        loss_model_sha256=network.sha256,
        precision=stylizer.precision,
        iterations=iterations,
        start=start,
        styles=tuple(
            StyleScore(style.name, style.weight, tuple(scores[style.name])) for style in styles
        ),
        skipped=skipped,
        notes=tuple(notes),
        seconds=time.monotonic() - began,
    )


def _total_of(evaluation: Evaluation) -> LossAndGradient:
    def loss_and_gradient(picture: np.ndarray) -> tuple[float, np.ndarray]:
        terms, gradient = evaluation(picture)
        return terms[tags.TOTAL], gradient

    return loss_and_gradient


def _only_styles(config: RunConfig, styles: Sequence[StyleSpec]) -> RunConfig:
    if config.styles is not None:
        return dataclasses.replace(config, styles=tuple(styles))
    return dataclasses.replace(config, style_image=styles[0].image)


def _read_crops(
    photos: Sequence[Path], size: int
) -> tuple[dict[Path, np.ndarray], dict[Path, str]]:
    crops, skipped = {}, {}
    for path in photos:
        try:
            crops[path] = cover_crop(read_image(path), size)
        except ImageError as error:
            skipped[path] = str(error)
    if not crops:
        reason = next(iter(skipped.values()), "there are none")
        raise DataError(f"none of the {len(photos)} photos can be read; for example, {reason}")
    return crops, skipped


def _curve_settings(config: RunConfig, weights_sha256: str) -> dict[str, Any]:
    return {
        "loss_model": config.loss_model,
        "loss_model_sha256": weights_sha256,
        "content_layers": config.content_layers,
        "style_layers": config.style_layers,
        "content_weight": config.content_weight,
        "tv_weight": config.tv_weight,
        "style_size": config.style_size,
        "image_size": config.image_size,
    }


# --- as JSON -------------------------------------------------------------------------------------


def quality_to_dict(quality: Quality) -> dict[str, Any]:
    """Returns all numbers, for JSON: which model and loss, and each photo's terms, curve and N."""
    model = quality.model
    return {
        "model": str(model.source),
        "steps": model.metadata.get("steps"),
        "image_size": quality.config.image_size,
        "iterations": quality.iterations,
        "start": quality.start,
        "model_precision": quality.precision,
        "loss": _curve_settings(quality.config, quality.loss_model_sha256),
        "notes": list(quality.notes),
        "versions": package_versions(),
        "seconds": round(quality.seconds, 1),
        "styles": [
            {
                "name": style.name,
                "style_weight": style.weight,
                "photos": len(style.photos),
                "n_median": style.worth().to_dict(),
                "n_lower_quartile": style.worth(0.25).to_dict(),
                "n_upper_quartile": style.worth(0.75).to_dict(),
                "per_photo": [_photo_to_dict(photo) for photo in style.photos],
            }
            for style in quality.styles
        ],
        "skipped": {str(path): reason for path, reason in quality.skipped.items()},
    }


def _photo_to_dict(photo: PhotoScore) -> dict[str, Any]:
    return {
        "photo": str(photo.path),
        "n": photo.worth.to_dict(),
        "photo_loss": _seven_digits(photo.photo_loss),
        "model_terms": {tag: _seven_digits(value) for tag, value in photo.terms.items()},
        "curve": [_seven_digits(loss) for loss in photo.curve.losses],
        "evaluations": photo.curve.evaluations,
        "ended_early": photo.curve.ended,
    }


def _seven_digits(value: float) -> float:
    """Cuts a number to what float32 knows of it."""
    return float(f"{value:.7g}")
