"""How one picture is optimized, described by flat keys: their defaults, ranges and rules."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fast_style import checks, flat_config
from fast_style.config import LOSS_MODEL_KEYS, layer_problems
from fast_style.flat_config import Problem
from fast_style.loss_models import LOSS_MODELS, VGG_BLOCKS, default_weights_file

# The rows of `picture_loss`'s tables, without importing TensorFlow.
NORMALIZATIONS = ("slim2016", "keras", "tf2", "matconvnet")
TV_FORMS = ("squared", "power", "l2")


def _pixel_range(key: str, value: Any, problems: list[str]) -> Any:
    if type(value) not in (int, float) or value not in (1, 255):
        problems.append(f"{key}: expected 255 or 1, got {checks.show(value)}")
        return value
    return float(value)


def _numbers(key: str, value: Any, problems: list[str]) -> Any:
    if not isinstance(value, list | tuple) or not value:
        problems.append(f"{key}: expected a list of one or more numbers, got {checks.show(value)}")
        return value
    check = checks.number()
    return tuple(check(f"{key}[{index}]", item, problems) for index, item in enumerate(value))


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizeConfig:
    """Everything that decides an optimized picture but the pictures; the keys of the YAML files.

    Values are checked on construction, as those of `config.RunConfig`. The defaults are what
    conf/optimize/default.yml says: a good picture in little time.

    Attributes:
      start: What the picture is at first: 'content' (the photo) or 'noise'.
      start_image: Path of a picture to start from instead.
      size: Size of the result in px; None: the photo's own.
      size_side: Which side that is: 'long_side' or 'height'.
      scales: Sizes worked through, each twice the one before, the last one being `size`; those
        with a side below 32 px are left out.
      coarse_steps: Steps at each size but the last; None: as many as `steps`.
      style_fit: The style picture's size: its long side, or its width, equals the picture's, or
        it is stretched to the picture's height and width.
      style_scale: Factor on that size: larger, larger strokes.
      steps: Optimization steps at the last size; iterations for L-BFGS.
      optimizer: 'adam', 'lbfgs' or 'sgd'.
      learning_rate: Of adam and sgd, in units of `pixel_range`.
      decay_rate: Factor on the learning rate of adam and sgd every `decay_every_steps` steps.
      decay_every_steps: See there; it decays a little at each step.
      adam_beta_1: Decay of Adam's mean of gradients, below 1.
      adam_beta_2: Decay of its mean of squared gradients, below 1.
      adam_epsilon: Added to the root of that mean.
      pixel_range: 255 or 1: the unit of the pixels that adam and sgd move.
      clip_each_step: Whether adam and sgd keep pixels in their range at every step, or only the
        result is clipped. L-BFGS always keeps them in range.
      content_weight: Weight of the content loss.
      style_weight: Weight of the style loss.
      tv_weight: Weight of the total variation loss.
      normalization: Whose formula the content and style losses follow, see `picture_loss`.
      tv_form: Whose total variation, see `picture_loss`.
      loss_model: One of `loss_models.LOSS_MODELS`.
      loss_model_file: Path of its weights; '' stands for `loss_models.default_weights_file`.
      checkpoint_exclude_scopes: Comma-separated scopes left out when reading it.
      pooling: 'max' or 'avg' between the VGGs' blocks.
      content_layers: Layers compared with the photo's.
      content_weight_blend: With two content layers: the weight of the first, 0 to 1; the second
        gets the rest. None: the normalization's own.
      style_layers: Layers whose Gram matrices are compared with the style's.
      style_layer_weights: One number per style layer; None: the normalization's own.
      preserve_color: Give the result the photo's colours.
      precision: 'auto', 'float32' or 'bfloat16'; auto is float32 for L-BFGS, whose line search
        takes rounding for hills, and what suits the hardware for the others.
      seed: What the noise derives from.
      log_every_steps: Steps between two reports.
      save_every_steps: Steps between two pictures written beside the result; None: no such.

    Raises:
      ConfigError: If a value has a wrong type, is out of its range, or contradicts another.
    """

    start: Annotated[str, checks.choice("content", "noise")] = "content"
    start_image: Annotated[str | None, checks.optional(checks.path)] = None
    size: Annotated[int | None, checks.optional(checks.whole(32))] = 512
    size_side: Annotated[str, checks.choice("long_side", "height")] = "long_side"
    scales: Annotated[int, checks.whole(1)] = 3
    coarse_steps: Annotated[int | None, checks.optional(checks.whole(1))] = 60
    style_fit: Annotated[str, checks.choice("long_side", "width", "stretch")] = "long_side"
    style_scale: Annotated[float, checks.number(1 / 16, 16)] = 1.0
    steps: Annotated[int, checks.whole(1)] = 60
    optimizer: Annotated[str, checks.choice("adam", "lbfgs", "sgd")] = "adam"
    learning_rate: Annotated[float, checks.number(above=True)] = 10.0
    decay_rate: Annotated[float, checks.number(0.01, 1)] = 1.0
    decay_every_steps: Annotated[int, checks.whole(1)] = 100
    adam_beta_1: Annotated[float, checks.number(0, 0.9999)] = 0.9
    adam_beta_2: Annotated[float, checks.number(0, 0.999999)] = 0.999
    adam_epsilon: Annotated[float, checks.number(above=True)] = 1e-8
    pixel_range: Annotated[float, _pixel_range] = 255.0
    clip_each_step: Annotated[bool, checks.flag] = True
    content_weight: Annotated[float, checks.number()] = 1.0
    style_weight: Annotated[float, checks.number()] = 400.0
    tv_weight: Annotated[float, checks.number()] = 0.0
    normalization: Annotated[str, checks.choice(*NORMALIZATIONS)] = "matconvnet"
    tv_form: Annotated[str, checks.choice(*TV_FORMS)] = "squared"
    loss_model: Annotated[str, checks.choice(*LOSS_MODELS)] = "vgg_16"
    loss_model_file: Annotated[str, checks.path] = ""
    checkpoint_exclude_scopes: Annotated[str, checks.text] = ""
    pooling: Annotated[str, checks.choice("max", "avg")] = "max"
    content_layers: Annotated[tuple[str, ...], checks.layers] = ("vgg_16/conv3/conv3_3",)
    content_weight_blend: Annotated[float | None, checks.optional(checks.number(0, 1))] = None
    style_layers: Annotated[tuple[str, ...], checks.layers] = (
        "vgg_16/conv1/conv1_2",
        "vgg_16/conv2/conv2_2",
        "vgg_16/conv3/conv3_3",
        "vgg_16/conv4/conv4_3",
    )
    style_layer_weights: Annotated[tuple[float, ...] | None, checks.optional(_numbers)] = (
        1 / 1024,
        1 / 128,
        1 / 16,
        1 / 2,
    )
    preserve_color: Annotated[bool, checks.flag] = False
    precision: Annotated[str, checks.choice("auto", "float32", "bfloat16")] = "auto"
    seed: Annotated[int, checks.whole(0)] = 0
    log_every_steps: Annotated[int, checks.whole(1)] = 10
    save_every_steps: Annotated[int | None, checks.optional(checks.whole(1))] = None

    def __post_init__(self) -> None:
        """Checks every value; whole numbers become floats and lists tuples where due."""
        if self.loss_model_file == "":
            object.__setattr__(self, "loss_model_file", default_weights_file(self.loss_model))
        flat_config.complete(self, _rules)

    def to_dict(self) -> dict[str, Any]:
        """Every key in field order, as values that YAML and JSON can hold."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def load_optimize_config(
    path: str | os.PathLike[str] | None, overrides: Sequence[str] = ()
) -> OptimizeConfig:
    """Reads a YAML file of keys; those it lacks have their defaults.

    Args:
      path: Such as conf/optimize/default.yml; none: defaults and overrides.
      overrides: 'key=value' texts, as for `config.load_config`.

    Raises:
      ConfigError: With every problem of the file and the overrides.
    """
    if path is None:
        return OptimizeConfig(**flat_config.from_overrides(OptimizeConfig, _rules, overrides))
    return OptimizeConfig(
        **flat_config.load(
            OptimizeConfig,
            _rules,
            path,
            overrides,
            replaces={"loss_model": LOSS_MODEL_KEYS},
            example="steps: 100",
        )
    )


def optimize_config_to_yaml(config: OptimizeConfig) -> str:
    """Writes every key in field order, as text that loads back to an equal config."""
    return flat_config.to_yaml(config.to_dict())


def _rules(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Finds what contradicts what; a problem names all keys that it was concluded from."""
    if values.get("start") == "noise" and values.get("start_image") is not None:
        yield Problem(
            frozenset({"start", "start_image"}),
            "start_image: not allowed beside 'start: noise'; remove one of the two",
        )
    layers, weights = values.get("style_layers", ()), values.get("style_layer_weights")
    if weights is not None and len(weights) != len(layers):
        yield Problem(
            frozenset({"style_layers", "style_layer_weights"}),
            f"style_layer_weights: expected {len(layers)} numbers, one per style layer, got "
            f"{len(weights)}; change them, or write null for the normalization's own",
        )
    if weights is not None and weights and not any(weights):
        yield Problem(
            frozenset({"style_layer_weights"}),
            "style_layer_weights: all are 0; for no style, set 'style_weight: 0'",
        )
    count = len(values.get("content_layers", ()))
    if values.get("content_weight_blend") is not None and count != 2:
        yield Problem(
            frozenset({"content_layers", "content_weight_blend"}),
            f"content_weight_blend: expected two content layers to blend, got {count}; name two, "
            "or set content_weight_blend to null",
        )
    fits = values.get("style_fit") == "stretch" and values.get("style_scale") == 1.0
    if values.get("normalization") == "keras" and not fits:
        yield Problem(
            frozenset({"normalization", "style_fit", "style_scale"}),
            "style_fit: expected stretch, with style_scale 1.0, for normalization keras, whose "
            "Gram matrices are sums over all pixels and compare only between pictures of one size",
        )
    if values.get("pooling") == "avg" and values.get("loss_model") not in VGG_BLOCKS:
        yield Problem(
            frozenset({"pooling", "loss_model"}),
            f"pooling: 'avg' is for the VGGs; {values.get('loss_model')} keeps its own pooling",
        )
    yield from layer_problems(values)
