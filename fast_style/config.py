"""One run, described by flat keys: which they are, their defaults, ranges and rules.

A key is added in one place: a field of `RunConfig`, with its check and its default. Rules that
involve several keys are in `_rules`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_type_hints

from fast_style import checks
from fast_style.errors import ConfigError
from fast_style.yaml12 import YamlError, read_yaml

_VGG_BLOCKS = {
    "vgg_16": (2, 2, 3, 3, 3),
    "vgg_19": (2, 2, 4, 4, 4),
    "vgg_a": (1, 1, 2, 2, 2),
}
LOSS_MODELS = (
    *_VGG_BLOCKS,
    "alexnet_v2",
    "overfeat",
    "inception_v1",
    "inception_v2",
    "inception_v3",
    "resnet_v1_50",
    "resnet_v1_101",
    "resnet_v1_152",
    "resnet_v1_200",
    "resnet_v2_50",
    "resnet_v2_101",
    "resnet_v2_152",
    "resnet_v2_200",
)

MAX_FILE_BYTES = 1_000_000
_OVERRIDES = "--set"


def vgg_layers(loss_model: str) -> tuple[str, ...]:
    """Names the layers of a VGG that a loss can look at, from shallow to deep.

    Convolutions (after their ReLU) such as 'vgg_16/conv3/conv3_3', and poolings such as
    'vgg_16/pool3'.

    Raises:
      KeyError: If `loss_model` is not one of the VGGs.
    """
    names = []
    for block, convolutions in enumerate(_VGG_BLOCKS[loss_model], start=1):
        names += [f"conv{block}/conv{block}_{i}" for i in range(1, convolutions + 1)]
        names.append(f"pool{block}")
    return tuple(f"{loss_model}/{name}" for name in names)


@dataclass(frozen=True, slots=True)
class StyleSpec:
    """One style of a network; checked when it becomes part of a `RunConfig`.

    Attributes:
      name: Names the style and its files.
      image: Path of the style picture.
      weight: Style weight, at least 0, in the ancestor's normalisation (see `losses`).
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
        found, wrong = _check_keys(StyleSpec, item, f"{where}.")
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
      image_size: Side of the square training pictures in px, at least 32.
      random_crop: Cut photos at a random place instead of the centre.
      random_flip: Mirror half of the photos.
      batch_size: Photos per step.
      epoch: Passes over the photos; exactly one of `epoch` and `steps` is given.
      steps: Training steps.
      learning_rate: Adam's, above 0.
      content_weight: Weight of the content loss.
      tv_weight: Weight of the total variation loss.
      loss_model: One of `LOSS_MODELS`.
      loss_model_file: Path of its weights.
      content_layers: Layers of the loss model that are compared with the photo's.
      style_layers: Layers whose Gram matrices are compared with the style picture's.
      checkpoint_exclude_scopes: Comma-separated scopes left out when reading `loss_model_file`.
      arch: Transform net: 'johnson' or 'slim2016' (one style, width 1.0).
      width: Channel multiplier of the transform net, 1/32 to 8.
      precision: 'auto', 'float32' or 'bfloat16'.
      init_from: A model or checkpoint whose weights training starts from.
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
    image_size: Annotated[int, checks.whole(32)] = 256
    random_crop: Annotated[bool, checks.flag] = False
    random_flip: Annotated[bool, checks.flag] = False
    batch_size: Annotated[int, checks.whole(1)] = 4
    epoch: Annotated[int | None, checks.optional(checks.whole(1))] = None
    steps: Annotated[int | None, checks.optional(checks.whole(1))] = None
    learning_rate: Annotated[float, checks.number(above=True)] = 1e-3
    content_weight: Annotated[float, checks.number()] = 1.0
    tv_weight: Annotated[float, checks.number()] = 0.0
    loss_model: Annotated[str, checks.choice(*LOSS_MODELS)] = "vgg_16"
    loss_model_file: Annotated[str, checks.path] = "pretrained/vgg_16.ckpt"
    content_layers: Annotated[tuple[str, ...], checks.layers] = ("vgg_16/conv3/conv3_3",)
    style_layers: Annotated[tuple[str, ...], checks.layers] = (
        "vgg_16/conv1/conv1_2",
        "vgg_16/conv2/conv2_2",
        "vgg_16/conv3/conv3_3",
        "vgg_16/conv4/conv4_3",
    )
    checkpoint_exclude_scopes: Annotated[str, checks.text] = "vgg_16/fc"
    arch: Annotated[str, checks.choice("johnson", "slim2016")] = "johnson"
    width: Annotated[float, checks.number(1 / 32, 8)] = 1.0
    precision: Annotated[str, checks.choice("auto", "float32", "bfloat16")] = "auto"
    init_from: Annotated[str | None, checks.optional(checks.path)] = None
    seed: Annotated[int, checks.whole(0)] = 0
    log_every_steps: Annotated[int, checks.whole(1)] = 10
    summary_every_steps: Annotated[int, checks.whole(1)] = 25
    checkpoint_every_steps: Annotated[int, checks.whole(1)] = 1000
    keep_checkpoints: Annotated[int, checks.whole(1)] = 5
    preview_image: Annotated[str | None, checks.optional(checks.path)] = None

    def __post_init__(self) -> None:
        """Checks every value; whole numbers become floats and lists tuples where due."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values, problems = _check(given)
        if problems:
            raise ConfigError("RunConfig", [problem.text for problem in problems])
        for key, value in values.items():
            object.__setattr__(self, key, value)

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

    An override of `steps` takes the place of the file's `epoch` and the other way round; one of
    `styles` takes the place of `style_image` and `style_weight`, and one of `style_image` that of
    `styles`.

    Args:
      path: A UTF-8 file of at most `MAX_FILE_BYTES`, in YAML 1.2.
      overrides: 'key=value' texts that replace the file's values, such as 'steps=300'; the value
        is YAML too. Of two for one key the last counts.

    Raises:
      ConfigError: With every problem of the file and the overrides.
    """
    source = os.fspath(path)
    values, problems = _read_file(source)
    set_values, set_problems = _parse_overrides(overrides)
    dropped = set()
    for key, replaced in (
        ("steps", ("epoch",)),
        ("epoch", ("steps",)),
        ("styles", ("style_image", "style_weight")),
        ("style_image", ("styles",)),
    ):
        if set_values.get(key) is not None:
            dropped.update(replaced)
    values = {key: value for key, value in values.items() if key not in dropped}
    checked, wrong = _check(values | set_values)
    for problem in wrong:
        overridden = not problem.keys.isdisjoint(dropped.union(set_values))
        (set_problems if overridden else problems).append(problem.text)
    if problems:
        raise ConfigError(source, problems + [f"{_OVERRIDES} {text}" for text in set_problems])
    if set_problems:
        raise ConfigError(_OVERRIDES, set_problems)
    return RunConfig(**checked)


def config_from_dict(mapping: Mapping[str, Any], source: str) -> RunConfig:
    """Builds a config from plain values, as strictly as from a file.

    Args:
      mapping: Keys and values as in a file, such as `RunConfig.to_dict` returns.
      source: Where they come from, for the message of an error.

    Raises:
      ConfigError: With every problem.
    """
    values, problems = _check(mapping)
    if problems:
        raise ConfigError(source, [problem.text for problem in problems])
    return RunConfig(**values)


def config_to_yaml(config: RunConfig) -> str:
    """Writes every key in field order, as text that loads back to an equal config."""
    lines = []
    for key, value in config.to_dict().items():
        if isinstance(value, list) and isinstance(value[0], dict):
            lines.append(f"{key}:")
            lines += [f"  - {_to_json(item)}" for item in value]
        else:
            lines.append(f"{key}: {_to_json(value)}")
    return "\n".join(lines) + "\n"


def _to_json(value: Any) -> str:
    """JSON, which YAML 1.2 contains, with every character escaped that YAML would not keep."""

    def escaped(match: re.Match[str]) -> str:
        character = match[0]
        if character.isprintable():
            return character
        return f"\\U{ord(character):08X}"

    return re.sub(r"[^ -~]", escaped, json.dumps(value, ensure_ascii=False))


def _read_file(source: str) -> tuple[dict[str, Any], list[str]]:
    """Returns the keys of a file as they are, and the problems of keys given more than once."""
    try:
        with open(source, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(source, ["no such file; check the path"]) from error
    except IsADirectoryError as error:
        raise ConfigError(source, ["this is a folder; name a YAML file in it"]) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(source, [f"cannot read this file ({reason}); check the path"]) from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(
            source, [f"larger than {MAX_FILE_BYTES:,} bytes, so not a config; check the path"]
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(source, [f"line {line}: not UTF-8 text; save it as UTF-8"]) from error
    try:
        document = read_yaml(text)
    except YamlError as error:
        raise ConfigError(source, [str(error)]) from error
    if document.value is None:
        raise ConfigError(source, ["this file is empty; add keys such as 'naming: candy'"])
    if not isinstance(document.value, dict):
        raise ConfigError(
            source,
            [
                "expected keys and values such as 'naming: candy', got "
                + checks.show(document.value)
            ],
        )
    return document.value, list(document.problems)


def _parse_overrides(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    values = {}
    problems = []
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals or not key:
            problems.append(f"expected key=value such as 'steps=300', got {checks.show(override)}")
            continue
        try:
            document = read_yaml(text)
        except YamlError as error:
            problems.append(f"{key}: {str(error).removeprefix('line 1: ')}")
            continue
        problems += [f"{key}: {problem}" for problem in document.problems]
        values[key] = document.value
    return values, problems


class _Problem(NamedTuple):
    """One line for the user.

    Attributes:
      keys: The keys that it is about.
      text: The line.
      meant: Keys that were perhaps meant, so that they are not reported as missing too.
    """

    keys: frozenset[str]
    text: str
    meant: frozenset[str] = frozenset()


def _check(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[_Problem]]:
    """Returns all keys as the config holds them, without the wrong ones, and every problem."""
    checked, problems = _check_keys(RunConfig, values)
    # A key that is wrong by itself says nothing about the rules it takes part in.
    unclear = frozenset[str]().union(*(problem.keys | problem.meant for problem in problems))
    return checked, problems + [p for p in _rules(checked) if p.keys.isdisjoint(unclear)]


def _check_keys(
    cls: type, values: Mapping[str, Any], prefix: str = ""
) -> tuple[dict[str, Any], list[_Problem]]:
    """Checks every key by itself against the fields of `cls`, and adds the defaults."""
    known = _known_keys(cls)
    problems = []
    meant = set()
    for key in values:
        if key not in known:
            close = checks.closest(key, known)
            hint = f"did you mean '{close}'?" if close else f"choose from {', '.join(known)}"
            text = f"{prefix}{checks.plain(key)}: unknown key; {hint}"
            problems.append(_Problem(frozenset([key]), text, frozenset([close] if close else [])))
            meant.add(close)
    checked = {}
    for field in dataclasses.fields(cls):
        key = field.name
        if key in values:
            found: list[str] = []
            value = known[key](prefix + key, values[key], found)
            problems += [_Problem(frozenset([key]), text) for text in found]
            if not found:
                checked[key] = value
        elif field.default is not dataclasses.MISSING:
            checked[key] = field.default
        elif key not in meant:
            problems.append(_Problem(frozenset([key]), f"{prefix}{key}: missing; add this key"))
    return checked, problems


@functools.cache
def _known_keys(cls: type) -> dict[str, checks.Check]:
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name].__metadata__[0] for field in dataclasses.fields(cls)}


def _rules(values: Mapping[str, Any]) -> Iterator[_Problem]:
    """Finds what contradicts what; a problem names all keys that it was concluded from."""
    both = frozenset({"epoch", "steps"})
    given = [key for key in sorted(both) if values.get(key) is not None]
    if len(given) == 2:
        yield _Problem(both, "epoch, steps: expected one of the two, got both; remove one")
    if not given:
        yield _Problem(
            both, "epoch, steps: expected one of the two, got neither; add one such as 'epoch: 2'"
        )

    styles = values.get("styles")
    for key in ("style_image", "style_weight"):
        keys = frozenset({"styles", key})
        if styles is None and values.get(key) is None:
            yield _Problem(keys, f"{key}: missing; add this key, or 'styles' for several styles")
        if styles is not None and values.get(key) is not None:
            yield _Problem(keys, f"{key}: not allowed beside 'styles'; remove one of the two")

    if values.get("arch") == "slim2016":
        width = values.get("width")
        if width != 1.0:
            yield _Problem(
                frozenset({"arch", "width"}),
                f"width: expected 1.0 for arch slim2016, got {checks.show(width)}; "
                "remove it or choose arch johnson",
            )
        if styles is not None and len(styles) > 1:
            yield _Problem(
                frozenset({"arch", "styles"}),
                f"styles: expected one style for arch slim2016, got {len(styles)}; "
                "remove the others or choose arch johnson",
            )

    loss_model = values.get("loss_model", "")
    for key in ("content_layers", "style_layers"):
        for layer in values.get(key, ()):
            fault = _layer_fault(layer, loss_model)
            if fault:
                yield _Problem(frozenset({"loss_model", key}), f"{key}: {fault}")


def _layer_fault(layer: str, loss_model: str) -> str | None:
    """Says why a loss model has no such layer; only the VGGs' layers are known without building."""
    owner, _, rest = layer.partition("/")
    known = vgg_layers(loss_model) if loss_model in _VGG_BLOCKS else ()
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
