"""Progress on a terminal and elsewhere, and the arguments and lines that the commands share."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from fast_style import objective as tags
from fast_style import terminal
from fast_style.onednn import prefer_onednn
from fast_style.terminal import (
    Progress,
    TimedProgress,
    loss_number,
    overrides_argument,
    positive,
    precision_argument,
    report_skipped,
    terms_line,
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """One time, in seconds, that the test sets."""
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def test_lines_tell_the_time_left_without_the_first_step(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(12, start=2)
    for step, now in ((3, 100.0), (4, 110.0), (7, 140.0)):
        clock[0] = now
        progress.move(step)
        progress.tell("going")
    progress.describe("only beside a bar")
    progress.close()
    assert capsys.readouterr() == (
        "step 3/12  going\nstep 4/12  going  1m 20s left\nstep 7/12  going  50s left\n",
        "",
    )


def test_the_time_left_knows_that_quick_steps_come_first(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(8, costs=[(0.5, 1.0), (1.0, 3.0)])
    for step, now in ((1, 0.0), (3, 2.0), (4, 3.0), (5, 6.0), (7, 12.0)):
        clock[0] = now
        progress.move(step)
        if step > 1:
            progress.tell("going")
    assert capsys.readouterr().out == (
        "step 3/8  going  13s left\nstep 4/8  going  12s left\n"
        "step 5/8  going  9s left\nstep 7/8  going  3s left\n"
    )


def test_time_tells_what_is_left_of_it(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    clock[0] = 1000.0
    progress = TimedProgress(90.0, spent=20.0)
    for step, now in ((7, 1001.0), (8, 1060.2), (9, 1071.0)):
        clock[0] = now
        progress.move(step)
        progress.tell("going")
    progress.close()
    assert capsys.readouterr() == (
        "step 7  going  1m 09s left\nstep 8  going  10s left\nstep 9  going  0s left\n",
        "",
    )


def test_a_terminal_gets_a_bar_of_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    progress = TimedProgress(200.0, spent=50.0)
    clock[0] += 50.0
    progress.move(1234)
    progress.tell("total 5")
    progress.close()
    first, *_, last = [part for part in capsys.readouterr().err.split("\r") if part.strip()]
    assert " 25%|" in first.replace(" |", "|") and first.rstrip().endswith("tracing the graph")
    assert "50%" in last and last.rstrip().endswith("step 1234 total 5 1m 40s left")


def test_lines_count_units_of_several_steps_and_go_where_they_should(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(3, "curve", parts=4, lines=sys.stderr)
    for step in range(1, 5):
        clock[0] += 2.0
        progress.move(step)
    progress.tell("a.jpg")
    assert capsys.readouterr() == ("", "curve 1/3  a.jpg  16s left\n")


def test_a_terminal_gets_a_bar_of_steps_instead(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    progress = Progress(3, "curve", start=1, parts=4)
    progress.describe("of a.jpg")
    progress.move(5)
    progress.move(7)
    progress.tell("a.jpg is done")
    progress.close()
    out, bar = capsys.readouterr()
    assert out == ""
    first, middle, *_, last = [part for part in bar.split("\r") if part.strip()]
    assert "4/12 tracing the graph" in first
    assert "4/12 of a.jpg" in middle
    assert "58%" in last and "7/12 a.jpg is done" in last and last.rstrip().endswith("left")


def test_a_report_fits_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    progress = Progress(41391)
    for step in (9999, 10000):
        clock[0] += 0.5
        progress.move(step)
    progress.tell("content 97,867  style 11,309,220  tv 0  total 11,407,087  8.12 images/s")
    progress.close()
    last = [part for part in capsys.readouterr().err.split("\r") if part.strip()][-1].rstrip()
    assert last == ("10000/41391 content 97.9k style 11.3M tv 0 total 11.4M 8.12 img/s 4h 21m left")


def test_a_terminal_without_a_size_gets_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("shutil.get_terminal_size", lambda fallback: os.terminal_size((0, 0)))
    progress = Progress(3)
    progress.move(1)
    progress.tell("total 5")
    assert capsys.readouterr() == ("step 1/3  total 5\n", "")


@pytest.mark.parametrize("text", ["0", "-3", "1.5", "many", ""])
def test_counts_are_whole_numbers_of_at_least_one(text: str) -> None:
    assert positive("7") == 7
    message = f"expected a whole number of at least 1, got {text!r}"
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        positive(text)


def test_shared_arguments_read_the_same_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    overrides_argument(parser)
    precision_argument(parser, default="float32", why="the same everywhere")
    options = parser.parse_args(["--set", "a=1", "--set", "b=2"])
    assert (options.overrides, options.precision) == (["a=1", "b=2"], "float32")
    assert parser.parse_args([]).overrides == []
    with pytest.raises(SystemExit):
        parser.parse_args(["--precision", "half"])
    assert "invalid choice: 'half'" in capsys.readouterr().err
    assert "float32, the same everywhere)" in " ".join(parser.format_help().split())


def test_terms_are_told_in_digits_that_say_something() -> None:
    losses = {
        tags.WEIGHTED_CONTENT: 1234567.8,
        tags.WEIGHTED_STYLE: 99.987,
        tags.WEIGHTED_VARIATION: 0.0,
        tags.TOTAL: 2.5e-7,
    }
    assert terms_line(losses) == "content 1,234,568  style 99.99  tv 0  total 2.5e-07"
    losses[tags.WEIGHTED_CONSISTENCY] = 5.0
    losses[tags.WEIGHTED_GRID] = 7.0
    losses[tags.WEIGHTED_BORDER] = 6.0
    assert "tv 0  grid 7  border 6  consistency 5  total" in terms_line(losses)
    assert loss_number(100.4) == "100"


def test_photos_left_out_are_counted_and_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    report_skipped({})
    assert capsys.readouterr().err == ""
    report_skipped({Path("b.jpg"): "b.jpg: is empty"})
    first = "1 photo could not be read and was left out:\n  b.jpg: is empty\n"
    assert capsys.readouterr().err == first
    report_skipped({Path("b.jpg"): "b.jpg: is empty", Path("a.jpg"): "no picture"})
    second = "2 photos could not be read and were left out:\n  a.jpg: no picture\n"
    assert capsys.readouterr().err == second + "  b.jpg: is empty\n"


@pytest.mark.parametrize(
    ("machine", "given", "expected"),
    [
        ("x86_64", None, "1"),
        ("AMD64", None, "1"),
        ("x86_64", "0", "0"),
        ("arm64", None, None),
    ],
)
def test_x86_processors_compute_by_onednn_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, machine: str, given: str | None, expected: str | None
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    # First set, so that what is there before comes back whatever the function does.
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", given or "1")
    if given is None:
        monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    prefer_onednn()
    assert os.environ.get("TF_ENABLE_ONEDNN_OPTS") == expected


@pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="TensorFlow's packages for other systems were not looked at",
)
def test_commands_compute_by_onednn_on_x86() -> None:
    """TensorFlow asks once, so the choice has to come before it is imported."""
    code = (
        "from fast_style.terminal import import_tensorflow; import_tensorflow()\n"
        "from tensorflow.python.util import _pywrap_util_port as port; print(port.IsMklEnabled())\n"
        "import os; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "1"]
