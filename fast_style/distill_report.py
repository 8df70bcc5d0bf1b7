"""How far a distilled loss network can be trusted: its verdicts beside its teacher's."""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fast_style.files import atomic_path


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
The pictures are answers of nets that were trained with the distilled network.</p>
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
