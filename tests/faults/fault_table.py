"""The table of docs/guarantees.md, of the lines that fault trials have left: `fault_table.py FILE`."""

import json
import sys
from collections import Counter
from pathlib import Path


HEAD = (
    "killed while it",
    "trials",
    "inside the work",
    "phases at the kill",
    "progress at the kill",
    "in the middle of a file",
    "redone at most",
    "of an interval of",
    "equal",
)
NAMES = {
    "translate": "translates (`tall prepare`)",
    "prepare": "cleans, tokenises, puts in place (`tall prepare`)",
    "step": "trains, between checkpoints (`tall train`)",
    "train": "trains and saves (`tall train`)",
    "checkpoint": "writes a checkpoint (`tall train`)",
    "evaluate": "evaluates (`tall evaluate`)",
    "publish": "publishes (`tall publish`)",
}


def rows(lines: list[dict]) -> list[tuple]:
    """A row for each job, and one of all."""
    made = []
    for job, name in NAMES.items():
        own = [line for line in lines if line["job"] == job]
        if own:
            most = max(line["redone"] for line in own)
            redone = (f"{most} {own[0]['unit']}", own[0]["interval"], _equal(own))
            made.append((name, *_inside(own), _phases(own), _progress(own), _in_files(own), *redone))
    return [*made, ("all", *_inside(lines), "", "", _in_files(lines), "", "", _equal(lines))]


def _inside(lines):
    return len(lines), sum(line["inside"] for line in lines)


def _phases(lines):
    counted = Counter(line["phase"] or "none" for line in lines)
    return ", ".join(f"{phase} {count}" for phase, count in counted.most_common())


def _progress(lines):
    """How far the work was: the least, the middle and the most of what there is to do."""
    done = sorted(line["done"] for line in lines)
    return f"{done[0]}, {done[len(done) // 2]}, {done[-1]} of {lines[0]['of']} {lines[0]['unit']}"


def _in_files(lines):
    # Counted are files that it stopped in to be killed; at another moment it may have been in one too.
    return sum("file" in line["aimed"] for line in lines)


def _equal(lines):
    return f"{sum(line['equal'] for line in lines)} of {len(lines)}"


if __name__ == "__main__":
    found = [json.loads(line) for line in Path(sys.argv[1]).read_text("utf-8").splitlines()]
    for row in (HEAD, ("---",) * len(HEAD), *rows(found)):
        print(f"| {' | '.join(map(str, row))} |")
