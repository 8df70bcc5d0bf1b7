"""Training on several devices and in several processes, on this machine's processor.

`worker.py` is one such process. The net is that of 2016: of the default one, some offsets have no
effect (a norm behind them takes them out), so that rounding alone decides where they go.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tiny

from fast_style.checkpoints import read_checkpoint
from fast_style.cluster import ALONE, Cluster
from fast_style.errors import ConfigError, FastStyleError
from fast_style.replicas import Replicas
from fast_style.transform_net import init_weights

STEM = "fast-style-model.ckpt"
PATIENCE = 120.0  # Seconds, on a machine that does other work.


def settings(world: tiny.World, folder: Path, **changes: Any) -> dict[str, Any]:
    run: dict[str, Any] = {
        "arch": "slim2016",
        "width": 1.0,
        "batch_size": 4,
        "checkpoint_every_steps": 10,
        "val_dataset": str(world.held_out),
        "gradient_clip": 1.5,
        "grid_weight": 500.0,
        "border_weight": 20.0,
    }
    return world.settings(folder, **run | changes)


def start(folder: Path, plan: dict[str, Any], tf_config: dict[str, Any] | None = None) -> Any:
    """Starts `worker.py`; what it says goes to files beside its plan."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "plan.json"
    path.write_text(json.dumps(plan | {"folder": str(folder)}), encoding="utf-8")
    root = Path(__file__).parent.parent
    environment = {key: value for key, value in os.environ.items() if key != "TF_CONFIG"}
    environment["PYTHONPATH"] = str(root)
    if tf_config is not None:
        environment["TF_CONFIG"] = json.dumps(tf_config)
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        return subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "worker.py"), str(path)],
            env=environment,
            stdout=out,
            stderr=err,
        )


@contextlib.contextmanager
def ended_at_last(processes: Sequence[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def free_addresses(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in taken:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in taken]


def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out").read_text().splitlines()]


@dataclass(frozen=True)
class Ended:
    """How a process of a cluster ended.

    Attributes:
      code: Its exit code.
      at: When, in seconds of a clock that only runs forward.
      events: What it logged.
      error: What it wrote to the error stream.
    """

    code: int
    at: float
    events: list[dict[str, Any]]
    error: str

    def told(self, event: str) -> list[dict[str, Any]]:
        return [found for found in self.events if found["event"] == event]


def run_cluster(folders: Sequence[Path], plans: Sequence[dict[str, Any]]) -> list[Ended]:
    """Runs a cluster, one process a plan, until all have ended."""
    workers = free_addresses(len(plans))
    cluster = {"worker": workers}
    processes = [
        start(folder, plan, {"cluster": cluster, "task": {"type": "worker", "index": index}})
        for index, (folder, plan) in enumerate(zip(folders, plans, strict=True))
    ]
    ends: dict[int, float] = {}
    with ended_at_last(processes):
        began = time.monotonic()
        while len(ends) < len(processes):
            assert time.monotonic() - began < PATIENCE, [
                (folder / "err").read_text()[-2000:] for folder in folders
            ]
            for index, process in enumerate(processes):
                if index not in ends and process.poll() is not None:
                    ends[index] = time.monotonic()
            time.sleep(0.05)
    return [
        Ended(
            process.returncode,
            ends[index],
            told(folder),
            (folder / "err").read_text(),
        )
        for index, (process, folder) in enumerate(zip(processes, folders, strict=True))
    ]


def weights_of(folder: Path, step: int) -> np.ndarray:
    """All weights of a checkpoint, [W]."""
    tensors, _ = read_checkpoint(folder / "models" / "tiny" / f"{STEM}-{step}")
    return np.concatenate([tensors[name].ravel() for name in init_weights("slim2016")])


# What another order of sums may come to after ten or twenty steps. Adam's first step is as good as
# the sign of each gradient, so rounding turns round those that are next to nothing: the same run
# from weights shifted by one rounding was 6e-5 to 1.4e-3 away after twenty steps, up to 2.2e-3 by
# Winograd's algorithm, and up to 5e-4 after one. With half of the photos left out it was 1.7e-2
# after ten and 2.2e-2 after twenty.
ROUNDING = 3e-3


def relative_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def test_workers_that_would_train_otherwise_are_told_what_differs() -> None:
    class OfTwo(Replicas):
        def gather(self, value: np.ndarray) -> np.ndarray:
            return np.stack([value, value + np.array([0, 1, 0])])

    two = OfTwo(Cluster(("a:1", "b:1")), range(2), 1, None)
    with pytest.raises(ConfigError, match="the workers would not train the same") as caught:
        two.check_alike({"seed": 1, "steps": 5, "the number of photos": 7})
    assert caught.value.problems == ("worker 1 (b:1): other than the chief's: steps",)


def test_an_error_of_tensorflows_becomes_a_sentence_in_company_alone() -> None:
    lost = tf.errors.UnavailableError(None, None, "from /job:worker/replica:0/task:2: reset")
    three = Replicas(Cluster(("a:1", "b:1", "c:1"), 1), range(2), 1, None)
    with pytest.raises(FastStyleError, match=r"worker 1 \(b:1\): lost contact with worker 2"):
        with three.contact():
            raise lost
    with pytest.raises(tf.errors.UnavailableError):
        with Replicas(ALONE, range(2), 1, None).contact():
            raise lost


@pytest.fixture(scope="module")
def single(world: tiny.World, tmp_path_factory: pytest.TempPathFactory):
    """Runs of one process: twenty steps on one device, ten on two, and six seconds on two.

    Each device has one thread, as in all processes here: the number of threads decides the order of
    sums, which twenty steps magnify.
    """
    one, two, timed = (tmp_path_factory.mktemp(name) for name in ("one", "two", "timed"))
    by_the_clock = {"steps": None, "minutes": 0.1, "learning_rate_schedule": "cosine"}
    processes = [
        start(one, {"settings": settings(world, one, steps=20)}),
        start(two, {"settings": settings(world, two, steps=10), "devices": 2}),
        start(
            timed,
            {"settings": settings(world, timed, **by_the_clock), "devices": 2, "ticks": True},
        ),
    ]
    with ended_at_last(processes):
        for process, folder in zip(processes, (one, two, timed), strict=True):
            assert process.wait(PATIENCE) == 0, (folder / "err").read_text()
    return one, two, timed


def losses_at_first(events: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What the first step reports: losses, and the norm of the gradient, which Adam hides."""
    losses = next(event["losses"] for event in events if event["event"] == "step")
    assert losses["gradient_norm"] > 0
    return losses


def test_two_devices_of_a_process_train_as_one_does(single: tuple[Path, Path, Path]) -> None:
    one, two, _ = single
    header = next(event for event in told(two) if event["event"] == "start")
    assert header["device"].startswith("2 parts of a CPU")
    assert losses_at_first(told(two)) == pytest.approx(losses_at_first(told(one)), rel=1e-4)
    assert relative_difference(weights_of(two, 10), weights_of(one, 10)) < ROUNDING
    assert (two / "models" / "tiny" / "preview.jpg").is_file()


def test_two_devices_of_a_process_go_by_one_clock(single: tuple[Path, Path, Path]) -> None:
    *_, timed = single
    steps = [event for event in told(timed) if event["event"] == "step"]
    rates = [step["losses"]["learning_rate"] for step in steps]
    falling = [5e-4 * (1.0 + math.cos(math.pi * step / 6)) for step in range(6)]
    assert rates == pytest.approx(falling, rel=1e-5)


@pytest.fixture(scope="module")
def pair(world: tiny.World, tmp_path_factory: pytest.TempPathFactory):
    """A run of two processes in three pieces.

    In the first, SIGTERM reaches the worker that is not the chief; in the second, it is lost; in
    the third, it gets a batch that is not finite, and its weights break.
    """
    folders = [tmp_path_factory.mktemp(name) for name in ("chief", "other")]
    pieces = []
    for acts in ({"6": "SIGTERM"}, {"14": "SIGKILL"}, {"22": "white", "24": "break"}):
        plans = [{"settings": settings(world, folder, steps=26)} for folder in folders]
        plans[1]["acts"] = acts
        pieces.append(run_cluster(folders, plans))
    return folders, pieces


def test_a_signal_to_one_process_ends_all_with_a_checkpoint(pair: Any) -> None:
    chief, other = pair[1][0]
    assert (chief.code, other.code) == (143, 143), chief.error + other.error
    (checkpoint,) = chief.told("checkpoint")
    (end,) = chief.told("end")
    assert end["interrupted"] and 6 <= end["steps"] <= 8
    assert checkpoint["path"].endswith(f"-{end['steps']}")


def test_a_lost_process_ends_the_others_with_a_sentence(pair: Any) -> None:
    chief, other = pair[1][1]
    assert other.code == -9
    assert chief.code == 1
    print("seconds until the survivor ended", chief.at - other.at)
    assert chief.at - other.at < 60
    errors = [line for line in chief.error.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "the chief): lost contact with worker 1 (127.0.0.1:" in errors[0]
    assert errors[0].endswith("start all workers again to go on from the last checkpoint")
    assert "Traceback" not in chief.error


def test_the_cluster_resumes_from_the_chiefs_last_checkpoint(pair: Any) -> None:
    first, second, third = (piece[0] for piece in pair[1])
    assert second.told("start")[0]["start_step"] == first.told("end")[0]["steps"]
    assert second.told("checkpoint")[0]["path"].endswith("-10")
    assert third.told("start")[0]["start_step"] == 10
    assert [each.code for each in pair[1][2]] == [0, 0], third.error
    assert third.told("end")[0]["steps"] == 26


def test_two_processes_train_as_one_does(pair: Any, single: tuple[Path, Path, Path]) -> None:
    alone, *_ = single
    first = losses_at_first(pair[1][0][0].events)
    assert first == pytest.approx(losses_at_first(told(alone)), rel=1e-4)
    difference = relative_difference(weights_of(pair[0][0], 20), weights_of(alone, 20))
    print("relative difference after 20 steps", difference)
    assert difference < ROUNDING
    # The measure is not blind: what ten steps change is far more.
    assert relative_difference(weights_of(alone, 10), weights_of(alone, 20)) > 5e-3


def test_only_the_chief_writes_and_reports(pair: Any) -> None:
    names = {path.name for path in pair[0][1].iterdir()}
    assert names == {"plan.json", "tiny.yml", "out", "err"}
    for _, other in pair[1]:
        assert {event["event"] for event in other.events} <= {
            *("not_finite", "rolled_back", "message")
        }
    names = {path.name for path in (pair[0][0] / "models" / "tiny").iterdir()}
    assert {"preview.jpg", "model.safetensors", "validation.json"} <= names
    assert pair[1][2][0].told("checkpoint")[0]["validation"]


def test_numbers_that_break_in_one_process_are_dealt_with_alike_in_all(pair: Any) -> None:
    chief, other = pair[1][2]
    for each in (chief, other):
        assert [event["step"] for event in each.told("not_finite")] == [22, 24]
        assert [event["step"] for event in each.told("rolled_back")] == [24]
    assert chief.told("rolled_back")[0]["source"] == f"{STEM}-20"
    assert chief.told("end")[0]["skipped_steps"] == [22, 24]
    with np.load(pair[0][0] / "models" / "tiny" / "nonfinite-step-22.npz") as batch:
        assert batch["photos"].shape == (4, 32, 32, 3)
        white = (batch["photos"] == 255).all(axis=(1, 2, 3))
        np.testing.assert_array_equal(white, [False, False, True, True])
    assert np.isfinite(weights_of(pair[0][0], 26)).all()
