"""What `quality` measured, as one page that stands alone, and as a picture of the curves.

The page needs nothing but itself: pictures, charts and styles are inside, and its policy forbids
the browser to load anything else.
"""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import numpy as np
from PIL import Image

from fast_style import objective as tags
from fast_style.chart import chart_css, photo_chart, style_chart, to_picture, to_svg
from fast_style.curves import from_start
from fast_style.files import atomic_path
from fast_style.images import write_image
from fast_style.quality import PhotoScore, Quality, StyleScore

_SHOWN = 50
"""The earlier of the two L-BFGS pictures that are shown; the later one is the last there is."""

_JPEG_QUALITY = 90

_CSS = """
:root{color-scheme:light dark;--paper:#fff;--page:#f5f6f7}
@media (prefers-color-scheme:dark){:root{--paper:#1b1f23;--page:#121518}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:anywhere}
main{max-width:960px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:1.15rem;margin:0 0 4px}
h2{font-size:1.3rem;margin:40px 0 12px}
h3{font-size:1rem;margin:0;font-weight:600}
p{margin:0 0 12px;max-width:68ch}
.muted,figcaption,dt,th{color:var(--muted)}
.card{background:var(--paper);border:1px solid var(--grid);border-radius:12px;
padding:16px;margin:0 0 16px}
.big{font-size:clamp(2.2rem,9vw,3.6rem);font-weight:700;line-height:1.1;color:var(--model);
margin:0 0 4px;font-variant-numeric:tabular-nums}
.note{border-left:4px solid var(--model)}
.head{display:flex;flex-wrap:wrap;gap:4px 16px;justify-content:space-between;
align-items:baseline;margin:0 0 12px}
.n{color:var(--model);font-weight:700;font-variant-numeric:tabular-nums}
.pictures{display:grid;grid-template-columns:repeat(2,1fr);gap:12px}
figure{margin:0;min-width:0}
figure img{display:block;width:100%;height:auto;border-radius:6px}
figcaption{font-size:.82rem;line-height:1.35;padding-top:4px}
figcaption b{color:var(--text);font-weight:600;display:block}
.below{display:grid;grid-template-columns:1fr;gap:16px;align-items:center;margin-top:12px}
.below svg{max-width:440px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:5px 10px;text-align:right;border-bottom:1px solid var(--grid);white-space:nowrap}
th{font-weight:500}
th:first-child,td:first-child{text-align:left}
tr:last-child td{border-bottom:0}
a{color:var(--curve);text-decoration:none}
a:hover{text-decoration:underline}
dl{display:grid;grid-template-columns:1fr;gap:12px 20px;margin:0}
dt{font-size:.82rem}
dd{margin:0}
.wide{display:none}
@media (min-width:640px){
.wide{display:block}
.narrow{display:none}
.pictures{grid-template-columns:repeat(4,1fr)}
.below{grid-template-columns:3fr 2fr}
dl{grid-template-columns:repeat(3,1fr)}
}
"""


def write_plot(path: Path, quality: Quality) -> None:
    """Writes the curves of every style, and the model on them, as a picture.

    Args:
      path: Ends like a picture, such as .png.
      quality: What was measured.

    Raises:
      FastStyleError: If it cannot be written.
    """
    label = quality.model.label
    charts = [
        style_chart(
            style,
            quality.iterations,
            start=quality.start,
            title=label if style.name == label else f"{label}: {style.name}",
        )
        for style in quality.styles
    ]
    write_image(path, to_picture(charts))


def write_report(path: Path, quality: Quality) -> None:
    """Writes the page.

    Args:
      path: The .html file; replaced in one step.
      quality: What was measured.

    Raises:
      FastStyleError: If it cannot be written.
    """
    with atomic_path(path) as aside:
        aside.write_text(render_report(quality), encoding="utf-8")


def render_report(quality: Quality) -> str:
    """Returns the page as HTML. All text from files is escaped."""
    title = f"{quality.model.label}: quality"
    body = [
        _notes(quality),
        *(_style(quality, index, style) for index, style in enumerate(quality.styles)),
        _how_to_read(quality),
        _facts(quality),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{_text(title)}</title><style>{chart_css()}{_CSS}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _notes(quality: Quality) -> str:
    notes = [*quality.notes, *(f"left out: {reason}" for reason in quality.skipped.values())]
    return "".join(f'<p class="card note">{_text(note)}</p>' for note in notes)


def _style(quality: Quality, index: int, style: StyleScore) -> str:
    count = len(style.photos)
    spread = (
        "Over one photo."
        if count == 1
        else f"Over {count} photos, with quartiles {style.worth(0.25)} and {style.worth(0.75)}."
    )
    name = quality.model.label
    if style.name != name:
        name = f"{name}: {style.name}"
    # A chart that is only scaled down to a phone cannot be read there.
    wide = style_chart(style, quality.iterations, start=quality.start)
    narrow = style_chart(style, quality.iterations, start=quality.start, width=380, height=330)
    cards = (
        _photo(quality, f"s{index}p{number}", photo) for number, photo in enumerate(style.photos)
    )
    return (
        f'<section><div class="card"><h1>{_text(name)}</h1>'
        f'<p class="big">{_text(str(style.worth()))}</p>'
        f"<p>iterations of L-BFGS{from_start(quality.start)} on the same loss are as good "
        "as one pass of this model, "
        f'in the median. <span class="muted">{_text(spread)}</span></p>'
        f'<div class="wide">{to_svg(wide)}</div>'
        f'<div class="narrow">{to_svg(narrow)}</div></div>'
        f'<div class="card scroll">{_table(f"s{index}p", style)}</div>{"".join(cards)}</section>'
    )


def _table(prefix: str, style: StyleScore) -> str:
    rows = []
    for number, photo in enumerate(style.photos):
        terms = (tags.WEIGHTED_CONTENT, tags.WEIGHTED_STYLE, tags.TOTAL)
        values = [f"{photo.terms[tag]:,.0f}" for tag in terms]
        values += [f"{photo.photo_loss:,.0f}", f"{photo.curve.losses[-1]:,.0f}"]
        rows.append(
            f'<tr><td><a href="#{prefix}{number}">{_text(photo.path.name)}</a></td>'
            f'<td class="n">{_text(str(photo.worth))}</td>'
            + "".join(f"<td>{value}</td>" for value in values)
            + "</tr>"
        )
    heads = ("photo", "N", "content", "style", "total", "photo itself", "L-BFGS, end")
    return (
        f"<table><thead><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _photo(quality: Quality, anchor: str, photo: PhotoScore) -> str:
    pictures = [
        _figure(photo.photo, "photo", photo.photo_loss),
        _figure(photo.styled, "model", photo.loss),
    ]
    for at in shown_iterations(photo):
        loss = float(photo.curve.losses[at])
        pictures.append(_figure(photo.curve.snapshots[at], f"L-BFGS, {at} iterations", loss))
    terms = [
        ("content, weighted", photo.terms[tags.WEIGHTED_CONTENT]),
        ("style, weighted", photo.terms[tags.WEIGHTED_STYLE]),
    ]
    if quality.config.tv_weight:
        terms.append(("variation, weighted", photo.terms[tags.WEIGHTED_VARIATION]))
    terms.append(("total", photo.loss))
    rows = "".join(f"<tr><td>{name}</td><td>{value:,.0f}</td></tr>" for name, value in terms)
    chart = photo_chart(photo, quality.iterations, start=quality.start)
    return (
        f'<article class="card" id="{anchor}"><div class="head"><h3>{_text(photo.path.name)}</h3>'
        f'<span class="n">N {_text(str(photo.worth))}</span></div>'
        f'<div class="pictures">{"".join(pictures)}</div>'
        f'<div class="below"><div>{to_svg(chart)}</div>'
        f"<table><thead><tr><th>the model's loss</th><th></th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></article>"
    )


def shown_iterations(photo: PhotoScore) -> list[int]:
    """Returns at which iterations L-BFGS's picture is shown: 50 if it was kept, and the last."""
    kept = sorted(photo.curve.snapshots)
    return list(dict.fromkeys([*(at for at in kept if at == _SHOWN), *kept[-1:]]))


def _figure(picture: np.ndarray, name: str, loss: float) -> str:
    buffer = io.BytesIO()
    # Full colour resolution: stylized pictures are full of saturated edges.
    Image.fromarray(picture).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    height, width = picture.shape[:2]
    return (
        f'<figure><img width="{width}" height="{height}" alt="{_text(name)}" '
        f'src="data:image/jpeg;base64,{data}"><figcaption><b>{_text(name)}</b>'
        f"loss {loss:,.0f}</figcaption></figure>"
    )


def _how_to_read(quality: Quality) -> str:
    start = "a photo" if quality.start == "photo" else "grey noise"
    least = "the photo itself" if quality.start == "photo" else "the noise"
    return (
        f'<h2>How to read this</h2><div class="card"><p>L-BFGS changes the pixels of {start}, step '
        "by step, to lower the loss that this model was trained with. N is the number of its "
        "iterations after which its picture is as good as the model's, by that loss: higher is "
        f"better, 0 is no better than {least}, and "
        f"&gt;{quality.iterations} is better than everything it reached (both are drawn as "
        "rings beside the curve). Losses of different styles, sizes or weights do not compare; "
        "their N do.</p><p>The model's picture is scored rounded to 8 bits, as it is saved; "
        "L-BFGS's is scored unrounded and shown rounded.</p>"
        "</div>"
    )


def _facts(quality: Quality) -> str:
    start = "the photo" if quality.start == "photo" else "grey noise"
    config, model = quality.config, quality.model
    steps = model.metadata.get("steps")
    facts = [
        ("model", str(model.source)),
        ("net", f"{model.arch}, width {model.width:g}"),
        ("training steps", f"{steps:,}" if isinstance(steps, int) else "not known"),
        ("pictures", f"{config.image_size} x {config.image_size} px, centre crops"),
        ("loss network", f"{config.loss_model}, SHA-256 {quality.loss_model_sha256[:12]}..."),
        ("content layers", ", ".join(_short(layer) for layer in config.content_layers)),
        ("style layers", ", ".join(_short(layer) for layer in config.style_layers)),
        ("content weight", f"{config.content_weight:g}"),
        ("style weight", ", ".join(f"{style.weight:g}" for style in quality.styles)),
        ("variation weight", f"{config.tv_weight:g}"),
        ("the model computed in", quality.precision),
        ("L-BFGS", f"{quality.iterations} iterations in float32, from {start}"),
    ]
    items = "".join(f"<div><dt>{name}</dt><dd>{_text(value)}</dd></div>" for name, value in facts)
    return f'<h2>What was measured</h2><div class="card"><dl>{items}</dl></div>'


def _short(layer: str) -> str:
    return layer.rsplit("/", 1)[-1]


def _text(text: str) -> str:
    return html.escape(text)
