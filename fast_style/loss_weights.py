"""Weight files of loss networks, read variable by variable under TF-Slim's names.

Five formats hold the same numbers in different clothes. Each reader below gives them back as
TF-Slim names and lays them out, so the networks never learn where their weights came from:

| format | names | kernels | picture channels of conv1_1 |
|---|---|---|---|
| TF-Slim checkpoint, V1 file or V2 prefix | TF-Slim's | [height, width, in, out] | RGB |
| .npz, .safetensors | TF-Slim's | [height, width, in, out] | RGB |
| Keras .h5 (VGG16, VGG19) | block1_conv1 | [height, width, in, out] | BGR, flipped here |
| MatConvNet .mat (VGG16, VGG19) | conv1_1 | [width, height, in, out] | as its averageImage |

MatConvNet's published VGG files store averageImage as (123.68, 116.779, 103.939): they were turned
to RGB when they were converted from Caffe, so nothing is flipped. A file whose averageImage rises
instead of falling is still in Caffe's BGR order and is flipped.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fast_style.errors import WeightsError
from fast_style.files import find_bundled
from fast_style.loss_models import BUNDLED, MINI, vgg_convolutions
from fast_style.matlab import read_mat
from fast_style.provenance import file_sha256

# Tried in this order beside a weights file that does not exist.
KNOWN_SUFFIXES = (".ckpt", ".h5", ".safetensors", ".npz", ".mat")

# Networks whose weights `python -m fast_style fetch` can bring.
FETCHABLE = ("vgg_16", "vgg_19")

# Networks that Keras and MatConvNet publish weights of.
_PUBLISHED_ELSEWHERE = ("vgg_16", "vgg_19")

_MOST_ITEMS = 10_000  # of an HDF5 file; VGG19 with its optimizer has a few hundred
_LONGEST_REASON = 200  # characters of what a library says about a damaged file
# No variable of the networks here is half as large; damage and malice ask for any amount.
_MOST_BYTES = 1 << 30

# A table file of LevelDB's kind, which a V1 checkpoint is, ends in this number.
_V1_CHECKPOINT_END = 0xDB4775248B80FB57.to_bytes(8, "little")


class _OtherVgg(WeightsError):
    """A file holds the weights of the VGG that was not asked for."""

    def __init__(self, message: str, held: str) -> None:
        super().__init__(message)
        self.held = held


class WeightsFile(Mapping[str, np.ndarray]):
    """The variables of one file: TF-Slim name to float32 array, read when asked for.

    Looking up a name that the file lacks is a KeyError; a value that cannot be read, or that is
    not finite, is a WeightsError.
    """

    def __init__(self, path: Path, read_by_name: Mapping[str, Callable[[], Any]]) -> None:
        """Keeps one function per variable, which reads it from `path`."""
        self.path = path
        self._read_by_name = dict(read_by_name)

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads one variable."""
        read = self._read_by_name[name]
        try:
            values = np.asarray(read()).astype(np.float32)
        except WeightsError:
            raise
        # A damaged file fails anywhere inside its reader, with whatever that library raises.
        except Exception as error:
            reason = f"{_shown(name)} cannot be read: {_first_line(error)}"
            raise _damaged(self.path, reason) from error
        if not np.isfinite(values).all():
            raise _damaged(self.path, f"{_shown(name)} holds values that are not finite")
        return values

    def __iter__(self) -> Iterator[str]:
        """Goes through the names in sorted order."""
        return iter(sorted(self._read_by_name))

    def __len__(self) -> int:
        """Returns the number of variables."""
        return len(self._read_by_name)

    def __contains__(self, name: object) -> bool:
        """Tells whether the file has this variable, without reading it."""
        return name in self._read_by_name


def read_weights(
    path: str | Path, network_name: str, *, key: str = "loss_model_file"
) -> WeightsFile:
    """Opens a weights file of any known format; the content decides which, not the suffix.

    Args:
      path: The file, or the prefix of a V2 checkpoint (the name without '.index').
      network_name: TF-Slim's name, such as 'vgg_16'. Keras and MatConvNet files do not say whose
        weights they hold, and are read for VGG16 and VGG19 only.
      key: What the configuration calls the file, for messages; without '_file' it is what it calls
        the network.

    Returns:
      The variables under TF-Slim's names, conv1_1 taking RGB. Fully connected layers of Keras and
      MatConvNet files are left out.

    Raises:
      WeightsError: If the file is missing, is no weights file, is damaged, or holds the other VGG.
    """
    file = Path(path)
    reader = _reader(file, key)
    try:
        return WeightsFile(file, reader(file, network_name))
    except _OtherVgg as error:
        network_key = key.removesuffix("_file")
        raise WeightsError(
            f"{error}; set {network_key} to {error.held} or {key} to a file of {network_name}"
        ) from error
    except WeightsError:
        raise
    except Exception as error:
        raise _damaged(file, _first_line(error)) from error


def resolve_weights_file(
    path: str | Path, network_name: str = "", *, key: str = "loss_model_file"
) -> Path:
    """Finds a weights file, or one of the same stem in another format beside it.

    'pretrained/vgg_16.ckpt' is what published configurations name, while the same weights are
    much smaller as 'pretrained/vgg_16.h5': either serves.

    Args:
      path: What the user asked for: a file, the prefix of a V2 checkpoint, or one of its files.
      network_name: Whose weights these are; used to say how to get them. Of `MINI`, the path
        `BUNDLED` stands for the file that comes along with the project, wherever one works.
      key: What the configuration calls the path, for messages.

    Returns:
      The path to give to `read_weights`.

    Raises:
      WeightsError: If nothing is there, in two lines that say what to do.
    """
    asked = Path(re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", str(path)))
    if asked.name:
        for candidate in (asked, *(asked.with_suffix(suffix) for suffix in KNOWN_SUFFIXES)):
            if candidate.is_file() or _index_file(candidate).is_file():
                return candidate
        if network_name == MINI and asked == BUNDLED and (bundled := find_bundled(asked)):
            return bundled
    if network_name in FETCHABLE:
        advice = f"`python -m fast_style fetch {network_name}` gets it, or"
    elif network_name == MINI:
        advice = "`python -m fast_style distill` makes such a file;"
    else:
        advice = "Download a TF-Slim checkpoint of this network, and"
    owner = f" of the loss network {network_name}" if network_name else ""
    raise WeightsError(
        f"{path}: the weights{owner} are missing, here and under "
        f"{', '.join(suffix for suffix in KNOWN_SUFFIXES if suffix != asked.suffix)}.\n"
        f"{advice} point {key} at your own."
    )


def weights_sha256(path: str | Path) -> str:
    """Returns the SHA-256 of a weights file in hexadecimal, for provenance.

    A V2 checkpoint is hashed as its index followed by its data files in the order of their names.

    Raises:
      WeightsError: If the file cannot be read.
    """
    file = Path(path)
    index = _index_file(file)
    parts = [file] if file.is_file() else [index, *sorted(file.parent.glob(f"{file.name}.data-*"))]
    try:
        return file_sha256(*parts)
    except OSError as error:
        raise _unreadable(file, error) from error


def _reader(file: Path, key: str) -> Callable[[Path, str], Mapping[str, Callable[[], Any]]]:
    """Chooses a format by the first and last bytes."""
    if not file.is_file():
        if _index_file(file).is_file():
            return _open_checkpoint
        raise WeightsError(f"{file}: there is no such weights file; check {key}")
    try:
        with file.open("rb") as stream:
            head = stream.read(64)
            stream.seek(max(0, file.stat().st_size - 8))
            tail = stream.read(8)
    except OSError as error:
        raise _unreadable(file, error) from error
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return _open_keras
    if head.startswith(b"PK\x03\x04"):
        return _open_npz
    if head.startswith(b"MATLAB"):
        return _open_matconvnet
    if head[8:9] == b"{":
        return _open_safetensors
    if tail == _V1_CHECKPOINT_END:
        return _open_checkpoint
    raise WeightsError(
        f"{file}: not a weights file, or one that was cut short ({file.stat().st_size} bytes); "
        "expected a TF-Slim checkpoint, Keras .h5, MatConvNet .mat, .safetensors or .npz"
    )


def _open_checkpoint(file: Path, network_name: str) -> dict[str, Callable[[], Any]]:
    import tensorflow as tf  # Other formats are read without it.

    del network_name  # A checkpoint's names say whose they are.
    reader = tf.train.load_checkpoint(str(file))
    return {name: _later(reader.get_tensor, name) for name in reader.get_variable_to_shape_map()}


def _open_npz(file: Path, network_name: str) -> dict[str, Callable[[], Any]]:
    del network_name
    archive = zipfile.ZipFile(file)

    def read(member: str) -> np.ndarray:
        if archive.getinfo(member).file_size > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES:,} bytes")
        with archive.open(member) as stream:
            # Never unpickles: weights come from strangers, and a pickle runs what it likes.
            return np.lib.format.read_array(stream, allow_pickle=False)

    members = [member for member in archive.namelist() if member.endswith(".npy")]
    return {member.removesuffix(".npy"): _later(read, member) for member in members}


def _open_safetensors(file: Path, network_name: str) -> dict[str, Callable[[], Any]]:
    import safetensors

    del network_name
    archive = safetensors.safe_open(str(file), framework="np")
    return {name: _later(archive.get_tensor, name) for name in archive.keys()}


def _open_keras(file: Path, network_name: str) -> dict[str, Callable[[], Any]]:
    """Opens what Keras 1, 2 and 3 have written for their VGG16 and VGG19.

    The arrays of a layer are found by shape and by the layer's name somewhere in their path:
    'block1_conv1/block1_conv1_W_1:0', 'block1_conv1/block1_conv1/kernel:0',
    'model_weights/block1_conv1/...'. Keras 3's '.weights.h5' has no layer names, but numbers the
    convolutions in order: 'layers/conv2d_1/vars/0'.
    """
    import h5py  # TensorFlow depends on it.

    expected = _vgg_layers(file, network_name, "Keras")
    in_order = {f"conv2d_{i}" if i else "conv2d": layer for i, layer in enumerate(expected)}
    archive = h5py.File(file, "r")
    arrays: dict[str, dict[int, Any]] = {}

    for path, item in _datasets(archive):
        if path.startswith("optimizer"):
            continue
        if item.external or item.is_virtual:
            raise ValueError(f"{path[:_LONGEST_REASON]} is kept in another file")
        for part in path.split("/"):
            if match := re.fullmatch(r"block(\d)_(conv)(\d)", part):
                layer = "conv{0}_{2}".format(*match.groups())
            elif path.startswith("layers/") and part in in_order:
                layer = in_order[part]
            else:
                continue
            arrays.setdefault(layer, {})[len(item.shape)] = item
    return _vgg_variables(file, network_name, arrays, "Keras", flip_first=True)


def _datasets(archive: Any) -> Iterator[tuple[str, Any]]:
    """Gives the paths and datasets of an HDF5 file.

    Links to elsewhere are not followed. Not h5py's `visititems`, which never ends on some damaged
    files.

    Raises:
      ValueError: If there are more items than a VGG can have, as where a group holds itself.
    """
    import h5py

    left, seen = [("", archive)], 0
    while left:
        prefix, group = left.pop()
        names: list[bytes] = []
        group.id.links.iterate(names.append)
        seen += len(names)
        if seen > _MOST_ITEMS:
            raise ValueError(f"it has more than {_MOST_ITEMS:,} items")
        for name in sorted(names):
            if group.id.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                continue
            item = group[name]
            path = prefix + name.decode("utf-8", "replace")
            if isinstance(item, h5py.Group):
                left.append((f"{path}/", item))
            elif isinstance(item, h5py.Dataset):
                yield path, item


def _open_matconvnet(file: Path, network_name: str) -> dict[str, Callable[[], Any]]:
    """Opens MatConvNet's VGG16 and VGG19, of its older releases and of its newer ones."""
    content = read_mat(file, ("layers", "meta", "normalization"))
    arrays: dict[str, dict[int, Any]] = {}
    for layer in content["layers"]:
        if layer.get("type") != "conv":
            continue
        pair = layer["weights"] if "weights" in layer else (layer["filters"], layer["biases"])
        kernel, bias = np.asarray(pair[0]), np.asarray(pair[1]).reshape(-1)
        arrays[layer["name"]] = {4: kernel.swapaxes(0, 1), 1: bias}
    return _vgg_variables(
        file, network_name, arrays, "MatConvNet", flip_first=_average_is_bgr(content)
    )


def _average_is_bgr(content: Mapping[str, Any]) -> bool:
    """Tells whether averageImage rises from blue (103.9) to red (123.7)."""
    normalization = content.get("normalization") or content.get("meta", {}).get("normalization", {})
    average = np.asarray(normalization.get("averageImage", ()), np.float64)
    if average.size < 3:
        return False
    means = average.reshape(-1, 3).mean(axis=0)
    return bool(means[0] < means[2])


def _vgg_layers(file: Path, network_name: str, program: str) -> tuple[str, ...]:
    """Returns the convolutions 'conv1_1', ... of a VGG, in order."""
    if network_name not in _PUBLISHED_ELSEWHERE:
        raise WeightsError(
            f"{file}: {program} files are read for {' and '.join(_PUBLISHED_ELSEWHERE)} only, "
            f"not for {network_name}; give a TF-Slim checkpoint"
        )
    return vgg_convolutions(network_name)


def _vgg_variables(
    file: Path,
    network_name: str,
    arrays: Mapping[str, Mapping[int, Any]],
    program: str,
    *,
    flip_first: bool,
) -> dict[str, Callable[[], Any]]:
    """Names kernels (rank 4) and biases (rank 1) of VGG layers as TF-Slim does."""
    expected = _vgg_layers(file, network_name, program)
    found = [layer for layer in arrays if re.fullmatch(r"conv\d_\d", layer)]
    if not found:
        raise WeightsError(
            f"{file}: no VGG convolutions in this {program} file; "
            f"give one of {network_name}, such as Keras's or MatConvNet's own"
        )
    # The shallow layers of both networks have equal shapes: only the depth tells them apart.
    is_vgg_19 = "conv3_4" in found
    if is_vgg_19 != (network_name == "vgg_19") and (is_vgg_19 or "conv4_1" in found):
        held = "vgg_19" if is_vgg_19 else "vgg_16"
        raise _OtherVgg(f"{file}: holds the weights of {held}, not of {network_name}", held)
    variables: dict[str, Callable[[], Any]] = {}
    for layer in expected:
        scope = f"{network_name}/{layer.split('_')[0]}/{layer}"
        for rank, name in ((4, "weights"), (1, "biases")):
            if (item := arrays.get(layer, {}).get(rank)) is not None:
                flip = flip_first and layer == "conv1_1" and rank == 4
                variables[f"{scope}/{name}"] = _later(_flip_inputs if flip else _whole, item)
    return variables


def _later(function: Callable[[Any], Any], argument: Any) -> Callable[[], Any]:
    return lambda: function(argument)


def _whole(item: Any) -> np.ndarray:
    if item.nbytes > _MOST_BYTES:
        raise ValueError(f"more than {_MOST_BYTES:,} bytes")
    return np.asarray(item[...])


def _flip_inputs(item: Any) -> np.ndarray:
    return _whole(item)[:, :, ::-1, :]


def _index_file(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".index")


def _shown(name: str) -> str:
    """A variable's name; damage makes them long."""
    return repr(name if len(name) <= _LONGEST_REASON else f"{name[:_LONGEST_REASON]}...")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:_LONGEST_REASON]


def _damaged(file: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"{file}: damaged, cut short, or not the weights it should be ({reason}); "
        "copy or download it again"
    )


def _unreadable(file: Path, error: OSError) -> WeightsError:
    return WeightsError(f"{file}: cannot be read ({error.strerror}); check its permissions")
