"""Kills training at random moments and shows that nothing is lost.

    python benchmarks/kill_resume.py --kills 30

A run of a tiny net is killed (`kill -9`), started again, killed again, and so on, until all kills
are spent and the run has ended. Its weights, moments and step must then equal those of a run that
nobody killed, bit for bit. Half of the kills come at random times, the other half at the moment
when a temporary file of a checkpoint or a model appears, while it is being written. Photos, style
and the loss network are made up on the spot.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402  # After the paths, as all below.
import tiny  # noqa: E402

from fast_style.checkpoints import newest_checkpoint, read_checkpoint, read_newest_checkpoint  # noqa: E402

_LONGEST = 300.0  # seconds that any one start may take


def start(folder: Path) -> subprocess.Popen[str]:
    """Starts, or resumes, the run of `folder`/tiny.yml."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "-c", "tiny.yml", "--quiet"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def temporaries(folder: Path) -> set[str]:
    """The temporary files in the run's folder now."""
    try:
        return {name for name in os.listdir(folder / "models" / "tiny") if ".partial" in name}
    except OSError:
        return set()


def kill_when(process: subprocess.Popen[str], due: Callable[[], bool], pause: float) -> bool:
    """Kills a process at a moment; returns whether it was still there to be killed."""
    began = time.monotonic()
    while process.poll() is None:
        if due():
            process.kill()
            process.wait()
            return True
        if time.monotonic() - began > _LONGEST:
            process.kill()
            process.wait()
            raise SystemExit("a run hangs")
        time.sleep(pause)
    return False


def steps_saved(folder: Path) -> int:
    """Steps of the newest checkpoint that is whole."""
    found = read_newest_checkpoint(folder / "models" / "tiny")
    return 0 if found is None else int(found[1]["global_step"])


def run_with_kills(
    folder: Path, kills: int, seed: int, show: Callable[[str], None]
) -> tuple[int, int]:
    """Runs to the end with so many kills on the way.

    Args:
      folder: Holds tiny.yml.
      kills: How many, each of a process of its own.
      seed: Of their moments.
      show: Is given a line for each.

    Returns:
      How many kills there were until it had ended, and how many of them came while a file was
      being written.

    Raises:
      SystemExit: If the run failed.
    """
    rng = random.Random(seed)
    in_writes = 0
    for number in range(1, kills + 1):
        begun, leftover = steps_saved(folder), temporaries(folder)
        process = start(folder)
        if number % 2:
            # Of the first seconds nothing is at stake: that is the import of TensorFlow.
            moment = time.monotonic() + rng.uniform(2.0, 20.0)
            killed = kill_when(process, lambda at=moment: time.monotonic() >= at, 0.005)
        else:
            # The file of the model, of the checkpoint, of the preview and of the record come by
            # turns: let some pass, seen in so many looks.
            looks = [rng.choice((1, 2, 5, 20, 60))]
            after = begun + rng.choice((1, 1, 11))  # First let it get somewhere.

            def due(
                looks: list[int] = looks, leftover: set[str] = leftover, after: int = after
            ) -> bool:
                newest = newest_checkpoint(folder / "models" / "tiny")
                if newest is None or int(newest.name.rpartition("-")[2]) < after:
                    return False
                looks[0] -= bool(temporaries(folder) - leftover)
                return looks[0] <= 0

            killed = kill_when(process, due, 0.0)
        writing = bool(temporaries(folder) - leftover)
        in_writes += writing
        if not killed:
            output = process.communicate()[0]
            if process.returncode:
                raise SystemExit(f"a start ended with {process.returncode}\n{output}")
            show(f"the run has ended after {number - 1} kills; more need more --steps")
            return number - 1, in_writes
        show(
            f"kill {number}: begun at step {begun}, checkpoint {steps_saved(folder)} is whole"
            + (", while writing" if writing else "")
        )
    process = start(folder)
    output = process.communicate(timeout=_LONGEST)[0]
    if process.returncode:
        raise SystemExit(f"the last start ended with {process.returncode}\n{output}")
    return kills, in_writes


def differences(one: Path, other: Path) -> list[str]:
    """Names the tensors of the newest checkpoints of two runs that differ in any bit."""
    prefixes = [newest_checkpoint(folder / "models" / "tiny") for folder in (one, other)]
    assert prefixes[0] is not None and prefixes[1] is not None
    first, second = (read_checkpoint(prefix)[0] for prefix in prefixes if prefix)
    return [
        name
        for name in sorted(first.keys() | second.keys())
        if name not in first
        or name not in second
        or first[name].tobytes() != second[name].tobytes()
    ]


def compare(
    place: Path, kills: int, steps: int, seed: int, show: Callable[[str], None]
) -> tuple[list[str], int, int]:
    """Runs twice, with and without kills.

    Returns:
      The tensors that differ, the number of kills, and how many came while a file was being
      written.
    """
    world = tiny.make_world(place / "world")
    folders = []
    for name in ("whole", "killed"):
        folder = place / name
        folder.mkdir()
        world.config_file(
            folder,
            model_path="models",
            steps=steps,
            width=0.25,
            random_crop=True,
            random_flip=True,
            checkpoint_every_steps=5,
            keep_checkpoints=2,
            summary_every_steps=1000,
            log_every_steps=1000,
            val_dataset=str(world.held_out),
        )
        folders.append(folder)
    began = time.monotonic()
    process = start(folders[0])
    output = process.communicate(timeout=_LONGEST)[0]
    if process.returncode:
        raise SystemExit(output)
    show(f"{steps} steps in one go: {time.monotonic() - began:.0f} s")
    done, in_writes = run_with_kills(folders[1], kills, seed, show)
    return differences(*folders), done, in_writes


def main() -> int:
    """Runs the comparison that the arguments ask for."""
    parser = argparse.ArgumentParser(description="Kill training, resume it, compare the weights.")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    np.seterr(all="raise")
    with tempfile.TemporaryDirectory() as place:
        broken, kills, in_writes = compare(
            Path(place), options.kills, options.steps, options.seed, print
        )
    print(f"{kills} kills, {in_writes} of them while a file was being written")
    print(f"tensors that differ: {', '.join(broken) or 'none'}")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
