"""The whole way on real text as a queue that goes on where it was stopped: parts, TALLs, their rivals, tables.

python run.py --language-config he.yaml --scale cpu --data FOLDER --output outputs/he-cpu
python run.py ... --list                       # what is done and what is missing
python run.py ... --dry-run                    # every command, and what would be fetched
python run.py ... --only 'component:*'         # some stages, and what they need
python run.py ... --lr-hr Helsinki-NLP/opus-mt-tc-big-he-en --llm Qwen/Qwen2.5-0.5B --hr-lr Helsinki-NLP/opus-mt-en-he

Each stage is a command of its own, so every one can be repeated by hand; `stages/*.json` in the output say how long it took.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from data import read_language, read_scale, read_yaml, text_name

from tall_hf.files import locked
from tall_hf.sweep.queue import TALL, Stage, is_done, read_record, run_queue, state_of, with_needs
from tall_hf.sweep.queue import shown as queue_shown
from tall_hf.training.alignment_settings import OBJECTIVES


HERE = Path(__file__).parent
ROLES = ("lr_hr", "hr_lr", "llm")  # the longest trainings first
_QUICK = {"majority", "ngram", "decoder_only"}  # they count, or learn nothing
_ITEM_KEYS = {
    "row": {"row", "like", "from", "compose", "align", "train", "sentences", "truncation", "parts", "longer"},
    "evaluation": {"evaluation", "rows", "rivals", "without_llm", "sets", "sentences", "seed"},
    "references": {"references", "sets"},
    "links": {"links"},
}


def read_grid(path: str | os.PathLike) -> list[dict]:
    """Read the queue's rows and evaluations, with what they take over by `like` filled in.

    Raises:
        ValueError: an unknown key, a name given twice, or a row that is named before it is there.
    """
    grid, rows, taken = [], {}, set()
    for item in read_yaml(path, list):
        kind = next((kind for kind in _ITEM_KEYS if kind in item), None)
        if kind is None or not set(item) <= _ITEM_KEYS[kind]:
            raise ValueError(
                f"{path}: {item} is no row, evaluation, references or links entry; grid.yaml explains them."
            )
        name = (kind, str(item[kind]))
        if name in taken:
            raise ValueError(f"{path}: there are two entries `{kind}: {item[kind]}`.")
        taken.add(name)
        if kind == "evaluation" and not item.get("rows"):
            raise ValueError(f"{path}: the evaluation {item['evaluation']!r} names no rows.")
        named = [
            item.get("like"),
            item.get("from"),
            item.get("without_llm"),
            *item.get("rows", ()),
            item.get("references"),
        ]
        if missing := [name for name in named if name is not None and name not in rows]:
            raise ValueError(f"{path}: {item[kind]} names the row {missing[0]!r}, which does not stand before it.")
        if kind == "links" and any("links" in other for other in grid):
            raise ValueError(f"{path}: there are two entries of links; name all language models in one.")
        if kind == "row" and item.get("align") not in (None, *OBJECTIVES):
            raise ValueError(
                f"{path}: the row {item['row']!r} has `align: {item['align']}`, which is none of {', '.join(OBJECTIVES)}."
            )
        if kind == "row":
            base = rows.get(item.get("like"), {})
            merged = {name: base.get(name, {}) | item.get(name, {}) for name in ("compose", "train", "parts")}
            item = {**base, **item, **merged}
            start = rows.get(item.get("from"), item)
            if "align" in item and "from" in item and item["align"] != start.get("align"):
                raise ValueError(
                    f"{path}: the row {item['row']!r} trains the model of {item['from']!r} on, whose alignments are trained; "
                    "leave its own `align` out."
                )
            if any(item[name] not in ({}, start[name]) for name in ("compose", "parts")):
                raise ValueError(
                    f"{path}: the row {item['row']!r} trains the model of {item['from']!r} on, which has another compose or "
                    "other parts; leave its own out."
                )
            # Trained on, it is the model of the other row, around that one's parts.
            item |= {name: start[name] for name in ("compose", "parts")}
            rows[item["row"]] = item
        grid.append(item)
    return grid


def without_replaced_parts(grid: Sequence[dict], given: Iterable[str]) -> list[dict]:
    """The grid without what compares parts that are trained here, where checkpoints take their places.

    A row around another translator back, say, would be the same model again if the translator back is given.

    Args:
        grid: as `read_grid` gives it.
        given: the roles of the checkpoints.
    """
    given, kept, left_out = set(given), [], set()
    for item in grid:
        if "row" in item:
            others = {role for role, part in item["parts"].items() if part != "random_llm"}
            if others & given or item.get("from") in left_out:
                left_out.add(item["row"])
                continue
        elif "links" not in item:
            asked = [name for name in item.get("rows", [item.get("references")]) if name not in left_out]
            if not asked or item.get("without_llm") in left_out:
                continue
            item = {**item, "rows": asked} if "rows" in item else item
        kept.append(item)
    return kept


def build_queue(
    grid: Sequence[dict], language: dict, scale: dict, parts: dict[str, str | None], paths: dict[str, Path]
) -> list[Stage]:
    """All stages, each after what it needs.

    Args:
        grid: as `read_grid` gives it.
        language, scale: as their files have them.
        parts: for each of `ROLES` a checkpoint that replaces the part trained here, or None.
        paths: "language" and "scale" (files), "data" (folder with the data files), "output".
    """
    output = paths["output"]
    text, components = output / "data", output / "components"
    rows = {item["row"]: item for item in grid if "row" in item}
    subsets = {_subset(item, scale) for item in grid if "row" in item or "evaluation" in item}
    # Some languages have no translations by people of what is held out.
    has_references = any(
        "english" in source and (source.get("held_out") or source.get("role") == "held_out")
        for source in language["sources"]
    )
    queue: dict[str, Stage] = {}

    def add(name, command, needs=(), links=None):
        if name not in queue:
            queue[name] = Stage(name, [str(part) for part in command], list(needs), links or {})
        return name

    command = [sys.executable, HERE / "data.py", paths["language"], "--data", paths["data"], "--output", text]
    for sentences in sorted(subsets - {None}):
        command += ["--subset", sentences]
    add("data", command)

    def component(part, role):
        if parts.get(role) and part != "random_llm":
            return parts[role], []
        command = [sys.executable, HERE / "components.py", part, "--language", paths["language"]]
        command += ["--scale", paths["scale"], "--data", text, "--output", components]
        needs = ["data"]
        if part == "random_llm":
            llm, llm_needs = component("llm", "llm")
            command += ["--llm", llm]
            needs += llm_needs
        return components / part, [add(f"component:{part}", command, needs)]

    def composed(row):
        if "from" in row:
            return composed(rows[row["from"]])
        found = {role: component(row["parts"].get(role, role), role) for role in ROLES}
        folder = output / "composed" / row["row"]
        command = [*TALL, "compose", "--output", folder]
        for role, (spec, _) in found.items():
            command += [f"--{role.replace('_', '-')}", spec]
        for name, value in row["compose"].items():
            command += [
                f"--{'' if value is not False else 'no-'}{name}",
                *([] if isinstance(value, bool) else [value]),
            ]
        if seed := row["train"].get("seed"):  # another seed draws other first weights, too
            command += ["--seed", seed]
        needs = [need for _, stages in found.values() for need in stages]
        return folder, add(f"compose:{row['row']}", command, needs)

    def prepared(row, truncation):
        """Rows to train on are the same for all TALLs with these tokenizers and this translator."""
        source = text / text_name(_subset(row, scale))
        translator = row["parts"].get("lr_hr")
        folder = output / "prepared" / "-".join(filter(None, (source.stem, truncation, translator)))
        model, need = composed(row)
        command = [*TALL, "prepare", source, "--model", model, "--output", folder, "--truncation", truncation]
        command += ["--min-words", language["min_words"], "--max-words", language["max_words"]]
        command += ["--strip-niqqud"] * language["strip_niqqud"]
        for name, value in scale.get("prepare", {}).items():
            command += [f"--{name}", value]
        return folder, add(f"prepare:{folder.name}", command, ["data", need])

    def aligned(row, dataset, prepare_need):
        """The composed model, its alignments pretrained where the row says by which objective."""
        model, need = composed(row)
        if "align" not in row:
            return model, need
        folder = output / "aligned" / row["row"]
        command = [*TALL, "pretrain-alignment", model, "--dataset", dataset, "--output", folder]
        command += ["--objective", row["align"]]
        for name, value in scale.get("align", {}).items():
            command += [f"--{name}", value]
        return folder, add(f"align:{row['row']}", command, [need, prepare_need])

    def trained(row):
        dataset, prepare_need = prepared(row, row.get("truncation", "last_word"))
        model, need = trained(rows[row["from"]]) if "from" in row else aligned(row, dataset, prepare_need)
        folder = output / "trained" / row["row"]
        command = [*TALL, "train", "--model", model, "--dataset", dataset, "--output_dir", folder, "--resume"]
        settings = {**scale["train"], **row["train"]}
        settings["max_steps"] = round(settings["max_steps"] * row.get("longer", 1))
        for name, value in settings.items():
            command += ["--set", f"{name}={json.dumps(value)}"]
        return folder / "model", add(f"train:{row['row']}", command, [need, prepare_need])

    for item in grid:
        if "row" in item:
            trained(item)
            continue
        if "evaluation" not in item and not has_references:
            continue
        if "links" in item:
            models = [component(part, "llm") for part in item["links"]]
            translator, translator_needs = component("hr_lr", "hr_lr")
            command = [sys.executable, HERE / "links.py", "--hr-lr", translator, "--data", text]
            for spec in dict.fromkeys(spec for spec, _ in models):
                command += ["--llm", spec]
            command += ["--output", output / "links.json"] + ["--strip-niqqud"] * language["strip_niqqud"]
            needs = [need for _, stages in models for need in stages]
            add("links", command, dict.fromkeys(["data", *translator_needs, *needs]))
            continue
        tests = item.get("sets", ["held_out", *language["question_tests"]])
        chosen = {name: trained(rows[name]) for name in item.get("rows", [item.get("references")])}
        # What rivals learn from: the same sentences, without their last word.
        first = next(rows[name] for name in chosen)
        dataset, prepare_need = prepared({**first, "sentences": item.get("sentences")}, "last_word")
        for test in tests:
            kind = "evaluation" if "evaluation" in item else "references"
            name = item[kind] if kind == "evaluation" else f"references_{item[kind]}"
            folder = output / "evaluation" / name / test
            needs = ["data", prepare_need, *(need for _, need in chosen.values())]
            common = ["--dataset", dataset, "--output", folder, "--max-questions", scale["questions"]]
            common += ["--strip-niqqud"] * language["strip_niqqud"] + ["--batch-size", scale["evaluate"]["batch_size"]]
            if kind == "references":
                command = [sys.executable, HERE / "references.py", f"{item[kind]}={chosen[item[kind]][0]}"]
                add(
                    f"references:{item[kind]}:{test}",
                    [*command, "--text", text / f"{test}.references.jsonl", *common],
                    needs,
                )
                continue
            rivals = item.get("rivals", "all")
            command = [*TALL, "evaluate", *(f"{name}={folder}" for name, (folder, _) in chosen.items())]
            command += ["--text", text / f"{test}.jsonl", "--column", "text", "--group-column", "group", *common]
            for protocol in scale["evaluate"]["protocols"]:
                command += ["--protocol", protocol]
            command += ["--budget-steps", scale["evaluate"]["budget_steps"], "--seed", item.get("seed", 0)]
            batch_size = scale["evaluate"].get("budget_batch_size", scale["train"]["per_device_train_batch_size"])
            command += ["--budget-batch-size", batch_size]
            command += ["--budget-group-by-length"] * (
                scale["train"].get("train_sampling_strategy") == "group_by_length"
            )
            if "soft_prompt_sentences" in scale["evaluate"] and (rivals == "all" or "soft_prompt" in rivals):
                command += ["--soft-prompt-sentences", scale["evaluate"]["soft_prompt_sentences"]]
            if rivals != "all":
                asked = ["tall", *rivals, *(["translator_only"] if "without_llm" in item else [])]
                for approach in asked:
                    command += ["--approach", approach]
            if "without_llm" in item:
                control, need = trained(rows[item["without_llm"]])
                command += ["--translator-only", control]
                needs.append(need)
            # What rivals learn is named after all that decides it, and the same for every set of questions. Stages that share it
            # wait for each other, so what takes seconds is learned again.
            is_quick = rivals != "all" and set(rivals) <= _QUICK
            links = {} if is_quick else {folder / "fitted": output / "evaluation" / "fitted"}
            add(f"evaluate:{name}:{test}", command, needs, links)
    return list(queue.values())


def _subset(item: dict, scale: dict) -> int | None:
    return item.get("sentences") or scale.get("sentences")


def shown(command: Sequence[str]) -> str:
    """A command as a user would type it, in the folder of this file."""
    return queue_shown(command, HERE)


def table(output: Path, queue: Sequence[Stage]) -> str:
    """What is done and what is missing, in Markdown."""
    lines = ["| stage | state | seconds |", "| --- | --- | ---: |"]
    for stage in queue:
        seconds = read_record(output, stage).get("seconds", "")
        lines.append(f"| {stage.name} | {state_of(output, stage)} | {seconds} |")
    return "\n".join(lines)


def to_fetch(specs: Sequence[str | None]) -> list[str]:
    """Which of these checkpoints are neither a folder nor in the local cache of the Hub; nothing is fetched."""
    from huggingface_hub import try_to_load_from_cache

    missing = []
    for spec in filter(None, specs):
        name, _, revision = spec.partition("@")
        cached = Path(spec).is_dir() or isinstance(
            try_to_load_from_cache(name, "config.json", revision=revision or None), str
        )
        if not cached:
            missing.append(spec)
    return missing


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language-config", type=Path, default=HERE / "he.yaml", help="he.yaml, sw.yaml or your own")
    parser.add_argument("--scale", default="cpu", help="smoke, cpu, gpu, or a file of your own")
    parser.add_argument("--grid", type=Path, default=HERE / "grid.yaml", help="the rows and evaluations")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with the data files")
    parser.add_argument("--output", type=Path, help="folder of everything; outputs/LANGUAGE-SCALE when not given")
    parser.add_argument(
        "--only", action="append", metavar="PATTERN", help="stages to run, with what they need; repeatable"
    )
    parser.add_argument("--jobs", type=int, default=1, help="stages at a time, each with its share of the cores")
    parser.add_argument("--list", action="store_true", help="show what is done and what is missing")
    parser.add_argument("--dry-run", action="store_true", help="print the commands that are not done")
    for role in ROLES:
        option = f"--{role.replace('_', '-')}"
        parser.add_argument(option, metavar="ID", help="a checkpoint in place of the part that is trained here")
    options = parser.parse_args()
    scale_path = Path(options.scale) if options.scale.endswith(".yaml") else HERE / f"{options.scale}.yaml"
    try:
        language = read_language(options.language_config)
        scale = read_scale(scale_path)
        output = options.output or Path("outputs") / f"{language['language']}-{scale_path.stem}"
        paths = {"language": options.language_config, "scale": scale_path, "data": options.data, "output": output}
        parts = {role: getattr(options, role) for role in ROLES}
        grid = without_replaced_parts(read_grid(options.grid), (role for role, part in parts.items() if part))
        queue = build_queue(grid, language, scale, parts, paths)
        if options.only:
            queue = with_needs(queue, options.only)
        if options.list:
            print(table(output, queue))
            return
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    if options.dry_run:
        for stage in queue:
            if not is_done(output, stage):
                print(f"# {stage.name}\n{shown(stage.command)}")
        for spec in to_fetch(list(parts.values())):
            print(f"# would be fetched from the Hub: {spec}")
        return
    # A queue that is stopped stops its command.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    output.mkdir(parents=True, exist_ok=True)
    try:
        with locked(output):
            undone = run_queue(output, queue, options.jobs)
    except (BlockingIOError, FileExistsError, ValueError) as error:
        sys.exit(f"Error: {error}")
    if undone:
        sys.exit(f"Not done: {', '.join(undone)}. The same command tries them again.")


if __name__ == "__main__":
    main()
