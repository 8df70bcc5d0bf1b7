from __future__ import annotations

from pathlib import Path

import pytest

from fast_style.errors import FastStyleError
from fast_style.jobs import plan_jobs, without_existing


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for every test, and the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def plan(*sources: str, output: str | None = None, form: str | None = None) -> dict[str, str]:
    """{source: target} of a plan for style candy, with / between folders."""
    jobs = plan_jobs(sources, output, "candy", form=form)
    assert len({job.source for job in jobs}) == len(jobs)
    return {job.source.as_posix(): job.target.as_posix() for job in jobs}


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("photo.jpg", "generated/photo_candy.jpg"),
        ("deep/in/photo.png", "generated/photo_candy.png"),
        ("PHOTO.JPG", "generated/PHOTO_candy.JPG"),
        ("photo.tiff", "generated/photo_candy.tiff"),
        ("a.b.webp", "generated/a.b_candy.webp"),
        ("photo.gif", "generated/photo_candy.png"),  # Cannot be written in its own format.
        ("photo.heic", "generated/photo_candy.jpg"),
        ("photo", "generated/photo_candy.jpg"),
    ],
)
def test_results_are_named_after_picture_and_style(source: str, target: str) -> None:
    assert plan(source) == {source: target}


def test_nothing_is_read_or_written_by_a_plan(here: Path) -> None:
    plan("photo.jpg", output="out/a.jpg")
    assert list(here.iterdir()) == []


def test_folders_keep_their_tree_and_order() -> None:
    touch("photos/b.jpg", "photos/a.png", "photos/trip/a.png", "photos/notes.txt")
    assert list(plan("photos").items()) == [
        ("photos/a.png", "generated/a_candy.png"),
        ("photos/b.jpg", "generated/b_candy.jpg"),
        ("photos/trip/a.png", "generated/trip/a_candy.png"),
    ]


def test_pictures_and_folders_go_together_in_the_order_given() -> None:
    touch("photos/trip/a.jpg")
    assert list(plan("z.jpg", "photos", output="out").items()) == [
        ("z.jpg", "out/z.jpg"),
        ("photos/trip/a.jpg", "out/trip/a.jpg"),
    ]


@pytest.mark.parametrize(
    ("output", "target"),
    [
        ("result.png", "result.png"),
        ("out/result.jpg", "out/result.jpg"),
        ("out", "out/a.jpg"),
        ("out/", "out/a.jpg"),
        ("out.v2/", "out.v2/a.jpg"),
        ("existing.d", "existing.d/a.jpg"),
        (".", "a.jpg"),
        ("..", "../a.jpg"),
    ],
)
def test_one_picture_goes_to_a_file_or_into_a_folder(output: str, target: str) -> None:
    Path("existing.d").mkdir()
    assert plan("in/a.jpg", output=output) == {"in/a.jpg": target}


def test_several_pictures_go_into_a_folder_whatever_its_name() -> None:
    touch("photos/a.jpg")
    assert plan("a.jpg", "b.jpg", output="out.v2") == {
        "a.jpg": "out.v2/a.jpg",
        "b.jpg": "out.v2/b.jpg",
    }
    # A folder of one picture is a folder.
    assert plan("photos", output="out.v2") == {"photos/a.jpg": "out.v2/a.jpg"}


@pytest.mark.parametrize(
    ("sources", "named"),
    [
        (["x/a.jpg", "y/a.jpg"], "both x/a.jpg and y/a.jpg"),
        (["a.bmp/../a.ppm", "a.jpg"], "both a.bmp/../a.ppm and a.jpg"),
        (["a.jpg", "./b/../a.jpg"], "both a.jpg and b/../a.jpg"),
    ],
)
def test_two_results_of_one_name_are_refused(sources: list[str], named: str) -> None:
    touch("photos/a.jpg")
    expected = rf"generated/a_candy.jpg: {named} would be written there; stylize them one after"
    with pytest.raises(FastStyleError, match=expected):
        plan(*sources)


@pytest.mark.parametrize("output", ["photos/a.jpg", "photos/../photos/a.jpg", "link.jpg"])
def test_a_result_never_replaces_its_source(here: Path, output: str) -> None:
    touch("photos/a.jpg")
    Path("link.jpg").symlink_to(here / "photos" / "a.jpg")
    with pytest.raises(FastStyleError, match="would replace a source picture; choose another"):
        plan("photos/a.jpg", output=output)


def test_a_result_never_replaces_another_source() -> None:
    touch("photos/a.jpg", "photos/a.ppm")
    with pytest.raises(FastStyleError, match="photos/a.jpg: would replace a source picture"):
        plan("photos/a.ppm", "photos/a.jpg", output="photos")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("styled.xyz", "styled.xyz: pictures are not written as .xyz; end the name in"),
        ("photo.jpg/a.png", "photo.jpg: cannot write to this folder .*is not a folder"),
        ("full", "full/photo.jpg: this is a folder; name a file in it"),
    ],
)
def test_what_cannot_be_written_is_told_by_the_plan(output: str, expected: str) -> None:
    touch("photo.jpg", "full/photo.jpg/in_the_way")
    with pytest.raises(FastStyleError, match=expected):
        plan("photo.jpg", output=output)


def test_names_that_are_no_text_are_escaped_in_messages() -> None:
    with pytest.raises(FastStyleError, match=r"both a\\udcff\.ppm and a\\udcff\.jpg would be"):
        plan("a\udcff.ppm", "a\udcff.jpg")


def test_a_folder_without_pictures_is_told() -> None:
    touch("photos/notes.txt")
    with pytest.raises(FastStyleError, match="photos: no photos in this folder") as caught:
        plan("photos")
    assert "config" not in str(caught.value)  # There is none to change.


@pytest.mark.parametrize("sources", [["photos/a.jpg"] * 2, ["photos", "photos/a.jpg"]])
def test_a_picture_given_twice_is_done_once(sources: list[str]) -> None:
    touch("photos/a.jpg")
    assert plan(*sources) == {"photos/a.jpg": "generated/a_candy.jpg"}


def test_several_pictures_do_not_go_into_a_name_of_one() -> None:
    touch("a.jpg", "b.jpg")
    with pytest.raises(FastStyleError, match="one.png: names one file, but there are 2 to write"):
        plan("a.jpg", "b.jpg", output="one.png")


def test_several_films_do_not_go_into_a_name_of_one() -> None:
    touch("a.mp4", "b.mp4")
    with pytest.raises(FastStyleError, match="c.mp4: names one file, but there are 2 to write"):
        plan("a.mp4", "b.mp4", output="c.mp4")


# Formats


@pytest.mark.parametrize(
    ("source", "form", "target"),
    [
        ("a.png", "jpg", "out/a.jpg"),
        ("a.JPEG", "jpg", "out/a.JPEG"),  # Is one already.
        ("a.jpg", "tiff", "out/a.tiff"),
        ("a.tif", "tiff", "out/a.tif"),
        ("a.gif", "webp", "out/a.webp"),
        ("a", "png", "out/a.png"),
    ],
)
def test_a_format_changes_the_ending_of_every_result(source: str, form: str, target: str) -> None:
    assert plan(source, output="out", form=form) == {source: target}


def test_a_name_and_a_format_must_agree() -> None:
    assert plan("a.png", output="b.jpeg", form="jpg") == {"a.png": "b.jpeg"}
    with pytest.raises(FastStyleError, match="b.png: is not a name for --format jpg; leave out"):
        plan("a.png", output="b.png", form="jpg")


# Patterns


def test_patterns_are_expanded_below_their_first_wildcard() -> None:
    touch("shots/b.png", "shots/a.png", "shots/c.jpg", "trip/1/x.jpg", "trip/2/x.jpg", "trip/x.jpg")
    assert plan("shots/*.png", output="out") == {
        "shots/a.png": "out/a.png",
        "shots/b.png": "out/b.png",
    }
    assert plan("trip/?/x.jpg", output="out") == {
        "trip/1/x.jpg": "out/1/x.jpg",
        "trip/2/x.jpg": "out/2/x.jpg",
    }
    assert plan("trip/**/*.jpg", output="out") == {
        "trip/1/x.jpg": "out/1/x.jpg",
        "trip/2/x.jpg": "out/2/x.jpg",
        "trip/x.jpg": "out/x.jpg",
    }


def test_folders_that_a_pattern_fits_are_searched() -> None:
    touch("trips/a/deep/x.jpg", "trips/b/y.jpg")
    assert plan("trips/*", output="out") == {
        "trips/a/deep/x.jpg": "out/a/deep/x.jpg",
        "trips/b/y.jpg": "out/b/y.jpg",
    }


def test_a_picture_whose_name_looks_like_a_pattern_is_that_picture() -> None:
    touch("a[1].jpg", "a1.jpg")
    assert plan("a[1].jpg", output="b.jpg") == {"a[1].jpg": "b.jpg"}
    Path("a[1].jpg").unlink()
    assert plan("a[1].jpg", output="out") == {"a1.jpg": "out/a1.jpg"}


def test_a_pattern_that_fits_nothing_is_told() -> None:
    with pytest.raises(FastStyleError, match=r"shots/\*\.png: no picture fits this pattern; check"):
        plan("shots/*.png")


def test_pictures_with_a_result_can_be_left_out() -> None:
    touch("a.jpg", "b.jpg", "out/b.jpg")
    jobs = plan_jobs(["a.jpg", "b.jpg"], "out", "candy")
    assert [job.source.name for job in without_existing(jobs)] == ["a.jpg"]


def test_links_in_a_circle_are_planned_and_fail_later() -> None:
    Path("a.jpg").symlink_to("b.jpg")
    Path("b.jpg").symlink_to("a.jpg")
    assert plan("a.jpg", output="out") == {"a.jpg": "out/a.jpg"}
