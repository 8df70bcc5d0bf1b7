from __future__ import annotations

from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest
import tiny
from PIL import Image

from fast_style.errors import FastStyleError, ImageError
from fast_style.images import read_image
from fast_style.jobs import Job, plan_pictures, stylize_file
from fast_style.stylize import Stylizer
from fast_style.stylize_options import StylizeOptions


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for every test, and the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def plan(*sources: str, output: str | None = None) -> dict[str, str]:
    """{source: target} of a plan for style candy, with / between folders."""
    jobs = plan_pictures(sources, output, "candy")
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
        ("photo.gif", "generated/photo_candy.jpg"),  # Cannot be written in its own format.
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
        ("z.jpg", "out/z_candy.jpg"),
        ("photos/trip/a.jpg", "out/trip/a_candy.jpg"),
    ]


@pytest.mark.parametrize(
    ("output", "target"),
    [
        ("result.png", "result.png"),
        ("out/result.jpg", "out/result.jpg"),
        ("out", "out/a_candy.jpg"),
        ("out/", "out/a_candy.jpg"),
        ("out.v2/", "out.v2/a_candy.jpg"),
        ("existing.d", "existing.d/a_candy.jpg"),
        (".", "a_candy.jpg"),
        ("..", "../a_candy.jpg"),
    ],
)
def test_one_picture_goes_to_a_file_or_into_a_folder(output: str, target: str) -> None:
    Path("existing.d").mkdir()
    assert plan("in/a.jpg", output=output) == {"in/a.jpg": target}


def test_several_pictures_go_into_a_folder_whatever_its_name() -> None:
    touch("photos/a.jpg")
    assert plan("a.jpg", "b.jpg", output="out.v2") == {
        "a.jpg": "out.v2/a_candy.jpg",
        "b.jpg": "out.v2/b_candy.jpg",
    }
    # A folder of one picture is a folder.
    assert plan("photos", output="out.v2") == {"photos/a.jpg": "out.v2/a_candy.jpg"}


@pytest.mark.parametrize(
    ("sources", "named"),
    [
        (["x/a.jpg", "y/a.jpg"], "both x/a.jpg and y/a.jpg"),
        (["a.gif", "a.jpg"], "both a.gif and a.jpg"),
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
    touch("photos/a.jpg", "photos/a_candy.jpg")
    with pytest.raises(FastStyleError, match="photos/a_candy.jpg: would replace a source picture"):
        plan("photos", output="photos")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("styled.xyz", "styled.xyz: pictures are not written as .xyz; end the name in"),
        ("photo.jpg/a.png", "photo.jpg: cannot write to this folder .*is not a folder"),
        ("full", "full/photo_candy.jpg: this is a folder; name a file in it"),
    ],
)
def test_what_cannot_be_written_is_told_by_the_plan(output: str, expected: str) -> None:
    touch("photo.jpg", "full/photo_candy.jpg/in_the_way")
    with pytest.raises(FastStyleError, match=expected):
        plan("photo.jpg", output=output)


def test_names_that_are_no_text_are_escaped_in_messages() -> None:
    with pytest.raises(FastStyleError, match=r"both a\\udcff\.gif and a\\udcff\.jpg would be"):
        plan("a\udcff.gif", "a\udcff.jpg")


def test_a_folder_without_pictures_is_told() -> None:
    touch("photos/notes.txt")
    with pytest.raises(FastStyleError, match="photos: no photos in this folder") as caught:
        plan("photos")
    assert "config" not in str(caught.value)  # There is none to change.


# --- one picture, from file to file --------------------------------------------------------------


@pytest.fixture(scope="module")
def stylizer() -> Stylizer:
    return Stylizer(nets.johnson(2), precision="float32")


def test_a_picture_is_read_stylized_and_written(stylizer: Stylizer) -> None:
    photo = tiny.smooth_picture(17, 23, 0)
    Image.fromarray(photo).save("photo.png")
    job = Job(Path("photo.png"), Path("out/styled.png"))
    stylize_file(stylizer, job)
    np.testing.assert_array_equal(read_image("out/styled.png"), stylizer.stylize(photo))
    stylize_file(stylizer, job, StylizeOptions(style_weights=[0.0, 1.0]))
    expected = stylizer.stylize(photo, style_weights=[0.0, 1.0])
    np.testing.assert_array_equal(read_image("out/styled.png"), expected)


def test_a_turned_photo_comes_out_upright(stylizer: Stylizer) -> None:
    upright = tiny.smooth_picture(24, 18, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # Stored turned: to be shown a quarter turn clockwise.
    Image.fromarray(np.rot90(upright)).save("phone.png", exif=exif)
    stylize_file(stylizer, Job(Path("phone.png"), Path("styled.png")))
    np.testing.assert_array_equal(read_image("styled.png"), stylizer.stylize(upright))


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("missing.jpg", "out/a.jpg", "missing.jpg"),
        ("text.jpg", "out/a.jpg", "text.jpg"),
        ("photo.png", "out/a.xyz", "a.xyz: pictures are not written as"),
        ("photo.png", "text.jpg/a.png", "text.jpg: cannot write to this folder"),
    ],
)
def test_a_failure_is_told_and_writes_nothing(
    here: Path, source: str, target: str, expected: str
) -> None:
    class Unused:
        """Returns the picture; what fails here is reading or writing."""

        def stylize(self, image: np.ndarray, **options: Any) -> np.ndarray:
            return image

    Path("text.jpg").write_text("not a picture")
    Image.fromarray(tiny.smooth_picture(17, 23, 0)).save("photo.png")
    with pytest.raises(FastStyleError, match=expected) as caught:
        stylize_file(Unused(), Job(Path(source), Path(target)))  # type: ignore[arg-type]
    if source != "photo.png":
        assert isinstance(caught.value, ImageError)
    assert sorted(path.name for path in here.iterdir()) == ["photo.png", "text.jpg"]


@pytest.mark.parametrize("sources", [["photos/a.jpg"] * 2, ["photos", "photos/a.jpg"]])
def test_a_picture_given_twice_is_done_once(sources: list[str]) -> None:
    touch("photos/a.jpg")
    assert plan(*sources) == {"photos/a.jpg": "generated/a_candy.jpg"}


def test_several_pictures_do_not_go_into_a_name_of_one() -> None:
    touch("a.jpg", "b.jpg")
    with pytest.raises(FastStyleError, match="one.png: names a picture, but there are 2 to write"):
        plan("a.jpg", "b.jpg", output="one.png")
