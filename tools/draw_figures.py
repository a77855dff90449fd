"""Draw the figures of the documentation, as SVG files in docs/images: `python tools/draw_figures.py`."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

IMAGES = Path(__file__).parents[1] / "docs" / "images"

INK = "#263238"
PALE = "#eceff1"
SERVER = "#e3f2fd"
MODULE = "#bbdefb"
WORKER = "#fff3e0"
STORE = "#e8f5e9"


class Figure:
    """A drawing of boxes, arrows and text; lengths are pixels."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'role="img" font-family="sans-serif" font-size="14">',
            f"<title>{escape(title)}</title>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            f'orient="auto-start-reverse"><path d="M0 0 8 4 0 8z" fill="{INK}"/></marker></defs>',
            f'<rect width="{width}" height="{height}" fill="white"/>',
        ]

    def text(
        self, x: float, y: float, text: str, *, size: int = 14, anchor: str = "middle", bold: bool = False
    ) -> None:
        """Lines of text around the height `y`."""
        lines = text.split("\n")
        top = y - (len(lines) - 1) * size * 0.6
        weight = ' font-weight="bold"' if bold else ""
        for number, line in enumerate(lines):
            self.parts.append(
                f'<text x="{x:g}" y="{top + number * size * 1.2 + size * 0.35:g}" font-size="{size}" '
                f'text-anchor="{anchor}" fill="{INK}"{weight}>{escape(line)}</text>'
            )

    def box(self, x: int, y: int, width: int, height: int, text: str = "", fill: str = PALE, title: str = "") -> None:
        """A box with a text in its middle, or a title at its top."""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" stroke="{INK}"/>'
        )
        if text:
            self.text(x + width / 2, y + height / 2, text)
        if title:
            self.text(x + 12, y + 17, title, anchor="start", bold=True)

    def store(self, x: int, y: int, width: int, height: int, text: str) -> None:
        """A database."""
        curve = 10
        self.parts.append(
            f'<path d="M{x} {y + curve} v{height - 2 * curve} a{width / 2:g} {curve} 0 0 0 {width} 0 '
            f'v-{height - 2 * curve}" fill="{STORE}" stroke="{INK}"/>'
            f'<ellipse cx="{x + width / 2:g}" cy="{y + curve}" rx="{width / 2:g}" ry="{curve}" '
            f'fill="{STORE}" stroke="{INK}"/>'
        )
        self.text(x + width / 2, y + height / 2 + curve / 2, text)

    def arrow(self, *points: tuple[int, int], text: str = "", at: tuple[int, int] = (0, 0), both: bool = False) -> None:
        """An arrow through points, with a text at a place."""
        path = "M" + " L".join(f"{x} {y}" for x, y in points)
        start = ' marker-start="url(#head)"' if both else ""
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="1.5" marker-end="url(#head)"{start}/>'
        )
        if text:
            self.text(*at, text, size=12)

    def svg(self) -> str:
        """The file."""
        return "\n".join([*self.parts, "</svg>"]) + "\n"


def overview() -> str:
    """Clients, server, module, engine, workers."""
    figure = Figure(820, 400, "Overview: clients, a server with the module and its engine, and workers")
    figure.box(20, 60, 150, 60, "Python client\nredgrease")
    figure.box(20, 170, 150, 60, "any other client,\nany language")
    figure.box(260, 20, 300, 300, fill=SERVER, title="Redis or Valkey server")
    figure.store(405, 50, 110, 80, "keys and\nstreams")
    figure.box(285, 170, 250, 130, fill=MODULE, title="module rg")
    figure.box(305, 205, 210, 75, "engine: sessions,\nexecutions, registrations", fill="white")
    figure.box(650, 60, 150, 60, "worker\nyour functions", fill=WORKER)
    figure.box(650, 150, 150, 60, "worker\nyour functions", fill=WORKER)
    figure.box(650, 240, 150, 60, "worker\nyour functions", fill=WORKER)
    figure.arrow((170, 90), (285, 195), text="functions,\nresults", at=(185, 146), both=True)
    figure.arrow((170, 200), (285, 225), text="commands,\nreplies", at=(222, 248), both=True)
    figure.arrow((460, 130), (460, 205), text="reads, events,\ncommands", at=(412, 150), both=True)
    for y in (90, 180, 270):
        figure.arrow((515, 242), (650, y), both=True)
    figure.text(612, 275, "records", size=12)
    figure.text(
        410, 350, "The server process runs no user code. Workers are separate processes that the module starts,"
    )
    figure.text(410, 372, "restricts and, if necessary, ends. A function reads and writes through the engine.")
    return figure.svg()


def pipeline() -> str:
    """A function over the shards of a cluster."""
    figure = Figure(860, 400, "A gear function over three shards: local steps, repartition, local steps, collect")
    for number, name in enumerate(("shard 1", "shard 2", "shard 3")):
        y = 50 + 100 * number
        figure.box(20, y, 700, 80, fill=SERVER, title=name)
        figure.store(100, y + 12, 70, 56, "keys")
        figure.box(210, y + 25, 70, 35, "map", fill=WORKER)
        figure.box(300, y + 25, 70, 35, "filter", fill=WORKER)
        figure.box(560, y + 25, 120, 35, "localgroupby", fill=WORKER)
        figure.arrow((170, y + 42), (210, y + 42))
        figure.arrow((280, y + 42), (300, y + 42))
    for left in range(3):
        for right in range(3):
            figure.arrow((370, 92 + 100 * left), (560, 92 + 100 * right))
    figure.box(760, 145, 80, 90, "results at\nthe shard\nthat was\nasked", fill=MODULE)
    for number, y in enumerate((172, 190, 208)):
        figure.arrow((680, 92 + 100 * number), (760, y))
    figure.text(135, 25, "reader", bold=True)
    figure.text(290, 25, "local steps", bold=True)
    figure.text(465, 25, "repartition", bold=True)
    figure.text(620, 25, "local steps", bold=True)
    figure.text(800, 25, "collect", bold=True)
    figure.text(430, 370, "On a single server there is one shard: repartition and collect move nothing.")
    return figure.svg()


def write_behind() -> str:
    """Write-behind: changes, stream, batches, database."""
    figure = Figure(860, 330, "Write-behind: a sync function keeps changes in a stream, a second one writes batches")
    figure.box(20, 105, 100, 60, "clients")
    figure.box(190, 20, 460, 270, fill=SERVER, title="Redis or Valkey server and its workers")
    figure.store(210, 95, 100, 80, "accounts")
    figure.box(365, 105, 110, 60, "KeysReader\nmode sync", fill=WORKER)
    figure.box(530, 105, 100, 60, "stream\n“changes”", fill=STORE)
    figure.box(510, 215, 125, 60, "StreamReader\nbatch=100", fill=WORKER)
    figure.store(720, 200, 120, 90, "SQL database")
    figure.arrow((120, 125), (210, 125), text="1 HSET", at=(155, 112))
    figure.arrow((210, 150), (120, 150), text="4 reply", at=(155, 165))
    figure.arrow((310, 135), (365, 135), text="2 event", at=(338, 122))
    figure.arrow((475, 135), (530, 135), text="3 XADD", at=(502, 122))
    figure.arrow((580, 165), (580, 215), text="5 a batch of entries", at=(455, 192))
    figure.arrow((635, 245), (720, 245), text="6 one\ntransaction", at=(677, 222))
    figure.text(
        430,
        312,
        "The client waits for 1 to 4. Steps 5 and 6 follow in the background, and are repeated until they succeed.",
    )
    return figure.svg()


FIGURES: dict[str, Callable[[], str]] = {"overview": overview, "pipeline": pipeline, "write_behind": write_behind}


def main() -> None:
    """Write all figures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        (IMAGES / f"{name}.svg").write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
