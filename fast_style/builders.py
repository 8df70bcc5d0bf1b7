"""From a run's configuration to the arguments of everything else.

Whatever a person can get wrong about the files that a configuration names is found here, before
anything is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fast_style.checkpoints import Model, load_model
from fast_style.config import LENGTHS, RunConfig, StyleSpec
from fast_style.data import check_enough, find_photos
from fast_style.errors import ConfigError, DataError, ImageError, ModelError
from fast_style.fetch import ASSETS
from fast_style.images import cover_crop, fit_long_side, read_image, read_opaque
from fast_style.loss_net import LossNetwork, build_loss_network
from fast_style.loss_weights import weights_sha256
from fast_style.objective import Objective, style_grams
from fast_style.prepare import check_prepared
from fast_style.provenance import file_sha256, git_commit, names_sha256, package_versions
from fast_style.run_clock import SECONDS
from fast_style.train_state import StepSettings
from fast_style.transform_net import architecture, init_weights

PREVIEW_SIZE = 512  # px, long side

# Keys that a run may be resumed with changed, and what to know about those that change what is
# learned from then on. All others decide what the weights so far were learned for.
_FREE_KEYS = {
    # When and where.
    "naming": "",
    "model_path": "",
    "val_dataset": "",
    "patience_checkpoints": "",
    "log_every_steps": "",
    "summary_every_steps": "",
    "checkpoint_every_steps": "",
    "keep_checkpoints": "",
    "preview_image": "",
    # Files may have moved; what they contain is compared by hash.
    "style_image": "",
    "dataset": "",
    "loss_model_file": "",
    "init_from": "it counts only for a new run",
    # How to learn, but not what.
    "learning_rate": "it holds from here on, and Adam's moments are kept",
    "norm_learning_rate": "it holds from here on",
    "optimizer": "it holds from here on",
    "learning_rate_schedule": "it holds from here on, as if from the start",
    "warmup_steps": "",
    "gradient_clip": "it holds from here on",
    "small_first": "it holds from here on",
    "mini_first": "it holds from here on",
    "grid_weight": "it holds from here on",
    "border_weight": "it holds from here on",
    "precision": "",
    "xla": "",
}

# Keys that say where something is, on each machine of a run.
_PATH_KEYS = frozenset(
    (
        *("dataset", "val_dataset", "style_image", "loss_model_file", "init_from"),
        *("preview_image", "model_path"),
    )
)


def load_style_pictures(config: RunConfig) -> list[np.ndarray]:
    """Reads the style pictures at the size that training sees.

    Without `style_size`, scaled and centre-cropped to image_size x image_size; with it, scaled so
    that the long side is `style_size`.

    Returns:
      One uint8 [H, W, 3] per style.

    Raises:
      ConfigError: If a picture is missing, unreadable or partly transparent; all are reported.
    """
    pictures, problems = [], []
    for style in config.style_specs:
        try:
            picture = read_opaque(style.image)
        except ImageError as error:
            problems.append(f"{_style_key(config, style)}: {error}")
            continue
        if config.style_size is None:
            pictures.append(cover_crop(picture, config.image_size))
        else:
            pictures.append(fit_long_side(picture, config.style_size))
    if problems:
        raise ConfigError(f"{config.naming}: style pictures", problems)
    return pictures


def _style_key(config: RunConfig, style: StyleSpec) -> str:
    return "style_image" if config.styles is None else f"styles ({style.name})"


def build_network(config: RunConfig, precision: Literal["float32", "bfloat16"]) -> LossNetwork:
    """Builds the loss network that a configuration describes."""
    return build_loss_network(
        config.loss_model,
        config.loss_model_file,
        tuple(dict.fromkeys((*config.content_layers, *config.style_layers))),
        dtype=precision,
        exclude_scopes=config.checkpoint_exclude_scopes,
    )


def build_objective(
    config: RunConfig, network: LossNetwork, pictures: list[np.ndarray]
) -> Objective:
    """Builds the loss that a configuration describes."""
    return Objective(
        network=network,
        content_layers=config.content_layers,
        target_grams=style_grams(network, config.style_layers, pictures),
        style_weights=np.array([style.weight for style in config.style_specs], np.float32),
        content_weight=config.content_weight,
        tv_weight=config.tv_weight,
    )


def find_run_photos(config: RunConfig) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Lists the photos to train on and the held-out ones.

    Raises:
      DataError: If there are none, fewer than one batch needs, or a prepared folder does not fit.
    """
    sets = [
        f"`python -m fast_style fetch {asset.name}` ({asset.size_bytes / 1e9:.1f} GB)"
        for asset in sorted(ASSETS.values(), key=lambda asset: asset.size_bytes)
        if asset.kind == "zip"
    ]
    photos = find_photos(
        config.dataset,
        advice="point `dataset` at a folder of your own (any photos will do),\n"
        f"or get some with {' or '.join(sets)} and use the folder that it names",
    )
    check_prepared(config.dataset, config.image_size)
    check_enough(photos, config.batch_size)
    if config.val_dataset is None:
        return photos, ()
    advice = "point `val_dataset` at a folder of photos, or remove this key"
    held_out = find_photos(config.val_dataset, advice=advice)
    check_prepared(config.val_dataset, config.image_size)
    return photos, held_out


def total_steps(config: RunConfig, photos: int) -> int | None:
    """Returns the steps of a whole run: `steps`, or `epoch` passes over the photos.

    None: it is as long as `minutes` says.
    """
    if config.epoch is not None:
        return config.epoch * photos // config.batch_size
    return config.steps


def step_settings(config: RunConfig, precision: str, steps: int | None) -> StepSettings:
    """Returns how a run's steps compute and learn.

    Args:
      config: The run.
      precision: What the nets compute in.
      steps: Of the whole run; a learning rate that falls has fallen then. None: it falls in time.
    """
    return StepSettings(
        arch=config.arch,
        precision=precision,
        image_size=config.image_size,
        optimizer=config.optimizer,
        learning_rate=config.learning_rate,
        norm_learning_rate=config.norm_learning_rate,
        warmup_steps=config.warmup_steps,
        learning_rate_schedule=config.learning_rate_schedule,
        decay_steps=steps,
        gradient_clip=config.gradient_clip,
        consistency_weight=config.consistency_weight,
        grid_weight=config.grid_weight,
        border_weight=config.border_weight,
        seed=config.seed,
        xla=config.xla,
    )


@dataclass(frozen=True)
class Beginning:
    """What a new run begins with.

    Attributes:
      weights: {name: float32 array}.
      source: The file they are from and its hash, for the header of what the run writes; none:
        they are fresh.
      told: The same for a person; none: they are fresh.
    """

    weights: dict[str, np.ndarray]
    source: dict[str, str] | None = None
    told: str | None = None


def begin(config: RunConfig) -> Beginning:
    """Returns the weights a new run starts from: fresh ones, or those of `init_from`.

    There, a style whose very picture the net was trained with goes on from that style; others
    start from the mean of all, which is what the net makes of its styles in equal parts.

    Raises:
      ConfigError: If the net of `init_from` is of another architecture or width.
      ModelError: If it cannot be read.
    """
    names = [style.name for style in config.style_specs]
    fresh = init_weights(config.arch, width=config.width, styles=len(names), seed=config.seed)
    if config.init_from is None:
        return Beginning(fresh)
    try:
        model = load_model(config.init_from)
    except ModelError as error:
        raise ModelError(f"init_from: {error}; init_from=null starts afresh") from error
    net = architecture(model.arch)
    if model.arch != config.arch or net.shapes(model.width, len(names)) != {
        name: value.shape for name, value in fresh.items()
    }:
        there = f"arch {model.arch}, width {model.width:g}"
        here = f"arch {config.arch}, width {config.width:g}"
        raise ConfigError(
            f"{config.naming}: init_from",
            [
                f"{config.init_from} is {there}, and this run is {here}; make them agree, or "
                "start afresh without init_from (--set init_from=null)"
            ],
        )
    places = _places(config, model)
    weights = {
        name: _for_styles(value, places) if net.of_style(name) else value
        for name, value in model.weights.items()
    }
    source = {"file": str(config.init_from), "sha256": weights_sha256(model.source)}
    return Beginning(weights, source, _told(config, model, places))


def _places(config: RunConfig, model: Model) -> list[int | None]:
    """Returns which of a model's styles has the same picture, for each style of a run."""
    known = model.metadata.get("style_sha256")
    known = list(known) if isinstance(known, list) else []
    found = []
    for style in config.style_specs:
        sha = file_sha256(Path(style.image))
        found.append(known.index(sha) if sha in known[: len(model.style_names)] else None)
    return found


def _for_styles(value: np.ndarray, places: Sequence[int | None]) -> np.ndarray:
    """Returns a weight of a model's styles for those in these places; none: for the mean."""
    mean = value.mean(axis=0)
    return np.stack([mean if place is None else value[place] for place in places])


def _told(config: RunConfig, model: Model, places: Sequence[int | None]) -> str:
    count = len(model.style_names)
    if count == 1:
        return str(config.init_from)
    parts = [
        f"{style.name}: "
        + (f"the mean of its {count} styles" if place is None else model.style_names[place])
        for style, place in zip(config.style_specs, places, strict=True)
    ]
    return f"{config.init_from} ({', '.join(parts)})"


def describe_run(
    config: RunConfig, precision: str, network: LossNetwork, photos: Sequence[Path]
) -> dict[str, Any]:
    """Returns how a run is made, for the header of everything that it writes."""
    return {
        "config": config.to_dict(),
        "style_names": [style.name for style in config.style_specs],
        "style_sha256": [file_sha256(Path(style.image)) for style in config.style_specs],
        "loss_model_sha256": network.sha256,
        "photos": len(photos),
        "photo_names_sha256": names_sha256(photos, Path(config.dataset)),
        "precision": precision,
        "versions": package_versions(),
        "git_commit": git_commit(),
        "licence": "the licence of the style picture and photos decides; not stated by the run",
    }


def what_workers_share(description: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of `describe_run` has to be the same in all processes that train together.

    Paths may differ from machine to machine; what is found there may not.
    """
    config = {key: value for key, value in description["config"].items() if key not in _PATH_KEYS}
    if config.get("styles") is not None:
        config["styles"] = [{**style, "image": ""} for style in config["styles"]]
    return {
        **config,
        "the style pictures' content": description["style_sha256"],
        "the loss network's weights": description["loss_model_sha256"],
        "the weights of vgg_mini": description.get("mini_sha256"),
        "the number of photos": description["photos"],
        "the names of the photos": description["photo_names_sha256"],
        "precision on this machine": description["precision"],
    }


def check_resumable(
    config: RunConfig, now: Mapping[str, Any], before: Mapping[str, Any], checkpoint: Path
) -> list[str]:
    """Compares the run on disk with the one asked for: its keys, and what its files contain.

    Args:
      config: The run asked for.
      now: Its `describe_run`.
      before: That of the run on disk, from its checkpoint; may be empty.
      checkpoint: Where it was read from.

    Returns:
      Notes on changes that a run can go on with.

    Raises:
      ConfigError: If something else changed: what the weights so far were learned for.
    """
    if not isinstance(before.get("config"), dict):
        return [f"{checkpoint.name} does not say how it was made; going on with this configuration"]
    # A key that the run on disk does not know had no effect: its default.
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    problems, notes = [], _new_length(config, before)
    for key, value in now["config"].items():
        then = before["config"].get(key, _plain(defaults[key]))
        if then == value or key in LENGTHS:
            continue
        if key in _FREE_KEYS:
            advice = f" ({_FREE_KEYS[key]})" if _FREE_KEYS[key] else ""
            notes.append(f"{key} changed from {then!r} to {value!r}{advice}")
        else:
            problems.append(f"{key}: was {then!r}, now {value!r}")
    for what, key in (
        ("the content of the style picture", "style_sha256"),
        ("the content of loss_model_file", "loss_model_sha256"),
        ("the number of photos in dataset", "photos"),
        ("the names of the photos in dataset", "photo_names_sha256"),
    ):
        if before.get(key, now[key]) != now[key]:
            counts = f" from {before[key]} to {now[key]}" if key == "photos" else ""
            problems.append(f"{what} changed{counts}")
    if problems:
        raise ConfigError(
            f"{config.run_folder}: cannot resume, the run there was made with other settings "
            "(undo the change, choose another 'naming', or start over with --fresh, which keeps "
            f"the old run; --fresh --set init_from={config.run_folder} starts from its weights)",
            problems,
        )
    minis = {made["mini_sha256"] for made in (before, now) if "mini_sha256" in made}
    if len(minis) > 1:
        notes.append("the weights of vgg_mini changed (they hold for what it is still to judge)")
    then = before.get("precision", now["precision"])
    if then != now["precision"]:
        notes.append(f"precision was {then} so far and is {now['precision']} on this machine")
    return notes


def _new_length(config: RunConfig, before: Mapping[str, Any]) -> list[str]:
    """Says what it means that a run is to be of another length than before, if it is."""
    then = {key: before["config"].get(key) for key in LENGTHS}
    then = {key: value for key, value in then.items() if value is not None}
    now = {key: getattr(config, key) for key in LENGTHS if getattr(config, key) is not None}
    if len(then) != 1 or then == now:
        return []
    [(old, was)], [(new, value)] = then.items(), now.items()
    change = f"{old} changed from {was!r} to {value!r}"
    if old != new:
        change = f"{new}: {value!r} takes the place of {old}: {was!r}"
    if new == "minutes" and SECONDS not in before:
        change += " (they begin now)"
    if config.learning_rate_schedule != "constant":
        change += " (the learning rate follows the new length from here on)"
    for share in ("small_first", "mini_first"):
        if getattr(config, share):
            change += f" ({share} is a share of the new length)"
    return [change]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def preview_picture(config: RunConfig, photos: tuple[Path, ...]) -> np.ndarray:
    """Reads the photo that is styled at every checkpoint: the one asked for, or the first."""
    if config.preview_image is not None:
        try:
            return fit_long_side(read_image(config.preview_image), PREVIEW_SIZE)
        except ImageError as error:
            raise ConfigError(f"{config.naming}: preview", [f"preview_image: {error}"]) from error
    reason = ""
    for path in photos:
        try:
            return fit_long_side(read_image(path), PREVIEW_SIZE)
        except ImageError as error:
            reason = reason or str(error)
    raise DataError(
        f"{config.dataset}: none of its {len(photos)} photos can be read; for example, {reason}"
    )
