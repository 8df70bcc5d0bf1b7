"""Training a transform net: one run from start to end.

`train` reads top to bottom as a run: check what the configuration names, resume or start, prepare
the targets, step, report, keep checkpoints. It prints nothing; a `TrainObserver` is told.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fast_style import objective as tags
from fast_style.builders import (
    Beginning,
    begin,
    build_network,
    build_objective,
    check_resumable,
    describe_run,
    find_run_photos,
    load_style_pictures,
    preview_picture,
    step_settings,
    total_steps,
    what_workers_share,
)
from fast_style.checkpoints import (
    MODEL_FILE,
    newest_checkpoint,
    put_out_of_the_way,
    read_newest_checkpoint,
    remove_partial_files,
)
from fast_style.cluster import ALONE, Cluster
from fast_style.config import RunConfig
from fast_style.data import PhotoStream, photo_places, read_crops
from fast_style.errors import ConfigError
from fast_style.files import check_folder, make_folder
from fast_style.hardware import describe_devices, resolve_precision
from fast_style.health import Guard, TakenStep
from fast_style.jobs import GENERATED_FOLDER
from fast_style.learning_rate import fall_begins
from fast_style.loss_models import MINI
from fast_style.objective import Objective
from fast_style.provenance import names_sha256
from fast_style.replicas import Replicas, form_replicas
from fast_style.run_clock import PATIENCE_FROM, SECONDS, RunClock
from fast_style.run_events import (
    LoggingObserver,
    RunHeader,
    StepClock,
    TrainObserver,
    TrainResult,
)
from fast_style.run_lock import RunLock
from fast_style.run_parts import judged_by_mini, run_parts
from fast_style.saving import RunWriter, set_aside, write_targets
from fast_style.stopping import StopRequest
from fast_style.train_state import (
    TrainState,
    make_replicated_step,
    make_train_step,
    style_choice,
)
from fast_style.transform_net import init_weights, weight_count
from fast_style.validation import HeldOut, ValidationRecord, mean_losses

HELD_OUT = 64  # At most so many held-out photos are scored at a checkpoint.
# Pictures are most of what TensorBoard keeps: a megabyte each time.
IMAGES_EVERY_SUMMARIES = 10
LAST_STEPS = 20  # A run's last losses are averaged over so many steps.


def train(
    config: RunConfig,
    *,
    fresh: bool = False,
    observer: TrainObserver | None = None,
    stop: StopRequest | None = None,
    cluster: Cluster = ALONE,
) -> TrainResult:
    """Trains a transform net as a configuration describes, resuming what is already there.

    Args:
      config: The run.
      fresh: Start over; a run that is already in the folder is renamed, not deleted.
      observer: Is told what happens; none logs it.
      stop: Asks the run to stop; see `stopping.stop_on_signals`.
      cluster: The processes that train together, each of which calls this before TensorFlow has
        computed anything; see `find_cluster`. Only the chief writes, and tells its observer.

    Returns:
      What was made. Ctrl-C and `stop`, of any process, end the run early, after a checkpoint.

    Raises:
      FastStyleError: For everything a person can put right, before anything is written; and when
        training cannot go on, with the last good checkpoint left intact.
      KeyboardInterrupt: If it was stopped before the first step; nothing is lost.
    """
    stop = stop or StopRequest()
    is_chief = cluster.is_chief
    observer = (observer or LoggingObserver()) if is_chief else TrainObserver()
    folder = config.run_folder
    if is_chief:
        for place in (folder, GENERATED_FOLDER):
            check_folder(place)
    pictures = load_style_pictures(config)
    photos, held_out = find_run_photos(config)
    validation = []
    if is_chief and held_out:
        validation = read_crops(held_out, config.image_size, limit=HELD_OUT)
    steps = total_steps(config, len(photos))
    if steps is None and cluster.size > 1:
        raise ConfigError(
            config.naming,
            ["minutes: processes that train together have no common clock; give steps instead"],
        )
    preview = preview_picture(config, photos) if is_chief else None
    replicas = form_replicas(cluster, config.batch_size)
    with replicas.contact(), contextlib.ExitStack() as stack:
        precision = resolve_precision(config.precision)
        network = build_network(config, precision)
        networks = {config.loss_model: network}
        description = describe_run(config, precision, network, photos)
        if config.mini_first:
            networks[MINI] = build_network(judged_by_mini(config), precision)
            description["mini_sha256"] = networks[MINI].sha256
        replicas.check_alike(what_workers_share(description))
        beginning = None
        if is_chief:
            # Before the lock, which writes a file: these can still be wrong.
            if fresh or newest_checkpoint(folder) is None:
                beginning = begin(config)
            stack.enter_context(RunLock(folder))
        state, notes, beginning, told = _resume_or_start(config, beginning, description, replicas)
        writer, targets = None, []
        if preview is not None:
            if fresh and (aside := set_aside(folder)):
                notes.append(f"the run that was in {folder} is now in {aside}")
            make_folder(folder)
            target_names = _target_names(config)
            remove_partial_files(folder)
            remove_partial_files(
                GENERATED_FOLDER, [f"target_style_{name}" for name in target_names]
            )
            targets = write_targets(GENERATED_FOLDER, target_names, pictures)
        start_step = int(state.step.numpy())
        seconds = None if config.minutes is None else 60.0 * config.minutes
        clock = RunClock(steps, seconds, spent=told.get(SECONDS, 0.0))
        clock.move(start_step)
        parts = run_parts(config)
        observer.on_start(
            RunHeader(
                device=describe_devices(cluster.size, replicas.local),
                precision=precision,
                loss_model=config.loss_model,
                loss_model_file=network.weights_file,
                photos=len(photos),
                steps=steps,
                minutes=config.minutes,
                costs=tuple((part.until, part.cost) for part in parts),
                small_first=0.0 if clock.over(config.small_first) else config.small_first,
                mini_first=0.0 if clock.over(config.mini_first) else config.mini_first,
                start_step=start_step,
                seconds=clock.spent,
                arch=config.arch,
                weights=weight_count(
                    config.arch, width=config.width, styles=len(config.style_specs)
                ),
                init_from=None if beginning is None else beginning.told,
                folder=folder,
                targets=tuple(targets),
                notes=tuple(notes),
            )
        )
        objective = build_objective(config, network, pictures)
        if preview is not None:
            writer = RunWriter(
                folder=folder,
                arch=config.arch,
                width=config.width,
                style_names=tuple(style.name for style in config.style_specs),
                style_pictures=pictures,
                precision=precision,
                description=description,
                preview=preview,
                keep_checkpoints=config.keep_checkpoints,
            )
        trainers = []
        for part in parts:
            if not clock.over(part.until):
                judge = objective
                if part.config is not config:
                    judge = build_objective(
                        part.config,
                        networks[part.config.loss_model],
                        load_style_pictures(part.config),
                    )
                step = _build_step(part.config, replicas, state, judge, precision, steps)
                trainers.append(_Trainer(part.config.image_size, part.until, step))
        # Before the last part, and before the learning rate falls, a loss that no longer does says
        # nothing of what they will bring.
        settled = max([fall_begins(config.learning_rate_schedule), *(p.until for p in parts[:-1])])
        patience_from = clock.stop_step(settled)
        if patience_from is None and clock.over(settled):
            patience_from = told.get(PATIENCE_FROM, 0)
        run = _Run(
            config=config,
            state=state,
            photos=photos,
            clock=clock,
            trainers=trainers,
            settled=settled,
            patience_from=patience_from,
            observer=observer,
            stop=stop,
            writer=writer,
            held_out=HeldOut(state, objective, config, precision, validation),
            record=ValidationRecord.read(folder, _identity(config, held_out), start_step),
            replicas=replicas,
            beginning=beginning,
        )
        try:
            with stop.deferred():
                result = run.go()
                replicas.part()
        finally:
            if writer is not None:
                writer.close()
        observer.on_end(result)
        return result


@dataclass(frozen=True)
class _Trainer:
    """What takes the steps of one part of a run.

    Attributes:
      image_size: Side of its photos in px.
      until: The share of the run at which it ends.
      step: The training step: of one device, or of this process's part of several.
    """

    image_size: int
    until: float
    step: Any


def _build_step(
    config: RunConfig,
    replicas: Replicas,
    state: TrainState,
    objective: Objective,
    precision: str,
    steps: int | None,
) -> Any:
    """Returns the training step: of one device, or of this process's part of several."""
    settings = step_settings(config, precision, steps)
    if replicas.count == 1:
        return make_train_step(state, objective, settings, batch_size=config.batch_size)
    return make_replicated_step(replicas, state, objective, settings)


def _resume_or_start(
    config: RunConfig,
    beginning: Beginning | None,
    description: dict[str, Any],
    replicas: Replicas,
) -> tuple[TrainState, list[str], Beginning | None, dict[str, Any]]:
    """Returns the state to begin with, notes, the beginning, and what the checkpoint tells.

    Completes the description.

    `beginning` is that of a new run, and None to go on. Where several processes train, the chief
    alone looks, and the others take over what it has found.
    """
    found, notes, earlier = None, [], {}
    if replicas.cluster.is_chief:
        if beginning is None:
            found = read_newest_checkpoint(config.run_folder)
            if found is None:  # There was one, but it went away a moment ago.
                beginning = begin(config)
        if beginning is not None:
            description["started_from"] = beginning.source
    if beginning is not None:
        weights = beginning.weights
    else:
        styles = len(config.style_specs)
        weights = init_weights(config.arch, width=config.width, styles=styles)
    if found is not None:
        checkpoint, tensors, earlier, damaged = found
        notes += [f"{path.name} is damaged: going on from {checkpoint.name}" for path in damaged]
        notes += check_resumable(config, description, earlier, checkpoint)
        # What it says of the beginning stays true.
        if "started_from" in earlier:
            description["started_from"] = earlier["started_from"]
        description["config"]["init_from"] = earlier.get("config", {}).get("init_from")
    with replicas.scope():
        state = TrainState(weights)
    if found is not None:
        state.restore(found[0], found[1])
        for path in found[3]:
            put_out_of_the_way(path)
    replicas.take_over([*state.tensors().values(), state.step])
    return state, notes, beginning, earlier


def _target_names(config: RunConfig) -> list[str]:
    # Styles of one net share its name, so that two such nets do not share pictures.
    prefix = "" if config.styles is None else f"{config.naming}_"
    return [f"{prefix}{style.name}" for style in config.style_specs]


def _identity(config: RunConfig, held_out: tuple[Path, ...]) -> str | None:
    """Says which held-out photos there are; none without any."""
    if config.val_dataset is None:
        return None
    return f"{len(held_out)} photos, {names_sha256(held_out, Path(config.val_dataset))}"


@dataclass
class _Run:
    """A run in progress.

    `step` counts the batches that were consumed, those that were skipped included, as the state
    does. A step is looked at once the next one is on its way, so that nothing waits for the device;
    `pending` is the one that has not been looked at.
    """

    config: RunConfig
    state: TrainState
    photos: tuple[Path, ...]
    clock: RunClock
    trainers: Sequence[_Trainer]  # Of the parts that are not done yet, in order.
    settled: float  # The share of the run from which on patience counts.
    patience_from: int | None  # The step where that is; none: not known yet.
    observer: TrainObserver
    stop: StopRequest
    writer: RunWriter | None  # None in processes other than the chief's.
    held_out: HeldOut
    record: ValidationRecord
    replicas: Replicas
    beginning: Beginning | None  # None: it went on from a checkpoint.
    step: int = 0
    train_step: Any = None
    saved: int | None = None
    # Whether held-out losses have not improved for as long as the configuration allows.
    converged: bool = False
    # The first signal that any process has got, once all processes know of it.
    heard: int = 0
    pending: TakenStep | None = None
    first: dict[str, float] = field(default_factory=dict)
    # The last steps, whose losses stay on the device until somebody wants them.
    last: deque[TakenStep] = field(default_factory=lambda: deque(maxlen=LAST_STEPS))

    def __post_init__(self) -> None:
        self.start_step = self.step = int(self.state.step.numpy())
        self.saved = self.step or None
        self.guard = Guard(
            self.config.run_folder if self.writer is not None else None,
            weights=list(self.state.weights),
            photos_of=self._photos_of,
            state_is_finite=lambda: self.replicas.all(self.state.is_finite()),
            roll_back=self._roll_back,
        )

    def go(self) -> TrainResult:
        """Takes every step that is left, and saves."""
        config = self.config
        interrupted = False
        began = time.perf_counter()
        scored = self.step % config.checkpoint_every_steps == 0 or self.clock.over()
        if self.saved and scored:
            # A run that was stopped while it scored this checkpoint owes its score.
            if self.writer is not None and self.step not in self.record.totals:
                self._validate(self.writer)
        self._agree()
        skipped: dict[Path, str] = {}
        speed = StepClock(config.batch_size, lambda: 0.0)
        # What it took to get here does not count, so that there is always time for a step.
        self.clock.start()
        try:
            for trainer in self.trainers:
                if self.converged or self.asked_to_stop:
                    break
                if self.clock.over(trainer.until):
                    continue
                self.train_step = trainer.step
                stream = PhotoStream(
                    self.photos,
                    image_size=trainer.image_size,
                    batch_size=config.batch_size,
                    seed=config.seed,
                    random_crop=config.random_crop,
                    random_flip=config.random_flip,
                    start_step=self.step,
                    stop_step=self.clock.stop_step(trainer.until),
                    rows=self.replicas.rows,
                    skipped=skipped,  # What one part finds unreadable, the next knows.
                )
                speed = StepClock(config.batch_size, lambda of=stream: of.waited_seconds)
                with stream:
                    self._loop(stream, trainer.until, speed)
            interrupted = self.asked_to_stop
        except KeyboardInterrupt:
            interrupted = True
            # It may have come between the update and our count of it.
            self.step = int(self.state.step.numpy())
        if self.step and self.saved != self.step:
            # Whoever interrupts wants to get away: what is learned is kept, and scored another
            # time.
            self._save(validate=False)
        elif self.step and self.writer is not None:
            if not (config.run_folder / MODEL_FILE).is_file():
                self.writer.save_model(self.state, self.step, more=self._told())
        model_step = self.step
        best = self.record.best_step
        at_its_end = self.converged or (not interrupted and self.clock.over())
        if config.patience_checkpoints is not None and at_its_end and best is not None:
            model_step = best
            if best != self.step and self.writer is not None:
                total = {tags.TOTAL: self.record.totals[best]}
                self.writer.save_best_model(self.state, best, total)
        return TrainResult(
            model=config.run_folder / MODEL_FILE,
            steps=self.step,
            model_step=model_step,
            first=self.first,
            last=mean_losses([taken.values for taken in self.last if taken.finite]),
            seconds=time.perf_counter() - began,
            images_per_second=speed.overall(self.step),
            skipped=skipped,
            skipped_steps=tuple(self.guard.skipped),
            interrupted=interrupted,
            converged=self.converged,
        )

    def _loop(self, stream: PhotoStream, until: float, speed: StepClock) -> None:
        config = self.config
        alone = self.replicas.cluster.size == 1
        before = self.step
        while not self.asked_to_stop and not self.clock.over(until):
            # Photos can be long in coming; but nobody leaves the others between two steps.
            with self.stop.deferred(not alone):
                photos = next(stream)
            taken = self._take(photos)
            step = self.step
            self.last.append(taken)
            self.observer.on_step(step)
            self._move(step)
            is_first = step == before + 1
            if is_first or step % config.log_every_steps == 0 or self.clock.over():
                values = taken.values  # Waits for the device, so that the speed counts it.
                self.observer.on_log(speed.report(step, values))
            if not self.first and taken.finite:
                self.first = taken.values
            if self.writer is not None and (is_first or step % config.summary_every_steps == 0):
                every = config.summary_every_steps * IMAGES_EVERY_SUMMARIES
                pictures = None
                if is_first or step % every == 0:
                    pictures = (photos[: len(self.styled)], self.styled)
                self.writer.summarize(step, taken.values, pictures)
            if step % config.checkpoint_every_steps == 0 or self.clock.over():
                self._save(validate=True)
                self._move(step)
                if self.converged:
                    return

    def _move(self, step: int) -> None:
        """Takes note that so many steps are done, and of the time."""
        self.clock.move(step)
        if self.patience_from is None and self.clock.over(self.settled):
            self.patience_from = step

    def _take(self, photos: np.ndarray) -> TakenStep:
        """Takes the next step, and looks at the one before."""
        taken = self._compute(photos)
        before = self.pending
        if before is not None and self._look(before):
            # The weights that this step began with were no good, and now they are.
            taken = self._compute(photos)
        self.pending = taken
        self.step = taken.step
        return taken

    def _compute(self, photos: np.ndarray) -> TakenStep:
        styles = len(self.config.style_specs)
        if self.clock.timed:
            self.state.passed.assign(self.clock.passed)
        choice = style_choice(self.config.seed, self.step, self.config.batch_size, styles)
        if self.replicas.count == 1:
            losses, self.styled, gradients = self.train_step(photos, choice)
            return TakenStep(self.step + 1, photos, choice, losses, gradients)
        rows = self.replicas.rows
        word = np.float32(self.stop.signal or 0)
        losses, self.styled, gradients, words = self.train_step(
            photos, choice[rows.start : rows.stop], word
        )
        return TakenStep(self.step + 1, photos, choice, losses, gradients, words)

    def _look(self, taken: TakenStep) -> bool:
        """Looks at a step; returns whether weights and moments were restored for it."""
        if self.replicas.cluster.size > 1:
            self._hear(np.asarray(taken.words))
            if not taken.finite:  # The photo at fault may be another process's.
                photos = self.replicas.gather_rows(taken.photos)
                taken = dataclasses.replace(taken, photos=photos)
        return self.guard.check(taken)

    @property
    def asked_to_stop(self) -> bool:
        """Whether to take no further step; the same in every process after each."""
        return self.stop.requested if self.replicas.cluster.size == 1 else self.heard > 0

    def _hear(self, signals: np.ndarray) -> None:
        """Takes note of the signals that the processes have got, 0 for none."""
        if not self.heard and signals.any():
            self.heard = int(signals[np.flatnonzero(signals)[0]])
            if not self.stop.requested:
                self.stop.ask(self.heard)

    def _agree(self) -> None:
        """Makes known to all processes what only one knows."""
        patience = self.config.patience_checkpoints
        begins = self.patience_from
        since_best = 0 if begins is None else self.record.since_best(begins)
        self.converged = patience is not None and since_best >= patience
        if self.replicas.cluster.size > 1:
            mine = np.array([self.converged, self.stop.signal or 0], np.int64)
            known = self.replicas.gather(mine)
            self.converged = bool(known[0, 0])
            self._hear(known[:, 1])

    def _settle(self) -> None:
        """Looks at the last step, so that nothing that is not finite is saved."""
        pending, self.pending = self.pending, None
        if pending is None or not self._look(pending):
            self.guard.restore(self.step)

    def _roll_back(self, step: int) -> str:
        """Restores weights and moments as they were last saved; the count of batches goes on."""
        source = "the chief's last checkpoint"
        if self.writer is not None:
            found = read_newest_checkpoint(self.config.run_folder)
            if found is not None:
                self.state.restore(found[0], found[1])
                source = found[0].name
            else:
                # What `init_from` names may have changed, or be gone.
                self.state.restart((self.beginning or begin(self.config)).weights)
                source = "the start"
        self.replicas.take_over(list(self.state.tensors().values()))
        self.state.step.assign(step)
        return source

    def _save(self, *, validate: bool) -> None:
        """Writes a checkpoint and what goes with it, then scores the held-out photos."""
        self._settle()
        self.saved = self.step
        if self.writer is not None:
            best, more = self.record.best_step, self._told()
            path = self.writer.save_checkpoint(self.state, self.step, spare=best, more=more)
            validation = self._validate(self.writer) if validate else {}
            self.observer.on_checkpoint(path, validation)
        if validate:
            self._agree()

    def _told(self) -> dict[str, Any]:
        """What the next sitting has to know, if time counts in this one or did before."""
        if not (self.clock.timed or self.clock.spent):
            return {}
        begins = self.patience_from
        if begins is not None and begins > self.step:
            begins = None  # Steps decide where it is to begin; in time it may be elsewhere.
        return {SECONDS: self.clock.elapsed(), PATIENCE_FROM: begins}

    def _validate(self, writer: RunWriter) -> dict[str, float]:
        """Scores the held-out photos, and takes note."""
        validation = self.held_out.score(self.stop)
        if validation:
            self.record.add(self.step, validation[tags.TOTAL])
            self.record.write(self.config.run_folder)
            writer.save_model(self.state, self.step, validation, more=self._told())
            scalars = {f"validation/{tag}": value for tag, value in validation.items()}
            writer.summarize(self.step, scalars)
        return validation

    def _photos_of(self, step: int) -> list[Path]:
        """The photos that the batch of a step was to show."""
        count, size = len(self.photos), self.config.batch_size
        places = photo_places(count, self.config.seed, (step - 1) * size, size)
        return [self.photos[place] for place in places]
