"""Names of the loss networks, and the shape of the VGGs; no TensorFlow, so configs can use it."""

from __future__ import annotations

VGG_BLOCKS = {
    "vgg_16": (2, 2, 3, 3, 3),
    "vgg_19": (2, 2, 4, 4, 4),
    "vgg_a": (1, 1, 2, 2, 2),
}
"""{VGG: convolutions in each block}."""

LOSS_MODELS = (
    *VGG_BLOCKS,
    "alexnet_v2",
    "overfeat",
    *(f"inception_v{version}" for version in (1, 2, 3)),
    *(f"resnet_v{version}_{depth}" for version in (1, 2) for depth in (50, 101, 152, 200)),
)
"""TF-Slim's names of all networks that a loss can look through."""


def vgg_convolutions(loss_model: str) -> tuple[str, ...]:
    """Names the convolutions of a VGG from shallow to deep: 'conv1_1', ...

    Raises:
      KeyError: If `loss_model` is not one of the VGGs.
    """
    blocks = enumerate(VGG_BLOCKS[loss_model], start=1)
    return tuple(f"conv{block}_{i}" for block, count in blocks for i in range(1, count + 1))


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
