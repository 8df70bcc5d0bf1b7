from __future__ import annotations

import sys

import numpy as np
import pytest
import tensorflow as tf

from fast_style import memory

SMAPS = """\
7f0000000000-7f0000800000 r--p 00000000 fe:00 11 /opt/lib/libtensorflow_cc.so.2
Size:               8192 kB
Rss:                4096 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
7f0000800000-7f0001000000 r-xp 00800000 fe:00 11 /opt/lib/libtensorflow_cc.so.2
Rss:                8000 kB
Anonymous:             4 kB
7f0001000000-7f0001800000 rw-p 01000000 fe:00 11 /opt/lib/libtensorflow_cc.so.2
Rss:                8192 kB
Anonymous:             0 kB
7f0001800000-7f0002000000 r-xp 00000000 fe:00 12 /opt/lib/libtensorflow_framework.so.2
Rss:                1020 kB
Anonymous:             0 kB
7f0002000000-7f0002800000 r-xp 00000000 fe:00 13 /opt/lib/libother.so
Rss:                8192 kB
Anonymous:             0 kB
7f0002800000-7f0003000000 r-xp 00000000 00:00 0 
Rss:                8192 kB
Anonymous:             0 kB
7f0003000000-7f0003800000 r-xp 00001000 fe:00 12 /opt/lib/libtensorflow_framework.so.2
Rss:                2048 kB
Anonymous:             0 kB
"""  # noqa: W291


def test_only_large_parts_of_the_library_that_are_as_in_its_file_are_found() -> None:
    assert memory._untouched_parts(SMAPS, "libtensorflow") == [
        (0x7F0000000000, 0x7F0000800000, 4096 * 1024),
        (0x7F0003000000, 0x7F0003800000, 2048 * 1024),
    ]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
def test_tensorflow_works_without_the_pages_that_were_given_back() -> None:
    assert memory.release_library_pages() > 20 * 2**20
    once = memory.release_library_pages()
    x = tf.random.stateless_normal([1, 17, 23, 3], (1, 2))
    assert np.isfinite(tf.nn.conv2d(x, tf.ones([3, 3, 3, 4]), 1, "SAME").numpy()).all()
    # What was needed is there again; little was.
    assert once < memory.release_library_pages() < 200 * 2**20


def test_nothing_is_given_back_where_the_system_does_not_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.release_library_pages() == 0
