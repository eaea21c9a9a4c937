"""The summary that a run prints at its end: sentences and small tables for a plain terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from prfl_jax.report.compare import beside
from prfl_jax.report.masks import server_mask_alone
from prfl_jax.report.metric import Headline
from prfl_jax.report.names import (
    CURVE_NAMES,
    bytes_text,
    duration_text,
    model_name,
    one_model,
    percent_text,
    seconds_text,
    strategy_name,
    title_of,
)
from prfl_jax.report.schema import present_version
from prfl_jax.report.series import thin, value_at

WIDTH = 100
_CLIENT_ROWS = 20
_ENDINGS = {
    "horizon": "the horizon was reached",
    "rounds": "all windows are done",
    "stop_rule": "the stop rule fired",
    "not_finite": "STOPPED: a loss was not finite",
    "interrupted": "interrupted",
}
_FAULTS = {
    "dropout": "dropped out",
    "crash": "crashed",
    "lost_upload": "lost their upload",
    "left": "left",
    "late": "were late",
}


def summary_text(report: Mapping[str, Any], compare: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """A readable summary of at most 100 columns, without a final line end.

    Args:
      report: from `build_report`.
      compare: reports of other strategies; None: those in the report's `compare`.
    """
    report = present_version(report)
    metric, own = Headline.of(report), report["curves"][report["final"]["model"]]
    others = report["compare"] if compare is None else beside(metric, own, compare, points=1000)
    title = title_of(report)
    blocks = [
        [title[:WIDTH], "=" * min(WIDTH, len(title)), *_ending(report), *_attack_and_defence(report)],
        _results(report, metric, others),
        _clients(report),
        _traffic(report),
        _host(report),
    ]
    return "\n\n".join("\n".join(line[:WIDTH].rstrip() for line in block) for block in blocks)


def _ending(report: Mapping[str, Any]) -> list[str]:
    ended, stats, stop = report["ended"], report["window_stats"], report["stop_rule"]
    place = "" if ended["how"] != "not_finite" else f" in window {ended['window']}"
    place += "" if ended["client"] is None else f" at client {ended['client']}"
    detail = "" if not ended["detail"] else f": {ended['detail']}"
    lines = textwrap.wrap(
        f"Ended after {report['windows']:,} windows, {seconds_text(report['simulated_s'])} simulated; "
        f"{_ENDINGS[ended['how']]}{place}{detail}",
        WIDTH,
        subsequent_indent="  ",
    )
    if report["windows"]:
        length_s = stats["length_mean_s"]
        length = f"{length_s:.1f} s" if length_s >= 1 else seconds_text(length_s)
        lines.append(
            f"{report['client_updates']:,} client updates, {stats['arrivals_mean']:.1f} per window of "
            f"{length} (from {stats['arrivals_min']} to {stats['arrivals_max']}, "
            f"{stats['empty']:,} windows empty)"
        )
    if report.get("faults"):
        lines += textwrap.wrap(_faults_text(report["faults"]), WIDTH, subsequent_indent="  ")
    if stop is not None:
        lines.append(f"The stop rule first held after window {stop['window']:,}, at {seconds_text(stop['t_s'])}")
    return lines


def _attack_and_defence(report: Mapping[str, Any]) -> list[str]:
    """The attack, what the server did to updates, and the privacy spent; no lines for what the run does not have."""
    lines, attack, defence, privacy = [], *(report.get(key) for key in ("attack", "defence", "privacy"))
    if attack:
        who = ", ".join(str(client) for client in attack["clients"])
        lines.append(
            f"{len(attack['clients'])} of {report['clients_total']:,} clients attack ({attack['name']}): {who}"
        )
    if defence:
        kept = defence["kept_fraction"]
        stayed = "" if kept is None else f"; at a close {percent_text(kept)} of the weights stayed for lack of holders"
        lines.append(f"{defence['clipped']:,} updates were clipped, {defence['rejected']:,} rejected{stayed}")
    if privacy:
        epsilon = privacy["epsilon"]
        lines.append(
            f"Client-level privacy: epsilon {'infinite' if epsilon is None else f'{epsilon:.3g}'} at delta "
            f"{privacy['delta']:g}, after {privacy['releases']:,} releases of client {privacy['client']}"
        )
    return [wrapped for line in lines for wrapped in textwrap.wrap(line, WIDTH, subsequent_indent="  ")]


def _faults_text(faults: Mapping[str, int]) -> str:
    failed = {kind: count for kind, count in faults.items() if kind != "repeated_upload"}
    kinds = ", ".join(f"{count:,} {_FAULTS[kind]}" for kind, count in failed.items() if count)
    rounds = f"{sum(failed.values()):,} rounds failed" + (f": {kinds}" if kinds else "")
    return f"{rounds}; {faults['repeated_upload']:,} updates were sent twice"


def _results(report: Mapping[str, Any], metric: Headline, others: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A row per server model and per other strategy, of the headline metric."""
    headline = report["final"]["model"]
    own = report["curves"][headline]
    ends = [entry["t_s"] for entry in others.values() if entry["t_s"] is not None]
    t_s = min(ends) if ends else (own["t_s"][-1] if own["t_s"] else None)
    thresholds = list(report[metric.times])
    rows = [[f"Test {metric.words}", f"at {seconds_text(t_s)}", "at the end"]]
    rows[0] += [f"{metric.level_text(level)} after" for level in thresholds]
    one = one_model(report)
    for name in sorted(CURVE_NAMES, key=lambda name: name != headline):
        curve, final = report["curves"][name], report["final"][name]
        if (not curve["t_s"] and final is None) or (one and name != headline):
            continue
        label = f"  {strategy_name(report['strategy'])}, {model_name(name, one)}{' *' if name == headline else ''}"
        reached = report[f"{metric.times}_curves"][name]
        rows.append(_row(metric, label, _at(metric, curve, t_s), final and final[metric.name], reached))
    for strategy, entry in others.items():
        label = f"  {strategy_name(strategy)}, {model_name(entry['model'], entry.get('one_model', False))}"
        # the entry's own value is exact, also if its curve is thinned
        at_t = entry[metric.name] if entry["t_s"] == t_s else _at(metric, entry["curve"], t_s)
        row = _row(metric, label, at_t, entry[metric.final_key], entry[metric.times])
        rows.append(row[: 3 + len(thresholds)])
    lines = _table(rows)
    lines.append("  * the headline model" + _besides(report, metric) + _worst(report))
    own = report.get("own_models")
    if own and own["accuracy_mean"] is not None:
        worst = own["worst_client"]
        lines.append(
            f"  Accuracy of the clients' own models: {percent_text(own['accuracy_mean'])} on average, "
            f"worst client {worst['client']} at {percent_text(worst['accuracy'])}"
        )
    return lines


def _at(metric: Headline, curve: Mapping[str, Any], t_s: float | None) -> float | None:
    """The value of a curve at a simulated second."""
    found: float | None = None if t_s is None else value_at(curve["t_s"], curve[metric.name], t_s)
    return found


def _row(
    metric: Headline, label: str, at_t: float | None, final: float | None, reached: Mapping[str, float | None]
) -> list[str]:
    times = [seconds_text(second, "never") for second in reached.values()]
    return [label, metric.text(at_t), metric.text(final), *times]


def _besides(report: Mapping[str, Any], metric: Headline) -> str:
    """The accuracy at the end, where it is not the metric."""
    accuracy = report["final"]["accuracy"]
    return "" if metric.name == "accuracy" or accuracy is None else f"; accuracy {percent_text(accuracy)}"


def _worst(report: Mapping[str, Any]) -> str:
    worst, classes = report["worst_client"], [share for share in report["per_class"] if share is not None]
    text = ""
    if worst and worst["accuracy"] is not None:
        text += f"; worst client {worst['client']} at {percent_text(worst['accuracy'])}"
    if classes:
        text += f", worst class {report['per_class'].index(min(classes))} at {percent_text(min(classes))}"
    return text


def _clients(report: Mapping[str, Any]) -> list[str]:
    """A row per client (of many, an even selection), and how many pruned clients are back at density 1."""
    entries = report["clients"]
    speeds = report["config"].get("clients", {}).get("up_mb_s")
    known = isinstance(speeds, list) and len(speeds) == report["clients_total"]
    about = ["lowest density", "back at density 1"]
    if "masks" in report:
        about = [] if server_mask_alone(report) else ["own masks keep", "own model"]
    rows = [["Client", "up MB/s", "updates", "staleness", *about]]
    for entry in thin(entries, _CLIENT_ROWS) if len(entries) > _CLIENT_ROWS else entries:
        staleness = entry["staleness_mean"]
        rows.append(
            [
                f"  {entry['client']}",
                f"{speeds[entry['client']]:.3g}" if known else "",
                f"{entry['updates']:,}",
                "-" if staleness is None else f"{staleness:.2f}",
                *_about(entry)[: len(about)],
            ]
        )
    if not known:
        rows = [row[:1] + row[2:] for row in rows]
    lines = _table(rows)
    if len(entries) > _CLIENT_ROWS:
        lines.append(f"  ... {len(rows) - 1} of {report['clients_total']:,} clients shown")
    pruned = [entry for entry in entries if entry["lowest_density"] < 1]
    back = [entry for entry in pruned if entry["recovered_s"] is not None]
    if masks := report.get("masks"):
        lines += textwrap.wrap(
            _masks(masks, server_mask_alone(report)), WIDTH, initial_indent="  ", subsequent_indent="    "
        )
    elif not pruned:
        lines.append("  No client was pruned")
    elif len(entries) < report["clients_total"]:
        pass  # the report lists a selection, from which not all clients can be counted
    elif back:
        last = max(back, key=lambda entry: entry["recovered_s"])
        lines.append(
            f"  {len(back)} of {len(pruned)} pruned clients are back at density 1, "
            f"the last one (client {last['client']}) at {seconds_text(last['recovered_s'])}"
        )
    else:
        lines.append(f"  None of {len(pruned)} pruned clients is back at density 1")
    return lines


def _masks(masks: Mapping[str, Any], shared: bool) -> str:
    """What the masks keep at the end, and the initial stage."""
    low, high = (percent_text(masks["curve"][name][-1]) for name in ("clients_min", "clients_max"))
    line = f"The server's mask keeps {percent_text(masks['retention'])} ({masks['server_kib']:,.0f} KiB), "
    line += "as do all clients" if shared else f"clients' {low} to {high}"
    if initial := masks["initial"]:
        line += f"; initial rounds: {initial['rounds']}, {seconds_text(initial['t_s'])}"
        line += "" if initial["ended"] else ", not ended"
    return line


def _about(entry: Mapping[str, Any]) -> list[str]:
    """A client's density and recovery, or what its own masks keep and how good its own model is."""
    if "retention" in entry:
        own = entry.get("own_accuracy")
        return [percent_text(entry["retention"]), "-" if own is None else percent_text(own)]
    lowest = entry["lowest_density"]
    back = "never lower" if lowest == 1 else seconds_text(entry["recovered_s"], "not yet")
    return [f"{lowest:.2f}", back]


def _traffic(report: Mapping[str, Any]) -> list[str]:
    saved = report["delta_saved"]
    split = report["config"].get("transport", {}).get("name", "delta") == "delta"
    rows = [
        ["Traffic", "in all", "per update"],
        ["  clients sent", *_per_update(report, "bytes_up")],
        ["  clients received", *_per_update(report, "bytes_client_down")],
        ["  server sent", *_per_update(report, "bytes_down")],
    ]
    what = "The delta split" if split else "Sending shared parts once"
    share = "" if saved["fraction"] is None else f" ({percent_text(saved['fraction'])} of what clients received)"
    return [*_table(rows), f"  {what} saved {bytes_text(saved['bytes'])}{share}"]


def _per_update(report: Mapping[str, Any], key: str) -> list[str]:
    updates = report["client_updates"]
    return [bytes_text(report[key]), bytes_text(report[key] / updates) if updates else "-"]


def _host(report: Mapping[str, Any]) -> list[str]:
    host, memory = report["host"], report["peak_memory_mb"]
    speed = "no updates were measured"
    if host["updates_per_s"] is not None and host["s_per_window"] is not None:
        speed = f"{host['updates_per_s']:,.1f} client updates/s, {host['s_per_window']:.3g} s per window"
    parts = [
        f"steady {duration_text(host['steady_s'])}",
        f"compiling, not counted, {duration_text(host['compile_s'])}",
        f"in all {duration_text(host['total_s'])}",
    ]
    lines = [f"Host speed: {speed}", f"  {'; '.join(parts)}"]
    if memory is not None:
        lines[1] += f"; peak memory {memory:,.0f} MB"
    return lines


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as text: the first column aligned left, the others right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("   ".join([row[0].ljust(widths[0]), *cells]))
    return lines
