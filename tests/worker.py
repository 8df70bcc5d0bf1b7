"""A process that trains, for tests of several: `python worker.py PLAN`, a JSON file.

Of the plan, `folder` is where to work and `settings` are the keys of the run. `acts` says what
befalls the process when it fetches the batch of a step, {step: act}: a signal's name, `white` for
photos whose loss is not a number, or `break` for weights that are none. With `devices` the
processor is divided into so many. With `ticks`, each step takes a second on the clock of runs.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def main() -> int:
    plan: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    os.chdir(plan["folder"])
    import numpy as np
    import tensorflow as tf

    from fast_style import builders, cli, training
    from fast_style import objective as tags
    from fast_style.data import PhotoStream
    from fast_style.objective import Objective

    tf.config.threading.set_intra_op_parallelism_threads(1)
    if "devices" in plan:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * plan["devices"],
        )
    kept: dict[str, Any] = {"step": 0}
    if plan.get("ticks"):
        clock = functools.partial(training.RunClock, now=lambda: float(kept["step"]))
        training.RunClock = clock  # pyright: ignore[reportAttributeAccessIssue]
    begin, give = PhotoStream.__init__, PhotoStream.__next__
    make, score = training.make_replicated_step, Objective.score

    def make_and_keep(replicas: Any, state: Any, *rest: Any, **more: Any) -> Any:
        kept["state"] = state
        return make(replicas, state, *rest, **more)

    def score_or_break(self: Objective, styled: Any, photos: Any, *rest: Any) -> Any:
        terms = score(self, styled, photos, *rest)
        wrong = tf.where(tf.reduce_all(photos == 255), np.float32(np.nan), np.float32(1.0))
        return terms | {tag: wrong * terms[tag] for tag in (tags.CONTENT, tags.TOTAL)}

    def begin_at(self: PhotoStream, *paths: Any, start_step: int, **rest: Any) -> None:
        kept["step"] = start_step
        begin(self, *paths, start_step=start_step, **rest)

    def give_or_act(self: PhotoStream) -> Any:
        photos = give(self)
        kept["step"] += 1
        act = plan.get("acts", {}).get(str(kept["step"]))
        if act == "white":
            return np.full_like(photos, 255)
        if act == "break":
            weight = next(iter(kept["state"].weights.values()))
            weight.assign(np.full(weight.shape, np.nan, np.float32))
        elif act:
            os.kill(os.getpid(), signal.Signals[act])
        return photos

    builders.PREVIEW_SIZE = 64  # Most of the time would go there.
    training.make_replicated_step = make_and_keep
    Objective.score = score_or_break
    PhotoStream.__init__ = begin_at
    PhotoStream.__next__ = give_or_act
    Path("tiny.yml").write_text(json.dumps(plan["settings"]), encoding="utf-8")
    return cli.script("train", ["-c", "tiny.yml", "--log-json"])


if __name__ == "__main__":
    sys.exit(main())
