"""What `fusion_microworld.sh` has evaluated, over seeds: a Markdown table with intervals, or the best settings of each kind.

python examples/fusion_table.py outputs/microworld-fusion/validation           # all settings
python examples/fusion_table.py outputs/microworld-fusion/validation --best    # NAME=FOLDER of the best of each kind, every seed

Models are called KIND_RATE_FUSIONRATE-SEED. Intervals are over seeds and people, each drawn again: a person's questions are not
independent, and with three seeds they are rather too narrow. The last column compares the languages that were not trained on with the
first row's, seed by seed and person by person.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from tall_hf.measuring.tables import interval_text, markdown_table
from tall_hf.sweep.compare import crossed_bootstrap


def shares_by_person(folder: Path, results: dict, language: str, model: str) -> list[float]:
    """Of each person's questions, which stand one after another, the share that was answered rightly."""
    path = folder / results["languages"][language]["models"][model]["predictions"]
    answers = json.loads(path.read_text(encoding="utf-8"))["questions"]
    asked = Path(results["task"]["data_files"].format(language=language, split=results["split"]))
    relations = {json.loads(line)["relation"] for line in asked.read_text(encoding="utf-8").splitlines()}
    right = np.array([one["prediction"] == one["answer"] for one in answers])
    return right.reshape(-1, len(relations)).mean(axis=1).tolist()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what `tall fusion evaluate` wrote")
    parser.add_argument("--best", action="store_true", help="print the models of each kind's best settings alone")
    options = parser.parse_args(argv)
    results = json.loads((options.folder / "results.json").read_text(encoding="utf-8"))
    languages = list(results["languages"])
    # By settings and language: the shares of every seed, (seeds, people).
    shares: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for model in results["models"]:
        for language in languages:
            found = shares_by_person(options.folder, results, language, model)
            shares[model.rpartition("-")[0]][language].append(found)
    means = {settings: np.mean([found[one] for one in languages]) for settings, found in shares.items()}
    if options.best:
        best: dict[str, str] = {}
        for settings in means:
            kind = settings.rsplit("_", 2)[0]
            if kind not in best or means[settings] > means[best[kind]]:
                best[kind] = settings
        for model, folder in results["models"].items():
            if model.rpartition("-")[0] in best.values():
                print(f"{model}={folder}")
        return
    others = [one for one in languages if one != results["task"]["train_language"]]
    first = np.mean([shares[next(iter(shares))][one] for one in others], axis=0)
    rows = []
    for settings, found in shares.items():
        kind, rate, fusion_rate = settings.rsplit("_", 2)
        cells = [kind, rate, fusion_rate if kind.endswith("softmax") else ""]
        for language in languages:
            seeds = np.array(found[language])
            by_seed = ", ".join(f"{100 * one:.1f}" for one in seeds.mean(axis=1))
            interval = interval_text(crossed_bootstrap(seeds, (0.0, 1.0)))
            cells.append(f"{100 * seeds.mean():.1f} {interval} ({by_seed})")
        difference = np.mean([found[one] for one in others], axis=0) - first
        against_first = (
            f"{100 * difference.mean():+.1f} {interval_text(crossed_bootstrap(difference, (-1.0, 1.0)))}"
            if rows
            else ""
        )
        rows.append([*cells, f"{100 * means[settings]:.1f}", against_first])
    last = f"{' and '.join(others)} minus the first row's"
    print(markdown_table(["kind", "learning rate", "of the fusion", *languages, "mean", last], rows))


if __name__ == "__main__":
    main()
