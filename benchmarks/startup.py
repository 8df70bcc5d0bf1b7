"""Times cold starts: `python benchmarks/startup.py`.

`import tensorflow` alone, eval.py of one picture, and, with `--config`, train.py to its first step;
each in a process of its own, in turns. Prints one JSON line per measurement.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Times, common_arguments, emit, random_photos
from PIL import Image

_ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Reads the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    common_arguments(parser, rounds=5)
    parser.add_argument("--size", type=int, default=512, help="the picture's sides in px")
    parser.add_argument("--config", help="a run whose first step is waited for too")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()

    from fast_style.checkpoints import Model, save_model
    from fast_style.transform_net import init_weights

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model, photo = folder / "model.safetensors", folder / "photo.jpg"
        save_model(model, Model("johnson", 1.0, ("random",), init_weights("johnson"), {}))
        Image.fromarray(random_photos(1, options.size, options.seed)[0]).save(photo)
        eval_py = [str(_ROOT / "eval.py"), "--model", str(model), "--image", str(photo)]
        commands = {
            "import tensorflow": ["-c", "import tensorflow"],
            "eval.py": [*eval_py, "-o", str(folder / "styled.jpg")],
        }
        times = {name: Times() for name in commands}
        for round_number in range(options.rounds + 1):
            for name, command in commands.items():
                wall, cpu = _run(command, folder)
                if round_number:  # The first fills the file cache.
                    times[name].wall.append(wall)
                    times[name].cpu.append(cpu)
        for name, measured in times.items():
            emit("startup", name, measured.summary(), size=options.size)
        above = {
            key: round(
                times["eval.py"].summary()[key] - times["import tensorflow"].summary()[key], 3
            )
            for key in ("seconds", "cpu_seconds", "least")
        }
        emit("startup", "eval.py above import tensorflow", above, size=options.size)
        if options.config:
            emit("startup", "train.py to its first step", _first_step(options, folder))


def _run(arguments: list[str], folder: Path) -> tuple[float, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    subprocess.run(
        [sys.executable, *arguments], cwd=folder, check=True, capture_output=True, env=environment
    )
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _first_step(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Runs train.py from its own folder, for the paths of the configuration, for one step."""
    changes = [*options.set, "steps=1", f"model_path={folder / 'models'}"]
    arguments = [str(_ROOT / "train.py"), "-c", options.config]
    for change in changes:
        arguments += ["--set", change]
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        seconds = None
        for line in process.stdout:
            if seconds is None and re.search(r"\bstep 1\b|1/1", line):
                seconds = time.perf_counter() - began
    if seconds is None or process.returncode:
        raise SystemExit(f"train.py failed with exit code {process.returncode}")
    return {"seconds": round(seconds, 3)}


if __name__ == "__main__":
    main()
