from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import tensorflow as tf

from fast_style import files
from fast_style.errors import FastStyleError
from fast_style.files import atomic_path, fsync_path, make_folder, refusal, remove_partial_paths


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "models" / "candy" / "model.safetensors"
    with atomic_path(target) as aside:
        aside.write_text("half")
        assert not target.exists()
        assert (aside.parent, aside.suffix) == (target.parent, ".safetensors")
        aside.write_text("whole")
    assert target.read_text() == "whole"
    assert names_in(target.parent) == ["model.safetensors"]


def test_an_older_file_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with atomic_path(target) as aside:
        aside.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_a_folder_appears_when_all_in_it_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, flushed = tmp_path / "net" / "1", []
    monkeypatch.setattr(files, "fsync_path", lambda path: flushed.append(Path(path)))
    with atomic_path(target) as aside:
        (aside / "variables").mkdir(parents=True)
        (aside / "variables" / "data").write_text("weights")
        assert not target.exists()
    assert (target / "variables" / "data").read_text() == "weights"
    assert names_in(target.parent) == ["1"]
    inside = [aside / "variables", aside / "variables" / "data"]
    assert flushed == [*inside, aside, target.parent]


def test_a_folder_that_failed_is_removed_and_one_that_holds_something_stays(tmp_path: Path) -> None:
    with pytest.raises(ValueError), atomic_path(tmp_path / "1") as aside:
        aside.mkdir()
        (aside / "data").write_text("half")
        raise ValueError
    assert names_in(tmp_path) == []
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "data").write_text("mine")
    expected = r"1: cannot write this folder \(Directory not empty\); choose another place"
    with pytest.raises(FastStyleError, match=expected), atomic_path(tmp_path / "1") as aside:
        aside.mkdir()
    assert (tmp_path / "1" / "data").read_text() == "mine"
    assert names_in(tmp_path) == ["1"]


def test_files_and_folders_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".1.01234567.partial" / "variables").mkdir(parents=True)
    for name in (".a.01234567.partial.onnx", ".b.01234567.partial.onnx", "a.partial.onnx"):
        (tmp_path / name).write_text("half")
    remove_partial_paths(tmp_path, "1")
    remove_partial_paths(tmp_path, "a")
    assert names_in(tmp_path) == [".b.01234567.partial.onnx", "a.partial.onnx"]


@pytest.mark.parametrize("failure", [ValueError("no"), KeyboardInterrupt(), OSError("no number")])
def test_a_failure_leaves_the_older_file_and_nothing_else(
    tmp_path: Path, failure: BaseException
) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(type(failure)) as caught, atomic_path(target) as aside:
        aside.write_text("half")
        raise failure
    assert caught.value is failure
    assert target.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_a_refusal_of_the_system_becomes_a_sentence(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    expected = r"a.txt: cannot write this file \(No space left on device\); choose another place"
    with pytest.raises(FastStyleError, match=expected), atomic_path(target) as aside:
        aside.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert target.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_a_disk_that_is_full_at_the_flush_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(FastStyleError, match="No space left on device"), atomic_path(target) as a:
        a.write_text("new")
    assert target.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_a_file_system_without_flush_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(descriptor: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(files.os, "fsync", unsupported)
    with atomic_path(tmp_path / "a.txt") as aside:
        aside.write_text("new")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_flushing_what_is_not_there_does_nothing(tmp_path: Path) -> None:
    fsync_path(tmp_path / "nowhere")
    assert names_in(tmp_path) == []


def test_a_folder_in_the_files_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    expected = r"a.txt: cannot write this file \(Is a directory\)"
    with pytest.raises(FastStyleError, match=expected), atomic_path(tmp_path / "a.txt") as aside:
        aside.write_text("new")
    assert names_in(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("name", ["é" * 120 + ".jpg", "画" * 80 + ".jpg", "🎨" * 62 + ".png"])
def test_long_names_of_wide_characters_can_be_written(tmp_path: Path, name: str) -> None:
    assert 240 < len(os.fsencode(name)) <= 255
    with atomic_path(tmp_path / name) as aside:
        aside.write_text("new")
    assert names_in(tmp_path) == [name]


def test_a_folder_is_made_with_its_parents_and_may_exist(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert make_folder(str(tmp_path / "a" / "b")).is_dir()


@pytest.mark.parametrize(
    ("place", "reason"), [("a.txt", "File exists"), ("a.txt/b", "Not a directory")]
)
def test_a_file_in_the_folders_place_is_told(tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "a.txt").write_text("mine")
    expected = rf"{place}: cannot create this folder \({reason}\); choose another place"
    with pytest.raises(FastStyleError, match=expected):
        make_folder(tmp_path / place)
    with pytest.raises(FastStyleError, match=expected), atomic_path(tmp_path / place / "c.txt"):
        pass
    assert (tmp_path / "a.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(13, "Permission denied"), "Permission denied"),
        (OSError("encoder error -2"), "encoder error -2"),
        (tf.errors.InternalError(None, None, "/a/b.pb; File too large"), "File too large"),
        (
            tf.errors.InternalError(
                None, None, "{{function_node __wrapped__Save_/device:CPU:0}} /a; Full [Op:SaveV2]"
            ),
            "Full",
        ),
    ],
)
def test_refusals_are_told_in_the_systems_words(error: Exception, words: str) -> None:
    assert refusal(error) == words
