"""A failover as a picture: every commit a dot, the moments that count as lines. An SVG for light and dark pages."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aurora_router_cluster.commands.demo_failover import Count, FailoverRun

WIDTH, MARGIN = 860, 24
LABELS, ROW, AXIS, GAP = 92, 15, 30, 26  # heights: labels above the dots, a client's dots, the axis, between two acts
BEFORE, AFTER = 0.12, 0.18  # what is shown before the fault and after the first ack, in shares of the time between
STYLE = """
  svg { font: 13px system-ui, sans-serif; --paper: #fff; --ink: #1f2328; --faint: #656d76; --line: #d0d7de;
        --old: #0969da; --new: #1a7f37; --bad: #cf222e; --band: #fff1f0; }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #0d1117; --ink: #e6edf3; --faint: #8d96a0; --line: #30363d;
          --old: #58a6ff; --new: #3fb950; --bad: #ff7b72; --band: #2d1315; } }
  text { fill: var(--ink); } .faint { fill: var(--faint); font-size: 12px; }
  .title { font-weight: 600; font-size: 15px; }
  .paper { fill: var(--paper); } .band { fill: var(--band); } .axis { stroke: var(--line); }
  .mark { stroke: var(--faint); stroke-dasharray: 2 3; } .bad { stroke: var(--bad); }
  .old, .new { fill: none; stroke-width: 4.5; stroke-linecap: round; }
  .old { stroke: var(--old); } .new { stroke: var(--new); }
"""


def draw(acts: Sequence[FailoverRun], count: Count) -> str:
    """The picture of some acts, one below the other, as the text of an SVG file."""
    lanes = [_Lane(act) for act in acts]
    parts, top = [], MARGIN + 44.0
    for lane in lanes:
        parts.append(lane.render(top))
        top += lane.height + GAP
    height = round(top - GAP + MARGIN)
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    legend = f"each dot is an acknowledged commit, each row a client; {escape(str(count))}"
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>Commits of some clients while the writer is lost. {escape(str(count))}.</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}" rx="8"/>',
        f'<text class="title" x="{MARGIN}" y="{MARGIN + 12}">Failovers as clients see them</text>',
        f'<text class="faint" x="{MARGIN}" y="{MARGIN + 30}">{legend}</text>',
    ]
    return "\n".join([*head, *parts, "</svg>", ""])


class _Lane:
    """The place of one act in the picture."""

    def __init__(self, act: FailoverRun) -> None:
        self.act = act
        span = act.first_ack - act.began
        self.start, self.end = -BEFORE * span, span * (1 + AFTER)
        self.clients = 1 + max(each.client for each in act.commits)
        self.height = LABELS + ROW * self.clients + AXIS

    def x(self, at: float) -> float:
        """The place of a time, in seconds since the fault."""
        return MARGIN + (at - self.start) / (self.end - self.start) * (WIDTH - 2 * MARGIN)

    def render(self, top: float) -> str:
        """All of it, from `top` on."""
        dots, bottom = top + LABELS, top + LABELS + ROW * self.clients
        parts = [self._band(dots, bottom), self._axis(bottom)]
        parts += [self._mark(index, at, what, top, bottom) for index, (at, what) in enumerate(self.act.events)]
        parts += [self._dots("old", dots), self._dots("new", dots)]
        return "\n".join(parts)

    def _band(self, top: float, bottom: float) -> str:
        """The time without an ack."""
        left, right = (self.x(at - self.act.began) for at in (self.act.last_ack, self.act.first_ack))
        shown = f"no ack for {_duration(self.act.first_ack - self.act.last_ack)}"
        middle = (left + right) / 2
        return (
            f'<rect class="band" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"/>'
            f'<text class="faint" x="{middle:.1f}" y="{(top + bottom) / 2 + 4:.1f}" text-anchor="middle">{shown}</text>'
        )

    def _axis(self, bottom: float) -> str:
        step = _step(self.end)
        place = f'class="faint" y="{bottom + 18:.1f}" text-anchor="middle"'
        labels = "".join(
            f'<text {place} x="{self.x(at):.1f}">{_duration(at)}</text>'
            for at in (step * index for index in range(int(self.end / step) + 1))
        )
        return f'<path class="axis" d="M{MARGIN} {bottom:.1f}H{WIDTH - MARGIN}"/>{labels}'

    def _mark(self, index: int, at: float, what: str, top: float, bottom: float) -> str:
        """A moment: a line, and its label on a line of its own."""
        x, y = self.x(at), top + 12 + 16 * index
        late = x > 0.7 * WIDTH
        side = f'x="{x - 6:.1f}" text-anchor="end"' if late else f'x="{x + 6:.1f}"'
        kind = "mark bad" if at == 0.0 else "mark"
        return (
            f'<path class="{kind}" d="M{x:.1f} {y - 10:.1f}V{bottom:.1f}"/>'
            f'<text {side} y="{y:.1f}">{escape(what)} <tspan class="faint">{_duration(at)}</tspan></text>'
        )

    def _dots(self, kind: str, top: float) -> str:
        """The commits that the former writer acknowledged (old), or the successor (new)."""
        act = self.act
        places = (
            (self.x(each.at - act.began), top + ROW * (each.client + 0.5))
            for each in act.commits
            if (kind == "old") is (each.instance == act.former and not act.is_resolved(each))
            and self.start <= each.at - act.began <= self.end
        )
        path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in places)
        return f'<path class="{kind}" d="{path}"/>'


def _duration(seconds: float) -> str:
    """Seconds as people write them."""
    return f"{seconds * 1e3:.0f} ms" if abs(seconds) < 1.0 else f"{seconds:.2f} s"


def _step(span: float) -> float:
    """Between two ticks of an axis of `span` seconds."""
    return next(step for step in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0) if span / step <= 8 or step == 10.0)
