from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import tiny

from fast_style import health
from fast_style import objective as tags
from fast_style.errors import FastStyleError
from fast_style.health import Guard, TakenStep

PHOTO = tiny.smooth_picture(17, 23, 0)
WEIGHTS = ["conv1/weight", "out/weight"]


# Steps whose numbers are not finite


def taken(
    step: int, *, broken: str | None = None, gradients: tuple[float, float] = (1.0, 2.0)
) -> TakenStep:
    losses = {tag: 3.0 for tag in (tags.TOTAL, tags.CONTENT, "style_losses/conv2", "gradient_norm")}
    if broken:
        losses |= {broken: np.nan, tags.TOTAL: np.nan}
    if not np.isfinite(gradients).all():
        losses |= {tags.GRADIENT_NORM: np.inf}
    photos = np.stack([PHOTO, PHOTO[::-1]])
    return TakenStep(step, photos, np.ones([2, 1], np.float32), losses, np.array(gradients))


class State:
    """Weights that a test makes good or bad."""

    def __init__(self) -> None:
        """Good at first."""
        self.finite = True
        self.rolled_back: list[int] = []

    def roll_back(self, step: int) -> str:
        self.finite = True
        self.rolled_back.append(step)
        return "ckpt-4"


def guard(folder: Path) -> tuple[Guard, State]:
    state = State()
    watching = Guard(
        folder,
        weights=WEIGHTS,
        photos_of=lambda step: [Path(f"photos/{step}-a.jpg"), Path(f"photos/{step}-b.jpg")],
        state_is_finite=lambda: state.finite,
        roll_back=state.roll_back,
    )
    return watching, state


def test_a_finite_step_passes(tmp_path: Path) -> None:
    watching, _ = guard(tmp_path)
    assert watching.check(taken(1)) is False
    assert watching.skipped == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("step", "names"),
    [
        (taken(7, broken="style_losses/conv2"), "total_loss, style_losses/conv2"),
        (taken(7, gradients=(np.inf, 1.0)), "gradient of conv1/weight"),
        (taken(7, gradients=(np.nan, np.inf)), "gradient of conv1/weight, gradient of out/weight"),
    ],
    ids=["loss", "gradient", "gradients"],
)
def test_what_is_not_finite_is_named_by_term_and_layer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, step: TakenStep, names: str
) -> None:
    watching, _ = guard(tmp_path)
    with caplog.at_level(logging.WARNING):
        watching.check(step)
    kept = tmp_path / "nonfinite-step-7.npz"
    assert caplog.messages == [
        f"step 7: not a finite number: {names}; this batch is skipped and kept in {kept}"
    ]
    assert watching.skipped == [7]


def test_a_norm_that_overflows_though_no_gradient_does_is_named(tmp_path: Path) -> None:
    step = taken(1)
    step = TakenStep(
        1, step.photos, step.style_weights, {**step.losses, tags.GRADIENT_NORM: np.inf}, [1.0, 1.0]
    )
    assert step.broken(WEIGHTS) == ["gradient_norm"]


def test_the_batch_is_kept_with_the_names_of_its_photos(tmp_path: Path) -> None:
    watching, _ = guard(tmp_path)
    step = taken(7, broken="style_losses/conv2")
    watching.check(step)
    with np.load(tmp_path / "nonfinite-step-7.npz", allow_pickle=False) as kept:
        np.testing.assert_array_equal(kept["photos"], step.photos)
        assert list(kept["files"]) == ["photos/7-a.jpg", "photos/7-b.jpg"]
        assert kept["step"] == 7


def test_batches_kept_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_MOST_KEPT", 2)
    watching, _ = guard(tmp_path)
    for step in (1, 3, 5):
        watching.check(taken(step, broken=tags.CONTENT))
        watching.check(taken(step + 1))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "nonfinite-step-1.npz",
        "nonfinite-step-3.npz",
    ]


def test_a_disk_that_cannot_keep_the_batch_does_not_end_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    watching, _ = guard(tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        watching.check(taken(2, broken=tags.CONTENT))
    assert len(caplog.messages) == 2
    assert caplog.messages[1].endswith("losses/content_loss; this batch is skipped")


def test_three_in_a_row_end_the_run(tmp_path: Path) -> None:
    watching, _ = guard(tmp_path)
    for step in (1, 2, 4, 5):  # 3 was fine.
        if step == 4:
            watching.check(taken(3))
        watching.check(taken(step, broken=tags.CONTENT))
    with pytest.raises(
        FastStyleError,
        match=r"^step 6: not a finite number in 3 batches in a row: total_loss, .*gradient_clip",
    ):
        watching.check(taken(6, broken=tags.CONTENT))
    assert watching.skipped == [1, 2, 4, 5, 6]


def test_weights_that_are_not_finite_are_rolled_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watching, state = guard(tmp_path)
    assert watching.restore(8) is False
    state.finite = False
    with caplog.at_level(logging.WARNING):
        assert watching.check(taken(9, broken=tags.CONTENT)) is True
    assert state.rolled_back == [9]
    assert caplog.messages[1] == (
        "step 9: the weights are not finite numbers; going on from those of ckpt-4"
    )
