"""How a loss network is distilled, described by flat keys: their defaults, ranges and rules."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fast_style import checks, flat_config
from fast_style.flat_config import Problem
from fast_style.loss_models import (
    VGG_BLOCKS,
    default_weights_file,
    vgg_convolutions,
    vgg_width,
)

TEACHERS = tuple(VGG_BLOCKS)


def _widths(key: str, value: Any, problems: list[str]) -> Any:
    if not isinstance(value, list | tuple) or not value:
        problems.append(f"{key}: expected a list of whole numbers, got {checks.show(value)}")
        return value
    check = checks.whole(1)
    return tuple(check(f"{key}[{index}]", item, problems) for index, item in enumerate(value))


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillConfig:
    """Everything that decides a distilled network; the same keys as in the YAML files.

    Values are checked on construction, as those of `config.RunConfig`.

    Attributes:
      teacher: The VGG to learn from.
      teacher_file: Its weights; '' stands for `loss_models.default_weights_file`.
      teacher_note: What whoever gets the network should know of these weights, such as whose they
        are; written into its header.
      dataset: Folder of photos, searched recursively.
      styles: Folder of style pictures, likewise; the more kinds, the better.
      val_dataset: Held-out photos, for the report.
      val_styles: Held-out style pictures, for the report.
      report_photos: How many photos the report looks at, divided among four nets; each photo at
        four stages of their training.
      report_size: Side of its pictures in px.
      output: The file to write.
      run_folder: Where checkpoints and the report go.
      layers: The teacher's layers that losses will look at; 'conv4/conv4_3'.
      content_layer: The one that contents are compared at while distilling.
      channels: Of each of the network's convolutions, down to the deepest layer.
      image_size: Side of the pictures in px, at least 64.
      studio: How many pictures are being optimized for the network while it learns.
      studio_per_step: How many of them a step looks at, each with a style picture.
      others_per_step: How many photos, noises and blends it looks at besides.
      steps: Steps of distillation.
      apprentices: How many nets learn styles from the network while it learns, for their answers.
      answers_per_step: How many of these a step looks at, each with its style picture.
      init_from: A distilled network to go on from, instead of a pruned teacher; `channels` may
        give it more.
      learning_rate: Adam's at its highest; it is warmed up, and decays along a cosine.
      gram_weight: Weight of errors of Gram matrices beside errors of features.
      calibration_photos: How many photos are stylized by nets in training in the end, to measure
        what is missing from the lengths that the network reports.
      precision: 'auto', 'float32' or 'bfloat16'.
      seed: Everything random derives from it.
      log_every_steps: Steps between two reports.
      checkpoint_every_steps: Steps between two checkpoints.
      keep_checkpoints: How many of the newest are kept.

    Raises:
      ConfigError: If a value has a wrong type, is out of its range, or contradicts another.
    """

    teacher: Annotated[str, checks.choice(*TEACHERS)] = "vgg_16"
    teacher_file: Annotated[str, checks.path] = ""
    teacher_note: Annotated[str, checks.text] = ""
    dataset: Annotated[str, checks.path] = "data/train2014"
    styles: Annotated[str, checks.path] = "data/styles"
    val_dataset: Annotated[str | None, checks.optional(checks.path)] = None
    val_styles: Annotated[str | None, checks.optional(checks.path)] = None
    report_photos: Annotated[int, checks.whole(1)] = 52
    report_size: Annotated[int, checks.whole(32)] = 256
    output: Annotated[str, checks.path] = "models/distill_vgg_mini/vgg_mini.safetensors"
    run_folder: Annotated[str, checks.path] = "models/distill_vgg_mini"
    layers: Annotated[tuple[str, ...], checks.layers] = (
        "conv1/conv1_2",
        "conv2/conv2_2",
        "conv3/conv3_3",
        "conv4/conv4_3",
    )
    content_layer: Annotated[str, checks.text] = "conv3/conv3_3"
    channels: Annotated[tuple[int, ...], _widths] = (16, 16, 32, 96, 96, 96, 128, 128, 128, 128)
    image_size: Annotated[int, checks.whole(64)] = 128
    studio: Annotated[int, checks.whole(1)] = 48
    studio_per_step: Annotated[int, checks.whole(1)] = 3
    others_per_step: Annotated[int, checks.whole(1)] = 2
    apprentices: Annotated[int, checks.whole(0)] = 3
    answers_per_step: Annotated[int, checks.whole(1)] = 2
    init_from: Annotated[str | None, checks.optional(checks.path)] = None
    steps: Annotated[int, checks.whole(1)] = 3000
    learning_rate: Annotated[float, checks.number(above=True)] = 1e-3
    gram_weight: Annotated[float, checks.number()] = 1.0
    calibration_photos: Annotated[int, checks.whole(1)] = 16
    precision: Annotated[str, checks.choice("auto", "float32", "bfloat16")] = "auto"
    seed: Annotated[int, checks.whole(0)] = 0
    log_every_steps: Annotated[int, checks.whole(1)] = 20
    checkpoint_every_steps: Annotated[int, checks.whole(1)] = 250
    keep_checkpoints: Annotated[int, checks.whole(1)] = 2

    def __post_init__(self) -> None:
        """Checks every value; whole numbers become floats and lists tuples where due."""
        if self.teacher_file == "":
            object.__setattr__(self, "teacher_file", default_weights_file(self.teacher))
        flat_config.complete(self, _rules)

    def to_dict(self) -> dict[str, Any]:
        """Every key in field order, as values that YAML and JSON can hold."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @property
    def convolutions(self) -> tuple[str, ...]:
        """The network's convolutions, such as 'conv1/conv1_1', from shallow to deep."""
        return _convolutions(self.teacher)[: len(self.channels)]


def load_distill_config(
    path: str | os.PathLike[str] | None, overrides: Sequence[str] = ()
) -> DistillConfig:
    """Reads a YAML file of keys; those it lacks have their defaults.

    Args:
      path: Such as conf/distill/vgg_mini.yml; none: defaults and overrides.
      overrides: 'key=value' texts, as for `config.load_config`.

    Raises:
      ConfigError: With every problem of the file and the overrides.
    """
    if path is None:
        return DistillConfig(**flat_config.from_overrides(DistillConfig, _rules, overrides))
    return DistillConfig(
        **flat_config.load(
            DistillConfig,
            _rules,
            path,
            overrides,
            replaces={"teacher": ("teacher_file",)},
            example="steps: 3000",
        )
    )


def distill_config_to_yaml(config: DistillConfig) -> str:
    """Writes every key in field order, as text that loads back to an equal config."""
    return flat_config.to_yaml(config.to_dict())


def _convolutions(teacher: str) -> tuple[str, ...]:
    return tuple(f"{name.split('_')[0]}/{name}" for name in vgg_convolutions(teacher))


def _rules(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Finds what contradicts what; a problem names all keys that it was concluded from."""
    held_out = {key: values.get(key, "") for key in ("val_dataset", "val_styles")}
    if None in held_out.values() and any(held_out.values()):
        missing, given = sorted(held_out, key=lambda key: held_out[key] is not None)
        yield Problem(
            frozenset(held_out), f"{missing}: missing, and {given} is given; give both or none"
        )
    if "teacher" not in values or "layers" not in values:
        return
    known = _convolutions(values["teacher"])
    unknown = [layer for layer in values["layers"] if layer not in known]
    for layer in unknown:
        close = checks.closest(layer, known)
        hint = f"did you mean '{close}'?" if close else f"choose from {', '.join(known)}"
        yield Problem(
            frozenset({"teacher", "layers"}),
            f"layers: {checks.show(layer)} is no convolution of {values['teacher']}; {hint}",
        )
    if unknown:
        return
    if values.get("content_layer", values["layers"][0]) not in values["layers"]:
        yield Problem(
            frozenset({"layers", "content_layer"}),
            f"content_layer: expected one of layers, got {checks.show(values['content_layer'])}; "
            f"choose from {', '.join(values['layers'])}",
        )
    deepest = max(known.index(layer) for layer in values["layers"]) + 1
    if len(values.get("channels", known[:deepest])) != deepest:
        yield Problem(
            frozenset({"teacher", "layers", "channels"}),
            f"channels: expected {deepest} numbers, one for each convolution down to "
            f"{known[deepest - 1]}, got {len(values['channels'])}",
        )
        return
    for layer, width in zip(known, values.get("channels", ()), strict=False):
        if width > (most := vgg_width(layer)):
            yield Problem(
                frozenset({"channels"}),
                f"channels: expected at most the teacher's {most} for {layer}, got {width}",
            )
