from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest
import tiny

from fast_style import stylize
from fast_style.checkpoints import save_model
from fast_style.cli import main, script
from fast_style.cli_film import run_films
from fast_style.errors import FastStyleError
from fast_style.jobs import Job
from fast_style.video import read_frames, stylize_film

av = pytest.importorskip("av", reason="films need the extra 'video'")

HEIGHT, WIDTH, RATE = 36, 64, 10


def pictures(count: int, height: int = HEIGHT, width: int = WIDTH) -> list[np.ndarray]:
    """A camera that pans over a smooth picture."""
    # Enlarged, because 4:2:0 averages colours over 2x2 pixels.
    scene = tiny.smooth_picture(3 * height, 3 * width + 2 * count, 0)
    return [scene[:height, 2 * n : 2 * n + width].copy() for n in range(count)]


def make_film(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    times: Sequence[int] | None = None,
    sound: str | None = "aac",
    rotation: int = 0,
    colours: tuple[int, int] | None = None,
    codec: str = "libx264",
) -> Path:
    """Writes frames at times in tenths of a second, with a tone as long as they are.

    `colours` are the matrix (H.273) and the range, which the numbers then follow.
    """
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=RATE, options={"crf": "1"})
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "yuv420p"
        context = video.codec_context
        context.time_base = Fraction(1, RATE)
        convert: dict[str, int] = {}
        if colours is not None:
            context.colorspace, context.color_range = colours
            convert = {"dst_colorspace": {1: 1, 6: 5}[colours[0]], "dst_color_range": colours[1]}
        if rotation:
            video.set_display_rotation(rotation)
        tone = None if sound is None else out.add_stream(sound, rate=48_000, layout="mono")
        reformatter = av.video.reformatter.VideoReformatter()
        for number, picture in enumerate(frames):
            rgb = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = reformatter.reformat(rgb, format="yuv420p", src_color_range=2, **convert)
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, RATE)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if tone is not None:
            seconds = len(frames) / RATE
            for start in range(0, round(seconds * 48_000), 960):
                wave = np.sin(2 * np.pi * 440 * np.arange(start, start + 960) / 48_000)
                samples = av.AudioFrame.from_ndarray(
                    (20_000 * wave[None]).astype(np.int16), format="s16", layout="mono"
                )
                samples.sample_rate, samples.pts = 48_000, start
                samples.time_base = Fraction(1, 48_000)
                out.mux(tone.encode(samples))
            out.mux(tone.encode(None))
    return path


def sound_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as film:
        return [bytes(packet) for packet in film.demux(film.streams.audio[0]) if packet.size]


def times_of(path: Path) -> list[float]:
    with av.open(str(path)) as film:
        return [frame.time for frame in film.decode(film.streams.video[0])]


def facts(path: Path) -> dict[str, Any]:
    with av.open(str(path)) as film:
        video = film.streams.video[0]
        found = {
            "size": (video.codec_context.height, video.codec_context.width),
            "codec": video.codec_context.name,
            "rate": video.average_rate,
            "colours": (int(video.codec_context.colorspace), int(video.codec_context.color_range)),
            "seconds": film.duration / 1e6,
        }
        if film.streams.audio:
            sound = film.streams.audio[0]
            found["sound"] = sound.codec_context.codec.canonical_name
        frame = next(film.decode(video))
        found["rotation"] = frame.rotation
    return found


def same(frame: np.ndarray) -> np.ndarray:
    return frame


def difference(one: Path, other: Path) -> float:
    pairs = zip(read_frames(one), read_frames(other), strict=True)
    return float(np.mean([np.abs(a.astype(float) - b).mean() for a, b in pairs]))


def test_pictures_time_and_sound_survive(tmp_path: Path) -> None:
    film = make_film(tmp_path / "in.mp4", pictures(12))
    counts: list[tuple[int, int | None]] = []
    result = stylize_film(
        film, tmp_path / "out.mp4", same, progress=lambda *count: counts.append(count)
    )
    assert (result.frames, result.notes) == (12, ())
    assert counts == [(n, 12) for n in range(1, 13)]
    before, after = facts(film), facts(tmp_path / "out.mp4")
    assert after == before | {"seconds": pytest.approx(before["seconds"], abs=0.03)}
    assert after["seconds"] == pytest.approx(1.2, abs=0.05)
    assert sound_packets(tmp_path / "out.mp4") == sound_packets(film)
    np.testing.assert_allclose(times_of(tmp_path / "out.mp4"), times_of(film), atol=1e-6)
    assert difference(film, tmp_path / "out.mp4") < 2
    assert [
        path.name for path in tmp_path.iterdir() if path.name not in ("in.mp4", "out.mp4")
    ] == []


def test_frames_are_styled_in_the_order_of_time_one_by_one(tmp_path: Path) -> None:
    film = make_film(tmp_path / "in.mp4", pictures(8), sound=None)
    seen: list[np.ndarray] = []

    def negative(frame: np.ndarray) -> np.ndarray:
        seen.append(frame)
        return 255 - frame

    stylize_film(film, tmp_path / "out.mp4", negative)
    for frame, expected in zip(seen, pictures(8), strict=True):
        assert np.abs(frame.astype(float) - expected).mean() < 3
    for frame, original in zip(read_frames(tmp_path / "out.mp4"), seen, strict=True):
        assert np.abs(frame.astype(float) - (255.0 - original)).mean() < 4


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_varying_frame_rate_is_kept(tmp_path: Path, suffix: str) -> None:
    times = [0, 1, 2, 5, 6, 12, 13]
    film = make_film(tmp_path / f"in.{suffix}", pictures(7), times=times)
    stylize_film(film, tmp_path / f"out.{suffix}", same)
    np.testing.assert_allclose(times_of(tmp_path / f"out.{suffix}"), times_of(film), atol=0.002)
    assert np.ptp(times_of(film)) == pytest.approx(1.3)


@pytest.mark.parametrize("rotation", [-90, 90, 180])
def test_rotation_is_applied_to_the_frames(tmp_path: Path, rotation: int) -> None:
    film = make_film(tmp_path / "in.mp4", pictures(3), rotation=rotation)
    stylize_film(film, tmp_path / "out.mp4", same)
    found = facts(tmp_path / "out.mp4")
    assert found["rotation"] == 0
    assert found["size"] == ((HEIGHT, WIDTH) if rotation == 180 else (WIDTH, HEIGHT))
    # Positive is counter-clockwise, as in av_display_rotation_get.
    expected = np.rot90(pictures(1)[0], rotation // 90)
    shown = next(read_frames(tmp_path / "out.mp4"))
    assert np.abs(shown.astype(float) - expected).mean() < 5


@pytest.mark.parametrize("colours", [(1, 1), (6, 1), (1, 2), (6, 2)])
def test_matrix_and_range_are_understood_and_kept(tmp_path: Path, colours: tuple[int, int]) -> None:
    flat = [np.full((HEIGHT, WIDTH, 3), (200, 60, 20), np.uint8)] * 2
    film = make_film(tmp_path / "in.mp4", flat, colours=colours)
    seen: list[np.ndarray] = []
    stylize_film(film, tmp_path / "out.mp4", lambda frame: seen.append(frame) or frame)
    np.testing.assert_allclose(seen[0][9, 9], (200, 60, 20), atol=5)
    assert facts(tmp_path / "out.mp4")["colours"] == facts(film)["colours"] == colours
    shown = next(read_frames(tmp_path / "out.mp4"))
    np.testing.assert_allclose(shown[9, 9], (200, 60, 20), atol=6)


def test_sound_that_the_container_cannot_hold_is_encoded_anew(tmp_path: Path) -> None:
    film = make_film(tmp_path / "in.mp4", pictures(10))
    result = stylize_film(film, tmp_path / "out.webm", same)
    (note,) = result.notes
    assert note == "its sound is encoded anew as opus, because the container cannot hold aac"
    found = facts(tmp_path / "out.webm")
    assert found["codec"] in ("libvpx-vp9", "vp9") and found["sound"] == "opus"
    with av.open(str(tmp_path / "out.webm")) as styled:
        samples = np.concatenate([f.to_ndarray()[0] for f in styled.decode(audio=0)])
        rate = styled.streams.audio[0].codec_context.sample_rate
    assert len(samples) / rate == pytest.approx(1.0, abs=0.1)
    spectrum = np.abs(np.fft.rfft(samples.astype(float)))
    assert np.argmax(spectrum) * rate / len(samples) == pytest.approx(440, abs=5)


def test_films_without_sound_and_with_odd_sides_are_written(tmp_path: Path) -> None:
    source = make_film(tmp_path / "in.mkv", pictures(3, 35, 63), sound=None, codec="ffv1")
    result = stylize_film(source, tmp_path / "out.mp4", same)
    assert result.notes == ("written with 64x36 pixels, because 4:2:0 has even sides",)
    assert facts(tmp_path / "out.mp4")["size"] == (36, 64)
    shown = next(read_frames(tmp_path / "out.mp4"))[:35, :63]
    assert np.abs(shown.astype(float) - next(read_frames(source))).mean() < 3


def test_few_frames_are_in_memory_at_a_time(tmp_path: Path, monkeypatch: Any) -> None:
    from fast_style import video

    film = make_film(tmp_path / "in.mp4", pictures(40), sound=None)
    decoded, most = 0, 0
    upright = video._upright

    def counted(*arguments: Any) -> Any:
        nonlocal decoded
        decoded += 1
        return upright(*arguments)

    monkeypatch.setattr(video, "_upright", counted)
    done = 0

    def styled(frame: np.ndarray) -> np.ndarray:
        nonlocal done, most
        most = max(most, decoded - done)
        done += 1
        return frame

    stylize_film(film, tmp_path / "out.mp4", styled)
    assert done == 40 and most <= 5


def test_a_failure_or_interruption_leaves_nothing_and_no_thread(tmp_path: Path) -> None:
    film = make_film(tmp_path / "in.mp4", pictures(12))
    (tmp_path / "out.mp4").write_bytes(b"before")
    threads = threading.active_count()
    for failure in (KeyboardInterrupt, FastStyleError("no")):
        calls = 0

        def broken(frame: np.ndarray, failure: Any = failure) -> np.ndarray:
            nonlocal calls
            calls += 1
            if calls == 5:
                raise failure
            return frame

        with pytest.raises(failure if isinstance(failure, type) else FastStyleError):
            stylize_film(film, tmp_path / "out.mp4", broken)
        assert (tmp_path / "out.mp4").read_bytes() == b"before"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"dear diary", r"clip\.mp4: not a readable film"),
        (b"", r"clip\.mp4: not a readable film"),
        (None, r"clip\.mp4: no such film; check the path"),
    ],
)
def test_what_is_no_film_is_told(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FastStyleError, match=message):
        stylize_film(path, tmp_path / "out.mp4", same)
    assert not (tmp_path / "out.mp4").exists()


def test_a_film_of_sound_alone_is_told(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as out:
        tone = out.add_stream("aac", rate=48_000, layout="mono")
        samples = av.AudioFrame.from_ndarray(
            np.zeros((1, 2048), np.int16), format="s16", layout="mono"
        )
        samples.sample_rate, samples.pts = 48_000, 0
        out.mux(tone.encode(samples))
        out.mux(tone.encode(None))
    with pytest.raises(FastStyleError, match=r"song\.mp4: holds no moving pictures; give a film"):
        stylize_film(path, tmp_path / "out.mp4", same)


def test_a_film_without_pyav_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        FastStyleError, match=r"films need PyAV; .*pip install 'fast-style\[video\]'"
    ):
        stylize_film(tmp_path / "a.mp4", tmp_path / "b.mp4", same)


# The commands


def test_eval_stylizes_films_beside_pictures_and_flicker_measures_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "net.safetensors", nets.johnson())
    net = stylize.load(tmp_path / "net.safetensors", precision="float32")
    monkeypatch.setattr(stylize, "load", lambda *_, **__: net)  # Traced once for three commands.
    still = tiny.smooth_picture(HEIGHT, WIDTH, 0).astype(float)
    rng = np.random.default_rng(0)
    frames = [
        np.clip(still + rng.normal(0, 2, still.shape), 0, 255).astype(np.uint8) for _ in range(8)
    ]
    make_film(tmp_path / "clip.mp4", frames)
    tiny.save_picture(tmp_path / "photo.png", 20, 24, 1)
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    arguments = ["--model", "net.safetensors", "--precision", "float32", "--image"]
    everything = [*arguments, "clip.mp4", "bad.mp4", "photo.png", "-o", "out"]
    assert script("eval", everything) == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == ["out/photo.png", "out/clip.mp4"]
    assert "1 of 3 files failed:\n  bad.mp4: not a readable film" in said.err
    assert facts(tmp_path / "out" / "clip.mp4")["size"] == (HEIGHT, WIDTH)
    assert script("eval", [*arguments, "clip.mp4", "-o", "calm.mp4", "--temporal", "0.8"]) == 0
    numbers = []
    for film in ("out/clip.mp4", "calm.mp4"):
        capsys.readouterr()
        assert main(["flicker", film, "--input", "clip.mp4", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["frames_compared"] == 7 and report["where"] == "input unchanged"
        numbers.append(report["flicker"])
    assert numbers[1] < numbers[0] / 2
    assert main(["flicker", "calm.mp4"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("flicker ") and "everywhere, motion included" in said.out
    assert main(["flicker", "calm.mp4", "--input", "bad.mp4"]) == 1
    assert "bad.mp4: not a readable film" in capsys.readouterr().err


def test_whatever_goes_wrong_with_a_film_does_not_stop_the_rest(tmp_path: Path) -> None:
    def broken(frame: np.ndarray) -> np.ndarray:
        raise MemoryError if calls.pop() else ArithmeticError("odd")

    calls = [False, True]
    film = make_film(tmp_path / "clip.mp4", pictures(2), sound=None)
    jobs = [Job(film, tmp_path / f"{number}.mp4") for number in range(2)]
    first, second = run_films(jobs, broken, 0.0)
    assert "clip.mp4: too little memory to stylize it" in str(first.error)
    assert "could not be stylized (ArithmeticError: odd); please report" in str(second.error)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4"]


def test_quality_and_the_limit_of_pixels_hold_for_films(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, HEIGHT, WIDTH, 3), dtype=np.uint8)
    film = make_film(tmp_path / "clip.mp4", list(noise), sound=None)
    sizes, errors = [], []
    for quality in (1, 60, 95, 100):
        target = tmp_path / f"{quality}.mp4"
        stylize_film(film, target, same, quality=quality)
        sizes.append(target.stat().st_size)
        errors.append(difference(target, film))
    assert sizes == sorted(sizes) and sizes[0] < sizes[2] / 2
    assert errors == sorted(errors, reverse=True) and errors[2] < errors[0] / 3
    stylize_film(film, tmp_path / "just.mp4", same, max_pixels=HEIGHT * WIDTH)
    with pytest.raises(FastStyleError, match="more than the allowed 2,303 pixels; .*--max-pixels"):
        stylize_film(film, tmp_path / "large.mp4", same, max_pixels=HEIGHT * WIDTH - 1)
    assert not (tmp_path / "large.mp4").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clip.mp4", "--format", "png"], "--format png: is for pictures and clip.mp4 is a film;"),
        (["a.png", "clip.mp4", "--format", "jpg"], "--format jpg: is for pictures and clip.mp4 is"),
        (["a.png", "--temporal", "0.8"], "--temporal 0.8: is for films and there is none; leave"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "net.safetensors", nets.johnson())
    # The files are not there: options are checked before any is opened.
    assert script("eval", ["--model", "net.safetensors", "-o", "out/", "--image", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_eval_passes_quality_and_the_limit_on_to_films(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "net.safetensors", nets.johnson())
    make_film(tmp_path / "clip.mp4", pictures(2), sound=None)
    arguments = ["--model", "net.safetensors", "--strength", "0", "--image", "clip.mp4", "-o"]
    assert script("eval", [*arguments, "no.mp4", "--max-pixels", "100"]) == 1
    assert "more than the allowed 100 pixels" in capsys.readouterr().err
    for quality in ("20", "95"):
        assert script("eval", [*arguments, f"{quality}.mp4", "--quality", quality]) == 0
    assert (tmp_path / "20.mp4").stat().st_size < (tmp_path / "95.mp4").stat().st_size


def test_eval_refuses_a_film_as_a_picture_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "net.safetensors", nets.johnson())
    make_film(tmp_path / "clip.mp4", pictures(2), sound=None)
    arguments = ["--model", "net.safetensors", "--image", "clip.mp4", "-o"]
    assert script("eval", [*arguments, "clip.png"]) == 2
    assert "clip.png: films are not written as .png; end the name in one of .mp4," in (
        capsys.readouterr().err
    )
    assert script("eval", [*arguments, "clip.mp4"]) == 2
    assert "would replace a source" in capsys.readouterr().err
