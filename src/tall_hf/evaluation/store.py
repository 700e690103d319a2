"""Answers kept on the disk as they are made, in shards that outlive an interruption, and what they cost."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from tall_hf.files import read_json, remove_unfinished, write_json
from tall_hf.measuring.cost import Cost

from .approach import Answer


def read_answers(folder: Path) -> tuple[list[Answer], Cost]:
    """The answers that an `AnswerStore` keeps in a folder, in the order in which they were made, and what they cost.

    Raises:
        ValueError: a file in the folder is damaged.
    """
    kept: list[Answer] = []
    cost = Cost()
    for path in sorted(folder.glob("*.json")):
        try:
            shard = json.loads(path.read_text(encoding="utf-8"))
            answers = [Answer(**{**answer, "words": tuple(answer["words"])}) for answer in shard["answers"]]
            first, shard_cost = shard["first_question"], Cost(**shard["cost"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged ({error}). Delete {folder} and run the same command again."
            ) from error
        if first != len(kept):
            raise ValueError(
                f"{path} begins with question {first}, but the shards before it end at question {len(kept)}. Delete "
                f"{folder} and run the same command again."
            )
        kept += answers
        cost += shard_cost
    return kept, cost


class AnswerStore:
    """The answers of one approach to one list of questions, in a folder of its own.

    A shard is a JSON file with the answers to consecutive questions and what they cost. It is written aside, then
    renamed, so what lies in the folder is whole, and an interrupted run goes on behind it.

    Args:
        folder: its name must stand for all that decides the answers.

    Raises:
        ValueError: a file in the folder is damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        remove_unfinished(folder)
        self.answers, self.cost = read_answers(folder)

    def add(self, answers: Sequence[Answer], cost: Cost):
        """Write the answers to the next questions."""
        first = len(self.answers)
        shard = {
            "first_question": first,
            "cost": dataclasses.asdict(cost),
            "answers": [dataclasses.asdict(answer) for answer in answers],
        }
        write_json(self.folder / f"{first:09}.json", shard)
        self.answers += answers
        self.cost += cost


class KeptCost:
    """What some work cost, in a file: of all calls that it took, those that were killed included.

    Args:
        path: the file; one of an earlier call is added to, until the work is finished.
    """

    def __init__(self, path: Path):
        self.path = path
        state = read_json(path) if path.exists() else None
        self.before = Cost(**state["cost"]) if state else Cost()
        self.is_finished = state is not None and state["finished"]

    def keep(self, cost: Cost, finished: bool = False):
        """Write what this call has cost so far, for the next one."""
        if not self.is_finished:  # a later call only reads the results
            write_json(self.path, {"finished": finished, "cost": dataclasses.asdict(self.before + cost)})

    def finish(self, cost: Cost) -> Cost:
        """The cost of all calls, of which this one is the last."""
        self.keep(cost, finished=True)
        return self.before if self.is_finished else self.before + cost
