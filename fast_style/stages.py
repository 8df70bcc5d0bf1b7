"""Transform nets as sequences of convolutions, so that any part of any map can be computed alone.

A net is local except for its norms. With the statistics of the norms given, a rectangle of any
map depends on a rectangle of the map before it, and on what that map's border mirrors. This module
says which. `transform_net` computes whole maps; both use the functions of `layers`.

Words: a map's *grid* is its positions as its convolution gives them. Maps in the phase layout (see
`layers`) have four pixels at each position; their *plain* form has twice the height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from fast_style.layers import (
    conv,
    fold_nearest_x2,
    fold_nearest_x4_stride_2,
    in_phases,
    phase_kernel_9x9,
)
from fast_style.transform_net import (
    BORDER,
    JOHNSON_EPSILON,
    MIN_SIZE,
    SLIM_EPSILON,
    Weights,
    architecture,
)


@dataclass(frozen=True)
class Stage:
    """One convolution, and what follows it up to the next one.

    Output position i of an axis reads the `taps` positions from `stride` * i - `low` on.

    Attributes:
      weight: Name of the kernel.
      stride: Positions read per position given.
      taps: Positions of an axis that one output position reads.
      low: Positions mirrored at the low side of an axis.
      high: The same at the high side.
      mirror: Whether the border is reflected around its outermost pixel, or repeats it.
      reads: The form of the map before it: 'plain', its 'phases', or 'blocks', the plain form
        regrouped into 2x2 blocks after its border has been mirrored.
      fold: From the kernel as stored to the one that convolves.
      phases: Whether the output is in the phase layout.
      norm: 'instance', 'bias' for an offset alone, or none.
      prefix: What the names of scale, offset and bias start with; none where there are none.
      relu: Whether a ReLU follows.
      wide: Whether what follows is computed in float32 whatever the type of the features.
    """

    weight: str
    stride: int = 1
    taps: int = 3
    low: int = 1
    high: int = 1
    mirror: Literal["reflect", "symmetric"] = "reflect"
    reads: Literal["plain", "phases", "blocks"] = "plain"
    fold: Callable[[tf.Tensor], tf.Tensor] | None = None
    phases: bool = False
    norm: Literal["instance", "bias"] | None = "instance"
    prefix: str | None = None
    relu: bool = True
    wide: bool = False

    def size(self, size: int) -> int:
        """Returns the length of the output's axis, from the length that is read."""
        return (size + self.low + self.high - self.taps) // self.stride + 1

    def sources(self, start: int, stop: int, size: int) -> np.ndarray:
        """Returns which positions of an axis are read for the output positions start..stop - 1.

        Args:
          start: First output position.
          stop: One after the last.
          size: Length of the axis that is read.

        Returns:
          [(stop - start - 1) * stride + taps] int with values in 0..size-1.
        """
        first = self.stride * start - self.low
        last = self.stride * (stop - 1) - self.low + self.taps
        positions = np.arange(first, last)
        return (
            reflected(positions, size)
            if self.mirror == "reflect"
            else np.clip(positions, 0, size - 1)
        )


@dataclass(frozen=True)
class Residual:
    """A block that adds the output of its stages to its input."""

    stages: tuple[Stage, ...]


Element = Stage | Residual


@dataclass(frozen=True)
class NetStages:
    """A net as a sequence.

    Attributes:
      front: Convolutions from the picture down to a quarter of its resolution.
      blocks: Residual blocks at that resolution.
      tail: Convolutions back up; the last one gives what tanh turns into pixels.
      border: Pixels reflected at each side of the picture before the first convolution.
      multiple: The sides of the bordered picture are made a multiple of this, at the high side.
      crop: Rows and columns of the last map before the picture's first.
      epsilon: Of the norms.
    """

    front: tuple[Stage, ...]
    blocks: tuple[Residual, ...]
    tail: tuple[Stage, ...]
    border: int
    multiple: int
    crop: int
    epsilon: float

    @property
    def elements(self) -> tuple[Element, ...]:
        """The whole sequence."""
        return (*self.front, *self.blocks, *self.tail)

    def source_positions(self, size: int) -> np.ndarray:
        """Returns the pixel of the picture at each position of an axis of the first map.

        Args:
          size: Length of the picture's axis, at least 1. Below `MIN_SIZE` it is reflected up to
            that first, as `stylize.stylize_batch` does.

        Returns:
          [border + size + border, or a little more] int with values in 0..size-1.
        """
        enlarged = max(size, MIN_SIZE)
        after = self.border + (-enlarged) % self.multiple
        return reflected(reflected(np.arange(-self.border, enlarged + after), enlarged), size)


def reflected(positions: np.ndarray, size: int) -> np.ndarray:
    """Returns positions outside 0..size-1 reflected back, with period 2 * (size - 1)."""
    around = np.mod(positions, max(2 * (size - 1), 1))
    return np.minimum(around, 2 * (size - 1) - around) if size > 1 else np.zeros_like(around)


def net_stages(arch: str) -> NetStages:
    """Returns an architecture as a sequence.

    Raises:
      ValueError: If `arch` is unknown.
    """
    architecture(arch)
    return _NETS[arch]


def _johnson() -> NetStages:
    def stage(name: str, **settings: Any) -> Stage:
        return Stage(f"{name}/weight", prefix=name, **settings)

    def up(name: str) -> Stage:
        return stage(name, mirror="symmetric", fold=fold_nearest_x2, phases=True)

    return NetStages(
        front=(
            stage("conv1", taps=9, low=0, high=0),
            stage("conv2", stride=2),
            stage("conv3", stride=2),
        ),
        blocks=tuple(
            Residual((stage(f"res{block}/conv1"), stage(f"res{block}/conv2", relu=False)))
            for block in range(1, 6)
        ),
        tail=(
            up("up1"),
            up("up2"),
            stage(
                "out",
                taps=5,
                low=0,
                high=0,
                reads="phases",
                fold=phase_kernel_9x9,
                phases=True,
                norm="bias",
                relu=False,
                wide=True,
            ),
        ),
        border=BORDER + 4,
        multiple=4,
        crop=BORDER - 4,
        epsilon=JOHNSON_EPSILON,
    )


def _slim2016() -> NetStages:
    def residual(name: str, **settings: Any) -> Stage:
        return Stage(f"{name}/weight", norm=None, **settings)

    def up(name: str) -> Stage:
        return Stage(
            f"{name}/conv_transpose/conv/weight",
            taps=2,
            high=0,
            mirror="symmetric",
            fold=fold_nearest_x4_stride_2,
            phases=True,
        )

    return NetStages(
        front=(
            Stage("conv1/conv/weight", taps=9, low=4, high=4),
            Stage("conv2/conv/weight", stride=2),
            Stage("conv3/conv/weight", stride=2),
        ),
        blocks=tuple(
            Residual(
                (
                    residual(f"res{block}/residual/conv"),
                    residual(f"res{block}/residual/conv_1", relu=False),
                )
            )
            for block in range(1, 6)
        ),
        tail=(
            up("deconv1"),
            up("deconv2"),
            Stage(
                "deconv3/conv/weight",
                stride=2,
                taps=10,
                low=4,
                high=4,
                reads="blocks",
                fold=phase_kernel_9x9,
                phases=True,
                relu=False,
                wide=True,
            ),
        ),
        border=BORDER,
        multiple=1,
        crop=BORDER,
        epsilon=SLIM_EPSILON,
    )


_NETS = {"johnson": _johnson(), "slim2016": _slim2016()}


# --- geometry ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """One axis of a map.

    Attributes:
      size: Positions.
      phases: Whether each holds two pixels of the plain form.
      scale: Picture pixels from one position to the next.
    """

    size: int
    phases: bool = False
    scale: float = 1.0

    def read_size(self, stage: Stage) -> int:
        """Returns how many positions a stage finds when it reads this map."""
        return 2 * self.size if self._spread(stage) else self.size

    def _spread(self, stage: Stage) -> bool:
        return self.phases and stage.reads != "phases"

    def after(self, element: Element) -> Grid:
        """Returns the axis of the map that a stage or a block makes of this one."""
        if isinstance(element, Residual):
            return self
        scale = element.stride * (self.scale / 2 if self._spread(element) else self.scale)
        return Grid(element.size(self.read_size(element)), element.phases, scale)

    def window(self, stage: Stage, start: int, stop: int) -> tuple[int, int, np.ndarray]:
        """Returns what a stage needs for its output positions start..stop - 1.

        Returns:
          The range of this grid that it needs, and for each position it reads the place in that
          range's plain form (or in the range, if the stage reads phases).
        """
        sources = stage.sources(start, stop, self.read_size(stage))
        low, high = int(sources.min()), int(sources.max()) + 1
        if self._spread(stage):
            low, high = low // 2, -(-high // 2)
            return low, high, sources - 2 * low
        return low, high, sources - low


def plan_axis(
    grid: Grid, elements: Sequence[Element], start: int, stop: int
) -> tuple[int, int, list[np.ndarray]]:
    """Says, along one axis, how to compute a part of the map at the end of a sequence.

    Args:
      grid: The map that the sequence starts from.
      elements: Stages and blocks in order.
      start: First position wanted of the last one's output.
      stop: One after the last position wanted.

    Returns:
      The range needed of the first map, and the positions to take before each convolution, in the
      order in which `apply_elements` needs them.
    """
    grids = [grid]
    for element in elements:
        grids.append(grids[-1].after(element))
    takes: list[np.ndarray] = []
    for element, before in zip(reversed(elements), reversed(grids[:-1]), strict=True):
        if isinstance(element, Residual):
            low, high, inner = plan_axis(before, element.stages, start, stop)
            # What the block adds to lies somewhere within what its first convolution needs.
            takes = [*inner, np.arange(start - low, stop - low), *takes]
            start, stop = low, high
        else:
            start, stop, take = before.window(element, start, stop)
            takes = [take, *takes]
    return start, stop, takes


# --- computation ---------------------------------------------------------------------------------

Norm = Callable[[tf.Tensor, Stage], tf.Tensor]
Take = tuple[tf.Tensor, tf.Tensor]  # Rows and columns.


def take(x: tf.Tensor, rows_columns: Take) -> tf.Tensor:
    """Returns rows and columns of a map, given by number.

    Args:
      x: [N, H, W, C].
      rows_columns: Numbers, of which each is the one before it plus or minus 1, or the same.
    """
    rows, columns = rows_columns
    height, width = tf.size(rows), tf.size(columns)
    # Away from the picture's border nothing is mirrored: it is a rectangle, often all there is,
    # which is not copied. In steps of at most 1, so many positions lead from the first to the last
    # only through all others.
    return tf.cond(
        (rows[-1] - rows[0] == height - 1) & (columns[-1] - columns[0] == width - 1),
        lambda: tf.slice(x, [0, rows[0], columns[0], 0], [-1, height, width, -1]),
        lambda: tf.gather(tf.gather(x, rows, axis=1), columns, axis=2),
    )


def convolve(x: tf.Tensor, stage: Stage, weights: Weights, taken: Take, *, phases: bool) -> Any:
    """Takes what a stage reads and convolves it.

    Args:
      x: [N, H, W, C], the map before it.
      stage: The stage.
      weights: The net's.
      taken: Rows and columns to take of what it reads.
      phases: Whether `x` is in the phase layout.

    Returns:
      [N, H', W', D], before the norm; in the phase layout if the stage says so.
    """
    if phases and stage.reads != "phases":
        x = tf.nn.depth_to_space(x, 2)
    x = take(x, taken)
    kernel = weights[stage.weight]
    if stage.fold is not None:
        kernel = stage.fold(kernel)
    # Regrouping is what halves the resolution of 'blocks', not the convolution.
    x = (
        conv(tf.nn.space_to_depth(x, 2), kernel)
        if stage.reads == "blocks"
        else conv(x, kernel, stage.stride)
    )
    return tf.cast(x, tf.float32) if stage.wide else x


def finish(x: tf.Tensor, stage: Stage, norm: Norm) -> tf.Tensor:
    """Applies what follows a stage's convolution: its norm, and its ReLU."""

    def pointwise(x: tf.Tensor) -> tf.Tensor:
        if stage.norm is not None:
            x = norm(x, stage)
        return tf.nn.relu(x) if stage.relu else x

    return in_phases(pointwise, x) if stage.phases else pointwise(x)


def apply_elements(
    x: tf.Tensor,
    elements: Sequence[Element],
    weights: Weights,
    takes: Sequence[Take],
    norm: Norm,
    *,
    phases: bool = False,
) -> tf.Tensor:
    """Computes a part of the last map of a sequence, up to where its norm would come.

    A block at the end of the sequence is finished; a stage there is left as its convolution gives
    it, because the statistics of its norm may be what is wanted.

    Args:
      x: [N, H, W, C], the part of the first map that `plan_axis` asks for.
      elements: Stages and blocks.
      weights: The net's.
      takes: From `plan_axis`, rows and columns.
      norm: (map [N, H, W, C], stage) -> normalized map.
      phases: Whether `x` is in the phase layout.
    """
    left = list(takes)
    for index, element in enumerate(elements):
        if isinstance(element, Residual):
            count = len(element.stages)
            inner = apply_elements(x, element.stages, weights, left[:count], norm)
            inner = finish(inner, element.stages[-1], norm)
            x = take(x, left[count]) + inner
            left = left[count + 1 :]
            phases = False
        else:
            x = convolve(x, element, weights, left.pop(0), phases=phases)
            phases = element.phases
            if index < len(elements) - 1:
                x = finish(x, element, norm)
    return x


def channels(stage: Stage, weights: Weights) -> int:
    """Returns the number of channels of a stage's output in its plain form."""
    return int(weights[stage.weight].shape[-1])


def scale_and_offset(
    stage: Stage, weights: Mapping[str, np.ndarray], mix: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a norm's scale and offset for a mix of styles.

    Args:
      stage: A stage with a norm.
      weights: The net's.
      mix: [S] float32.

    Returns:
      [C] float32 each; 1 and 0 where the norm has none.
    """
    count = channels(stage, weights)
    scale, offset = np.ones(count, np.float32), np.zeros(count, np.float32)
    if stage.prefix is None:
        return scale, offset
    if stage.norm == "bias":
        return scale, mix @ weights[f"{stage.prefix}/bias"]
    return mix @ weights[f"{stage.prefix}/scale"], mix @ weights[f"{stage.prefix}/offset"]
