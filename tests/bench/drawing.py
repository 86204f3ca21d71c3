"""The picture of how throughput and memory grow: small multiples in one SVG, which reads in the dark, too."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.bench.chart import MARGIN, Chart, Curve, Value, mark, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tests.bench.growth import Point

WIDTH: Final = 900
HEIGHT: Final = 724

_EDGE: Final = 20
_GAP: Final = 22
_COLUMNS: Final = 3
_COLUMN: Final = (WIDTH - 2 * _EDGE - (_COLUMNS - 1) * _GAP) / _COLUMNS
_HEAD: Final = 44
_BLOCK: Final = 336
_TITLE: Final = 14
_PLOTS: Final = (140, 122)
"""The heights of the two charts of a block: throughput and memory."""

_MIB: Final = 1024 * 1024

_STYLE: Final = """
.paper{fill:#ffffff}
text{font-family:system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;fill:#1f2328}
.heading{font-size:16px;font-weight:600}
.title{font-size:13px;font-weight:600}
.caption,.name{font-size:11px;fill:#59636e}
.tick{font-size:10px;fill:#59636e}
.legend{font-size:12px}
.grid{stroke:#d8dee4;stroke-width:1}
.axis{stroke:#818b98;stroke-width:1}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.spread{stroke-width:1.4;stroke-opacity:.55}
.trimta .line,.trimta .spread{stroke:#0969da}
.trimta .mark{fill:#0969da}
.postfix .line,.postfix .spread{stroke:#bc4c00}
.postfix .line{stroke-dasharray:5 3}
.postfix .mark{fill:#bc4c00}
@media (prefers-color-scheme:dark){
.paper{fill:#0d1117}
text{fill:#e6edf3}
.caption,.name,.tick{fill:#9198a1}
.grid{stroke:#2a313c}
.axis{stroke:#656c76}
.trimta .line,.trimta .spread{stroke:#58a6ff}
.trimta .mark{fill:#58a6ff}
.postfix .line,.postfix .spread{stroke:#f0883e}
.postfix .mark{fill:#f0883e}
}
"""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity that grows: how its charts are labelled."""

    title: str
    axis: str
    rate: str
    """What the rates count."""
    step: Callable[[int], str] = str
    scale: Callable[[int], float] = lambda _: 1.0
    """What a rate is multiplied by at a value of the quantity."""
    logarithmic: bool = False
    """Whether the scale of the rates is logarithmic."""


def _octets(count: int) -> str:
    return f"{count // _MIB}M" if count >= _MIB else f"{count // 1024}K"


def _thousands(count: int) -> str:
    return f"{count // 1000} 000" if count >= 1000 else str(count)


QUANTITIES: Final = {
    "sessions": Quantity("Sessions", "clients connected at once", "messages a second"),
    "size": Quantity(
        "Size of a message",
        "octets, K = 1024",
        "MiB a second (logarithmic)",
        step=_octets,
        scale=lambda octets: octets / _MIB,
        logarithmic=True,
    ),
    "recipients": Quantity("Recipients of a message", "local recipients", "copies a second", step=_thousands),
    "queue": Quantity("Depth of the queue", "deferred envelopes", "messages a second", step=_thousands),
    "workers": Quantity("Workers", "processes (--workers)", "messages a second"),
}

_SERVERS: Final = {"trimta": "trimta", "Postfix": "postfix"}
"""Servers with their classes in the style sheet."""


def draw(points: Sequence[Point], circumstances: Mapping[str, Any]) -> str:
    """The picture as SVG, from points that `growth` has measured."""
    body = [
        '<rect class="paper" width="100%" height="100%" rx="6"/>',
        text(_EDGE, 28, "heading", "How throughput and memory grow: client to Maildir, every message on the disk"),
    ]
    for place, (name, quantity) in enumerate(QUANTITIES.items()):
        body.extend(_block(quantity, [point for point in points if point.quantity == name], *_corner(place)))
    body.extend(_legend(circumstances, *_corner(len(QUANTITIES))))
    description = f"Line charts of {', '.join(quantity.title.lower() for quantity in QUANTITIES.values())}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'width="{WIDTH}" height="{HEIGHT}" role="img">',
            f"<title>Throughput and memory of trimta and Postfix</title><desc>{description}</desc>",
            f"<style>{_STYLE}</style>",
            *body,
            "</svg>\n",
        ]
    )


def _corner(place: int) -> tuple[float, float]:
    row, column = divmod(place, _COLUMNS)
    return _EDGE + column * (_COLUMN + _GAP), _HEAD + row * _BLOCK


def _block(quantity: Quantity, points: Sequence[Point], left: float, top: float) -> Iterator[str]:
    """The two charts of a quantity, throughput over memory; a remark where nothing was measured."""
    yield text(left, top + _TITLE, "title", quantity.title)
    if not points:
        yield text(left, top + 2 * _TITLE + 8, "caption", "not measured")
        return
    steps = sorted({point.at for point in points})
    labels = [quantity.step(step) for step in steps]
    below = top + _TITLE + 8
    captions = (quantity.rate, "memory of all processes, MB")
    measures: tuple[Callable[[Point], Iterable[float]], ...] = (
        lambda point: [rate * quantity.scale(point.at) for rate in point.rates],
        lambda point: [point.memory],
    )
    for number, (caption, height, measure) in enumerate(zip(captions, _PLOTS, measures, strict=True)):
        chart = Chart(
            caption=caption,
            steps=labels,
            curves=_curves(points, steps, measure),
            left=left,
            top=below,
            width=_COLUMN,
            height=height,
            labelled=number == 1,
            logarithmic=number == 0 and quantity.logarithmic,
        )
        yield from chart.draw()
        below += height + 12
    yield text(left + (MARGIN + _COLUMN) / 2, below + 17, "name", quantity.axis, anchor="middle")


def _curves(points: Sequence[Point], steps: Sequence[int], measure: Callable[[Point], Iterable[float]]) -> list[Curve]:
    curves = []
    for server, style in _SERVERS.items():
        values = []
        for point in points:
            if point.server == server:
                numbers = list(measure(point))
                values.append(Value(steps.index(point.at), statistics.median(numbers), min(numbers), max(numbers)))
        if values:
            curves.append(Curve(style, sorted(values, key=lambda value: value.step)))
    return curves


def _legend(circumstances: Mapping[str, Any], left: float, top: float) -> Iterator[str]:
    line = top + _TITLE + 14
    for server, style in _SERVERS.items():
        yield f'<g class="{style}"><path class="line" d="M{left:.1f} {line - 4:.1f}h34"/>'
        yield mark(style, left + 17, line - 4)
        yield "</g>"
        yield text(left + 44, line, "legend", _named(server, circumstances))
        line += 20
    line += 8
    for remark in _remarks(circumstances):
        yield text(left, line, "caption", remark)
        line += 16


def _named(server: str, circumstances: Mapping[str, Any]) -> str:
    workers, version = circumstances.get("workers"), circumstances.get(server.lower())
    named = f"{server} {version}" if version else server
    return f"{named}, --workers {workers}" if server == "trimta" and workers else named


def _remarks(circumstances: Mapping[str, Any]) -> Iterator[str]:
    if circumstances.get("quick"):
        yield "QUICK: small loads, which only show that it works"
        yield ""
    yield "Where the axis does not say otherwise: 4 KiB,"
    yield "20 sessions, a connection and one recipient a"
    yield "message, an empty queue."
    yield ""
    yield "Until the last file is in new/. trimta syncs"
    yield "file and folder before each 250."
    yield ""
    yield f"Points: the median of {circumstances.get('rounds', '?')} runs that took turns;"
    yield "bars: the slowest and the fastest."
    yield "Memory: the most that was seen (PSS)."
    yield f"{circumstances.get('processors', '?')} processors, Python {circumstances.get('python', '?')}."
