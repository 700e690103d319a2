"""The model card: every figure from the run, nothing of another model, nothing that breaks the page."""

import csv
import json
import shutil

import pytest
import torch
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from transformers.pipelines import SUPPORTED_TASKS

from tall_hf import TALLConfig, TALLForCausalLM, TALLProcessor, publishing
from tall_hf.cards import model as model_module
from tall_hf.cards import model_card
from tall_hf.cards.evidence import Training
from tall_hf.cards.page import training_view
from tall_hf.cards.predictions import Prediction
from tall_hf.data import CorpusSettings, prepare
from tall_hf.data.collator import LOSS_POSITIONS
from tall_hf.microworld import component_path
from tall_hf.training.light import save_light


REPO = "tall-tests/tall-he"
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def card(left_behind):
    return model_card(
        left_behind.run, repo_id=REPO, language="he", evaluation=left_behind.evaluation, dataset=left_behind.data
    )


def rendered(card):
    """The page as HTML, by the rules of CommonMark and tables."""
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(card.text)


def results(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))["protocols"]


def name_parts(edit, model, **repo_ids):
    """Let a saved TALL say that its parts came from repositories on the Hub."""
    components = {role: {"name_or_path": name, "revision": REVISION} for role, name in repo_ids.items()}
    edit(model / "config.json", lambda config: config["components"].update(components))


def test_the_data_survive_a_round_trip_and_name_what_the_hub_knows(card):
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict()
    assert card.data.language == "he"
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag in SUPPORTED_TASKS
    assert "custom_code" in card.data.tags


def test_the_model_index_has_the_metrics_of_the_evaluation_and_their_intervals(card, left_behind):
    [index] = card.data.to_dict()["model-index"]
    [result] = index["results"]
    assert (index["name"], result["task"]["type"]) == ("tall-he", "text-generation")
    found = {(metric["type"], metric["args"]["protocol"]): metric for metric in result["metrics"]}
    for protocol, part in results(left_behind.evaluation).items():
        metrics = part["approaches"]["tall"]["metrics"]
        for key in ("accuracy", "top5_accuracy", "mean_reciprocal_rank"):
            metric = found[key, protocol]
            assert metric["value"] == metrics[key]
            assert metric["args"]["interval"] == metrics[f"{key}_interval"]
            assert metric["args"]["n"] == metrics["n"] == 5
    assert ("perplexity", "clean") in found
    assert ("perplexity", "paper") not in found


def test_the_widget_shows_what_the_model_says_of_held_out_sentences(card, left_behind):
    model = TALLForCausalLM.from_pretrained(left_behind.run / "model")
    processor = TALLProcessor.from_pretrained(left_behind.run / "model")
    with open(left_behind.evaluation / "sentences" / "clean" / "tall.csv", encoding="utf-8", newline="") as file:
        asked = {row["sentence"].rsplit(" ", 1)[0] for row in csv.DictReader(file)}
    completed, listed = card.data.widget[::2], card.data.widget[1::2]
    texts = [entry["text"] for entry in completed]
    assert len(set(texts)) == 4
    assert set(texts) <= asked
    assert [entry["output"]["text"] for entry in completed] == model.complete(texts, processor)
    for entry, words in zip(listed, model.next_words(texts, processor), strict=True):
        assert entry["output"]["text"].startswith(f"{words[0][0]} {words[0][1]:.1%}")


def test_the_page_tells_parameters_training_text_results_and_how_to_use_it(card, left_behind):
    model = TALLForCausalLM.from_pretrained(left_behind.run / "model")
    total = next(row for row in model.parameter_table() if row[0] == "total")
    for text in (
        f"| total | {total[1]:,} | {total[3]:,} |",
        f'pipeline("text-generation", model="{REPO}", trust_remote_code=True)',
        "| steps | 2 |",
        "| learning rate | 0.001 |",
        "| loss on | the last word |",
        "8 sentences of 2 to 30 words, of 12 that were read",
        "<code>majority</code>",
        "code_revision=commit",
        "`transformers serve`, TGI, vLLM",
        "arXiv:2506.05057",
        '<div dir="rtl">',
    ):
        assert text in card.text
    assert str(left_behind.root) not in str(card)


def test_examples_of_ones_own_take_the_place_of_drawn_ones(left_behind):
    card = model_card(left_behind.run, repo_id=REPO, language="he", examples=["  דנה גרה  "])
    assert [entry["text"] for entry in card.data.widget] == ["דנה גרה"] * 2
    assert "its maker chose" in card.text
    with pytest.raises(ValueError, match="The example ' ' has no text"):
        model_card(left_behind.run, repo_id=REPO, language="he", examples=[" "])


def test_a_saved_tall_without_a_run_has_a_card_without_figures(left_behind):
    card = model_card(left_behind.root / "tall", repo_id=REPO, language="he")
    data = card.data.to_dict()
    assert not {"model-index", "model_name", "metrics", "widget", "base_model"} & set(data)
    assert data["license"] == "unknown"
    assert "How it was trained" not in card.text
    assert "How good" not in card.text


def test_where_checkpoints_are_gone_the_settings_are_those_beside_the_model(copied):
    for checkpoint in copied.run.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    assert "| learning rate | 0.001 |" in model_card(copied.run, repo_id=REPO, language="he").text


@pytest.mark.parametrize("positions", LOSS_POSITIONS)
def test_where_the_loss_was_is_said_in_words(positions):
    settings = {"loss_positions": positions, "last_n": 3 if positions == "last_n" else None}
    settings |= {"unfreeze_learning_rate": 1e-4}
    view = training_view(
        Training(settings, {"global_step": 4, "log_history": []}, {}), TALLConfig(), "last_word_accuracy"
    )
    rows = dict(row.strip("| ").split(" | ") for row in view["settings"].splitlines())
    assert rows["loss on"] != positions and "{" not in rows["loss on"]
    assert positions != "last_n" or rows["loss on"] == "the last 3 tokens"
    assert rows["learning rate of the unfrozen layers"] == "0.0001"


@pytest.mark.parametrize(("fusion", "is_told"), [("last", False), ("global_softmax", True)])
def test_the_rate_of_a_fusion_is_told_where_there_is_one(fusion, is_told):
    training = Training({"fusion_learning_rate": 3e-5}, {"global_step": 4, "log_history": []}, {})
    view = training_view(training, TALLConfig(source_bridge="gated", source_fusion=fusion), "last_word_accuracy")
    assert ("| learning rate of the source fusion | 3e-05 |" in view["settings"]) is is_told


def test_results_of_another_model_are_refused(copied):
    folder = copied.run / "model"
    model, processor = TALLForCausalLM.from_pretrained(folder), TALLProcessor.from_pretrained(folder)
    with torch.no_grad():
        model.encoder.gate.add_(0.5)
    publishing.save(model, processor, folder)
    with pytest.raises(ValueError, match=r"results.json is not about .*evaluated were [0-9a-f]{16}"):
        model_card(copied.run, repo_id=REPO, language="he", evaluation=copied.evaluation)


def test_a_model_that_has_moved_is_still_the_one_that_was_evaluated(copied):
    moved = copied.root / "elsewhere"
    shutil.move(copied.run / "model", moved)
    card = model_card(moved, repo_id=REPO, language="he", evaluation=copied.evaluation)
    assert card.data.eval_results


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("accuracy", 0.9),
        ("top5_accuracy_interval", [0.99, 1.0]),
        ("mean_reciprocal_rank_interval", [0.99, 1.0]),
        ("character_f_score", 0.9),
        ("perplexity", 1.1),
        ("perplexity_interval", [1.0, 1.2]),
        ("bits_per_character", None),
    ],
)
def test_figures_that_the_answers_do_not_give_are_refused(copied, edit, figure, value):
    def better(report):
        report["protocols"]["clean"]["approaches"]["tall"]["metrics"][figure] = value

    edit(copied.evaluation / "results.json", better)
    with pytest.raises(ValueError, match=rf"says that tall has {figure} .* its answers give"):
        model_card(copied.run, repo_id=REPO, language="he", evaluation=copied.evaluation)


@pytest.mark.parametrize(
    ("folder", "message"), [("sentences", r"tall.csv is missing"), ("answers", "does not hold the answers of tall")]
)
def test_figures_without_their_answers_are_refused(copied, folder, message):
    shutil.rmtree(copied.evaluation / folder)
    with pytest.raises(FileNotFoundError, match=message):
        model_card(copied.run, repo_id=REPO, language="he", evaluation=copied.evaluation)


def test_results_of_another_version_are_refused(copied, edit):
    edit(copied.evaluation / "results.json", lambda report: [report.pop(name) for name in ("dtype", "seed")])
    with pytest.raises(ValueError, match="does not say dtype, seed, so another version"):
        model_card(copied.run, repo_id=REPO, language="he", evaluation=copied.evaluation)


def test_an_evaluation_that_failed_is_refused(copied, edit):
    def fail(report):
        for protocol in report["protocols"].values():
            protocol["approaches"]["tall"] |= {"error": "ValueError: no", "metrics": None}

    edit(copied.evaluation / "results.json", fail)
    with pytest.raises(ValueError, match="whose evaluation failed"):
        model_card(copied.run, repo_id=REPO, language="he", evaluation=copied.evaluation)


def test_metrics_that_the_training_did_not_log_are_refused(copied, edit):
    edit(copied.run / "metrics.json", lambda metrics: metrics.update(eval_loss=0.0))
    with pytest.raises(ValueError, match=r"metrics.json has figures that the training did not log"):
        model_card(copied.run, repo_id=REPO, language="he")


def test_a_dataset_that_it_was_not_trained_on_is_refused(left_behind, tmp_path):
    folder = left_behind.run / "model"
    model, processor = TALLForCausalLM.from_pretrained(folder), TALLProcessor.from_pretrained(folder)
    texts, settings = ["דנה גרה בבית", "יוסי גר בחיפה"], CorpusSettings(min_words=2, validation_share=0)
    prepare(model, processor, texts, tmp_path / "other", settings=settings, num_beams=1)
    with pytest.raises(ValueError, match="was not trained on"):
        model_card(left_behind.run, repo_id=REPO, language="he", dataset=tmp_path / "other")


def test_a_dataset_is_told_of_a_training_alone(left_behind):
    with pytest.raises(ValueError, match="Nothing beside the model says that it was trained on"):
        model_card(left_behind.root / "tall", repo_id=REPO, language="he", dataset=left_behind.data)


def test_folders_that_are_none_are_named(left_behind, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no saved model in"):
        model_card(tmp_path / "nowhere", repo_id=REPO, language="he")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is damaged"):
        model_card(tmp_path, repo_id=REPO, language="he")
    with pytest.raises(FileNotFoundError, match=r"has no results.json; name the `--output` folder"):
        model_card(left_behind.run, repo_id=REPO, language="he", evaluation=tmp_path)


@pytest.mark.parametrize(("name", "message"), [("tall", "'tall' names no owner"), ("dana/a b", "Repo id must")])
def test_the_name_is_one_that_everybody_can_load(left_behind, name, message):
    with pytest.raises(ValueError, match=message):
        model_card(left_behind.run, repo_id=name, language="he")


def test_a_light_checkpoint_is_refused(composed, tmp_path):
    model, processor = composed()
    save_light(model, processor, tmp_path / "light")
    with pytest.raises(ValueError, match="load_light"):
        model_card(tmp_path / "light", repo_id=REPO, language="he")


@pytest.mark.parametrize(("code", "found"), [("he", "he"), ("heb_Hebr", "heb"), ("he_IL", "he"), ("sw", "sw")])
def test_the_language_is_what_was_asked_for(left_behind, code, found):
    assert model_card(left_behind.root / "tall", repo_id=REPO, language=code).data.language == found


def test_the_language_is_what_the_translators_say_and_never_guessed(left_behind, copied, edit):
    with pytest.raises(ValueError, match="do not say which language"):
        model_card(left_behind.root / "tall", repo_id=REPO)
    with pytest.raises(ValueError, match="'Hebrew' is no ISO 639 code"):
        model_card(left_behind.root / "tall", repo_id=REPO, language="Hebrew")
    edit(copied.run / "model" / "processor_config.json", lambda config: config.update(source_lang="he_IL"))
    assert model_card(copied.run, repo_id=REPO).data.language == "he"


def test_parts_from_the_hub_are_named_linked_and_cited_at_their_revisions(copied, edit):
    name_parts(
        edit,
        copied.run / "model",
        lr_hr="Helsinki-NLP/opus-mt-tc-big-he-en",
        llm="Qwen/Qwen2.5-0.5B",
        hr_lr="Helsinki-NLP/opus-mt-en-he",
    )
    licenses = {"lr_hr": "cc-by-4.0", "llm": "apache-2.0", "hr_lr": "apache-2.0"}
    card = model_card(copied.run, repo_id=REPO, language="he", part_licenses=licenses)
    assert card.data.base_model == [
        "Helsinki-NLP/opus-mt-tc-big-he-en",
        "Qwen/Qwen2.5-0.5B",
        "Helsinki-NLP/opus-mt-en-he",
    ]
    assert card.data.license == "cc-by-4.0"
    assert f"https://huggingface.co/Qwen/Qwen2.5-0.5B/tree/{REVISION}" in card.text
    assert card.text.count("tiedemann2020opusmt") == card.text.count("qwen2024qwen25") == 1
    assert "[!WARNING]" not in card.text


def test_parts_that_do_not_go_together_are_warned_of_on_the_page(copied, edit, caplog):
    name_parts(edit, copied.run / "model", lr_hr="facebook/nllb-200-distilled-600M", llm="Qwen/Qwen2.5-3B")
    licenses = {"lr_hr": "cc-by-nc-4.0", "llm": "other", "hr_lr": "apache-2.0"}
    card = model_card(copied.run, repo_id=REPO, language="he", part_licenses=licenses)
    assert (card.data.license, card.data.license_link) == ("other", f"https://huggingface.co/{REPO}#licence")
    assert "forbids commercial use" in card.text
    assert "may not go together" in card.text
    with pytest.raises(ValueError, match="has no part decoder"):
        model_card(copied.run, repo_id=REPO, language="he", part_licenses={"decoder": "mit"})


def test_embedded_parts_are_known_and_said_to_be_a_toy(copied, edit):
    def embed(config):
        config["components"] = {
            role: {"name_or_path": str(component_path(role)), "revision": None} for role in ("lr_hr", "llm", "hr_lr")
        }

    edit(copied.run / "model" / "config.json", embed)
    card = model_card(copied.run, repo_id=REPO, language="he")
    assert card.data.license == "apache-2.0"
    assert "300 invented people" in card.text


def test_merged_lora_is_told(copied, edit):
    def merge(config):
        config["components"]["llm"]["merged_lora"] = {"r": 8, "alpha": 16}

    edit(copied.run / "model" / "config.json", merge)
    card = model_card(copied.run, repo_id=REPO, language="he")
    assert "LoRA was merged into the language model" in card.text
    assert "are as they were" not in card.text


def test_layers_that_were_trained_along_are_told(copied, edit):
    def unfreeze(config):
        config["components"]["hr_lr"]["unfrozen"] = ["decoder.layers.-1"]

    edit(copied.run / "model" / "config.json", unfreeze)
    card = model_card(copied.run, repo_id=REPO, language="he")
    assert card.text.count("(decoder.layers.-1)") == 2
    assert "are as they were" not in card.text


def test_the_light_form_is_used_through_load_light(left_behind):
    card = model_card(left_behind.root / "tall", repo_id=REPO, language="he", trainable_only=True)
    assert f'tall_hf.load_light("{REPO}")' in card.text
    assert "trust_remote_code" not in card.text


HOSTILE = 'x | y\n---\n<script>alert(1)</script> {{ 7 * 7 }} [a](http://b.c) `c` **d** "e\\" http://f.g www.h.i # j: k'


def test_hostile_text_stays_text(left_behind, monkeypatch):
    prediction = Prediction(HOSTILE, HOSTILE, HOSTILE, [(HOSTILE, 0.5), ("```", 0.4)], HOSTILE + " <img src=x>")
    monkeypatch.setattr(model_module, "predict", lambda *arguments: [prediction, prediction])
    card = model_card(left_behind.root / "tall", repo_id=REPO, language="he")
    assert ModelCard(str(card)).data.widget[0]["text"] == HOSTILE
    page = rendered(card)
    assert "<script" not in page
    assert "<img" not in page
    assert 'href="http://b.c"' not in page
    assert "<strong>d" not in page
    assert "49" not in page.split("{{", 1)[0]
    assert page.count("<h2>") == rendered(model_card_without_words(left_behind, monkeypatch)).count("<h2>")
    row = next(line for line in card.text.splitlines() if line.startswith("| <span") and "50.0%" in line)
    assert row.count("|") == 4


def model_card_without_words(left_behind, monkeypatch):
    prediction = Prediction("a", "b", "c", [("d", 0.5)], "a d")
    monkeypatch.setattr(model_module, "predict", lambda *arguments: [prediction, prediction])
    return model_card(left_behind.root / "tall", repo_id=REPO, language="he")


def test_a_model_without_an_answer_has_a_card(left_behind, monkeypatch):
    monkeypatch.setattr(model_module, "predict", lambda *arguments: [Prediction("דנה", None, "", [], "דנה")])
    card = model_card(left_behind.root / "tall", repo_id=REPO, language="he")
    assert ModelCard(str(card)).data.widget[0]["output"]["text"] == "דנה"


def test_the_hub_accepts_the_card(hub, card):
    hub.requests.clear()
    card.validate()
    assert hub.requests["POST validate-yaml"] == 1
