"""Films: decoded and encoded through PyAV (extra `video`), sound and timing kept.

Frames pass one by one, so that memory does not grow with the length of a film. A film is written
aside and takes its name when it is complete.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from fast_style.errors import FastStyleError
from fast_style.files import atomic_path
from fast_style.opening import DEFAULT_MAX_PIXELS, printable, reason_of

FILM_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".3gp"),
    *(".wmv", ".flv", ".ogv"),
)
"""Endings, in lower case, by which films are told from pictures."""

FILM_OUTPUT_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
"""Endings, in lower case, that `stylize_film` can write."""

_AHEAD = 2  # Frames decoded before they are needed, and frames waiting to be encoded.

DEFAULT_QUALITY = 95
"""Nearly lossless to the eye: strokes are sharp, and a film is encoded once."""

# Encoder, settings, and the constant rate factors at quality 1 and at the default.
_CODECS = {
    ".mp4": ("libx264", {"preset": "medium"}, (51, 18)),
    ".webm": ("libvpx-vp9", {"b": "0", "deadline": "good", "cpu-used": "4"}, (63, 24)),
}
_OWN_METADATA = ("encoder", "major_brand", "minor_version", "compatible_brands")

# AVColorSpace (H.273, table 4) -> swscale's matrices, which have numbers of their own.
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_ITU709, _ITU601 = 1, 5
_HD_HEIGHT = 720  # Unmarked films from here on are taken as BT.709, as players do.
_LIMITED, _FULL = 1, 2  # AVColorRange


@dataclass(frozen=True)
class FilmResult:
    """What was written.

    Attributes:
      frames: How many.
      notes: What differs from the original, such as sound in another format.
    """

    frames: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Colours:
    """What the numbers of a film mean.

    Attributes:
      matrix: To RGB, as swscale counts matrices.
      range: An AVColorRange, never unspecified.
      tags: What the film itself says: its matrix, range, primaries and transfer, of H.273.
    """

    matrix: int
    range: int
    tags: tuple[int, int, int, int]


def stylize_film(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    stylize: Callable[[np.ndarray], np.ndarray],
    *,
    quality: int = DEFAULT_QUALITY,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: Callable[[int, int | None], None] | None = None,
) -> FilmResult:
    """Stylizes a film frame by frame.

    The time of every frame is kept, so films of varying frame rate stay in step with their sound.
    Rotation is applied to the frames. Sound is copied; where the container cannot hold it, it is
    encoded anew. Colour matrix, range, primaries and transfer stay those of the original. Pictures
    are written as H.264 (WebM: VP9), 8 bits, 4:2:0. Subtitles and other streams are left out.

    Args:
      source: The film.
      target: Ends in one of `FILM_OUTPUT_SUFFIXES`; complete or not there at all.
      stylize: Turns a frame into a styled one, both uint8 [H, W, 3] RGB of one size; called in the
        order of time, by the caller's thread.
      quality: 1 to 100, from the coarsest that the encoder knows to nearly lossless.
      max_pixels: A film whose frames have more is refused before any is decoded.
      progress: Called with the number of frames done and of those in all, if known.

    Raises:
      FastStyleError: If PyAV is missing, or the film cannot be read or written.
    """
    av = import_av(source)
    path = Path(target)
    notes: list[str] = []
    done = 0
    with contextlib.ExitStack() as stack:
        film = stack.enter_context(_readable(av, source))
        video = _video_stream(film, source)
        if video.width * video.height > max_pixels:
            raise FastStyleError(
                f"{printable(source)}: its frames have more than the allowed {max_pixels:,} "
                "pixels; make it smaller, or raise max_pixels (--max-pixels) if you trust the file"
            )
        total = _frame_count(film, video)
        aside = stack.enter_context(atomic_path(path))
        writer = _Writer(av, film, video, aside, path, quality, notes)
        stack.callback(writer.abandon)
        encoder = stack.enter_context(ThreadPoolExecutor(1))  # One: packets keep their order.
        room = threading.Semaphore(_AHEAD)
        waiting: deque[Future[None]] = deque()

        def encode(part: _Frame, styled: np.ndarray) -> None:
            try:
                writer.frame(part, styled)
            finally:
                room.release()

        parts = _in_a_thread(_parts(av, film, video, writer.sounds, source))
        with contextlib.closing(parts):
            for part in parts:
                if isinstance(part, _Frame):
                    styled = stylize(part.pixels)
                    room.acquire()
                    waiting.append(encoder.submit(encode, part, styled))
                    done += 1
                    if progress is not None:
                        progress(done, total)
                else:
                    waiting.append(encoder.submit(writer.sound, *part))
                while waiting and waiting[0].done():
                    waiting.popleft().result()
        for future in waiting:
            future.result()
        if not done:
            raise FastStyleError(f"{printable(source)}: this film has no frames; replace the file")
        encoder.submit(writer.finish).result()
    return FilmResult(done, tuple(notes))


def read_frames(source: str | os.PathLike[str]) -> Generator[np.ndarray, None, None]:
    """Reads the frames of a film, upright.

    Yields:
      uint8 [H, W, 3] RGB.

    Raises:
      FastStyleError: If PyAV is missing or the film cannot be read.
    """
    av = import_av(source)
    with _readable(av, source) as film:
        video = _video_stream(film, source)
        for part in _parts(av, film, video, {}, source):
            if isinstance(part, _Frame):
                yield part.pixels


def import_av(source: str | os.PathLike[str]) -> Any:
    """Imports PyAV, without the messages of its codecs.

    Raises:
      FastStyleError: If it is not installed.
    """
    try:
        import av
        import av.logging
    except ImportError as error:
        raise FastStyleError(
            f"{printable(source)}: films need PyAV; install it with pip install 'fast-style[video]'"
        ) from error
    av.logging.set_level(None)
    return av


@dataclass(frozen=True)
class _Frame:
    """A decoded frame, upright; its time and length in units of `time_base` seconds."""

    pixels: np.ndarray
    pts: int | None
    duration: int
    time_base: Fraction
    colours: _Colours
    aspect: Fraction


@contextlib.contextmanager
def _readable(av: Any, source: str | os.PathLike[str]) -> Iterator[Any]:
    name = printable(source)
    if not os.path.isfile(source):
        reason = "this is not a file" if os.path.exists(source) else "no such film"
        raise FastStyleError(f"{name}: {reason}; check the path")
    try:
        film = av.open(os.fspath(source))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise FastStyleError(
            f"{name}: not a readable film ({reason_of(error)}); give an MP4, MOV, MKV or WebM file"
        ) from error
    with film:
        yield film


def _video_stream(film: Any, source: str | os.PathLike[str]) -> Any:
    for stream in film.streams.video:
        if not stream.disposition & 0x0400:  # An attached picture, such as the cover of a song.
            stream.thread_type = "AUTO"
            return stream
    raise FastStyleError(f"{printable(source)}: holds no moving pictures; give a film")


def _frame_count(film: Any, video: Any) -> int | None:
    if video.frames:
        return video.frames
    if film.duration and video.average_rate:
        return max(1, round(film.duration / 1e6 * float(video.average_rate)))
    return None


def _parts(
    av: Any, film: Any, video: Any, sounds: dict[int, Any], source: str | os.PathLike[str]
) -> Iterator[_Frame | tuple[int, Any]]:
    """Yields frames, and packets of the sounds wanted with the number of their stream."""
    reformatter = av.video.reformatter.VideoReformatter()
    wanted = [stream for stream in film.streams.audio if stream.index in sounds]
    try:
        for packet in film.demux([video, *wanted]):
            if packet.stream.index != video.index:
                yield packet.stream.index, packet
                continue
            for frame in packet.decode():
                yield _upright(frame, video, reformatter)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise FastStyleError(
            f"{printable(source)}: this film is damaged or cut short ({reason_of(error)}); "
            "replace the file"
        ) from error


def _in_a_thread(
    parts: Iterator[_Frame | tuple[int, Any]],
) -> Generator[_Frame | tuple[int, Any], None, None]:
    """Yields the same, fetched by a thread that is at most `_AHEAD` frames ahead."""
    fetched: queue.SimpleQueue[Any] = queue.SimpleQueue()
    room = threading.Semaphore(_AHEAD)
    stopped = threading.Event()
    end = object()

    def fetch() -> None:
        try:
            for part in parts:
                fetched.put(part)
                if isinstance(part, _Frame):
                    room.acquire()
                if stopped.is_set():
                    return
            fetched.put(end)
        except BaseException as error:
            fetched.put(error)

    thread = threading.Thread(target=fetch, name="decode", daemon=True)
    thread.start()
    try:
        while (part := fetched.get()) is not end:
            if isinstance(part, BaseException):
                raise part
            if isinstance(part, _Frame):
                room.release()
            yield part
    finally:
        stopped.set()
        room.release()
        thread.join()


def _upright(frame: Any, video: Any, reformatter: Any) -> _Frame:
    colours = _colours(frame)
    rgb = reformatter.reformat(
        frame,
        format="rgb24",
        src_colorspace=colours.matrix,
        src_color_range=colours.range,
        dst_color_range=_FULL,
    )
    turns = quarter_turns(frame)
    aspect = video.sample_aspect_ratio or Fraction(1)
    return _Frame(
        np.ascontiguousarray(np.rot90(rgb.to_ndarray(), turns)),
        frame.pts,
        frame.duration or 0,
        frame.time_base or video.time_base,
        colours,
        1 / aspect if turns % 2 and aspect else aspect,
    )


def quarter_turns(frame: Any) -> int:
    """Returns by how many quarter turns, counter-clockwise, a frame has to be turned: 0 to 3."""
    return round(frame.rotation / 90) % 4


def _colours(frame: Any) -> _Colours:
    unmarked = _ITU709 if min(frame.width, frame.height) >= _HD_HEIGHT else _ITU601
    full = int(frame.color_range) == _FULL or frame.format.name.startswith("yuvj")
    tags = (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)
    matrix, limits, primaries, transfer = map(int, tags)
    return _Colours(
        _MATRICES.get(matrix, unmarked),
        _FULL if full else _LIMITED,
        (matrix, limits, primaries, transfer),
    )


class _Writer:
    """The film that is being written. Used by one thread at a time."""

    def __init__(
        self,
        av: Any,
        film: Any,
        video: Any,
        aside: Path,
        target: Path,
        quality: int,
        notes: list[str],
    ) -> None:
        self._av = av
        self._notes = notes
        suffix = target.suffix.lower()
        options = {"movflags": "+faststart"} if suffix in (".mp4", ".m4v", ".mov") else {}
        self._out = av.open(str(aside), "w", options=options)
        self._open = True
        self._out.metadata.update(
            {key: value for key, value in film.metadata.items() if key not in _OWN_METADATA}
        )
        codec, settings, (coarsest, usual) = _CODECS[".webm" if suffix == ".webm" else ".mp4"]
        step = (coarsest - usual) / (DEFAULT_QUALITY - 1)
        settings = {**settings, "crf": str(round(coarsest - (quality - 1) * step))}
        rate = video.average_rate or video.guessed_rate or Fraction(25)
        self._video = self._out.add_stream(codec, rate=rate, options=settings)
        self._usual_duration = max(1, round(1 / (rate * video.time_base)))
        self._durations: dict[int, int] = {}  # By time, of frames inside the encoder.
        self._last_pts: int | None = None
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._size: tuple[int, int] | None = None
        self._copied: set[int] = set()
        self.sounds = {stream.index: self._sound_like(stream) for stream in film.streams.audio}
        self._early: list[tuple[int, Any]] = []  # Sound before the first frame.
        if film.streams.subtitles:
            notes.append("its subtitles are left out")

    def _sound_like(self, stream: Any) -> Any:
        """Adds a stream like one of the source, or one that the container can hold."""
        name = stream.codec_context.codec.canonical_name
        if name in self._out.supported_codecs:
            self._copied.add(stream.index)
            return self._out.add_stream_from_template(stream)
        codec = self._out.default_audio_codec
        codec = {"opus": "libopus", "vorbis": "libopus"}.get(codec, codec)  # FFmpeg's own are poor.
        rate = 48_000 if codec == "libopus" else stream.codec_context.sample_rate
        self._notes.append(
            f"its sound is encoded anew as {str(codec).removeprefix('lib')}, because the container "
            f"cannot hold {name}"
        )
        return self._out.add_stream(codec, rate=rate, layout=stream.codec_context.layout.name)

    def frame(self, part: _Frame, styled: np.ndarray) -> None:
        """Encodes one frame."""
        if self._size is None:
            self._size = self._begin(part, styled)
            for early in self._early:
                self._sound(*early)
            self._early.clear()
        height, width = self._size
        rows, columns = styled.shape[0] % 2, styled.shape[1] % 2
        if rows or columns:
            styled = np.pad(styled, ((0, rows), (0, columns), (0, 0)), "edge")
        rgb = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(styled), format="rgb24")
        frame = self._reformatter.reformat(
            rgb,
            width=width,
            height=height,
            format="yuv420p",
            dst_colorspace=part.colours.matrix,
            src_color_range=_FULL,
            dst_color_range=part.colours.range,
        )
        pts = part.pts
        if self._last_pts is not None and (pts is None or pts <= self._last_pts):
            pts = self._last_pts + 1 if pts is not None else self._last_pts + self._usual_duration
        self._last_pts = pts = pts or 0
        frame.pts, frame.time_base = pts, part.time_base
        self._durations[pts] = part.duration or self._usual_duration
        self._mux(self._video.encode(frame))

    def _begin(self, part: _Frame, styled: np.ndarray) -> tuple[int, int]:
        height, width = (side + side % 2 for side in styled.shape[:2])
        if (height, width) != styled.shape[:2]:
            self._notes.append(
                f"written with {width}x{height} pixels, because 4:2:0 has even sides"
            )
        context = self._video.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base = part.time_base
        context.sample_aspect_ratio = part.aspect
        matrix, limits, primaries, transfer = part.colours.tags
        # A film of RGB numbers says matrix 0, which those of H.264 here are not.
        context.colorspace = matrix or (1 if part.colours.matrix == _ITU709 else 6)
        context.color_range = limits or part.colours.range
        context.color_primaries, context.color_trc = primaries, transfer
        return height, width

    def sound(self, index: int, packet: Any) -> None:
        """Copies, or encodes anew, one packet of a stream of the source."""
        if self._size is None:  # The first packet opens the file, which has to know the frames.
            self._early.append((index, packet))
        else:
            self._sound(index, packet)

    def _sound(self, index: int, packet: Any) -> None:
        sound = self.sounds[index]
        if index not in self._copied:
            for frame in packet.decode():
                self._out.mux(sound.encode(frame))
        elif packet.dts is not None:  # Else it is the demuxer's end mark.
            packet.stream = sound
            self._out.mux(packet)

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            # Encoders leave out how long a frame lasts, and the last one would last no time.
            packet.duration = self._durations.pop(packet.pts, self._usual_duration)
            self._out.mux(packet)

    def finish(self) -> None:
        """Encodes what is left and closes the file."""
        self._mux(self._video.encode(None))
        for index, sound in self.sounds.items():
            if index not in self._copied:
                self._out.mux(sound.encode(None))
        self._open = False
        self._out.close()

    def abandon(self) -> None:
        """Closes a file that will be removed; after `finish` does nothing."""
        if self._open:
            self._open = False
            with contextlib.suppress(Exception):
                self._out.close()
