"""What the benchmarks share: timing, the record of a measurement, random photos and weights."""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fast_style.onednn import prefer_onednn

prefer_onednn()  # As the commands do.

_VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3))  # (channels, convolutions) of blocks 1 to 4
CONTENT_LAYERS = ("vgg_16/conv3/conv3_3",)
STYLE_LAYERS = tuple(f"vgg_16/conv{b}/conv{b}_{i}" for b, i in ((1, 2), (2, 2), (3, 3), (4, 3)))


@dataclass
class Times:
    """Repeated measurements of one thing.

    Attributes:
      wall: Seconds on the clock, one per repetition.
      cpu: Processor seconds of the whole process meanwhile, all threads together.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median of the wall time in seconds."""
        return statistics.median(self.wall)

    def summary(self) -> dict[str, Any]:
        """Median, quartiles and least wall time, and the median of processor time, in seconds."""
        low, _, high = np.percentile(self.wall, [25, 50, 75])
        return {
            "seconds": round(self.median, 5),
            "quartiles": [round(float(low), 5), round(float(high), 5)],
            "least": round(min(self.wall), 5),
            "cpu_seconds": round(statistics.median(self.cpu), 5),
            "repetitions": len(self.wall),
        }


def interleaved(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 2
) -> dict[str, Times]:
    """Times several functions in turns, so that what else the machine does hits all alike.

    Args:
      candidates: {name: function}; each must not return before its work is done.
      rounds: Timed repetitions of each.
      warmup: Repetitions of each before the first timed one; the first traces.
    """
    times = {name: Times() for name in candidates}
    for function in candidates.values():
        for _ in range(warmup):
            function()
    for _ in range(rounds):
        for name, function in candidates.items():
            cpu, wall = time.process_time(), time.perf_counter()
            function()
            times[name].wall.append(time.perf_counter() - wall)
            times[name].cpu.append(time.process_time() - cpu)
    return times


def wait(value: Any) -> None:
    """Returns when tensors (one, or nested in lists and dictionaries) have been computed."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            wait(part)
    elif value is not None:
        value.numpy()


def overrides(settings: Mapping[str, Any]) -> list[str]:
    """Returns keys of a configuration and their values as `--set` takes them."""
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def emit(benchmark: str, what: str, values: Mapping[str, Any], **settings: Any) -> None:
    """Prints one measurement as a line of JSON, with what is needed to repeat it."""
    record = {"benchmark": benchmark, "what": what, **values, **settings, **_surroundings()}
    print(json.dumps(record), flush=True)


def _surroundings() -> dict[str, Any]:
    import tensorflow as tf

    from fast_style.hardware import describe_device

    return {
        "device": describe_device(),
        "tensorflow": tf.__version__,
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _commit() -> str:
    folder = Path(__file__).resolve().parent
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=folder, capture_output=True, text=True
    )
    return result.stdout.strip() or "unknown"


def common_arguments(parser: argparse.ArgumentParser, *, rounds: int) -> None:
    """Declares what all benchmarks understand."""
    parser.add_argument("--rounds", type=int, default=rounds, help="timed repetitions")
    parser.add_argument("--warmup", type=int, default=2, help="untimed repetitions before them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="intra-op threads (default: TensorFlow's)")


def set_threads(count: int | None) -> None:
    """Limits the threads of one operation; before TensorFlow's first one."""
    if count is not None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(count)


def run_default(key: str) -> Any:
    """Returns what a run's configuration has for a key that its file leaves out."""
    from fast_style.config import RunConfig

    return next(field.default for field in dataclasses.fields(RunConfig) if field.name == key)


def random_vgg16(seed: int) -> dict[str, np.ndarray]:
    """Returns random weights of VGG16 to conv4_3 under TF-Slim's names.

    Speed does not depend on values, as long as features neither vanish nor overflow.
    """
    rng = np.random.default_rng(seed)
    weights, inputs = {}, 3
    for block, (channels, count) in enumerate(_VGG16, start=1):
        for i in range(1, count + 1):
            name = f"vgg_16/conv{block}/conv{block}_{i}"
            kernel = rng.standard_normal((3, 3, inputs, channels), np.float32)
            weights[f"{name}/weights"] = kernel * np.float32(np.sqrt(2 / (9 * inputs)))
            weights[f"{name}/biases"] = np.zeros(channels, np.float32)
            inputs = channels
    return weights


def vgg16_file(given: str | None, seed: int) -> Path:
    """Returns the loss network's file: the given one, or a temporary one of random weights."""
    if given is not None:
        return Path(given)
    path = Path(tempfile.mkdtemp(prefix="fast-style-")) / "vgg_16.npz"
    np.savez(path, **random_vgg16(seed))  # type: ignore[arg-type]
    return path


def training_objective(options: argparse.Namespace, precision: Any) -> tuple[Any, np.ndarray]:
    """Returns the objective that benchmarks of a training step share, and a batch of photos."""
    from fast_style.loss_net import build_loss_network
    from fast_style.objective import Objective, style_grams

    file = vgg16_file(options.loss_model_file, options.seed)
    network = build_loss_network("vgg_16", file, STYLE_LAYERS, dtype=precision)
    photos = random_photos(options.batch_size, options.image_size, options.seed)
    objective = Objective(
        network=network,
        content_layers=CONTENT_LAYERS,
        target_grams=style_grams(network, STYLE_LAYERS, [photos[0]]),
        style_weights=np.array([100.0], np.float32),
        content_weight=1.0,
        tv_weight=0.0,
    )
    return objective, photos


def random_photos(count: int, size: int, seed: int) -> np.ndarray:
    """Returns smooth noise, uint8 [count, size, size, 3]: like photos, neither flat nor white."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
    resized = [Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC) for c in coarse]
    return np.stack([np.asarray(picture) for picture in resized])


def peak_mb() -> float:
    """Returns the peak resident memory of this process so far, in 10^6 bytes.

    Linux's ru_maxrss is no less than that of the process that started this one, so the peak of the
    program alone is read where Linux keeps it.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e6
    except (OSError, IndexError):
        return _peak_mb_of(resource.RUSAGE_SELF)


def peak_mb_of_children() -> float:
    """Returns the peak resident memory of the largest program that ended so far, in 10^6 bytes."""
    return _peak_mb_of(resource.RUSAGE_CHILDREN)


def _peak_mb_of(who: int) -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(who).ru_maxrss * unit / 1e6
