"""A SavedModel for TensorFlow Serving: the net behind signatures for arrays and for files.

TensorFlow Serving's REST API and loaded signatures ask for every input of a signature, so the
options have signatures of their own:

| signature | inputs | output |
|---|---|---|
| `serving_default` | `images` uint8 [N, H, W, 3] | `stylized` uint8, same shape |
| `float_images` | `images` float32 in 0..255 | `stylized` float32, not rounded |
| `image_bytes` | `image_bytes` [N], JPEG or PNG | `stylized_bytes` [N], as it came |
| `serving_options` | `images` uint8 and the options | `stylized` |
| `image_bytes_options` | `image_bytes` and the options | `stylized_bytes` |

The options are `style_weights` float32 [N, S], `strength` float32 [N], `preserve_color` bool [N];
one row serves all pictures. Without them: the first style, in full, with its colours. These are
also the defaults that the signatures declare, for clients that may leave inputs out (gRPC).
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from fast_style import hardware
from fast_style.checkpoints import Model
from fast_style.parity import Signature
from fast_style.serving_effects import recoloured, weakened
from fast_style.serving_warmup import WARMUP_FILE, write_warmup
from fast_style.stylize import make_stylize_function

EXTRA_ASSETS = "assets.extra"
CARD_FILE = "model_card.json"
JPEG_QUALITY = 95
_PNG = b"\x89PNG\r\n\x1a\n"
_DEFAULT = "serving_default"

_WARMUP_SIZE = 256


def write_saved_model(
    model: Model, folder: Path, *, name: str, precision: str, card: dict[str, Any]
) -> None:
    """Writes a SavedModel with dynamic height, width and batch size.

    `serving_default` is the same function as `Stylizer`'s at the same precision, with plain
    convolutions and without its formula for one colour. Other pixels are equal where `Stylizer`
    convolves plainly too; where that goes by `winograd`, a few differ by one level. The function,
    for one picture, is stored once and mapped over the pictures.

    Args:
      model: The trained net.
      folder: Where to write; must not exist.
      name: Under which it will be served; the warm-up requests say it.
      precision: 'float32' or 'bfloat16'.
      card: How the model was made, for `assets.extra/model_card.json`.

    Raises:
      OSError: If the disk refuses.
      tf.errors.OpError: The same, of TensorFlow's files.
    """
    # What suits this processor need not suit the one that serves.
    with hardware.portable():
        signatures = _signatures(model, precision)
        module = tf.Module()
        module.signatures_kept = tuple(signatures.values())
        tf.saved_model.save(module, str(folder), signatures=signatures)
    extra = folder / EXTRA_ASSETS
    extra.mkdir(exist_ok=True)
    (extra / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    grey = np.full([1, _WARMUP_SIZE, _WARMUP_SIZE, 3], 128, np.uint8)
    packed = io.BytesIO()
    Image.fromarray(grey[0]).save(packed, "PNG")
    files = np.array([packed.getvalue()], object)
    write_warmup(
        extra / WARMUP_FILE,
        name,
        [(_DEFAULT, {"images": grey}), ("image_bytes", {"image_bytes": files})],
    )


def saved_model_signatures(folder: Path) -> list[Signature]:
    """Loads a SavedModel and returns its signatures, `serving_default` first.

    Pictures go through those of files as PNG.
    """
    loaded = tf.saved_model.load(str(folder))

    def signature(name: str) -> Signature:
        function = loaded.signatures[name]
        of_files, mixes = name.startswith("image_bytes"), name.endswith("_options")
        floats = name == "float_images"

        def run(picture: np.ndarray, mix: np.ndarray) -> np.ndarray:
            # `loaded` owns the variables and functions, and must live as long as the signature.
            assert loaded is not None
            if of_files:
                given = {"image_bytes": tf.io.encode_png(picture)[None]}
            else:
                given = {"images": tf.constant(picture[None], tf.float32 if floats else tf.uint8)}
            if mixes:
                given["style_weights"] = tf.constant(mix[None])
                given["strength"] = tf.constant([1.0])
                given["preserve_color"] = tf.constant([False])
            (result,) = function(**given).values()
            one = tf.io.decode_png(result[0]) if of_files else result[0]
            return one.numpy() if not floats else np.rint(one.numpy()).astype(np.uint8)

        return Signature(run=run, mixes=mixes, name=name)

    return [signature(name) for name in sorted(loaded.signatures, key=lambda n: (n != _DEFAULT, n))]


def _signatures(model: Model, precision: str) -> dict[str, Any]:
    """Returns the compiled signatures by name."""
    run = make_stylize_function(model, precision, tf.float32, batch_size=1)
    styles = len(model.style_names)
    first_style, full, colours = tf.one_hot([0], styles), tf.constant([1.0]), tf.constant([False])
    images = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
    floats = tf.TensorSpec([None, None, None, 3], tf.float32, name="images")
    files = tf.TensorSpec([None], tf.string, name="image_bytes")
    options = [
        tf.TensorSpec([None, styles], tf.float32, name="style_weights"),
        tf.TensorSpec([None], tf.float32, name="strength"),
        tf.TensorSpec([None], tf.bool, name="preserve_color"),
    ]

    def styled(photo: tf.Tensor, mix: tf.Tensor = first_style[0]) -> tf.Tensor:
        """float32 [H, W, 3] to the same, in full."""
        return run(photo[None], mix[None])[0]

    def optional(
        photo: tf.Tensor, mix: tf.Tensor, strength: tf.Tensor, preserve_color: tf.Tensor
    ) -> tf.Tensor:
        picture = styled(photo, mix)
        picture = tf.cond(preserve_color, lambda: recoloured(picture, photo), lambda: picture)
        return weakened(picture, photo, strength)

    def signature(*specs: tf.TensorSpec) -> Callable[[Callable[..., Any]], Any]:
        return tf.function(input_signature=specs, autograph=False)

    @signature(images)
    def serving_default(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"stylized": _of_arrays(_in_levels(styled), images)}

    @signature(floats)
    def float_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"stylized": _of_arrays(styled, images)}

    @signature(files)
    def image_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"stylized_bytes": _of_files(_in_levels(styled), image_bytes)}

    @signature(images, *options)
    def serving_options(
        images: tf.Tensor,
        style_weights: tf.Tensor = first_style,
        strength: tf.Tensor = full,
        preserve_color: tf.Tensor = colours,
    ) -> dict[str, tf.Tensor]:
        given = (style_weights, strength, preserve_color)
        return {"stylized": _of_arrays(_in_levels(optional), images, *given)}

    @signature(files, *options)
    def image_bytes_options(
        image_bytes: tf.Tensor,
        style_weights: tf.Tensor = first_style,
        strength: tf.Tensor = full,
        preserve_color: tf.Tensor = colours,
    ) -> dict[str, tf.Tensor]:
        given = (style_weights, strength, preserve_color)
        return {"stylized_bytes": _of_files(_in_levels(optional), image_bytes, *given)}

    every = (serving_default, float_images, image_bytes, serving_options, image_bytes_options)
    return {function.__name__: function for function in every}


def _in_levels(operation: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Wraps an operation on float32 pictures into one on uint8 pictures."""

    def levels(photo: tf.Tensor, *options: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.round(operation(tf.cast(photo, tf.float32), *options)), tf.uint8)

    return levels


def _of_arrays(
    operation: Callable[..., tf.Tensor], images: tf.Tensor, *options: tf.Tensor
) -> tf.Tensor:
    """Maps an operation over the pictures of a batch, one after another."""
    result = tf.map_fn(
        lambda one: operation(*one),
        (images, *_for_each(images, options)),
        fn_output_signature=tf.TensorSpec([None, None, 3], images.dtype),
        parallel_iterations=1,  # One picture keeps all cores busy, and memory is that of one.
    )
    return tf.ensure_shape(result, images.shape)


def _of_files(
    operation: Callable[..., tf.Tensor], files: tf.Tensor, *options: tf.Tensor
) -> tf.Tensor:
    """Decodes each file, applies an operation, and encodes the result as the file was.

    A file of another kind fails all with a sentence that says where it is: TensorFlow's decoder of
    PNG would also begin with GIF and BMP, and end with a word on their channels.
    """
    known = tf.io.is_jpeg(files) | tf.equal(tf.strings.substr(files, 0, len(_PNG)), _PNG)
    message = "image_bytes: expected JPEG or PNG files, got something else at these places, from 0:"
    check = tf.debugging.Assert(tf.reduce_all(known), [message, tf.where(~known)[:, 0]])
    with tf.control_dependencies([check]):
        files = tf.identity(files)

    def one(given: tuple[tf.Tensor, ...]) -> tf.Tensor:
        content, *rest = given
        is_jpeg = tf.io.is_jpeg(content)
        photo = tf.cond(
            is_jpeg,
            lambda: tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE"),
            lambda: _over_white(tf.io.decode_png(content, channels=4)),
        )
        result = operation(tf.ensure_shape(photo, [None, None, 3]), *rest)
        return tf.cond(
            is_jpeg,
            # As `images` writes them: halving the resolution of saturated colours shows.
            lambda: tf.io.encode_jpeg(result, quality=JPEG_QUALITY, chroma_downsampling=False),
            lambda: tf.io.encode_png(result),
        )

    given = (files, *_for_each(files, options))
    return tf.map_fn(one, given, fn_output_signature=tf.string, parallel_iterations=1)


def _for_each(pictures: tf.Tensor, options: tuple[tf.Tensor, ...]) -> list[tf.Tensor]:
    """Repeats options of one row for every picture."""
    count = tf.shape(pictures)[:1]
    return [tf.broadcast_to(o, tf.concat([count, tf.shape(o)[1:]], 0)) for o in options]


def _over_white(picture: tf.Tensor) -> tf.Tensor:
    """Lays uint8 RGBA over white, as the net sees transparent pictures everywhere."""
    colour, alpha = tf.split(tf.cast(picture, tf.float32), [3, 1], -1)
    return tf.cast(tf.round(255.0 + (colour - 255.0) * alpha / 255.0), tf.uint8)
