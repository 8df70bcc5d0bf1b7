"""Time, peak memory and flicker of a film made from panned and zoomed photos, with sound.

Makes the clip, stylizes it with `eval.py` without and with --temporal, and prints one JSON line.

    python benchmarks/film.py --photos photos --model models/candy --seconds 10 --keep clips/
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
from common import peak_mb_of_children
from PIL import Image

from fast_style.data import find_photos
from fast_style.images import read_image
from fast_style.steady import flicker
from fast_style.video import import_av, read_frames

_SOUND_RATE = 44_100
_SCENE_SECONDS = 3.4


def make_clip(path: Path, photos: Path, options: argparse.Namespace) -> None:
    """Writes a clip in which the camera moves slowly over one photo after another.

    Each scene eases in and out of its move, as a person's camera does; sensor noise of 1.5 levels
    is added, so that nothing stands still to the last bit.
    """
    av = import_av(path)
    rng = np.random.default_rng(options.seed)
    width, height = options.size
    originals = find_photos(photos)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=options.fps, options={"crf": "20"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        sound = out.add_stream("aac", rate=_SOUND_RATE, layout="mono")
        count = round(options.seconds * options.fps)
        per_scene = max(1, round(_SCENE_SECONDS * options.fps))
        for number in range(count):
            scene, within = divmod(number, per_scene)
            photo = Image.fromarray(read_image(originals[(7 * scene + 3) % len(originals)]))
            phase = (1 - np.cos(np.pi * min(1.0, max(0.0, within / per_scene * 1.6 - 0.3)))) / 2
            zoom = 1.0 - 0.18 * (phase if scene % 2 else 1 - phase)
            box_width = min(photo.width, photo.height * width / height) * zoom
            box_height = box_width * height / width
            left = (photo.width - box_width) * (0.2 + 0.6 * phase)
            top = (photo.height - box_height) * (0.7 - 0.4 * phase)
            box = (left, top, left + box_width, top + box_height)
            view = photo.resize((width, height), Image.Resampling.BICUBIC, box=box)
            noisy = np.asarray(view) + rng.normal(0, 1.5, (height, width, 3))
            pixels = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for start in range(0, round(options.seconds * _SOUND_RATE), 1024):
            end = min(start + 1024, round(options.seconds * _SOUND_RATE))
            wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(start, end) / _SOUND_RATE)
            samples = av.AudioFrame.from_ndarray(
                wave[None].astype(np.float32), format="fltp", layout="mono"
            )
            samples.sample_rate, samples.pts = _SOUND_RATE, start
            samples.time_base = Fraction(1, _SOUND_RATE)
            out.mux(sound.encode(samples))
        out.mux(sound.encode(None))


def seconds_of(path: Path) -> dict[str, float]:
    """Returns how long pictures and sound last."""
    av = import_av(path)
    with av.open(str(path)) as film:
        found = {}
        for stream in (film.streams.video[0], film.streams.audio[0]):
            found[stream.type] = round(float(stream.duration * stream.time_base), 3)
        return found


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument(
        "--size", type=lambda text: tuple(map(int, text.split("x"))), default=(640, 360)
    )
    parser.add_argument("--temporal", default="0.8")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--keep", type=Path, help="a folder for the clips (default: none is kept)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        clip = folder / "clip.mp4"
        make_clip(clip, options.photos, options)
        result: dict[str, object] = {
            "benchmark": "film",
            "size": "{}x{}".format(*options.size),
            "seconds": options.seconds,
            "fps": options.fps,
            "durations": {"clip": seconds_of(clip)},
        }
        for temporal in ("0", options.temporal):
            styled = folder / f"temporal_{temporal}.mp4"
            command = [
                sys.executable, str(Path(__file__).resolve().parents[1] / "eval.py"),
                "--model", options.model, "--image", str(clip), "-o", str(styled),
                "--temporal", temporal, "--precision", options.precision,
            ]  # fmt: skip
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            result[f"temporal_{temporal}"] = {
                "wall_seconds": round(time.perf_counter() - began, 1),
                "flicker": round(flicker(read_frames(styled), read_frames(clip)).levels, 3),
                "peak_memory_mb": round(peak_mb_of_children()),
                "durations": seconds_of(styled),
            }
        result["still_share"] = round(flicker(read_frames(clip), read_frames(clip)).counted, 3)
        result["device"] = f"{os.cpu_count()} cores, {platform.machine()}"
        result["precision"] = options.precision
        print(json.dumps(result))


if __name__ == "__main__":
    main()
