"""Names of the loss networks, and the shape of the VGGs; no TensorFlow, so configs can use it."""

from __future__ import annotations

from pathlib import Path

VGG_BLOCKS = {
    "vgg_16": (2, 2, 3, 3, 3),
    "vgg_19": (2, 2, 4, 4, 4),
    "vgg_a": (1, 1, 2, 2, 2),
}
"""{VGG: convolutions in each block}."""

MINI = "vgg_mini"
"""The distilled network, see `mini_net`; its layers may be called by its teacher's names."""

MINI_LAYERS = tuple(
    f"vgg_16/conv{block}/conv{block}_{layer}" for block, layer in ((1, 2), (2, 2), (3, 3), (4, 3))
)
"""What those of its layers that have a metric are called in VGG16."""

BUNDLED = Path("pretrained/vgg_mini.safetensors")
"""The distilled network's weights, which come along with the project."""

MEAN_RGB = (123.68, 116.78, 103.94)
"""Mean of ImageNet's red, green and blue, as TF-Slim subtracts it.

Caffe's and MatConvNet's green is 116.779; the difference of 0.001 of 255 levels is far below what
8-bit pictures can show.
"""

LOSS_MODELS = (
    *VGG_BLOCKS,
    MINI,
    "alexnet_v2",
    "overfeat",
    *(f"inception_v{version}" for version in (1, 2, 3)),
    *(f"resnet_v{version}_{depth}" for version in (1, 2) for depth in (50, 101, 152, 200)),
)
"""All networks that a loss can look through: TF-Slim's by its names, and the distilled one."""


def vgg_convolutions(loss_model: str) -> tuple[str, ...]:
    """Names the convolutions of a VGG from shallow to deep: 'conv1_1', ...

    Raises:
      KeyError: If `loss_model` is not one of the VGGs.
    """
    blocks = enumerate(VGG_BLOCKS[loss_model], start=1)
    return tuple(f"conv{block}_{i}" for block, count in blocks for i in range(1, count + 1))


def vgg_width(layer: str) -> int:
    """Returns the channels of a VGG's convolution 'conv3/conv3_1': 64 to 512, twice per block."""
    return min(512, 32 << int(layer.split("/")[0].removeprefix("conv")))


def vgg_layers(loss_model: str) -> tuple[str, ...]:
    """Names the layers of a VGG that a loss can look at, from shallow to deep.

    Convolutions (after their ReLU) such as 'vgg_16/conv3/conv3_3', and poolings such as
    'vgg_16/pool3'.

    Raises:
      KeyError: If `loss_model` is not one of the VGGs.
    """
    names = []
    for block, convolutions in enumerate(VGG_BLOCKS[loss_model], start=1):
        names += [f"conv{block}/conv{block}_{i}" for i in range(1, convolutions + 1)]
        names.append(f"pool{block}")
    return tuple(f"{loss_model}/{name}" for name in names)


def default_weights_file(loss_model: str) -> str:
    """Returns where the weights of a network are expected, relative to where one works."""
    return BUNDLED.as_posix() if loss_model == MINI else f"pretrained/{loss_model}.ckpt"
