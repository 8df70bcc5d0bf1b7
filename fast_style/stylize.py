"""Stylizer: a trained model that turns pictures of any size into styled ones."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from numbers import Integral
from typing import Any, overload

import numpy as np
import tensorflow as tf

from fast_style.checkpoints import Model, load_model
from fast_style.effects import grained, recolour, rescale_styled, weaken
from fast_style.hardware import resolve_precision
from fast_style.layers import pad_image
from fast_style.memory import fits_whole
from fast_style.resample import levels, pixels_like, resized, size_within
from fast_style.stylize_options import FAST_TILE, MAX_STYLE_WEIGHT, StylizeOptions, Tile
from fast_style.tiling import BeforeTile, Sink, TiledNet
from fast_style.transform_net import MIN_SIZE, Weights, architecture, transform

_logger = logging.getLogger(__name__)

_AUTO_TILE = 512  # Larger exact tiles are not faster, and need more memory.
_THUMBNAIL = 1024  # Long side of the picture that fast tiles take their statistics from.
_BATCH_PIXELS = 2**20


class Stylizer:
    """A loaded model. It is traced once, and that one graph serves pictures of every size.

    A picture of exactly one colour gives one colour, as the nets' formulas say: the norms would
    make noise of its rounding, as they make strokes of the least thing that varies. Large pictures
    are cut into tiles (`tile`):

    - 'auto': whole where memory allows, else exactly as by a side in pixels.
    - 'off': always whole.
    - A side in pixels: *exact* tiles. The norms' statistics are those of the whole picture, and so
      is the result: in float32 at most one level differs, where a value lies between two. Maps are
      kept in temporary files.
    - 'fast' or ('fast', side): the statistics are those of a thumbnail, and tiles are computed in
      one go. There are no seams; contrasts and colours differ a little from the whole picture's.

    Attributes:
      model: What was loaded: architecture, style names, metadata.
      precision: 'float32' or 'bfloat16', what it computes in.
      run: The compiled net for one picture: (float32 [1, H, W, 3] in 0..255, float32 [1, S]) ->
        float32, same shape and range.
      run_many: The same for any number of pictures.
    """

    def __init__(self, model: Model, *, precision: str = "auto") -> None:
        """Prepares a model.

        Args:
          model: From `load_model`.
          precision: 'float32', 'bfloat16', or 'auto' for what suits the hardware. In bfloat16
            pictures differ from float32 ones by about a level on average.
        """
        self.model = model
        self.precision = resolve_precision(precision)
        self.run = make_stylize_function(model, self.precision, tf.float32, batch_size=1)
        self.run_many = make_stylize_function(model, self.precision, tf.float32)
        self._tiled = TiledNet(model, self.precision)

    @overload
    def stylize(
        self,
        image: np.ndarray,
        *,
        style_weights: Sequence[float] | None = None,
        strength: float = 1.0,
        preserve_color: bool = False,
        stroke_scale: float = 1.0,
        grain: float = 0.0,
        max_size: int | None = None,
        tile: Tile = "auto",
        out: np.ndarray | None = None,
        before_tile: BeforeTile = ...,
    ) -> np.ndarray: ...

    @overload
    def stylize(
        self,
        image: list[np.ndarray],
        *,
        style_weights: Sequence[float] | None = None,
        strength: float = 1.0,
        preserve_color: bool = False,
        stroke_scale: float = 1.0,
        grain: float = 0.0,
        max_size: int | None = None,
        tile: Tile = "auto",
        before_tile: BeforeTile = ...,
    ) -> list[np.ndarray]: ...

    def stylize(
        self,
        image: np.ndarray | list[np.ndarray],
        *,
        style_weights: Sequence[float] | None = None,
        strength: float = 1.0,
        preserve_color: bool = False,
        stroke_scale: float = 1.0,
        grain: float = 0.0,
        max_size: int | None = None,
        tile: Tile = "auto",
        out: np.ndarray | None = None,
        before_tile: BeforeTile = lambda: None,
    ) -> np.ndarray | list[np.ndarray]:
        """Stylizes one picture, or each of a list.

        Args:
          image: uint8 or uint16 [H, W, 3] RGB of any size from 1x1, or a list of such. Pictures of
            a list that have one size are computed together, as long as they are small.
          style_weights: How much of each of the model's styles, from -10 to 10 and usually with
            sum 1; none takes the first style.
          strength: 0 is the photo, 1 the full style; see `effects.weaken`.
          preserve_color: Whether to keep the photo's chroma, and take only brightness from the
            style.
          stroke_scale: 0.5 to 4, how much larger strokes are: the net sees the picture so much
            smaller, and fine detail comes from the photo.
          grain: 0 to 32, levels of noise that the net sees on the photo, which then is nowhere
            perfectly flat; see `effects.grained`.
          max_size: Long side of the result at most, in pixels.
          tile: What to do with large pictures; see the class.
          out: Where to write the result of one picture, of its shape and type; must not be `image`.
          before_tile: Called before each tile of a large picture; what it raises ends the work. A
            picture that is computed whole cannot be stopped.

        Returns:
          The same type and, unless `max_size` says otherwise, the same size; or a list of such.

        Raises:
          TypeError: If a picture is not a uint8 or uint16 array.
          ValueError: If its shape is not [H, W, 3], or an option is out of range or does not fit
            the model.
          FastStyleError: If the disk has no room for the temporary files of exact tiles.
        """
        options = StylizeOptions(
            style_weights=style_weights,
            strength=strength,
            preserve_color=preserve_color,
            stroke_scale=stroke_scale,
            grain=grain,
            max_size=max_size,
            tile=tile,
        )
        names = self.model.style_names
        if style_weights is None:
            style_weights = [1.0] + [0.0] * (len(names) - 1)
        self.check_style_weights(style_weights)
        mix = np.array(list(style_weights), np.float32)
        if not isinstance(image, list):
            return self._some([image], mix, options, before_tile, out)[0]
        if out is not None:
            raise ValueError("out: expected none for a list of pictures")
        results: list[Any] = [None] * len(image)
        for indices in _batches(image):
            batch = [image[index] for index in indices]
            styled = self._some(batch, mix, options, before_tile)
            for index, result in zip(indices, styled, strict=True):
                results[index] = result
        return results

    def warm_up(self) -> None:
        """Traces the net and runs it once, which the first picture would have to wait for."""
        mix = np.eye(1, len(self.model.style_names), dtype=np.float32)
        self.run(np.zeros([1, 64, 64, 3], np.float32), mix)

    def temporary_bytes(self, height: int, width: int) -> int:
        """Returns how much disk space exact tiles need for a picture of that size."""
        return self._tiled.temporary_bytes(height, width)

    def _some(
        self,
        images: list[np.ndarray],
        mix: np.ndarray,
        options: StylizeOptions,
        before_tile: BeforeTile,
        out: np.ndarray | None = None,
    ) -> list[np.ndarray]:
        """Stylizes pictures of one shape and type; several of them only if they are small."""
        for image in images:
            _check(image)
        size = images[0].shape[:2]
        if options.max_size is not None and options.max_size < max(size):
            size = size_within(size[0], size[1], options.max_size)
            _logger.info("scaled down to %dx%d for max_size", size[1], size[0])
        photos = [resized(image, size[0], size[1]) for image in images]
        if out is not None and (out.shape != photos[0].shape or out.dtype != photos[0].dtype):
            raise ValueError(
                f"out: expected {photos[0].dtype} {list(photos[0].shape)}, "
                f"got {out.dtype} {list(out.shape)}"
            )
        targets = [np.empty_like(photo, order="C") if out is None else out for photo in photos]
        if options.strength > 0.0:
            self._stroked(photos, targets, mix, options, before_tile)
        for photo, target in zip(photos, targets, strict=True):
            if options.preserve_color and options.strength > 0.0:
                recolour(target, photo)
            weaken(target, photo, options.strength)
        return targets

    def _stroked(
        self,
        photos: list[np.ndarray],
        targets: list[np.ndarray],
        mix: np.ndarray,
        options: StylizeOptions,
        before_tile: BeforeTile,
    ) -> None:
        """Writes the full style, in strokes of the size asked for."""
        if options.stroke_scale == 1.0:
            self._full(photos, targets, mix, options, before_tile)
            return
        size = [max(round(side / options.stroke_scale), 1) for side in photos[0].shape[:2]]
        smaller = [resized(photo, size[0], size[1]) for photo in photos]
        styled = [np.empty_like(picture) for picture in smaller]
        self._full(smaller, styled, mix, options, before_tile)
        for picture, photo, target in zip(styled, photos, targets, strict=True):
            rescale_styled(picture, photo, target)

    def _full(
        self,
        photos: list[np.ndarray],
        targets: list[np.ndarray],
        mix: np.ndarray,
        options: StylizeOptions,
        before_tile: BeforeTile,
    ) -> None:
        """Writes the net's output; for a picture of one colour, by its formula."""
        plain, tile = photos, options.tile
        photos = [grained(photo, options.grain) for photo in plain]
        varied = []
        for index, (photo, target) in enumerate(zip(photos, targets, strict=True)):
            if _is_flat(photo):
                pixel = architecture(self.model.arch).flat_pixel(self.model.weights, mix)
                target[:] = pixels_like(pixel, target.dtype)
            else:
                varied.append(index)
        if not varied:
            return
        plain, photos, targets = (
            [pictures[i] for i in varied] for pictures in (plain, photos, targets)
        )
        height, width = photos[0].shape[:2]
        side = max(height, width)
        if isinstance(tile, Integral) and int(tile) < side:
            self._exact(photos, targets, mix, int(tile), before_tile)
            return
        fast_side = tile[1] if isinstance(tile, tuple) else FAST_TILE
        if (tile == "fast" or isinstance(tile, tuple)) and fast_side < side:
            # Scaled down first: in a thumbnail of a grained photo the grain would be averaged out.
            size = size_within(height, width, _THUMBNAIL)
            thumbnails = [grained(resized(photo, *size), options.grain) for photo in plain]
            self._fast(photos, thumbnails, targets, mix, fast_side, before_tile)
            return
        if tile == "auto" and not fits_whole(height, width, channels=self.model.width):
            self._exact(photos, targets, mix, _AUTO_TILE, before_tile)
            return
        try:
            pictures = np.stack([levels(photo) for photo in photos])
            run = self.run if len(photos) == 1 else self.run_many
            styled = run(pictures, np.tile(mix, (len(photos), 1))).numpy()
        except tf.errors.ResourceExhaustedError:  # A GPU's memory is not what was looked at.
            if tile != "auto":
                raise
            self._exact(photos, targets, mix, _AUTO_TILE, before_tile)
            return
        for picture, target in zip(styled, targets, strict=True):
            target[:] = pixels_like(picture, target.dtype)

    def _exact(
        self,
        photos: list[np.ndarray],
        targets: list[np.ndarray],
        mix: np.ndarray,
        side: int,
        before_tile: BeforeTile,
    ) -> None:
        for photo, target in zip(photos, targets, strict=True):
            _logger.info(
                "%dx%d: exact tiles of %d px, with temporary files of up to %.1f GB",
                photo.shape[1],
                photo.shape[0],
                side,
                self.temporary_bytes(*photo.shape[:2]) / 1e9,
            )
            self._tiled.exact(photo, mix, _writer(target), tile=side, before_tile=before_tile)

    def _fast(
        self,
        photos: list[np.ndarray],
        thumbnails: list[np.ndarray],
        targets: list[np.ndarray],
        mix: np.ndarray,
        side: int,
        before_tile: BeforeTile,
    ) -> None:
        for photo, thumbnail, target in zip(photos, thumbnails, targets, strict=True):
            _logger.info(
                "%dx%d: fast tiles of %d px, with the statistics of a thumbnail of %dx%d px; "
                "colours and contrasts may differ a little from exact tiles",
                photo.shape[1],
                photo.shape[0],
                side,
                thumbnail.shape[1],
                thumbnail.shape[0],
            )
            self._tiled.fast(
                photo, thumbnail, mix, _writer(target), tile=side, before_tile=before_tile
            )

    def one_style(self, name: str) -> list[float]:
        """Returns the `style_weights` of one of the model's styles alone.

        Raises:
          ValueError: If the model has none of that name.
        """
        names = self.model.style_names
        if name not in names:
            raise ValueError(f"expected one of {', '.join(names)}, got {name!r}")
        place = names.index(name)
        return [float(each == place) for each in range(len(names))]

    def check_style_weights(self, style_weights: Sequence[float]) -> None:
        """Checks that there is one number per style, and none beyond `MAX_STYLE_WEIGHT`.

        Raises:
          ValueError: If not.
        """
        names = self.model.style_names
        try:
            given = np.asarray(style_weights, np.float64)
        except (TypeError, ValueError, OverflowError):  # Text, or lists of unequal length.
            given = np.array(np.nan)
        if given.shape != (len(names),) or not (np.abs(given) <= MAX_STYLE_WEIGHT).all():
            raise ValueError(
                f"expected {len(names)} numbers from {-MAX_STYLE_WEIGHT} to {MAX_STYLE_WEIGHT}, "
                f"for {', '.join(names)}, got {style_weights}"
            )


def _check(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype not in (np.uint8, np.uint16):
        kind = getattr(image, "dtype", type(image).__name__)
        raise TypeError(f"image: expected a NumPy array of uint8 or uint16, got {kind}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image: expected shape [H, W, 3], got {list(image.shape)}")


def _is_flat(image: np.ndarray) -> bool:
    """Whether all pixels are alike; a row at a time, as most pictures differ in the first one."""
    first = image[0]
    return bool((first == first[0]).all()) and all((row == first).all() for row in image)


def _batches(images: list[np.ndarray]) -> list[list[int]]:
    """Groups pictures of one shape and type, up to `_BATCH_PIXELS` together; gives indices."""
    alike: dict[Any, list[int]] = {}
    for index, image in enumerate(images):
        _check(image)
        alike.setdefault((image.shape, image.dtype), []).append(index)
    batches = []
    for (shape, _), indices in alike.items():
        count = max(_BATCH_PIXELS // (shape[0] * shape[1]), 1)
        batches += [indices[i : i + count] for i in range(0, len(indices), count)]
    return batches


def _writer(target: np.ndarray) -> Sink:
    """Returns what writes tiles into a picture."""

    def write(top: int, left: int, values: np.ndarray) -> None:
        rows, columns = values.shape[:2]
        target[top : top + rows, left : left + columns] = pixels_like(values, target.dtype)

    return write


def load(path: str | os.PathLike[str], *, precision: str = "auto") -> Stylizer:
    """Loads a trained model.

    Args:
      path: A run's folder, a `.safetensors` file, or a checkpoint.
      precision: 'float32', 'bfloat16' or 'auto'.

    Raises:
      ModelError: If there is no model, or it is damaged.
    """
    return Stylizer(load_model(path), precision=precision)


def make_stylize_function(
    model: Model,
    precision: str,
    pixels: tf.DType = tf.uint8,
    *,
    batch_size: int | None = None,
) -> Any:
    """Returns the compiled net: (images [N, H, W, 3], float32 [N, S]) -> styled images.

    Weights are constants of the graph, so that what depends on them alone is computed once.

    Args:
      model: The trained net.
      precision: 'float32' or 'bfloat16'.
      pixels: Type of the images on both sides: uint8, or float32 in 0..255.
      batch_size: N, if it is always the same: traced and computed faster than any number.

    Raises:
      ValueError: If `precision` is not 'float32' or 'bfloat16'.
    """
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision: expected float32 or bfloat16, got {precision!r}")

    @tf.function(
        input_signature=[
            tf.TensorSpec([batch_size, None, None, 3], pixels, name="images"),
            tf.TensorSpec([batch_size, len(model.style_names)], tf.float32, name="style_weights"),
        ],
        autograph=False,
    )
    def run(images: tf.Tensor, style_weights: tf.Tensor) -> tf.Tensor:
        weights = {name: tf.constant(value) for name, value in model.weights.items()}
        return stylize_batch(model.arch, weights, images, style_weights, precision)

    return run


def stylize_batch(
    arch: str,
    weights: Weights,
    images: tf.Tensor,
    style_weights: tf.Tensor,
    precision: str,
) -> tf.Tensor:
    """Stylizes whole pictures of any size, as a user gets them.

    Args:
      arch: A key of `transform_net.ARCHITECTURES`.
      weights: The net's.
      images: uint8, or float32 in 0..255, [N, H, W, 3], H and W at least 1.
      style_weights: [N, S] float32.
      precision: 'float32' or 'bfloat16'.

    Returns:
      The type and shape of `images`; uint8 is rounded to the nearest level.
    """
    shape = tf.shape(images)
    # Pictures below the net's least size are reflected up to it, and cut back afterwards.
    missing = tf.maximum(MIN_SIZE - shape[1:3], 0)
    enlarged = pad_image(images, 0, (missing[0], missing[1]))
    styled = transform(arch, weights, enlarged, style_weights, dtype=precision)
    styled = styled[:, : shape[1], : shape[2]]
    if images.dtype == tf.uint8:
        styled = tf.cast(tf.round(styled), tf.uint8)
    return tf.ensure_shape(styled, images.shape)
