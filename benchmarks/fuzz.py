"""Feeds damaged files to every reader, and reports what is not refused in a sentence.

    python benchmarks/fuzz.py --seconds 60               # of each reader
    python benchmarks/fuzz.py --reader npz --seconds 600 --seed 7

A reader may read a file or refuse it with a `FastStyleError`. Anything else is a finding: another
exception, a crash of the process, a file that takes longer than 20 seconds or more than 2 GiB of
memory, or unpickling. Files are grown from small good ones by flipped bits, extreme numbers, cuts,
copies and splices; archives are also changed inside and packed again, so that their checksums fit.
The case of a finding is written to `--keep`; cases depend on the seed and their number alone.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_LONGEST = 20  # seconds for one file
_STUCK = 90  # seconds without a new case, after which the reader hangs where no alarm is heard
_MEMORY = 2 << 30  # bytes, beyond what the process has when it begins

Files = dict[str, bytes]
"""A case: file names to contents."""


class Hang(BaseException):
    """A reader took too long."""


# --- damage --------------------------------------------------------------------------------------

_WORDS = [
    *(b"&a ", b"*a", b"<<: ", b"!!python/object:os.system ", b"!!binary ", b"%YAML 9.9\n", b"--- "),
    *(b"{", b"}", b"[", b"]", b": ", b"- ", b"? ", b"|\n", b">", b'"', b"'", b"\t", b"#", b"\\U"),
    *(
        b"1e999",
        b"-.inf",
        b".nan",
        b"0x",
        b"0o9",
        b"9" * 40,
        b"~",
        b"\xef\xbb\xbf",
        b"\x00",
        b"\xff",
    ),
]


def damage(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Returns data changed in one to six places, sometimes with parts of another file."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        if not out:
            out = bytearray(other)
        at = rng.randrange(len(out))
        # Headers come first, and decide most.
        if rng.random() < 0.4:
            at = rng.randrange(min(len(out), 256))
        length = min(len(out) - at, 1 + int(rng.expovariate(1 / 12)))
        kind = rng.randrange(10)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))
        elif kind == 2:
            size = rng.choice((2, 4, 8))
            value = rng.choice((0, 1, -1, 1 << 31, (1 << 31) - 1, 1 << 62, rng.getrandbits(40)))
            order: Any = rng.choice(("little", "big"))
            out[at : at + size] = (value % (1 << (8 * size))).to_bytes(size, order)
        elif kind == 3:
            del out[at:]
        elif kind == 4:
            del out[at : at + length]
        elif kind == 5:
            out[at:at] = rng.randbytes(length)
        elif kind == 6:
            out[at:at] = out[at : at + length] * rng.choice((1, 2, 200))
        elif kind == 7:
            out[at : at + length] = bytes(length)
        elif kind == 8:
            start = rng.randrange(len(other) or 1)
            out[at:] = other[start : start + rng.choice((16, 4096, len(other)))]
        else:
            out[at:at] = rng.choice(_WORDS)
    return bytes(out[: 4 << 20])


def _damage_one(files: Files, others: Files, rng: random.Random) -> Files:
    """Damages one of a case's files."""
    name = rng.choice(sorted(files))
    other = rng.choice(sorted(others))
    return files | {name: damage(files[name], others[other], rng)}


def _inside_zip(files: Files, others: Files, rng: random.Random) -> Files:
    """Damages members of an archive and packs it again."""
    ((name, data),) = files.items()
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(packed, "w") as new:
        members = old.namelist()
        chosen = rng.choice(members)
        for member in members:
            inner = old.read(member)
            if member == chosen:
                inner = damage(inner[:128], inner, rng) + inner[128:]
                if rng.random() < 0.2:  # Header and data no longer fit.
                    inner = inner.replace(b"(3, 3, 3, 4)", b"(9999, 9999, 99, 4)")
            new.writestr(member, inner)
    return {name: packed.getvalue()}


def _inside_safetensors(files: Files, others: Files, rng: random.Random) -> Files:
    """Damages the header and writes a length that fits it."""
    ((name, data),) = files.items()
    (length,) = struct.unpack("<Q", data[:8])
    header = damage(data[8 : 8 + length], data[8 : 8 + length], rng)
    return {name: struct.pack("<Q", len(header)) + header + data[8 + length :]}


# --- readers -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader:
    """What is fuzzed.

    Attributes:
      seeds: Returns good cases.
      read: Reads a case, given the path of its first file.
      inside: A way to damage it that keeps its container whole, if there is one.
    """

    seeds: Callable[[Path], list[Files]]
    read: Callable[[Path], None]
    inside: Callable[[Files, Files, random.Random], Files] | None = None


def _yaml_seeds(folder: Path) -> list[Files]:
    found = sorted((ROOT / "conf").glob("*.yml"))[:4]
    texts = [path.read_bytes() for path in found]
    texts.append(b'naming: a\nsteps: 3\nstyles: [&s {name: a, image: "b\\u00e9", weight: 1e1}]\n')
    return [{"case.yml": text} for text in texts]


def _read_yaml(path: Path) -> None:
    from fast_style.config import load_config

    load_config(path)


def _image_seeds(folder: Path) -> list[Files]:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (18, 24, 4), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    cases = []
    for form, mode, options in (
        ("JPEG", "RGB", {}),
        ("JPEG", "CMYK", {"progressive": True}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("PNG", "I;16", {}),
        ("WEBP", "RGBA", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "F", {}),
        ("BMP", "RGB", {}),
        ("GIF", "P", {}),
        ("PPM", "RGB", {}),
        ("JPEG2000", "RGB", {}),
        ("AVIF", "RGB", {}),
    ):
        data = io.BytesIO()
        try:
            image = picture.convert("L").convert(mode) if mode == "I;16" else picture.convert(mode)
            image.save(data, form, **options)
        except (OSError, KeyError, ValueError):
            continue  # This Pillow lacks the codec.
        cases.append({"case.bin": data.getvalue()})
    return cases


def _read_image(path: Path) -> None:
    from fast_style.images import load_training_crop, read_image

    failure = None
    for read in (read_image, lambda p: load_training_crop(p, 32, offset=(0.3, 0.9), flip=True)):
        try:
            read(path)
        except Exception as error:
            failure = error
    if failure is not None:
        raise failure


def _safetensors_seeds(folder: Path) -> list[Files]:
    import nets

    from fast_style.checkpoints import save_model

    save_model(folder / "model.safetensors", nets.johnson(2))
    return [{"case.safetensors": (folder / "model.safetensors").read_bytes()}]


def _read_model(path: Path) -> None:
    from fast_style.checkpoints import load_model

    load_model(path)


def _checkpoint_seeds(folder: Path) -> list[Files]:
    import nets
    import tensorflow as tf
    import weight_files

    from fast_style.checkpoints import save_checkpoint

    run = {"config": {"naming": "a", "arch": "johnson", "width": 0.125}, "style_names": ["a"]}
    prefix = save_checkpoint(folder, 3, nets.johnson().weights, run, keep=1)
    small = save_checkpoint(folder / "small", 3, {"a": tf.zeros([3, 5])}, {}, keep=1)
    old = weight_files.save_v1(folder / "old", _small_vgg())
    whole = [
        {
            "case.ckpt.index": Path(f"{path}.index").read_bytes(),
            "case.ckpt.data-00000-of-00001": Path(f"{path}.data-00000-of-00001").read_bytes(),
        }
        for path in (prefix, small)
    ]
    return [*whole, {"case.ckpt": old.read_bytes()}]


def _small_vgg() -> Any:
    import numpy as np

    rng = np.random.default_rng(0)
    weights, channels = {}, 3
    for layer in ("conv1_1", "conv1_2", "conv2_1"):
        scope = f"vgg_16/{layer[:5]}/{layer}"
        weights[f"{scope}/weights"] = rng.standard_normal((3, 3, channels, 4), np.float32)
        weights[f"{scope}/biases"] = rng.standard_normal(4, np.float32)
        channels = 4
    return weights


def _weight_seeds(*formats: str) -> Callable[[Path], list[Files]]:
    def seeds(folder: Path) -> list[Files]:
        import numpy as np
        import weight_files

        cases = []
        for name in formats:
            file, save = weight_files.FORMATS[name]
            path = save(folder / file, _small_vgg())
            cases.append({f"case{path.suffix}": path.read_bytes()})
        if "npz" in formats:
            np.savez_compressed(folder / "packed.npz", **_small_vgg())
            cases.append({"case.npz": (folder / "packed.npz").read_bytes()})
        if "MatConvNet" in formats:
            path = weight_files.save_matconvnet(folder / "o.mat", _small_vgg(), old_release=True)
            cases.append({"case.mat": path.read_bytes()})
        return cases

    return seeds


def _read_weights(path: Path) -> None:
    from fast_style.loss_weights import read_weights

    weights = read_weights(path, "vgg_16")
    for name in weights:
        weights[name]


READERS = {
    "yaml": Reader(_yaml_seeds, _read_yaml),
    "image": Reader(_image_seeds, _read_image),
    "safetensors": Reader(_safetensors_seeds, _read_model, _inside_safetensors),
    "checkpoint": Reader(_checkpoint_seeds, _read_model),
    "npz": Reader(_weight_seeds("npz"), _read_weights, _inside_zip),
    "h5": Reader(_weight_seeds("Keras"), _read_weights),
    "mat": Reader(_weight_seeds("MatConvNet"), _read_weights),
}


# --- one process that reads ----------------------------------------------------------------------


def make_case(reader: Reader, seeds: list[Files], seed: int, number: int) -> Files:
    """Returns a case: a pure function of its arguments."""
    rng = random.Random(f"{seed}/{number}")
    files, others = rng.choice(seeds), rng.choice(seeds)
    if reader.inside is not None and rng.random() < 0.5:
        return reader.inside(files, others, rng)
    return _damage_one(files, others, rng)


@contextlib.contextmanager
def _watched() -> Iterator[list[str]]:
    """Limits time, and takes note of unpickling and of programs that are started."""
    noted: list[str] = []
    _active.append(noted)

    def late(number: int, frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(_LONGEST)
    try:
        yield noted
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        _active.pop()


_active: list[list[str]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _active and event in ("pickle.find_class", "os.system", "subprocess.Popen", "exec"):
        _active[-1].append(f"{event} {arguments!r}"[:200])


def try_case(reader: Reader, files: Files, folder: Path) -> tuple[str, str]:
    """Reads a case.

    Returns:
      'read', 'refused' or 'finding', and what was found.
    """
    from fast_style.errors import FastStyleError

    for name, data in files.items():
        (folder / name).write_bytes(data)
    path = folder / next(iter(files))
    verdict, what = "read", ""
    try:
        with _watched() as noted:
            try:
                reader.read(path)
            except FastStyleError as error:
                verdict = "refused"
                if len(str(error)) > 2000 + 200 * str(error).count("\n"):
                    verdict, what = "finding", f"a message of {len(str(error))} characters"
        if any(not note.startswith("exec") for note in noted):
            verdict, what = "finding", "; ".join(noted)
    except Hang:
        verdict, what = "finding", f"took longer than {_LONGEST} s"
    except BaseException:
        verdict, what = "finding", traceback.format_exc()
    for name in files:
        (folder / name).unlink()
    return verdict, what


def work(options: argparse.Namespace) -> None:
    """Reads cases until the time is over; writes findings and the count as JSON lines."""
    reader = READERS[options.worker]
    now = os.open(options.now, os.O_WRONLY | os.O_CREAT)
    with tempfile.TemporaryDirectory() as place:
        seeds = reader.seeds(Path(place))
        cases = Path(place) / "cases"
        cases.mkdir()
        for files in seeds:
            verdict, what = try_case(reader, files, cases)  # Imports what it needs, too.
            if verdict == "finding":
                raise SystemExit(f"a good file of {options.worker} is not read:\n{what}")
        sys.addaudithook(_audit)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY, resource.RLIM_INFINITY))
        until = time.monotonic() + options.seconds
        number, counts = options.start, {"read": 0, "refused": 0, "finding": 0}
        while time.monotonic() < until:
            os.pwrite(now, f"{number:012d} {sum(counts.values()):012d}".encode(), 0)
            files = make_case(reader, seeds, options.seed, number)
            verdict, what = try_case(reader, files, cases)
            counts[verdict] += 1
            if verdict == "finding":
                print(json.dumps({"case": number, "what": what}), flush=True)
            number += 1
            if number % 500 == 0:
                gc.collect()
        print(json.dumps({"counts": counts}), flush=True)


# --- the process that watches --------------------------------------------------------------------


@dataclass
class Tally:
    """What came of a reader."""

    cases: int = 0
    read: int = 0
    refused: int = 0
    findings: dict[int, str] = field(default_factory=dict)


def fuzz(name: str, seconds: float, seed: int, keep: Path) -> Tally:
    """Fuzzes a reader in processes of its own, which may crash."""
    tally, start = Tally(), 0
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as place:
        now = Path(place) / "now"
        while (left := until - time.monotonic()) > 0 and len(tally.findings) < 50:
            now.write_bytes(b"")
            output = Path(place) / "output"
            with output.open("w") as out:
                process = subprocess.Popen(
                    [sys.executable, __file__, "--worker", name, "--seed", str(seed)]
                    + ["--start", str(start), "--seconds", str(left), "--now", str(now)],
                    stdout=out,
                    stderr=subprocess.DEVNULL,
                )
                hung = _wait(process, now)
            at, done = (int(part) for part in (now.read_text() or "0 0").split())
            for line in output.read_text().splitlines():
                told = json.loads(line)
                if "case" in told:
                    tally.findings[told["case"]] = told["what"]
                else:
                    tally.read += told["counts"]["read"]
                    tally.refused += told["counts"]["refused"]
                    tally.cases += sum(told["counts"].values())
            if process.returncode == 0:
                break
            if not now.read_text():
                raise SystemExit(f"{name}: the reader does not start")
            tally.cases += done + 1
            tally.findings[at] = "hangs" if hung else f"crash, exit status {process.returncode}"
            start = at + 1
        reader = READERS[name]
        seeds = reader.seeds(Path(place))
        for number in tally.findings:
            folder = keep / f"{name}-{seed}-{number}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for file, data in make_case(reader, seeds, seed, number).items():
                (folder / file).write_bytes(data)
    return tally


def _wait(process: subprocess.Popen[bytes], now: Path) -> bool:
    """Waits for a process; kills one that is stuck, and says whether it was."""
    seen, since = "", time.monotonic()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
            return False
        if (current := now.read_text()) != seen:
            seen, since = current, time.monotonic()
        elif time.monotonic() - since > _STUCK:
            process.kill()
            process.wait()
            return True


def main() -> int:
    """Fuzzes the readers that the arguments name."""
    parser = argparse.ArgumentParser(description="Feed damaged files to every reader.")
    parser.add_argument("--reader", action="append", choices=tuple(READERS), help="default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), metavar="FOLDER")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--start", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--now", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return 0
    print(f"{'reader':<12} {'cases':>8} {'read':>8} {'refused':>8} {'findings':>8}")
    found = 0
    for name in options.reader or READERS:
        tally = fuzz(name, options.seconds, options.seed, options.keep)
        found += len(tally.findings)
        print(
            f"{name:<12} {tally.cases:>8,} {tally.read:>8,} {tally.refused:>8,} "
            f"{len(tally.findings):>8,}",
            flush=True,
        )
        for number, what in list(tally.findings.items())[:10]:
            print(f"  case {number}: {what.strip().splitlines()[-1][:300]}")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
