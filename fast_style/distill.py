"""Distillation: from a VGG to the narrow network that reports its losses (`mini_net`)."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from fast_style.checkpoints import remove_partial_files
from fast_style.data import find_photos
from fast_style.distill_apprentices import Apprentices, network_in_the_making
from fast_style.distill_compare import compare, find_held_out
from fast_style.distill_config import DistillConfig
from fast_style.distill_data import Studio
from fast_style.distill_file import mini_tensors, network, write_mini
from fast_style.distill_report import calibration
from fast_style.distill_resume import describe_sources, resume_or_start, save_run
from fast_style.distill_step import make_distill_step
from fast_style.files import check_folder, make_folder
from fast_style.hardware import describe_device, resolve_precision
from fast_style.images import check_outputs
from fast_style.loss_models import MINI
from fast_style.loss_net import LossNetwork, build_loss_network
from fast_style.provenance import git_commit, package_versions
from fast_style.run_lock import RunLock
from fast_style.saving import set_aside
from fast_style.stopping import StopRequest
from fast_style.train_state import TrainState

_CALIBRATION_STAGES = (10, 25, 60)


@dataclasses.dataclass(frozen=True)
class DistillHeader:
    """What a run is, before its first step."""

    device: str
    precision: str
    teacher: str
    teacher_file: Path
    photos: int
    styles: int
    weights: int
    steps: int
    start_step: int
    notes: tuple[str, ...]


class DistillObserver:
    """Is told what happens; does nothing."""

    def on_start(self, header: DistillHeader) -> None:
        """A run begins."""

    def on_step(self, step: int) -> None:
        """A step was taken."""

    def on_log(self, step: int, losses: Mapping[str, float]) -> None:
        """Mean losses since the last report, see `distill_step`."""

    def on_checkpoint(self, path: Path) -> None:
        """A checkpoint was written."""


@dataclasses.dataclass(frozen=True)
class DistillResult:
    """What a run came to.

    Attributes:
      output: The network's file; none if the run was stopped before its end.
      steps: Steps done in all.
      seconds: Time of this run.
      losses: The last reported.
    """

    output: Path | None
    steps: int
    seconds: float
    losses: Mapping[str, float]


def distill(
    config: DistillConfig,
    *,
    fresh: bool = False,
    observer: DistillObserver | None = None,
    stop: StopRequest | None = None,
) -> DistillResult:
    """Distils a network, or goes on where an earlier run was stopped.

    Args:
      config: What to do.
      fresh: Start over; a run that is already in the folder is renamed, not deleted.
      observer: Is told of progress.
      stop: Tells when to stop; what is done so far is then kept in a checkpoint.

    Raises:
      ConfigError: If the run on disk was made with other settings, or `init_from` does not fit.
      DataError: If there are no photos or style pictures.
      WeightsError: If the weights of the teacher, or of `init_from`, are missing or damaged.
      FastStyleError: If something cannot be written, or numbers are not finite; the last checkpoint
        is then left intact.
    """
    observer, stop = observer or DistillObserver(), stop or StopRequest()
    precision = resolve_precision(config.precision)
    folder, output = Path(config.run_folder), Path(config.output)
    check_folder(folder)
    check_outputs([output], (), suffixes=(".safetensors",), kind="loss networks")
    find_held_out(config)
    photos = find_photos(config.dataset)
    styles = find_photos(config.styles, advice="point `styles` at a folder of style pictures")
    names = [f"{config.teacher}/{layer}" for layer in config.layers]
    teacher = build_loss_network(
        config.teacher, config.teacher_file, names, dtype=precision, key="teacher_file"
    )
    studio = Studio(photos, styles, size=config.image_size, seed=config.seed, seats=config.studio)
    sources = describe_sources(config, teacher, studio, photos)
    with RunLock(folder, key="run_folder"):
        begun = resume_or_start(config, studio, teacher, sources, fresh=fresh)
        state, scales, sources = begun.state, begun.scales, begun.sources
        config = dataclasses.replace(config, init_from=begun.init_from)
        notes = [*begun.notes]
        apprentices = Apprentices(
            studio,
            network_in_the_making(state, config.layers, scales, precision),
            content_layer=config.content_layer,
            count=config.apprentices,
            answers=config.answers_per_step,
            size=config.image_size,
            seed=config.seed,
            precision=precision,
        )
        if begun.apprentices:
            apprentices.restore(begun.apprentices)
        if fresh and (aside := set_aside(folder, key="run_folder")):
            notes.append(f"the run that was in {folder} is now in {aside}")
        make_folder(folder)
        remove_partial_files(folder)
        start = int(state.step.numpy())
        observer.on_start(
            DistillHeader(
                device=describe_device(),
                precision=precision,
                teacher=config.teacher,
                teacher_file=teacher.weights_file,
                photos=len(photos),
                styles=len(studio.style_files),
                weights=sum(int(tf.size(value)) for value in network(state).values()),
                steps=max(config.steps, start),
                start_step=start,
                notes=tuple(notes),
            )
        )
        run = _Run(
            config, state, scales, studio, apprentices, teacher, precision, sources, observer, stop
        )
        began = time.perf_counter()
        with stop.deferred():
            done, losses = run.go(begun.losses)
        if done < config.steps:
            return DistillResult(None, done, time.perf_counter() - began, losses)
        factors = _calibration(config, state, scales, teacher, photos, studio.style_files)
        description = {
            "steps": done,
            **sources,
            "photos": len(photos),
            "styles": [path.name for path in studio.style_files],
            "losses": losses,
            "calibration": factors,
            "versions": package_versions(),
            "git_commit": git_commit(),
        }
        write_mini(output, state, scales, config, description, factors)
        return DistillResult(output, done, time.perf_counter() - began, losses)


def _calibration(
    config: DistillConfig,
    state: TrainState,
    scales: Mapping[str, float],
    teacher: LossNetwork,
    photos: Sequence[Path],
    styles: Sequence[Path],
) -> dict[str, float]:
    """Measures what the lengths that the network reports fall short by."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "uncalibrated.safetensors"
        write_mini(file, state, scales, config, {}, dict.fromkeys(config.layers, 1.0))
        precision = resolve_precision(config.precision)
        layers = [f"{MINI}/{layer}" for layer in config.layers]
        own = build_loss_network(MINI, file, layers, dtype=precision)
        report = compare(
            own,
            teacher,
            photos,
            styles,
            content_layer=config.content_layer,
            size=config.image_size,
            pairs=config.calibration_photos,
            stages=_CALIBRATION_STAGES,
            seed=config.seed,
            precision=precision,
        )
    return calibration(report, config.layers, config.content_layer)


@dataclasses.dataclass(frozen=True)
class _Run:
    """A run in progress."""

    config: DistillConfig
    state: TrainState
    scales: Mapping[str, float]
    studio: Studio
    apprentices: Apprentices
    teacher: LossNetwork
    precision: str
    sources: Mapping[str, str]
    observer: DistillObserver
    stop: StopRequest

    def go(self, losses: Mapping[str, float]) -> tuple[int, dict[str, float]]:
        """Takes the steps that are left; returns the number of all, and the last losses.

        Args:
          losses: The last ones of the steps that were taken already.
        """
        config = self.config
        take = make_distill_step(
            self.state,
            self.teacher,
            config.layers,
            self.scales,
            content_tap=config.content_layer,
            learning_rate=config.learning_rate,
            gram_weight=config.gram_weight,
            steps=config.steps,
            dtype=self.precision,
        )
        first = done = saved = int(self.state.step.numpy())
        recent: list[dict[str, float]] = []
        losses = dict(losses)
        while done < config.steps and not self.stop.requested:
            scene = self.studio.scene(
                done, seats=config.studio_per_step, others=config.others_per_step
            )
            found, gradients = take(self.apprentices.join(done, scene))
            self.studio.improve(done, scene, gradients[: len(scene.seats)])
            done += 1
            recent.append(found)
            self.observer.on_step(done)
            if done == first + 1 or done % config.log_every_steps == 0 or done == config.steps:
                losses = {tag: float(np.mean([item[tag] for item in recent])) for tag in found}
                recent = []
                self.observer.on_log(done, losses)
            if done % config.checkpoint_every_steps == 0 or done == config.steps:
                self._save(losses)
                saved = done
        if done > saved:
            self._save(losses)
        return done, losses

    def _save(self, losses: Mapping[str, float]) -> None:
        # Refuses weights that have diverged, before a checkpoint holds them.
        mini_tensors(self.state, self.scales, self.config, dict.fromkeys(self.config.layers, 1.0))
        self.observer.on_checkpoint(
            save_run(
                self.config,
                self.state,
                self.scales,
                self.studio,
                self.apprentices,
                self.sources,
                losses,
            )
        )
