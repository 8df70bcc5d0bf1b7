"""export: a trained model as files for other runtimes, with proof."""

from __future__ import annotations

import argparse
import functools
import math
import shlex
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

from fast_style.checks import plain_name
from fast_style.errors import FastStyleError, UsageError
from fast_style.export_formats import DEFAULT_FORMAT, FORMATS
from fast_style.stopping import stop_on_signals
from fast_style.terminal import import_tensorflow, positive, precision_argument, say, tell_signal

if TYPE_CHECKING:
    from fast_style.checkpoints import Model
    from fast_style.exporting import Export, Exported


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `export`."""
    parser.add_argument(
        "-m",
        "--model",
        "--model_file",
        required=True,
        metavar="PATH",
        help="a run's folder, a .safetensors file, or a checkpoint",
    )
    parser.add_argument("-n", "--model_name", metavar="NAME", help="name of the exported model")
    parser.add_argument(
        "-o",
        "--output",
        default="exported",
        metavar="DIR",
        help="where to write (default: exported)",
    )
    parser.add_argument(
        "--format",
        default=DEFAULT_FORMAT,
        metavar="A,B,...",
        help=f"any of {', '.join(FORMATS)} (default: {DEFAULT_FORMAT})",
    )
    parser.add_argument(
        "--version",
        type=positive,
        metavar="N",
        help="of the SavedModel (default: the next free number)",
    )
    parser.add_argument(
        "--photo",
        metavar="PATH",
        help="a photo to compare the files with the native net on (default: a cat)",
    )
    precision_argument(parser, default="float32", why="which every server can compute in")


def run_export(options: argparse.Namespace) -> int:
    """Writes the files, prints how they compare, and says how to use them.

    Returns:
      The exit code: 0, or 128 and the signal that stopped it.

    Raises:
      FastStyleError: If one is beyond its tolerance, or could not be written.
    """
    formats = _formats(options.format)
    if options.model_name is not None:
        _check_name(options.model_name)
    tell = functools.partial(tell_signal, doing="stopping, and removing what is not complete")
    with stop_on_signals(tell) as stop:
        try:
            _export(options, formats)
        except KeyboardInterrupt:
            say("stopped")
            return stop.exit_code
    return 0


def _export(options: argparse.Namespace, formats: list[str]) -> None:
    import_tensorflow()
    from fast_style.checkpoints import load_model
    from fast_style.exporting import export_model
    from fast_style.hardware import resolve_precision

    model = load_model(options.model)
    name = model.label if options.model_name is None else options.model_name
    precision = resolve_precision(options.precision)
    done = export_model(
        model,
        options.output,
        name=name,
        formats=formats,
        precision=precision,
        version=options.version,
        photo=options.photo,
    )
    print(_table(done))
    for file in done.files:
        if file.parity.passed:
            print(f"wrote {file.path} ({file.precision}), described in {file.report.name}")
            if file.kind == "savedmodel":
                print(_serving_use(model, file.path, name))
    if done.failures:
        print(f"wrote {done.failures}")
        failed = [file for file in done.files if not file.parity.passed]
        raise FastStyleError("; ".join(_failure(file) for file in failed))


def _formats(text: str) -> list[str]:
    given = [part.strip() for part in text.split(",")]
    if wrong := [part for part in given if part not in FORMATS]:
        raise UsageError(
            f"--format: expected any of {', '.join(FORMATS)}, with commas between, got {wrong[0]!r}"
        )
    return given


def _check_name(name: str) -> None:
    problems: list[str] = []
    plain_name("--model_name", name, problems)
    if problems:
        raise UsageError(problems[0])


def _table(done: Export) -> str:
    """The comparison, a line for each file."""
    lines = [
        f"{'compared with native float32':29}{'max':>5}{'mean':>8}{'PSNR':>9}"
        f"{'size':>10}{'512 px':>10}"
    ]
    for file in done.files:
        parity = file.parity
        psnr = "same" if math.isinf(parity.psnr) else f"{parity.psnr:.1f} dB"
        lines.append(
            f"{file.kind:18}{'ok' if parity.passed else 'FAILED':11}{parity.max:5d}"
            f"{parity.mean:8.3f}{psnr:>9}{file.bytes / 1e6:7.2f} MB{parity.milliseconds:7.0f} ms"
        )
    lines.append(f"{'native':56}{'':>5}{done.native_milliseconds:10.0f} ms")
    unjudged = [
        file.kind
        for file in done.files
        if any(not difference.judged for difference in file.parity.differences)
    ]
    if unjudged:
        lines.append(
            f"flat grey does not count for {', '.join(unjudged)}: rounding alone turns it into "
            "noise, in the file or in the net as TensorFlow computes it in that precision"
        )
    return "\n".join(lines)


def _failure(file: Exported) -> str:
    parity = file.parity
    return (
        f"{file.path}: not kept, because it differs from the native net by up to {parity.max} "
        f"levels ({parity.psnr:.1f} dB), and {parity.tolerance} is asked for; "
        "use another format or precision"
    )


def _serving_use(model: Model, folder: Path, name: str) -> str:
    """Returns how to load and to serve a SavedModel, as lines that can be pasted."""
    volume = shlex.quote(f"{folder.resolve().parent}:/models/{name}")
    url = f"http://localhost:8501/v1/models/{urllib.parse.quote(name)}:predict"
    lines = [
        f"load:   run = tf.saved_model.load({str(folder)!r}).signatures['serving_default']",
        "        stylized = run(images=tf.constant(batch))['stylized']",
        f"serve:  docker run -p 8501:8501 -v {volume} -e {shlex.quote(f'MODEL_NAME={name}')} "
        "tensorflow/serving",
        """ask:    echo '{"signature_name": "image_bytes", "instances": [{"b64": "'"""
        """$(base64 -w0 photo.jpg)'"}]}' \\""",
        f"        | curl -s -d @- {url} \\",
        """        | python -c 'import base64, json, sys; sys.stdout.buffer.write("""
        """base64.b64decode(json.load(sys.stdin)["predictions"][0]["b64"]))' > styled.jpg""",
    ]
    if len(model.style_names) > 1:
        mix = [1.0] + [0.0] * (len(model.style_names) - 1)
        lines.append(
            f"        more styles: signature image_bytes_options, with style_weights {mix}, "
            "strength and preserve_color"
        )
    return "\n".join(lines)
