"""The four tasks read through the real clients, from a Hub on this machine with repositories of the datasets' own form."""

import json
import os
import subprocess
import sys

import pytest
import stand_ins
import yaml
from huggingface_hub import HfApi

from tall_hf.classification import TASKS


ASKED = [
    ("xnli", "sw", "test"),
    ("xnli", "en", "train"),
    ("indicxnli", "ta", "validation"),
    ("sinhala_news", "si", "test"),
]
ASKED += [("amazon_reviews", "de", "test")]
CHILD = f"""
import json
from tall_hf.classification import TASKS, read_examples
print(json.dumps([read_examples(TASKS[name], language, split)[:] for name, language, split in {ASKED}]))
"""
XNLI_LABEL = {"class_label": {"names": {"0": "entailment", "1": "neutral", "2": "contradiction"}}}


def card(columns, label, languages):
    """As on the datasets' cards: configurations with their files, and numbers that are not those of so small a stand-in."""
    features = [{"name": name, "dtype": "string"} for name in columns] + [{"name": "label", "dtype": label}]
    splits = [{"name": "test", "num_bytes": 1, "num_examples": 3}]
    metadata = {
        "dataset_info": [{"config_name": name, "features": features, "splits": splits} for name in languages],
        "configs": [
            {"config_name": name, "data_files": [{"split": "test", "path": f"{name}/test-*"}]} for name in languages
        ],
    }
    return f"---\n{yaml.safe_dump(metadata)}---\n"


@pytest.fixture
def repositories(hub, tmp_path):
    """A folder for each task's repository, put on the Hub under its name and, if it is pinned, its revision."""
    folders = {name: tmp_path / name for name in TASKS}
    for folder in folders.values():
        folder.mkdir()
    stand_ins.xnli(folders["xnli"], languages=("en", "sw"), splits=("train", "validation", "test"))
    metadata = card(["premise", "hypothesis"], XNLI_LABEL, ["en", "sw"])
    (folders["xnli"] / "README.md").write_text(metadata, encoding="utf-8")
    stand_ins.indicxnli(folders["indicxnli"], "ta", "dev")
    (folders["indicxnli"] / "indicxnli.py").write_text("raise RuntimeError", encoding="utf-8")
    stand_ins.sinhala_news(folders["sinhala_news"])
    (folders["amazon_reviews"] / "de").mkdir()
    path = stand_ins.amazon_reviews(folders["amazon_reviews"])
    path.rename(path.parent / "de" / "test-00000-of-00001.parquet")
    (folders["amazon_reviews"] / "README.md").write_text(card(["text"], "int64", ["de"]), encoding="utf-8")
    for name, folder in folders.items():
        task = TASKS[name]
        api = HfApi(hub.endpoint, token=hub.add_user(task.hub.repository.partition("/")[0]))
        api.create_repo(task.hub.repository, repo_type="dataset")
        api.upload_folder(repo_id=task.hub.repository, folder_path=folder, repo_type="dataset")
        if task.hub.revision is not None:
            api.create_branch(task.hub.repository, branch=task.hub.revision, repo_type="dataset")
    return folders


def test_every_task_is_read_from_the_hub(hub, repositories, tmp_path):
    environment = hub.environment(home=tmp_path / "home") | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = dict(zip(ASKED, json.loads(done.stdout.splitlines()[-1]), strict=True))
    assert found["xnli", "sw", "test"]["answer"] == ["Entailment", "Neutral", "Contradiction", "Entailment"]
    assert found["xnli", "en", "train"]["text"][0].startswith("Premise: Dana lives in Haifa")
    assert found["indicxnli", "ta", "validation"]["answer"] == found["xnli", "sw", "test"]["answer"]
    assert found["sinhala_news", "si", "test"]["answer"] == [
        "Business",
        "Political",
        "Entertainment",
        "Sports",
        "Technology",
    ]
    assert found["amazon_reviews", "de", "test"]["answer"] == ["Very Positive", "Neutral", "Very Negative"]
    # Of XNLI, only what was asked for was fetched.
    fetched = [path for path in (tmp_path / "home" / "hub").rglob("*.parquet") if "xnli" in str(path)]
    assert sorted(path.parent.name + "/" + path.name[:5] for path in fetched) == ["en/train", "sw/test-"]
