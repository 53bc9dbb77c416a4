"""A live table while a side runs, and all sides beside each other at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from demo.measure import Figures, percentile
from demo.setup import Setup
from demo.side import Glance

_LINE_EVERY_S = 5.0


class Screen:
    """Shows glances: a table on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._line_at = 0.0

    def __enter__(self) -> Screen:
        self._line_at = 0.0
        if self._console.is_terminal:
            self._live = Live(console=self._console, transient=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, glance: Glance) -> None:
        if self._live is not None:
            self._live.update(live_table(glance), refresh=True)
        elif glance.at_s >= self._line_at:
            self._line_at = glance.at_s + _LINE_EVERY_S
            self._console.print(line(glance), highlight=False, soft_wrap=True)


def line(glance: Glance) -> str:
    """A moment in one line."""
    latencies = [ms for each in glance.searchers for ms in each.latencies_ms]
    return (
        f"  {glance.at_s:4.0f} s  price {glance.pool['price']}  leased {glance.pool['allocatedPercent']}%"
        f"  displaced {glance.pool['displacements']}  answered {len(latencies)}"
        f"  waiting {sum(each.waiting for each in glance.searchers)}"
        f"  p99 {percentile(latencies, 99):.0f} ms"
    )


def live_table(glance: Glance) -> Table:
    pool = glance.pool
    table = Table(
        title=f"{glance.title}   {glance.at_s:.0f} of {glance.seconds:.0f} s",
        caption=(
            f"price {pool['price']} credits per GPU-hour   {pool['devices']} devices,"
            f" {pool['allocatedPercent']}% leased   {pool['bids']} bids wait"
            f"   {pool['displacements']} displaced"
        ),
    )
    table.add_column("agent")
    for column in ("balance", "spends an hour", "holds", "pods", "waiting", "answered", "p99 so far"):
        table.add_column(column, justify="right")
    searchers = {each.agent: each for each in glance.searchers}
    for agent in glance.agents:
        name, status = agent["metadata"]["name"], agent.get("status", {})
        cells = [
            name,
            str(status.get("balance", "")),
            str(status.get("spendPerHour", "")),
            f"{glance.leased_milli.get(name, 0) / 1000:.2f} GPU",
        ]
        if searcher := searchers.get(name):
            latencies = searcher.latencies_ms
            p99 = f"{percentile(latencies, 99):.0f} ms"
            cells += [str(searcher.ready), str(searcher.waiting), str(len(latencies)), p99]
        table.add_row(*cells)
    return table


def comparison(setups: Sequence[Setup], found: Mapping[str, Figures]) -> Table:
    """All sides; the best of each line is bold."""
    table = Table(title="The same queries on the same devices", caption="every figure measured in this run")
    table.add_column("")
    sides = [found[setup.name] for setup in setups if setup.name in found]
    for setup in setups:
        if setup.name in found:
            table.add_column(setup.title, justify="right")
    rows: list[tuple[str, list[float], str, int]] = [
        ("query latency p50", [each.query_p50_ms for each in sides], "{:,.0f} ms", -1),
        ("query latency p99", [each.query_p99_ms for each in sides], "{:,.0f} ms", -1),
        ("queries", [each.queries for each in sides], "{:,.0f}", 0),
        ("  unanswered at the end", [each.unanswered for each in sides], "{:,.0f}", -1),
        ("training tokens", [each.train_tokens for each in sides], "{:,.0f}", 1),
        ("  loss, nats a byte", [each.train_loss for each in sides], "{:.3f}", -1),
        ("documents embedded", [each.documents_embedded for each in sides], "{:,.0f}", 1),
        ("GPU time used", [100 * each.gpu_utilisation for each in sides], "{:.1f}%", 1),
        ("GPU time leased", [100 * each.gpu_leased for each in sides], "{:.1f}%", 0),
        ("cores taken by others", [each.other_cores for each in sides], "{:.2f}", 0),
        ("displacements", [each.displacements for each in sides], "{:,.0f}", 0),
    ]
    for label, values, form, better in rows:
        best = max(values) if better > 0 else min(values)
        cells = [form.format(value) for value in values]
        if better and len(set(values)) > 1:
            pairs = zip(cells, values, strict=True)
            cells = [f"[bold green]{cell}[/]" if value == best else cell for cell, value in pairs]
        table.add_row(label, *cells)
    table.add_section()
    for agent in sorted({name for each in sides for name in each.spend}):
        table.add_row(f"spend of {agent}", *(f"{each.spend.get(agent, 0):.4f}" for each in sides))
    table.add_section()
    table.add_row("ledger, meters and cost", *(_audit(each) for each in sides))
    return table


def _audit(side: Figures) -> str:
    if side.audit is None:
        return "not read"
    return "agree" if side.audit.agrees else "[bold red]differ[/]"
