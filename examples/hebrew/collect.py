"""Tables of a finished or unfinished run, in Markdown for docs/results.md, and its learning curve.

python collect.py outputs/he-cpu [--plot learning_curve.png] > tables.md
"""

import argparse
import math
import sys
from pathlib import Path

from run import shown

from tall_hf.evaluation.scores import OVERLAP
from tall_hf.files import read_json
from tall_hf.measuring.tables import markdown_table, p_value_text, percent_with_interval


def gibibytes(count: int | None) -> str:
    return "" if count is None else f"{count / 2**30:.2f} GiB"


def component_tables(output: Path) -> list[str]:
    """How good the parts are, and what they took."""
    reports = {path.parent.name: read_json(path) for path in sorted(output.glob("components/*/report.json"))}
    if not reports:
        return []
    head = ["part", "parameters", "steps", "seed", "figures", "seconds", "peak memory"]
    rows, signatures = [], set()
    for name, report in reports.items():
        figures = []
        for test, quality in report.get("tests", {}).items():
            figures.append(f"{test}: BLEU {quality['BLEU']:.2f}, chrF {quality['chrF2']:.2f}")
            signatures |= {f"{metric} `{quality[f'{metric}_signature']}`" for metric in ("BLEU", "chrF2")}
        if "validation_loss_of_other_sources" in report:
            own, others = report["validation_loss"], report["validation_loss_of_other_sources"]
            figures.append(f"validation loss {own:.2f}, of other sources {others:.2f}")
        if "perplexity" in report:
            figures.append(f"perplexity {report['perplexity']:.2f} a token, {report['word_perplexity']:.1f} a word")
        made = report["made_with"]
        steps = "" if name == "random_llm" else str(made["sizes"]["steps"])
        memory = report["peak_accelerator_memory"] or report["peak_memory"]
        parameters, seconds = f"{report['parameters']:,}", f"{report['seconds']:,.0f}"
        rows.append([name, parameters, steps, str(made["seed"]), "; ".join(figures), seconds, gibibytes(memory)])
    return ["## Parts\n", markdown_table(head, rows), *sorted(f"{one}\n" for one in signatures)]


def evaluation_tables(output: Path) -> list[str]:
    """For each evaluation and each set of questions, how often every approach was right."""
    sections = []
    stages = {record["stage"]: record for record in map(read_json, sorted(output.glob("stages/*.json")))}
    for path in sorted(output.glob("evaluation/*/*/results.json")):
        name, test = path.parts[-3:-1]
        report = read_json(path)
        record = stages.get(f"evaluate:{name}:{test}") or stages.get(f"{name.replace('_', ':', 1)}:{test}") or {}
        for protocol, found in report["protocols"].items():
            sections.append(f"## {name}, {test}, protocol {protocol}: {found['questions']:,} questions\n")
            if record:
                sections.append(f"    {shown(record['command'])}\n")
                sections.append(
                    f"{record['date']}, {record['machine']}, {record['cpus']} CPUs; seed {report['seed']}.\n"
                )
            sections.append(markdown_table(*_quality(found["approaches"], stages)))
            for by in ("group", "overlap"):
                head, rows = _split(found["approaches"], by)
                if rows:
                    sections.append(markdown_table(head, rows))
    return sections


def _quality(approaches: dict, stages: dict) -> tuple[list[str], list[list[str]]]:
    head = ["approach", "accuracy % [95%]", "top-5 %", "bits/char", "p", "trials", "seconds learning", "seconds"]
    head += ["peak memory"]
    rows = []
    for name, entry in approaches.items():
        if "error" in entry:
            rows.append([name, f"failed: {entry['error']}", *[""] * (len(head) - 2)])
            continue
        metrics, comparison, learned = entry["metrics"], entry["comparison"], entry["learned"]
        # A TALL learned in stages of its own, the others in the evaluation.
        own = [stages[stage] for stage in (f"align:{name}", f"train:{name}") if stage in stages]
        learning = [entry["fitting_cost"]] if entry["fitting_cost"] else own
        memory = max(cost["peak_memory"] for cost in [*learning, entry["answering_cost"]])
        trials = learned.get("trials", "by hand" if own else "")
        bits = metrics.get("bits_per_character")
        if bits is not None:  # "inf" where a word cannot be written
            bits = f"{bits:.2f}" if math.isfinite(float(bits)) else "∞"
        rows.append(
            [
                name,
                percent_with_interval(metrics),
                f"{100 * metrics['top5_accuracy']:.2f}",
                str(bits or ""),
                p_value_text(comparison["adjusted_p_value"]) if comparison else "",
                str(len(trials) if isinstance(trials, list) else trials),
                f"{sum(cost['seconds'] for cost in learning):,.0f}" if learning else "",
                f"{entry['answering_cost']['seconds']:,.0f}",
                gibibytes(memory),
            ]
        )
    return head, rows


def _split(approaches: dict, by: str) -> tuple[list[str], list[list[str]]]:
    splits = {name: entry["splits"][by] for name, entry in approaches.items() if entry.get("splits", {}).get(by)}
    parts = {part: metrics["n"] for split in splits.values() for part, metrics in split.items()}
    if len(parts) < 2:  # the table above has it
        return [], []
    title = {"group": "", "overlap": f"{OVERLAP} words in a row in the training text: "}[by]
    head = ["approach", *(f"{title}{part} (n={count:,})" for part, count in parts.items())]
    return head, [[name, *(percent_with_interval(split[part]) for part in parts)] for name, split in splits.items()]


def plot_learning_curve(output: Path, path: Path) -> None:
    """Accuracy against training sentences, of the evaluations that say how many they learned from."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    curves: dict[tuple[str, str], dict[int, dict]] = {}
    for found in sorted(output.glob("evaluation/*/*/results.json")):
        report = read_json(found)
        if report.get("dataset") is None or not found.parts[-3].startswith(("main", "curve")):
            continue
        sentences = read_json(Path(report["dataset"]) / "prepare.json")["counts"]["train"]
        for name, entry in report["protocols"].get("clean", {}).get("approaches", {}).items():
            curve = name.rsplit("_", 1)[0] if name.endswith("k") else name
            if "error" not in entry:
                curves.setdefault((found.parts[-2], curve), {})[sentences] = entry["metrics"]
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    tests = sorted({test for test, _ in curves})
    if not tests:
        raise ValueError(f"{output} has no two evaluations of an approach on different numbers of sentences yet.")
    figure, axes = plt.subplots(1, len(tests), figsize=(5 * len(tests), 3.6), squeeze=False, layout="constrained")
    for axis, test in zip(axes[0], tests, strict=True):
        for (of, name), points in curves.items():
            if of == test:
                x = sorted(points)
                y = [100 * points[count]["accuracy"] for count in x]
                ends = list(zip(*(points[count]["accuracy_interval"] for count in x), strict=True))
                axis.plot(x, y, marker="o", label=name)
                axis.fill_between(x, *([100 * one for one in end] for end in ends), alpha=0.2)
        counts = sorted({count for (of, _), points in curves.items() if of == test for count in points})
        axis.set(title=test, xscale="log", xlabel="training sentences", ylabel="accuracy %", ylim=(0, None))
        axis.set_xticks(counts, [f"{count:,}" for count in counts])
        axis.minorticks_off()  # their labels would stand on those of the counts
        axis.legend()
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the --output of run.py")
    parser.add_argument("--plot", type=Path, help="also draw the learning curve, as .png")
    options = parser.parse_args()
    tables = [*component_tables(options.output), *evaluation_tables(options.output)]
    if not tables:
        sys.exit(f"Error: {options.output} has no parts and no evaluations yet; name the --output of run.py.")
    print("\n".join(tables))
    if options.plot:
        plot_learning_curve(options.output, options.plot)


if __name__ == "__main__":
    main()
