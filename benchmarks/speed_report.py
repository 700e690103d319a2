"""What benchmarks/speed.py measured, as one table, the budget that explains it, and a plot."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from tall_hf.measuring.figures import colour, figure_class, save_png


def show(results: dict, console: Console) -> None:
    """Print the table of `speed.run`'s results, their budget, and what settings cost."""
    machine, ceilings = results["machine"], results["ceilings"]
    measured = ", ".join(f"{name} {one['flop_per_second'] / 1e9:,.1f} GFLOP/s" for name, one in ceilings.items())
    copied = next(iter(ceilings.values()))["bytes_per_second"] / 1e9
    table = Table(
        title=f"{machine['device']} ({machine['processor']}), {machine['threads']} threads, torch {machine['torch']}, {machine['date']}; "
        f"ceilings measured in this run: matrix product {measured}; memory copy {copied:,.1f} GB/s",
        title_justify="left",
        caption="Less is better; a ratio says how many times less than the reference, with ≤ how many times the bound. The authors' "
        "procedure is in float32 in every row, a bound in the row's own precision. ✓ and ✗: the aim is reached or missed by that column.",
        caption_justify="left",
    )
    for name in ("size", "what", "dtype"):
        table.add_column(name)
    for name in (
        "reference",
        "ours, exact",
        "ratio",
        "same as reference",
        "ours, settings",
        "ratio",
        "aim",
        "ceiling",
    ):
        table.add_column(name, justify="right" if name != "ours, settings" else "left")
    for row in results["rows"]:
        settings = row["settings"]
        table.add_row(
            row["size"],
            row["what"],
            row["dtype"].replace("float", "f"),
            f"{_figure(row['reference'])} {row['unit']}"
            + (f"\n({row['reference_note']})" if row["reference_note"] else ""),
            f"{_figure(row['exact'])} {row['unit']}" if row["exact"] else "",
            _ratio(row, row["exact"]),
            row["equal"],
            "\n".join(f"{_figure(figure)} {row['unit']}: {name}" for name, figure in settings.items()),
            "\n".join(_ratio(row, figure) for figure in settings.values()),
            _aim(row),
            _share(row),
            end_section=True,
        )
    console.print(table)
    console.print(budget_table(results))
    if results["accuracy"]:
        console.print(accuracy_table(results["accuracy"], results["options"]["trained"]))
    else:
        console.print(
            f"What settings cost in accuracy was not measured: {results['options']['trained']} is no trained TALL (`make demo`)."
        )
    for line in results["slow"]:
        console.print(line, soft_wrap=True)
    left_out = f" Left out for want of time: {'; '.join(results['left_out'])}." if results["left_out"] else ""
    console.print(f"Measured in {results['seconds'] / 60:.1f} minutes.{left_out}")


def budget_table(results: dict) -> Table:
    """FLOP and bytes of each stage of what is exact, and the least seconds that each takes at the measured ceilings."""
    table = Table(
        title="budget: what a figure of the table consists of, and what each stage takes at least, at the ceilings above",
        title_justify="left",
    )
    for name in ("size, dtype, what", "stage"):
        table.add_column(name)
    columns = ("GFLOP forward", "GFLOP backward", "s to compute", "GB of weights fetched", "s to fetch", "s measured")
    for name in columns:
        table.add_column(name, justify="right")
    for row in results["rows"]:
        stages, ceiling = row["stages"], results["ceilings"][row["dtype"]]
        if not stages:
            continue
        figure = next(one for one in (row["exact"], *row["settings"].values()) if one is not None)
        total = {key: sum(stage[key] for stage in stages) for key in ("forward", "backward", "bytes")}
        for place, stage in enumerate((*stages, {"name": "all", **total})):
            computing = (stage["forward"] + stage["backward"]) / ceiling["flop_per_second"]
            # A copy reads and writes each byte; weights are read only.
            fetching = stage["bytes"] / (2 * ceiling["bytes_per_second"])
            numbers = (stage["forward"] / 1e9, stage["backward"] / 1e9, computing, stage["bytes"] / 1e9, fetching)
            is_last = place == len(stages)
            table.add_row(
                f"{row['size']}, {row['dtype']}, {row['what']}" if place == 0 else "",
                stage["name"],
                *(f"{number:,.3g}" for number in numbers),
                _figure(figure) if is_last else "",
                end_section=is_last,
            )
    return table


def accuracy_table(rows: list[dict], folder: str) -> Table:
    """Accuracy on trained weights by setting, and how it differs from that of what is exact."""
    table = Table(title=f"what settings cost: {folder}, {rows[0]['questions']} questions", title_justify="left")
    for name in ("setting", "accuracy %", "change"):
        table.add_column(name, justify="left" if name == "setting" else "right")
    for row in rows:
        change = "" if row["change"] is None else f"{100 * row['change']:+.1f}"
        table.add_row(row["setting"], f"{100 * row['accuracy']:.1f}", change)
    return table


def plot(results: dict, path: Path) -> Path:
    """How many times less than the reference each row takes: exact, and with settings, with the aims."""
    rows = [row for row in results["rows"] if row["ratio_of"] == "reference"]
    figure = figure_class()(figsize=(9, 1.2 + 0.5 * max(1, len(rows))), layout="constrained")
    axis = figure.subplots()
    for place, row in enumerate(rows):
        bars = ([("exact", row["exact"])] if row["exact"] else []) + list(row["settings"].items())
        for index, (name, seconds) in enumerate(bars):
            at = place + (index - (len(bars) - 1) / 2) * 0.2
            ratio = row["reference"] / seconds
            axis.barh(at, ratio, height=0.18, color=colour(0 if name == "exact" else 1))
            axis.annotate(
                f"{ratio:.1f}  {name}", (ratio, at), xytext=(3, 0), textcoords="offset points", va="center", fontsize=6
            )
        if row["aim"]:
            axis.plot([row["aim"]] * 2, [place - 0.45, place + 0.45], color="black", linestyle=":")
    axis.set_yticks(range(len(rows)), [f"{row['size']}, {row['dtype']}: {row['what']}" for row in rows], fontsize=7)
    axis.invert_yaxis()
    axis.set_xscale("log")
    # Room on the right for what stands beside the longest bar.
    ratios = [
        row["reference"] / seconds for row in rows for seconds in (row["exact"], *row["settings"].values()) if seconds
    ]
    axis.set_xlim(0.8 * min([1, *ratios]), 12 * max([1, *ratios]))
    axis.axvline(1, color="grey", linewidth=0.8)
    axis.set_xlabel("times less than the authors' procedure in float32 (dotted: the aim)")
    return save_png(figure, path, dpi=150)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _ratio(row: dict, figure: float | None) -> str:
    if figure is None or not row["reference"]:
        return ""
    bounded = row["ratio_of"] == "ours"
    ratio = figure / row["reference"] if bounded else row["reference"] / figure
    mark = ""
    if row["aim"] is not None:
        mark = " ✓" if (ratio <= row["aim"] if bounded else ratio >= row["aim"]) else " ✗"
    return f"{ratio:.2g}x{mark}" if ratio < 10 else f"{ratio:.0f}x{mark}"


def _aim(row: dict) -> str:
    if row["aim"] is None:
        return ""
    return f"{'≤' if row['ratio_of'] == 'ours' else '≥'} {row['aim']:g}x"


def _share(row: dict) -> str:
    if row["share"] is None:
        return ""
    if row["aimed_share"] is None:
        return f"{row['share']:.2f}"
    return f"{row['share']:.2f} {'✓' if row['share'] >= row['aimed_share'] else '✗'}\n(aim {row['aimed_share']})"
