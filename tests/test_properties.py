"""Properties that hold for any input: of configurations, pictures and the order of photos."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from fast_style.config import RunConfig, config_from_dict, config_to_yaml, load_config
from fast_style.data import photo_order, photo_places
from fast_style.errors import ConfigError, ImageError
from fast_style.images import cover_crop, fit_long_side, read_image
from fast_style.yaml12 import YamlError, read_yaml

# The same examples in every run.
bounded = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

plain_text = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\x7f"), min_size=1
).filter(lambda text: bool(text.strip()))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["johnson", "slim2016", "vgg_16", "auto", "1e-3", "~", "yes"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
keys = st.sampled_from(list(RunConfig.__dataclass_fields__)) | st.text(max_size=12)
good_changes = st.fixed_dictionaries(
    {},
    optional={
        "style_weight": st.floats(0, 1e30),
        "tv_weight": st.floats(0, 1e30),
        "learning_rate": st.floats(1e-300, 1e300),
        "norm_learning_rate": st.none() | st.floats(1e-300, 1e300),
        "gradient_clip": st.none() | st.floats(1e-300, 1e300),
        "seed": st.integers(0, 2**31 - 1),
        "batch_size": st.integers(1, 2**31 - 1),
        "width": st.floats(1 / 32, 8),
        "random_crop": st.booleans(),
        "dataset": plain_text,
        "style_image": plain_text,
        "preview_image": st.none() | plain_text,
    },
)
BASE = {"naming": "a", "style_image": "s.jpg", "style_weight": 1, "steps": 3}


# Configurations


@bounded
@given(good_changes)
def test_a_config_survives_its_file(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = config_from_dict(BASE | changes, "test")
    (tmp_path / "a.yml").write_text(config_to_yaml(config), encoding="utf-8")
    assert load_config(tmp_path / "a.yml") == config
    assert config_from_dict(config.to_dict(), "test") == config


@settings(bounded, max_examples=25)
@given(st.dictionaries(keys, values, max_size=6))
def test_any_mapping_makes_a_config_or_a_list_of_short_problems(changes: dict[str, Any]) -> None:
    try:
        config = config_from_dict(BASE | changes, "test")
    except ConfigError as error:
        assert error.problems
        assert all("\n" not in problem and len(problem) < 2000 for problem in error.problems)
    else:
        assert config_from_dict(config.to_dict(), "test") == config
        assert config.batch_size >= 1 and config.learning_rate > 0


@bounded
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
@example(b"&a [*a, *a]")
@example(b"a: !!python/object/apply:os.system ['true']")
def test_any_file_is_a_config_or_a_config_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.yml").write_bytes(data)
    with pytest.raises(ConfigError):  # None of them can have the keys that are required.
        load_config(tmp_path / "a.yml")


@bounded
@given(st.text(st.sampled_from("ab:-,[]{}&*!|>'\"#%@`?0.1e~ \n\t"), max_size=60))
def test_any_yaml_is_plain_values_or_a_yaml_error(text: str) -> None:
    def check(value: Any) -> None:
        assert value is None or type(value) in (bool, int, float, str, list, dict)
        for inner in value if isinstance(value, list) else []:
            check(inner)
        for key, inner in value.items() if isinstance(value, dict) else []:
            assert type(key) is str
            check(inner)

    try:
        check(read_yaml(text).value)
    except YamlError as error:
        assert "\n" not in str(error)


# Pictures


sizes = st.integers(1, 40)


@bounded
@given(
    height=sizes,
    width=sizes,
    mode=st.sampled_from(["RGB", "L", "P", "RGBA", "LA", "CMYK", "1", "I;16", "F"]),
    form=st.sampled_from(["PNG", "TIFF", "JPEG", "WEBP", "BMP", "GIF"]),
    seed=st.integers(0, 9),
)
def test_any_picture_is_read_at_its_size(
    height: int, width: int, mode: str, form: str, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    picture = picture.convert("L").convert(mode) if mode == "I;16" else picture.convert(mode)
    data = io.BytesIO()
    try:
        picture.save(data, form)
    except (OSError, ValueError):
        return  # This format does not hold such pixels.
    image = read_image(data.getvalue())
    assert image.shape == (height, width, 3) and image.dtype == np.uint8


@bounded
@given(data=st.binary(min_size=1, max_size=200))
def test_any_bytes_are_a_picture_or_an_image_error(data: bytes) -> None:
    for head in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"P6 3 3 255\n"):
        try:
            image = read_image(head + data)
        except ImageError as error:
            assert "\n" not in str(error)
        else:
            assert image.ndim == 3 and image.shape[2] == 3


@bounded
@given(
    height=sizes,
    width=sizes,
    size=sizes,
    offset=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_a_crop_is_square_and_keeps_to_the_photos_levels(
    height: int, width: int, size: int, offset: tuple[float, float]
) -> None:
    image = np.random.default_rng(0).integers(50, 200, (height, width, 3), dtype=np.uint8)
    crop = cover_crop(image, size, offset=offset)
    assert crop.shape == (size, size, 3)
    assert image.min() <= crop.min() and crop.max() <= image.max()


@bounded
@given(height=st.integers(1, 300), width=st.integers(1, 300), size=sizes)
def test_a_fitted_picture_has_the_long_side_asked_for(height: int, width: int, size: int) -> None:
    fitted = fit_long_side(np.zeros((height, width, 3), np.uint8), size)
    assert max(fitted.shape[:2]) == size
    assert min(fitted.shape[:2]) == max(1, round(min(height, width) * size / max(height, width)))


# The order of photos


counts = st.integers(1, 60)


@bounded
@given(count=counts, seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 2**31 - 1))
def test_every_epoch_shows_every_photo_once(count: int, seed: int, epoch: int) -> None:
    order = photo_order(count, seed, epoch)
    assert sorted(order) == list(range(count))
    np.testing.assert_array_equal(order, photo_order(count, seed, epoch))


@bounded
@given(
    count=counts,
    seed=st.integers(0, 99),
    batch=st.integers(1, 9),
    stop=st.integers(0, 30),
    more=st.integers(0, 30),
)
def test_a_stream_that_is_stopped_anywhere_goes_on_with_the_same_photos(
    count: int, seed: int, batch: int, stop: int, more: int
) -> None:
    whole = photo_places(count, seed, 0, (stop + more) * batch)
    pieces = photo_places(count, seed, 0, stop * batch)
    pieces += photo_places(count, seed, stop * batch, more * batch)
    assert pieces == whole
    shown = np.bincount(whole, minlength=count) if whole else np.zeros(count)
    assert shown.max() - shown.min() <= 1  # Nobody is shown twice before all were shown.
    assert math.isclose(shown.sum(), len(whole))
