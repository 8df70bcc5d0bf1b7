"""One run, described by flat keys: which they are, their defaults, ranges and rules.

A key is added in one place: a field of `RunConfig`, with its check and its default. Rules that
involve several keys are in `_rules`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fast_style import checks, flat_config
from fast_style.errors import ConfigError
from fast_style.flat_config import Problem, check_keys
from fast_style.loss_models import (
    LOSS_MODELS,
    MINI,
    MINI_LAYERS,
    VGG_BLOCKS,
    default_weights_file,
    vgg_layers,
)

# A net of eight styles that comes along, of arch johnson and width 1.
START = "pretrained/johnson.safetensors"

# The rows of `transform_net.ARCHITECTURES`, without importing TensorFlow.
ARCHITECTURES = ("johnson", "slim2016")

# What belongs to a loss model, and is of no use to another.
LOSS_MODEL_KEYS = ("loss_model_file", "checkpoint_exclude_scopes")

# How long a run is: one of these says.
LENGTHS = ("epoch", "minutes", "steps")

# What an override takes the place of.
_REPLACES = {
    **{key: tuple(other for other in LENGTHS if other != key) for key in LENGTHS},
    "styles": ("style_image", "style_weight"),
    "style_image": ("styles",),
    "loss_model": (*LOSS_MODEL_KEYS, "mini_first"),
    "arch": ("norm_learning_rate", ("init_from", START)),
    "width": (("init_from", START),),
}


@dataclass(frozen=True, slots=True)
class StyleSpec:
    """One style of a network; checked when it becomes part of a `RunConfig`.

    Attributes:
      name: Names the style and its files.
      image: Path of the style picture.
      weight: Style weight, at least 0, normalised as in the 2016 implementation
        (see `losses`).
    """

    name: Annotated[str, checks.plain_name]
    image: Annotated[str, checks.path]
    weight: Annotated[float, checks.number()]


def _styles(key: str, value: Any, problems: list[str]) -> Any:
    wanted = "{name, image, weight}"
    if not isinstance(value, list | tuple) or not value:
        problems.append(f"{key}: expected a list of one or more {wanted}, got {checks.show(value)}")
        return value
    specs = []
    names = set()
    for index, item in enumerate(value):
        where = f"{key}[{index}]"
        if isinstance(item, StyleSpec):
            item = dataclasses.asdict(item)
        if not isinstance(item, Mapping):
            problems.append(f"{where}: expected {wanted}, got {checks.show(item)}")
            continue
        found, wrong = check_keys(StyleSpec, item, f"{where}.")
        problems += [problem.text for problem in wrong]
        if not wrong:
            specs.append(StyleSpec(**found))
        if "name" in found:
            # Two names that differ only in case are one file on some systems.
            name = found["name"].casefold()
            if name in names:
                problems.append(
                    f"{where}.name: {checks.show(found['name'])} is used twice; rename one"
                )
            names.add(name)
    return tuple(specs)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Everything that decides a run; the same keys as in the YAML files.

    Values are checked on construction. Whole numbers are accepted for floats and lists for tuples;
    nothing else is converted. Paths are kept as written and may not exist.

    Attributes:
      naming: Names the run's folder and files.
      style_image: Path of the style picture; None with `styles`.
      style_weight: Weight of the style loss; None with `styles`.
      styles: Several styles for one network, instead of the two keys above.
      style_size: Long side of the style picture in px; None: centre crop to `image_size`.
      model_path: Folder that the run's own folder is created in.
      dataset: Folder of training photos, searched recursively.
      val_dataset: Folder of held-out photos, scored at every checkpoint.
      patience_checkpoints: End the run when the held-out total loss has not improved for so many
        checkpoints; None: never.
      image_size: Side of the square training pictures in px, at least 32.
      small_first: Share of the run, its beginning, on photos and style pictures of half the size
        and with a quarter of the style weight, 0 to 1; see `run_parts`.
      mini_first: Share of the run, its beginning, that is judged by `vgg_mini` instead of
        `loss_model`, which is `vgg_16`, 0 to 1.
      random_crop: Cut photos at a random place instead of the centre.
      random_flip: Mirror half of the photos.
      batch_size: Photos per step.
      epoch: Passes over the photos; exactly one of `epoch`, `steps` and `minutes` is given.
      steps: Training steps.
      minutes: How long the run takes, all its sittings together, above 0.
      optimizer: 'adam', or 'muon' for the kernels inside the net; see `optimizers`.
      learning_rate: At its highest, above 0: about how far a step moves a weight.
      norm_learning_rate: The same for the scales, offsets and biases that each style has of its
        own; None: `learning_rate`.
      learning_rate_schedule: 'constant', or it falls to 0, in steps, or in time with `minutes`:
        'cosine' over the run, 'cooldown' over its end; see `learning_rate_at`.
      warmup_steps: It rises from 0 over so many steps; 0: it does not.
      gradient_clip: Longest gradient of each weight, as a multiple of its usual length (root mean
        square so far); longer ones are shortened; None: never.
      content_weight: Weight of the content loss.
      tv_weight: Weight of the total variation loss.
      grid_weight: Weight of the grid loss (see `losses.grid_loss`); 0: it is not computed.
      border_weight: Weight of the border loss (see `losses.border_loss`); 0: it is not computed.
      consistency_weight: Weight of the consistency loss (see `consistency`); 0: it is not computed.
      loss_model: One of `loss_models.LOSS_MODELS`.
      loss_model_file: Path of its weights; '' stands for `loss_models.default_weights_file`.
      content_layers: Layers of the loss model that are compared with the photo's.
      style_layers: Layers whose Gram matrices are compared with the style picture's.
      checkpoint_exclude_scopes: Comma-separated scopes left out when reading `loss_model_file`.
      arch: Transform net: 'johnson' or 'slim2016' (one style, width 1.0).
      width: Channel multiplier of the transform net, 1/32 to 8.
      precision: 'auto', 'float32' or 'bfloat16'.
      xla: Compile the training step with XLA; for GPUs.
      init_from: A model or checkpoint whose weights training starts from: a style from the one of
        its picture, a new one from the mean of all.
      seed: Everything random derives from it, at least 0.
      log_every_steps: Steps between two reports.
      summary_every_steps: Steps between two TensorBoard summaries.
      checkpoint_every_steps: Steps between two checkpoints.
      keep_checkpoints: How many of the newest checkpoints are kept, at least 1.
      preview_image: A photo that is styled at every checkpoint.

    Raises:
      ConfigError: If a value has a wrong type, is out of its range, or contradicts another.
    """

    naming: Annotated[str, checks.plain_name]
    style_image: Annotated[str | None, checks.optional(checks.path)] = None
    style_weight: Annotated[float | None, checks.optional(checks.number())] = None
    styles: Annotated[tuple[StyleSpec, ...] | None, checks.optional(_styles)] = None
    style_size: Annotated[int | None, checks.optional(checks.whole(32))] = None
    model_path: Annotated[str, checks.path] = "models"
    dataset: Annotated[str, checks.path] = "data/train2014"
    val_dataset: Annotated[str | None, checks.optional(checks.path)] = None
    patience_checkpoints: Annotated[int | None, checks.optional(checks.whole(1))] = None
    image_size: Annotated[int, checks.whole(32)] = 256
    small_first: Annotated[float, checks.number(0, 1)] = 0.0
    mini_first: Annotated[float, checks.number(0, 1)] = 0.0
    random_crop: Annotated[bool, checks.flag] = False
    random_flip: Annotated[bool, checks.flag] = False
    batch_size: Annotated[int, checks.whole(1)] = 4
    epoch: Annotated[int | None, checks.optional(checks.whole(1))] = None
    steps: Annotated[int | None, checks.optional(checks.whole(1))] = None
    minutes: Annotated[float | None, checks.optional(checks.number(above=True))] = None
    optimizer: Annotated[str, checks.choice("adam", "muon")] = "adam"
    learning_rate: Annotated[float, checks.number(above=True)] = 1e-3
    norm_learning_rate: Annotated[float | None, checks.optional(checks.number(above=True))] = None
    learning_rate_schedule: Annotated[str, checks.choice("constant", "cosine", "cooldown")] = (
        "constant"
    )
    warmup_steps: Annotated[int, checks.whole(0)] = 0
    gradient_clip: Annotated[float | None, checks.optional(checks.number(above=True))] = 1.5
    content_weight: Annotated[float, checks.number()] = 1.0
    tv_weight: Annotated[float, checks.number()] = 0.0
    grid_weight: Annotated[float, checks.number()] = 0.0
    border_weight: Annotated[float, checks.number()] = 0.0
    consistency_weight: Annotated[float, checks.number()] = 0.0
    loss_model: Annotated[str, checks.choice(*LOSS_MODELS)] = "vgg_16"
    loss_model_file: Annotated[str, checks.path] = ""
    content_layers: Annotated[tuple[str, ...], checks.layers] = ("vgg_16/conv3/conv3_3",)
    style_layers: Annotated[tuple[str, ...], checks.layers] = (
        "vgg_16/conv1/conv1_2",
        "vgg_16/conv2/conv2_2",
        "vgg_16/conv3/conv3_3",
        "vgg_16/conv4/conv4_3",
    )
    checkpoint_exclude_scopes: Annotated[str, checks.text] = "vgg_16/fc"
    arch: Annotated[str, checks.choice(*ARCHITECTURES)] = "johnson"
    width: Annotated[float, checks.number(1 / 32, 8)] = 1.0
    precision: Annotated[str, checks.choice("auto", "float32", "bfloat16")] = "auto"
    xla: Annotated[bool, checks.flag] = False
    init_from: Annotated[str | None, checks.optional(checks.path)] = None
    seed: Annotated[int, checks.whole(0)] = 0
    log_every_steps: Annotated[int, checks.whole(1)] = 10
    summary_every_steps: Annotated[int, checks.whole(1)] = 25
    checkpoint_every_steps: Annotated[int, checks.whole(1)] = 1000
    keep_checkpoints: Annotated[int, checks.whole(1)] = 5
    preview_image: Annotated[str | None, checks.optional(checks.path)] = None

    def __post_init__(self) -> None:
        """Checks every value; whole numbers become floats and lists tuples where due."""
        if self.loss_model_file == "":
            object.__setattr__(self, "loss_model_file", default_weights_file(self.loss_model))
        flat_config.complete(self, _rules)

    @property
    def style_specs(self) -> tuple[StyleSpec, ...]:
        """The styles in order; a single style carries the run's name."""
        if self.styles is not None:
            return self.styles
        assert self.style_image is not None and self.style_weight is not None
        return (StyleSpec(self.naming, self.style_image, self.style_weight),)

    @property
    def run_folder(self) -> Path:
        """Where the run keeps its checkpoints and its model."""
        return Path(self.model_path) / self.naming

    def to_dict(self) -> dict[str, Any]:
        """Every key in field order, as values that YAML and JSON can hold.

        `config_from_dict` is the way back.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.styles is not None:
            values["styles"] = [dataclasses.asdict(style) for style in self.styles]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> RunConfig:
    """Reads the YAML file of a run.

    An override of `epoch`, `steps` or `minutes` takes the place of what the file has of these; one
    of `styles` takes the place of `style_image` and `style_weight`, and one of `style_image` that
    of `styles`. One of `loss_model` drops the file's `loss_model_file`, which is another network's,
    and its `mini_first`, and one of `arch` its `norm_learning_rate`. One of `arch` or `width` drops
    an `init_from` of `START`, a net that fits neither.

    Args:
      path: A UTF-8 file of at most `flat_config.MAX_FILE_BYTES`, in YAML 1.2.
      overrides: 'key=value' texts that replace the file's values, such as 'steps=300'; the value
        is YAML too. Of two for one key the last counts.

    Raises:
      ConfigError: With every problem of the file and the overrides.
    """
    return RunConfig(
        **flat_config.load(
            RunConfig, _rules, path, overrides, replaces=_REPLACES, example="naming: candy"
        )
    )


def config_from_dict(mapping: Mapping[str, Any], source: str) -> RunConfig:
    """Builds a config from plain values, as strictly as from a file.

    Args:
      mapping: Keys and values as in a file, such as `RunConfig.to_dict` returns.
      source: Where they come from, for the message of an error.

    Raises:
      ConfigError: With every problem.
    """
    values, problems = flat_config.check(RunConfig, _rules, mapping)
    if problems:
        raise ConfigError(source, [problem.text for problem in problems])
    return RunConfig(**values)


def config_to_yaml(config: RunConfig) -> str:
    """Writes every key in field order, as text that loads back to an equal config."""
    return flat_config.to_yaml(config.to_dict())


def _rules(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Finds what contradicts what; a problem names all keys that it was concluded from."""
    given = [key for key in LENGTHS if values.get(key) is not None]
    if len(given) > 1:
        yield Problem(
            frozenset(given),
            f"{', '.join(given)}: expected one of the "
            + ("two, got both; remove one" if len(given) == 2 else "three, got all; remove two"),
        )
    if not given:
        yield Problem(
            frozenset(LENGTHS),
            "epoch, minutes, steps: expected one of the three, got none; "
            "add one such as 'epoch: 2'",
        )

    styles = values.get("styles")
    for key in ("style_image", "style_weight"):
        keys = frozenset({"styles", key})
        if styles is None and values.get(key) is None:
            yield Problem(keys, f"{key}: missing; add this key, or 'styles' for several styles")
        if styles is not None and values.get(key) is not None:
            yield Problem(keys, f"{key}: not allowed beside 'styles'; remove one of the two")

    if values.get("small_first"):
        image_size, style_size = values.get("image_size"), values.get("style_size")
        if image_size is not None and (image_size < 64 or image_size % 2):
            yield Problem(
                frozenset({"small_first", "image_size"}),
                f"image_size: expected an even number of at least 64 with small_first, got "
                f"{image_size}; change it or remove small_first",
            )
        if style_size is not None and style_size < 64:
            yield Problem(
                frozenset({"small_first", "style_size"}),
                f"style_size: expected at least 64 with small_first, got {style_size}; change it "
                "or remove small_first",
            )

    loss_model = values.get("loss_model")
    if values.get("mini_first") and loss_model not in (None, "vgg_16"):
        yield Problem(
            frozenset({"mini_first", "loss_model"}),
            f"mini_first: vgg_mini reports the losses of vgg_16, and loss_model is {loss_model}; "
            "set mini_first to 0 or choose vgg_16",
        )
    elif values.get("mini_first"):
        for key in ("content_layers", "style_layers"):
            others = set(vgg_layers("vgg_16")) - set(MINI_LAYERS)
            lacking = [name for name in values.get(key, ()) if name in others]
            if lacking:
                yield Problem(
                    frozenset({"mini_first", "loss_model", key}),
                    f"mini_first: vgg_mini does not have {checks.show(lacking[0])} of {key}, but "
                    f"{', '.join(MINI_LAYERS)}; choose from these or set mini_first to 0",
                )

    if values.get("arch") == "slim2016":
        width = values.get("width")
        if width != 1.0:
            yield Problem(
                frozenset({"arch", "width"}),
                f"width: expected 1.0 for arch slim2016, got {checks.show(width)}; "
                "remove it or choose arch johnson",
            )
        if styles is not None and len(styles) > 1:
            yield Problem(
                frozenset({"arch", "styles"}),
                f"styles: expected one style for arch slim2016, got {len(styles)}; "
                "remove the others or choose arch johnson",
            )
        if values.get("norm_learning_rate") is not None:
            yield Problem(
                frozenset({"arch", "norm_learning_rate"}),
                "norm_learning_rate: the norms of arch slim2016 have no weights; "
                "remove it or choose arch johnson",
            )

    if values.get("patience_checkpoints") is not None and values.get("val_dataset") is None:
        yield Problem(
            frozenset({"patience_checkpoints", "val_dataset"}),
            "patience_checkpoints: needs held-out photos; add 'val_dataset' or remove it",
        )

    yield from layer_problems(values)


def layer_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Finds `content_layers` and `style_layers` that `loss_model` does not have."""
    loss_model = values.get("loss_model", "")
    for key in ("content_layers", "style_layers"):
        for layer in values.get(key, ()):
            fault = _layer_fault(layer, loss_model)
            if fault:
                yield Problem(frozenset({"loss_model", key}), f"{key}: {fault}")


def _layer_fault(layer: str, loss_model: str) -> str | None:
    """Says why a loss model has no such layer; only the VGGs' layers are known without building."""
    owner, _, rest = layer.partition("/")
    known = vgg_layers(loss_model) if loss_model in VGG_BLOCKS else ()
    if loss_model == MINI and owner in VGG_BLOCKS:
        return None  # Perhaps its teacher: its file will tell.
    if owner in LOSS_MODELS and owner != loss_model:
        same = f"{loss_model}/{rest}"
        hint = f"did you mean '{same}'?" if same in known else "name layers of that network"
        return f"{checks.show(layer)} is a layer of {owner} but loss_model is {loss_model}; {hint}"
    if known and layer not in known:
        # 'conv3_3' alone is too short to be near, though it is what papers write.
        short = [name for name in known if name.endswith(f"/{layer}")]
        close = short[0] if short else checks.closest(layer, known)
        hint = f"did you mean '{close}'?" if close else f"choose from {', '.join(known)}"
        return f"{checks.show(layer)} is not a layer of {loss_model}; {hint}"
    return None
