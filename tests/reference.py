"""Independent float64 NumPy formulas, written from the papers' text and not from our code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

MEANS = np.array([123.68, 116.78, 103.94])


def convolve(x: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    """[N,H,W,C] * [k,k,C,D], no padding: one shifted product per tap."""
    k = kernel.shape[0]
    height = (x.shape[1] - k) // stride + 1
    width = (x.shape[2] - k) // stride + 1
    out = np.zeros((x.shape[0], height, width, kernel.shape[3]))
    for row in range(k):
        for column in range(k):
            rows = slice(row, row + stride * (height - 1) + 1, stride)
            columns = slice(column, column + stride * (width - 1) + 1, stride)
            out += x[:, rows, columns] @ kernel[row, column]
    return out


def reflect_pad(x: np.ndarray, size: int) -> np.ndarray:
    return np.pad(x, ((0, 0), (size, size), (size, size), (0, 0)), mode="reflect")


def reflect_convolve(x: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    return convolve(reflect_pad(x, kernel.shape[0] // 2), kernel, stride)


def normalize(
    x: np.ndarray,
    epsilon: float,
    scale: np.ndarray | float = 1.0,
    offset: np.ndarray | float = 0.0,
) -> np.ndarray:
    mean = x.mean(axis=(1, 2), keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=(1, 2), keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * scale + offset


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.0)


def enlarge(x: np.ndarray, factor: int) -> np.ndarray:
    return x.repeat(factor, axis=1).repeat(factor, axis=2)


def slim2016(weights: Mapping[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """The 2016 net: nearest x4 and stride 2 as such, padding at every convolution."""
    w = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    height, width = images.shape[1:3]
    x = reflect_pad(images.astype(np.float64) - MEANS, 10)
    for name, stride in (("conv1", 1), ("conv2", 2), ("conv3", 2)):
        x = relu(normalize(reflect_convolve(x, w[f"{name}/conv/weight"], stride), 1e-9))
    for block in range(1, 6):
        y = relu(reflect_convolve(x, w[f"res{block}/residual/conv/weight"]))
        x = x + reflect_convolve(y, w[f"res{block}/residual/conv_1/weight"])
    for name in ("deconv1", "deconv2"):
        y = reflect_convolve(enlarge(x, 4), w[f"{name}/conv_transpose/conv/weight"], 2)
        x = relu(normalize(y, 1e-9))
    x = normalize(reflect_convolve(x, w["deconv3/conv/weight"]), 1e-9)
    x = (np.tanh(x) + 1.0) * 127.5
    return x[:, 10:-10, 10:-10][:, :height, :width]


def johnson(
    weights: Mapping[str, np.ndarray], images: np.ndarray, style_weights: np.ndarray
) -> np.ndarray:
    """The default net: nearest x2 and 3x3 as such, one border around the picture."""
    w = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    height, width = images.shape[1:3]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        scale = (style_weights @ w[f"{name}/scale"])[:, None, None, :]
        offset = (style_weights @ w[f"{name}/offset"])[:, None, None, :]
        return normalize(x, 1e-5, scale, offset)

    borders = ((0, 0), (14, 14 + -height % 4), (14, 14 + -width % 4), (0, 0))
    x = np.pad(images.astype(np.float64) - MEANS, borders, mode="reflect")
    x = relu(norm(convolve(x, w["conv1/weight"]), "conv1"))
    for name in ("conv2", "conv3"):
        x = relu(norm(reflect_convolve(x, w[f"{name}/weight"], 2), name))
    for block in range(1, 6):
        y = relu(norm(reflect_convolve(x, w[f"res{block}/conv1/weight"]), f"res{block}/conv1"))
        x = x + norm(reflect_convolve(y, w[f"res{block}/conv2/weight"]), f"res{block}/conv2")
    for name in ("up1", "up2"):
        x = relu(norm(reflect_convolve(enlarge(x, 2), w[f"{name}/weight"]), name))
    x = reflect_convolve(x, w["out/weight"]) + (style_weights @ w["out/bias"])[:, None, None, :]
    x = (np.tanh(x) + 1.0) * 127.5
    return x[:, 10 : 10 + height, 10 : 10 + width]


def vgg(
    weights: Mapping[str, np.ndarray],
    name: str,
    layers: Sequence[str],
    images: np.ndarray,
    pixel_scale: float = 1.0,
) -> dict[str, np.ndarray]:
    """A VGG's features of layers such as 'conv1/conv1_2', all of those down to the deepest."""
    x = (images.astype(np.float64) - MEANS) / pixel_scale
    found, block = {}, layers[0].split("/")[0]
    for layer in layers:
        if layer.split("/")[0] != block:
            block = layer.split("/")[0]
            count, height, width, channels = x.shape
            x = x[:, : height // 2 * 2, : width // 2 * 2]
            x = x.reshape(count, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
        kernel, bias = (weights[f"{name}/{layer}/{kind}"] for kind in ("weights", "biases"))
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        found[layer] = x = relu(convolve(padded, kernel.astype(np.float64)) + bias)
    return found


def gram(features: np.ndarray) -> np.ndarray:
    """[H,W,C] -> [C,C]."""
    height, width, channels = features.shape
    flat = features.reshape(-1, channels).astype(np.float64)
    return flat.T @ flat / (height * width * channels)
