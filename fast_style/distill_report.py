"""How far a distilled loss network can be trusted: its verdicts beside its teacher's.

Held-out photos are optimized for held-out styles with the losses of the distilled network itself,
since pictures made to please it show best what it does not see. Pictures of several stages, with
their photo and style, are then scored by both networks.
"""

from __future__ import annotations

import dataclasses
import html
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from fast_style import objective as tags
from fast_style.data import find_photos
from fast_style.descent import adam_direction
from fast_style.distill_config import DistillConfig
from fast_style.errors import DataError, ImageError
from fast_style.files import atomic_path
from fast_style.images import cover_crop, load_training_crop, read_opaque
from fast_style.loss_net import LossNetwork
from fast_style.objective import Objective, style_grams
from fast_style.picture_loss import Evaluator, picture_loss_of

_log = logging.getLogger(__name__)

STAGES = (0, 5, 15, 40, 100)

_STYLE_WEIGHTS = (20.0, 300.0)


@dataclass(frozen=True)
class Agreement:
    """How well one term of the loss agrees with the teacher's.

    Attributes:
      rank_correlation: Spearman's, over all triples.
      ratio: Median of own / teacher's.
      low: The ratio that a tenth is below.
      high: The ratio that a tenth is above.
    """

    rank_correlation: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class DistillReport:
    """Verdicts of both networks.

    Attributes:
      terms: Names of the terms: 'total', 'content' and each style layer.
      own: [triples, terms] of the distilled network.
      teacher: The same of the teacher.
      agreement: {term: how well they agree}.
    """

    terms: tuple[str, ...]
    own: np.ndarray
    teacher: np.ndarray
    agreement: Mapping[str, Agreement]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as values that JSON can hold."""
        return {
            "triples": len(self.own),
            "agreement": {
                term: dataclasses.asdict(found) for term, found in self.agreement.items()
            },
            "terms": list(self.terms),
            "own": self.own.tolist(),
            "teacher": self.teacher.tolist(),
        }


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Returns Spearman's rank correlation of two samples, [N] each; ties get their mean rank."""
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def agreements(terms: Sequence[str], own: np.ndarray, teacher: np.ndarray) -> dict[str, Agreement]:
    """Compares [triples, terms] of two networks, term by term."""
    found = {}
    for index, term in enumerate(terms):
        known = (teacher[:, index] > 0.0) & (own[:, index] > 0.0)  # A photo has no content loss.
        ratios = own[known, index] / teacher[known, index]
        low, ratio, high = np.quantile(ratios if ratios.size else [1.0], (0.1, 0.5, 0.9))
        with np.errstate(invalid="ignore"):  # Of values that are all equal, ranks say nothing.
            correlation = rank_correlation(own[:, index], teacher[:, index])
        found[term] = Agreement(
            correlation,
            float(ratio),
            float(low),
            float(high),
        )
    return found


def compare(
    own: LossNetwork,
    teacher: LossNetwork,
    photos: Sequence[Path],
    styles: Sequence[Path],
    *,
    content_layer: str,
    size: int = 256,
    pairs: int = 40,
    stages: Sequence[int] = STAGES,
    seed: int = 0,
    to_please_teacher: bool = False,
    on_step: Callable[[int, int], None] | None = None,
) -> DistillReport:
    """Scores `pairs` * len(stages) triples of a picture, a photo and a style by both networks.

    Args:
      own: The distilled network.
      teacher: Its teacher, built for layers of the same order.
      photos: Held-out photos; those that cannot be read are left out, with a warning in the log.
      styles: Held-out style pictures; so are these.
      content_layer: Where contents are compared: a layer without the network's name.
      size: Side of the pictures in px.
      pairs: How many photos are optimized.
      stages: After how many steps of Adam, at 10 levels a step, pictures are scored.
      seed: Decides which photo goes with which style, and the style weights.
      to_please_teacher: Whether pictures are optimized for the teacher's losses instead.
      on_step: Is told how many pairs of how many are done.

    Raises:
      DataError: If no photo or no style picture can be read.
    """
    rng = np.random.default_rng(seed)
    networks = (own, teacher)
    pictures = _readable_styles(styles, size)
    crops = _crops(photos, size)
    grams = [style_grams(network, network.layers, pictures) for network in networks]
    critic = 1 if to_please_teacher else 0
    evaluator = Evaluator(networks[critic])
    rows: tuple[list[list[float]], list[list[float]]] = ([], [])
    for pair in range(pairs):
        style = int(rng.integers(len(pictures)))
        low, high = _STYLE_WEIGHTS
        weight = float(low * (high / low) ** rng.random())
        photo = next(crops)
        losses = [
            picture_loss_of(
                Objective(
                    network=network,
                    content_layers=(_named(network, content_layer),),
                    target_grams={layer: gram[style : style + 1] for layer, gram in found.items()},
                    style_weights=np.array([weight], np.float32),
                    content_weight=1.0,
                    tv_weight=0.0,
                )
            )
            for network, found in zip(networks, grams, strict=True)
        ]
        photo_features = [
            network(tf.constant(photo[None]), tuple(loss.content_layers))
            for network, loss in zip(networks, losses, strict=True)
        ]
        evaluate = evaluator.evaluation(losses[critic], photo_features[critic])
        picture = photo.astype(np.float32)
        if rng.random() < 0.3:
            picture = rng.uniform(0, 255, picture.shape).astype(np.float32)
        direction = adam_direction(beta_1=0.9, beta_2=0.999, epsilon=1e-8)
        for step in range(max(stages) + 1):
            if step in stages:
                for row, loss, features in zip(rows, losses, photo_features, strict=True):
                    terms = loss.terms(tf.constant(picture[None]), features)
                    row.append([float(terms[tag]) for tag in _tags(loss.style_layers)])
            if step == max(stages):
                break
            gradient = evaluate(picture)[1]
            picture = np.clip(picture - 10.0 * direction(gradient), 0, 255).astype(np.float32)
        if on_step is not None:
            on_step(pair + 1, pairs)
    names = ("total", "content", *(f"style {layer.split('/')[-1]}" for layer in own.layers))
    values = [np.array(row) for row in rows]
    return DistillReport(names, values[0], values[1], agreements(names, values[0], values[1]))


def find_held_out(config: DistillConfig) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Lists the held-out photos and style pictures for the report; none where it has none.

    Raises:
      DataError: If there are none in a folder that is named, or none that can be read.
    """
    if config.val_dataset is None or config.val_styles is None:
        return (), ()
    advice = "point `val_styles` at a folder of style pictures"
    photos = find_photos(config.val_dataset, advice="point `val_dataset` at a folder of photos")
    styles = find_photos(config.val_styles, advice=advice)
    next(_crops(photos, 1))
    _readable_styles(styles, 1)
    return photos, styles


def calibration(
    report: DistillReport, layers: Sequence[str], content_layer: str
) -> dict[str, float]:
    """Returns what to multiply features by, for losses to have the teacher's size on the median.

    What a narrow network does not know of its teacher's features is missing from every length. A
    content loss is a square of features, a style loss a fourth power; a layer of both gets the
    geometric mean of what each would have.

    Args:
      report: A comparison.
      layers: The network's layers, in its order.
      content_layer: The one of them that the content is compared at.

    Returns:
      {layer: factor}.
    """
    factors = {}
    for layer in layers:
        factor = report.agreement[f"style {layer.split('/')[-1]}"].ratio ** -0.25
        if layer == content_layer:
            factor = (factor * report.agreement["content"].ratio ** -0.5) ** 0.5
        factors[layer] = float(factor)
    return factors


def write_distill_report(folder: Path, report: DistillReport, title: str) -> tuple[Path, Path]:
    """Writes `report.json` and `report.html`, and returns their paths."""
    as_json, page = folder / "report.json", folder / "report.html"
    with atomic_path(as_json) as aside:
        aside.write_text(json.dumps(report.to_dict()), encoding="utf-8")
    with atomic_path(page) as aside:
        aside.write_text(_page(report, title), encoding="utf-8")
    return as_json, page


def table_lines(report: DistillReport) -> list[str]:
    """Returns the agreement of each term as lines of text."""
    rows = [("term", "rank correlation", "median ratio", "10 % .. 90 %")]
    for term, found in report.agreement.items():
        ratio, spread = f"{found.ratio:.2f}", f"{found.low:.2f} .. {found.high:.2f}"
        rows.append((term, f"{found.rank_correlation:.3f}", ratio, spread))
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return ["  ".join([row[0].ljust(first), *map(str.rjust, row[1:], others)]) for row in rows]


def _readable_styles(styles: Sequence[Path], size: int) -> list[np.ndarray]:
    pictures = []
    for path in styles:
        try:
            pictures.append(cover_crop(read_opaque(path), size))
        except ImageError as error:
            _log.warning("style picture left out: %s", error)
    if not pictures:
        raise DataError(f"none of the {len(styles)} style pictures can be read")
    return pictures


def _crops(photos: Sequence[Path], size: int) -> Iterator[np.ndarray]:
    """Gives the centre crops of photos in turn, over and over."""
    left = list(photos)
    while left:
        for path in tuple(left):
            try:
                crop = load_training_crop(path, size)
            except ImageError as error:
                _log.warning("photo left out: %s", error)
                left.remove(path)
                continue
            yield crop
    raise DataError(f"none of the {len(photos)} photos can be read")


def _tags(style_layers: Mapping[str, float]) -> list[str]:
    return [tags.TOTAL, tags.CONTENT, *(tags.STYLE_LAYER + layer for layer in style_layers)]


def _named(network: LossNetwork, layer: str) -> str:
    return next(name for name in network.layers if name.endswith(layer))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends - 1) / 2.0)[place]


def _page(report: DistillReport, title: str) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(term)}</td><td>{found.rank_correlation:.3f}</td>"
        f"<td>{found.ratio:.2f}</td><td>{found.low:.2f} to {found.high:.2f}</td></tr>"
        for term, found in report.agreement.items()
    )
    plots = "".join(
        _scatter(term, report.teacher[:, index], report.own[:, index])
        for index, term in enumerate(report.terms)
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>
:root {{ color-scheme: light dark; --line: #8886; --dot: light-dark(#2563b8, #74aef5); }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto;
  padding: 0 1rem; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: .3rem .9rem; text-align: right; border-bottom: 1px solid var(--line); }}
td:first-child, th:first-child {{ text-align: left; }}
.plots {{ display: flex; flex-wrap: wrap; gap: 1rem; margin-top: 2rem; }}
figure {{ margin: 0; }}
svg {{ border: 1px solid var(--line); }}
circle {{ fill: var(--dot); opacity: .6; }}
line {{ stroke: var(--line); }}
</style></head><body>
<h1>{html.escape(title)}</h1>
<p>{len(report.own)} triples of a picture, its photo and a style, none of them used in distillation.
Pictures were optimized for the losses of the distilled network.</p>
<table><thead><tr><th>term</th><th>rank correlation</th><th>median ratio</th>
<th>10 % to 90 %</th></tr></thead><tbody>{rows}</tbody></table>
<p>Below, the teacher's value from left to right and the distilled network's from bottom to top, on
logarithmic axes of the same range; on the line both are equal.</p>
<div class="plots">{plots}</div>
</body></html>
"""


def _scatter(term: str, teacher: np.ndarray, own: np.ndarray, side: int = 300) -> str:
    positive = (teacher > 0) & (own > 0)
    points = np.log10(np.stack([teacher[positive], own[positive]]))
    low, high = (points.min() - 0.1, points.max() + 0.1) if points.size else (0.0, 1.0)
    places = (points - low) / (high - low) * side
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{side - y:.1f}" r="2.5"/>' for x, y in places.T.tolist()
    )
    name = html.escape(term)
    return (
        f'<figure><svg width="{side}" height="{side}" role="img" aria-label="{name}">'
        f'<line x1="0" y1="{side}" x2="{side}" y2="0"/>{dots}</svg>'
        f"<figcaption>{name}, 10^{low:.1f} to 10^{high:.1f}</figcaption></figure>"
    )
