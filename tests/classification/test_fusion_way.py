"""The encoder → LLM model's whole way by command: composed, trained, killed and resumed, evaluated, its card, its publishing."""

import json

import pytest
import stand_ins
import torch
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from tall_hf import LayerFusionForCausalLM, LayerFusionProcessor
from tall_hf.cards import layer_fusion_card
from tall_hf.cli import app


REPO = "tall-tests/fusion"
TRAINING = {
    "max_steps": 4,
    "eval_steps": 2,
    "save_steps": 2,
    "logging_steps": 1,
    "learning_rate": 0.01,
    "per_device_train_batch_size": 4,
    "report_to": "none",
    "disable_tqdm": True,
}


def tall(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})


def train(*arguments, **settings):
    flags = [part for name, value in {**TRAINING, **settings}.items() for part in (f"--{name}", value)]
    return tall("fusion", "train", *flags, *arguments)


@pytest.fixture(scope="module")
def way(part, tmp_path_factory):
    """Folders: `composed`, `rows` to train on, `run` of the training, `evaluation`, and the task's files. Not to be changed."""
    root = tmp_path_factory.mktemp("way")
    files = stand_ins.xnli(root / "xnli", repeat=10)
    done = tall(
        "fusion", "compose", "--encoder", part("nllb"), "--llm", part("llama"), "--output", root / "composed",
        "--source-fusion", "global_softmax", "--source-lang", "eng_Latn", "--max-source-length", 20, "--seed", 3,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    done = tall(
        "fusion", "prepare", root / "composed", "--task", "xnli", "--data-files", files, "--output", root / "rows",
        "--validation-share", "0.4", "--max-examples", "30",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    done = train(model=root / "composed", dataset=root / "rows", output_dir=root / "run")
    assert done.exit_code == 0, done.output
    codes = ["--source-lang", "he=heb_Hebr", "--source-lang", "en=eng_Latn", "--language", "he", "--language", "en"]
    done = tall(
        "fusion", "evaluate", f"composed={root / 'composed'}", f"trained={root / 'run' / 'model'}", "--task", "xnli",
        "--data-files", files, "--output", root / "evaluation", *codes,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return root


def test_only_what_stands_between_was_trained(way):
    before = LayerFusionForCausalLM.from_pretrained(way / "composed").state_dict()
    trained = LayerFusionForCausalLM.from_pretrained(way / "run" / "model")
    changed = {name for name, value in trained.state_dict().items() if not torch.equal(value, before[name])}
    trainable = {name for name, parameter in trained.named_parameters() if parameter.requires_grad}
    # The temperature has no gradient as long as all layers weigh the same.
    assert {"mapping.weight", "end_vector", "source_fusion.layer_logits"} <= changed <= trainable
    metrics = json.loads((way / "run" / "metrics.json").read_text())
    assert metrics["trainable_parameters"] == sum(trained.get_parameter(name).numel() for name in trainable)
    assert (metrics["steps"], metrics["samples"]) == (4, 16) and 0 <= metrics["eval_answer_accuracy"] <= 1
    assert LayerFusionProcessor.from_pretrained(way / "run" / "model").repeat_source is False


def test_resumed_from_a_checkpoint_it_ends_with_the_same_weights(way, tmp_path):
    settings = {"model": way / "composed", "dataset": way / "rows", "output_dir": tmp_path / "run"}
    assert train(**settings, load_best_model_at_end=False).exit_code == 0
    whole = LayerFusionForCausalLM.from_pretrained(tmp_path / "run" / "model").state_dict()
    for name in ("checkpoint-4", "model"):
        for path in sorted((tmp_path / "run" / name).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (tmp_path / "run" / name).rmdir()
    refused = train(**settings, load_best_model_at_end=False)
    assert refused.exit_code == 1 and "--resume" in refused.output
    done = train("--resume", **settings, load_best_model_at_end=False)
    assert done.exit_code == 0, done.output
    resumed = LayerFusionForCausalLM.from_pretrained(tmp_path / "run" / "model").state_dict()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_the_second_stage_of_mindmerger_keeps_what_it_repeats(way, tmp_path):
    first = way / "run" / "model"
    files = way / "xnli" / "{language}" / "{split}-*.parquet"
    rows = [
        "fusion", "prepare", first, "--task", "xnli", "--data-files", files,
        "--validation-share", "0.4", "--max-examples", "30", "--source-lang", "eng_Latn",
    ]  # fmt: skip
    refused = train(model=first, dataset=way / "rows", output_dir=tmp_path / "second", repeat_source=True)
    assert refused.exit_code == 1 and "`repeat_source` differ" in refused.output
    done = tall(*rows, "--repeat-source", "--output", tmp_path / "rows")
    assert done.exit_code == 0, done.output
    done = train(model=first, dataset=tmp_path / "rows", output_dir=tmp_path / "second", repeat_source=True)
    assert done.exit_code == 0, done.output
    assert LayerFusionProcessor.from_pretrained(tmp_path / "second" / "model").repeat_source is True


def test_the_card_has_the_figures_and_nothing_of_this_machine(way):
    card = layer_fusion_card(way / "run", repo_id=REPO, evaluation=way / "evaluation")
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict()
    assert card.data.language == ["he", "en"] and "custom_code" in card.data.tags
    results = json.loads((way / "evaluation" / "results.json").read_text())
    found = {(one.metric_type, one.dataset_config): one.metric_value for one in card.data.eval_results}
    for language in ("he", "en"):
        scores = results["languages"][language]["models"]["trained"]
        assert found["accuracy", language] == scores["accuracy"] and found["f1", language] == scores["macro_f1"]
        assert f"{scores['accuracy']:.1%}" in card.text
    assert str(way) not in str(card) and "how it was trained" in card.text.lower()
    assert "| answer" not in card.text and '"Entailment"' in card.text
    # The line that shows how it is used asks as the evaluation did.
    assert (
        'labels=["Entailment", "Neutral", "Contradiction"], prompt="", source_lang="heb_Hebr")'
        in card.text.replace("'", '"')
    )


def test_a_card_of_another_models_figures_is_refused(way, tmp_path):
    folder = tmp_path / "evaluation"
    with pytest.raises(FileNotFoundError, match=r"has no results\.json"):
        layer_fusion_card(way / "run", repo_id=REPO, evaluation=folder)
    results = json.loads((way / "evaluation" / "results.json").read_text())
    folder.mkdir()
    (folder / "predictions").symlink_to(way / "evaluation" / "predictions")
    del results["models"]["trained"], results["models"]["composed"]
    results["models"]["other"] = "x"
    for entry in results["languages"].values():
        entry["models"]["other"] = entry["models"]["composed"]
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match="is not about"):
        layer_fusion_card(way / "run", repo_id=REPO, evaluation=folder)
    for entry in results["languages"].values():
        entry["models"]["other"] = {**entry["models"]["trained"], "accuracy": 2.0}
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match="says accuracy 2.0 for 'he'; its answers give"):
        layer_fusion_card(way / "run", repo_id=REPO, evaluation=folder)


def test_publishing_shows_what_would_go_up(way):
    done = tall("publish", way / "run", REPO, "--dry-run", "--evaluation", way / "evaluation")
    assert done.exit_code == 0, done.output
    assert "modeling_layer_fusion.py" in done.output and "README.md" in done.output
    done = tall("publish", way / "run", REPO, "--dry-run", "--dataset", way / "rows")
    assert done.exit_code == 1 and "leave it out" in done.output
    done = tall("train", "--model", way / "composed", "--dataset", way / "rows", "--output_dir", way / "nothing")
    assert done.exit_code == 1 and "not a TALL" in done.output


def test_training_is_refused_where_another_process_is_at_work(way, at_work, tmp_path):
    pid = at_work(tmp_path / "run")
    done = train(model=way / "composed", dataset=way / "rows", output_dir=tmp_path / "run")
    assert done.exit_code == 1
    assert f"Another process (pid {pid}) is at work in {tmp_path / 'run'}" in done.output.replace("\n", " ")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_evaluation_is_refused_where_another_process_is_at_work(way, at_work, tmp_path):
    pid = at_work(tmp_path / "evaluation")
    files = way / "xnli" / "{language}" / "{split}-*.parquet"
    command = ["fusion", "evaluate", f"composed={way / 'composed'}", "--task", "xnli", "--data-files", files]
    done = tall(*command, "--source-lang", "en=eng_Latn", "--language", "en", "--output", tmp_path / "evaluation")
    assert done.exit_code == 1
    assert f"Another process (pid {pid}) is at work in {tmp_path / 'evaluation'}" in done.output.replace("\n", " ")
