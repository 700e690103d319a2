"""The tables of an evaluation, as cells."""

import math
from collections.abc import Sequence

from tall_hf.measuring.cost import Cost
from tall_hf.measuring.tables import Cells, p_value_text, percent_with_interval

from .scores import Scores


def quality_rows(scores: Sequence[Scores], reference: str) -> Cells:
    """Accuracy with its interval, what else tells how near the answers are, and significance, of one protocol."""
    head = ["approach", "accuracy % [95%]", "top-5 %", "MRR", "chrF", f"p vs {reference}"]
    rows = []
    for entry in scores:
        metrics = entry.metrics
        if metrics is None:
            rows.append([entry.run.approach, "failed"] + [""] * (len(head) - 2))
            continue
        rows.append(
            [
                entry.run.approach,
                percent_with_interval(metrics),
                f"{100 * metrics['top5_accuracy']:.2f}",
                f"{metrics['mean_reciprocal_rank']:.3f}",
                f"{100 * metrics['character_f_score']:.1f}",
                p_value_text(entry.comparison.adjusted_p_value) if entry.comparison else "",
            ]
        )
    return _without_empty_columns(head, rows)


def cost_rows(scores: Sequence[Scores]) -> Cells:
    """Probabilities of the missing words, where approaches give them, and what the answers cost."""
    head = ["approach", "perplexity", "bits/char", "seconds", "seconds learning", "peak memory"]
    rows = []
    for entry in scores:
        run, metrics = entry.run, entry.metrics
        if metrics is not None:
            rows.append(
                [
                    run.approach,
                    _number(metrics["perplexity"]),
                    _number(metrics["bits_per_character"]),
                    f"{run.answering.seconds:,.1f}",
                    f"{run.fitting.seconds:,.1f}" if run.fitting else "",
                    _memory(run.answering + (run.fitting or Cost())),
                ]
            )
    return _without_empty_columns(head, rows)


def split_rows(scores: Sequence[Scores], by: str, intervals: bool) -> Cells:
    """Accuracies by "group", "frequency", "overlap" or "length", with or without intervals; no rows where there is no such split."""
    split = [entry for entry in scores if by in entry.splits]
    if not split:
        return [], []
    parts = {name: metrics["n"] for name, metrics in split[0].splits[by].items()}
    head = ["approach", *(f"{name or 'none'} (n={n:,})" for name, n in parts.items())]
    rows = [
        [entry.run.approach, *(percent_with_interval(entry.splits[by][name], interval=intervals) for name in parts)]
        for entry in split
    ]
    return head, rows


def error_lines(scores: Sequence[Scores]) -> list[str]:
    """A line for each run that failed."""
    return [f"{entry.run.approach} failed: {entry.run.error}" for entry in scores if entry.run.error]


def _without_empty_columns(head: list[str], rows: list[list[str]]) -> Cells:
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] for row in rows)]
    return [head[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if not math.isfinite(value):
        return "∞"
    return f"{value:,.2f}" if value < 1e6 else f"{value:.1e}"


def _memory(cost: Cost) -> str:
    """The accelerator's where it was used, else the process's; beside an accelerator it is told apart."""
    peak = cost.peak_accelerator_memory or cost.peak_memory
    host = " (host)" if cost.peak_accelerator_memory == 0 else ""
    return f"{peak / 2**30:.2f} GiB{host}"
