from __future__ import annotations

import io
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tiny

from fast_style import objective as tags
from fast_style import training
from fast_style.cli import main
from fast_style.config import config_from_dict
from fast_style.data import find_photos
from fast_style.images import read_image
from fast_style.run_events import LoggingObserver, TrainResult, plain_value
from fast_style.run_log import JsonFormatter, log_messages
from fast_style.samples import SAMPLES
from fast_style.terminal import turn_away
from fast_style.train_state import TrainState


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and a training step that only counts; the second one fails."""

    def make_quick_step(state: TrainState, *rest: Any, **arguments: Any):
        def step(photos: np.ndarray, choice: np.ndarray):
            state.step.assign_add(1)
            names = (tags.CONTENT, tags.STYLE, tags.VARIATION, tags.WEIGHTED_CONTENT)
            names += (tags.WEIGHTED_STYLE, tags.WEIGHTED_VARIATION, tags.GRADIENT_NORM)
            losses = {name: tf.constant(5.0) for name in names}
            losses[tags.TOTAL] = tf.constant(np.nan if int(state.step) == 2 else 9.0, tf.float32)
            return losses, tf.zeros([2, 32, 32, 3]), tf.ones([len(state.weights)])

        return step

    monkeypatch.setattr(training, "make_train_step", make_quick_step)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_json_log_is_one_object_a_line_and_nothing_else(
    world: tiny.World, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = world.config_file(workplace, checkpoint_every_steps=2)
    assert main(["train", "-c", str(path), "--log-json"]) == 0
    out, errors = capsys.readouterr()
    assert errors == ""
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events] == [
        *("config", "start", "step", "step", "not_finite", "checkpoint"),
        *("step", "step", "checkpoint", "end"),
    ]
    assert all(event["time"].endswith("+00:00") for event in events)
    assert {event["level"] for event in events} == {"info", "warning"}
    config, start, first, second, broken, saved, *_, end = events
    assert config_from_dict(config["config"], "log").naming == "tiny"
    assert (start["start_step"], start["steps"], start["photos"]) == (0, 4, tiny.PHOTO_COUNT)
    assert (first["step"], first["losses"][tags.TOTAL]) == (1, 9.0)
    assert second["losses"][tags.TOTAL] is None  # JSON has no word for it.
    assert (broken["step"], broken["broken"]) == (2, [tags.TOTAL])
    assert saved["path"].endswith("fast-style-model.ckpt-2")
    assert (end["steps"], end["skipped_steps"], end["skipped"]) == (4, [2], {})
    assert end["last"][tags.TOTAL] == 9.0
    assert end["model"] == f"{workplace}/models/tiny/model.safetensors"


def test_a_json_log_ends_with_the_error(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "-c", "missing.yml", "--log-json"]) == 2
    out, errors = capsys.readouterr()
    event = json.loads(out)
    assert (event["event"], event["level"], event["exit_code"]) == ("error", "error", 2)
    assert errors == f"error: {event['message']}\n"


def test_quiet_shows_warnings_and_errors_alone(
    world: tiny.World, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(world.config_file(workplace))
    assert main(["train", "-c", path, "--quiet"]) == 0
    out, errors = capsys.readouterr()
    assert out == ""
    assert [line.partition(";")[0] for line in errors.splitlines()] == [
        "step 2: not a finite number: total_loss"
    ]
    assert main(["train", "-c", path, "--quiet", "--set", "seed=9"]) == 2
    out, errors = capsys.readouterr()
    assert out == "" and errors.startswith("error: ")


def test_quiet_and_json_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", "-c", "a.yml", "--quiet", "--log-json"])
    assert "not allowed with" in capsys.readouterr().err


def test_a_run_ends_with_a_summary(
    world: tiny.World, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "-c", str(world.config_file(workplace))]) == 0
    lines = capsys.readouterr().out.splitlines()
    facts = dict(line.split(": ", 1) for line in lines[-7:])
    assert list(facts) == [
        *("done", "last losses", "skipped", "model", "preview", "stylize", "charts")
    ]
    assert facts["done"].strip().startswith("4 steps in all, ")
    assert facts["done"].endswith(" images/s")
    assert facts["last losses"].split() == "content 5 style 5 tv 5 total 9".split()
    assert facts["skipped"].strip() == "0 photos (unreadable), 1 batches (not finite)"


def test_a_run_on_sample_photos_ends_with_a_picture(
    world: tiny.World,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photos = find_photos(world.photos)
    for module in ("data", "cli_train"):
        monkeypatch.setattr(f"fast_style.{module}.sample_photos", lambda: photos)
    path = str(world.config_file(workplace, dataset=SAMPLES, steps=1))
    picture = Path("generated/0_tiny.jpg")
    assert main(["train", "-c", path]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split() == ["picture:", str(picture)]
    assert read_image(picture).shape == read_image(photos[0]).shape
    assert [line.split(" ", 1)[1] for line in lines if line.startswith("stylize:")][0].endswith(
        f"--image {photos[0]}"
    )
    picture.unlink()
    assert main(["train", "-c", path, "--log-json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["event"], last["path"]) == ("picture", str(picture)) and picture.is_file()


def test_output_that_nobody_reads_does_not_end_a_run(
    world: tiny.World, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert main(["train", "-c", str(world.config_file(workplace, steps=1))]) == 0
    assert (workplace / "models/tiny/model.safetensors").is_file()


def test_without_an_observer_a_run_is_logged(
    world: tiny.World, workplace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "fast_style"):
        training.train(world.config(workplace, steps=1))
        training.train(world.config(workplace, steps=3, log_every_steps=2))
    told = [record for record in caplog.records if hasattr(record, "event")]
    assert [record.__dict__["event"] for record in told] == [
        *("start", "step", "checkpoint", "end"),
        *("start", "note", "note", "step", "not_finite", "step", "checkpoint", "end"),
    ]
    assert all("\n" not in record.getMessage() for record in told)
    assert told[1].getMessage().startswith("step 1: total loss 9, 0.00 images/s")
    assert told[-1].getMessage().startswith("ended at step 3 after ")


def test_events_hold_what_json_can() -> None:
    result = TrainResult(Path("m"), 3, 3, {}, {"a": 1.0}, 2.0, 0.5, {Path("p.jpg"): "cut"}, (1, 2))
    plain = plain_value(vars(result))
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["model"], plain["skipped"], plain["skipped_steps"]) == (
        "m",
        {"p.jpg": "cut"},
        [1, 2],
    )


def test_a_record_without_an_event_is_a_message() -> None:
    record = logging.LogRecord("a.b", logging.WARNING, "f.py", 1, "photo %d\nbad", (3,), None)
    told = json.loads(JsonFormatter().format(record))
    assert (told["event"], told["level"], told["message"]) == (
        "message",
        "warning",
        "photo 3\nbad",
    )


def test_messages_are_shown_for_the_block_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log = logging.getLogger("fast_style.some_module")
    with log_messages(as_json=False):
        log.info("not shown")
        log.warning("shown")
    log.warning("too late")
    assert "shown\n" in stream.getvalue() and "not shown" not in stream.getvalue()
    assert "too late" not in stream.getvalue()


def test_a_stream_that_fails_is_turned_away(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        turn_away(full)
        full.write("lost")
        full.flush()  # Nobody hears it, nobody minds.
        os.fstat(full.fileno())


def test_logging_observers_need_no_configuration() -> None:
    observer = LoggingObserver()
    observer.on_step(1)
    observer.on_checkpoint(Path("c"), {})
