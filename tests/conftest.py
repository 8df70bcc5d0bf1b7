"""Shared fixtures; checks on real photos and weights run only with `-m shared`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import pytest

if TYPE_CHECKING:
    import tiny

# Tests compare steps to the bit within one process. Where TensorFlow leaves oneDNN off by itself
# (no VNNI), such steps were seen to differ with it late in a long process, so it stays off there.
_CPU = Path("/proc/cpuinfo")
if _CPU.exists() and "vnni" not in _CPU.read_text(encoding="utf-8", errors="replace"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

# Several processes share a GPU, see `addopts` in pyproject.toml.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

# The same convolutions on every processor, and those that are traced sooner: with the others,
# test_replicas.py takes 160 s in place of 95. The tests of `winograd` turn them on.
os.environ.setdefault("FAST_STYLE_WINOGRAD", "0")

# No time limit for an example: machines that run tests are busy.
hypothesis.settings.register_profile("timeless", deadline=None)
hypothesis.settings.load_profile("timeless")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the tests marked `shared` unless the command line asks for them."""
    if "shared" in (config.getoption("-m") or ""):
        return
    left_out = [item for item in items if item.get_closest_marker("shared")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("shared")]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> tiny.World:
    """Weights, photos and style pictures small enough to train on within a test."""
    import tiny  # Imports TensorFlow, which many tests do without.

    return tiny.make_world(tmp_path_factory.mktemp("world"))
