"""The translated corpus: what `model.translate` says, whatever interrupts it, however many share it, never twice."""

import errno
import io
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import parts
import pytest
import torch
from rich.console import Console
from translate_child import SETTINGS

from tall_hf import TALLForCausalLM, TALLProcessor, compose, publishing
from tall_hf.data import CorpusSettings, build_corpus, translate_corpus, translator_fingerprint
from tall_hf.microworld import World, component_path


CHILD = Path(__file__).with_name("translate_child.py")


def sentences(count, seed=0, longest=9):
    rng = random.Random(seed)
    return [" ".join(rng.choices(parts.WORDS, k=rng.randint(2, longest))) for _ in range(count)]


def corpus_of(texts, folder):
    folder.mkdir(parents=True, exist_ok=True)
    return build_corpus(texts, folder / "corpus.arrow", settings=CorpusSettings(2, validation_share=0))[0]


@pytest.fixture(scope="module")
def texts():
    # The same beginning before another word: translated once.
    return sentences(60) + [text + " שוב" for text in sentences(10)] + [text + " אחר" for text in sentences(10)]


@pytest.fixture(scope="module")
def saved(composed, tmp_path_factory):
    return publishing.save(*composed("gated"), tmp_path_factory.mktemp("model") / "tall")


@pytest.fixture
def tall(saved):
    """A model that counts how often it is asked for which texts, and its processor."""
    model, processor = TALLForCausalLM.from_pretrained(saved), TALLProcessor.from_pretrained(saved)
    translate, model.asked = model.translate, []

    def counted(batch, *args, **kwargs):
        model.asked.append(batch)
        return translate(batch, *args, **kwargs)

    model.translate = counted
    return model, processor


def translate(tall, corpus, folder, **options):
    options = {"console": Console(file=io.StringIO()), **SETTINGS, **options}
    return translate_corpus(*tall, corpus, folder, **options)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def asked(model):
    return Counter(text for batch in model.asked for text in batch)


def test_equals_the_models_own_translations(tall, texts, tmp_path):
    model, processor = tall
    corpus = corpus_of(texts, tmp_path)
    translated = translate(tall, corpus, tmp_path / "shards")
    assert translated.column_names == ["sentence", "truncated", "missing_word", "is_validation", "translation"]
    assert translated.remove_columns("translation").to_list() == corpus.to_list()
    assert len(set(translated["translation"][:])) > 5
    alone = {text: model.translate([text], processor, num_beams=2)[0] for text in set(translated["truncated"][:])}
    assert [alone[text] for text in translated["truncated"]] == translated["translation"][:]


def test_each_distinct_text_once_sorted_by_length_in_bounded_batches(tall, texts, tmp_path):
    model, processor = tall
    corpus = corpus_of(texts, tmp_path)
    assert len(set(corpus["truncated"][:])) < len(corpus)
    translate(tall, corpus, tmp_path / "shards", batch_size=5, batch_tokens=60)
    assert asked(model) == Counter(set(corpus["truncated"][:]))
    lengths = [[len(row) for row in processor.encode_source(batch)["input_ids"]] for batch in model.asked]
    assert sum(lengths, []) == sorted(sum(lengths, []), reverse=True)
    assert all(len(batch) <= 5 and len(batch) * batch[0] <= 60 for batch in lengths)
    sizes = {len(batch) for batch in lengths}
    assert max(sizes) == 5 and len(sizes) > 2


def test_a_rerun_translates_nothing_and_a_grown_corpus_only_what_is_new(tall, texts, tmp_path):
    model, _ = tall
    folder = tmp_path / "shards"
    small = corpus_of(texts[:50], tmp_path / "small")
    first = translate(tall, small, folder)
    model.asked.clear()
    again = translate(tall, small, folder)
    assert not model.asked and again._fingerprint == first._fingerprint and again.to_list() == first.to_list()

    grown = translate(tall, corpus_of(texts[::-1], tmp_path / "grown"), folder)
    assert asked(model) == Counter(set(grown["truncated"][:]) - set(small["truncated"][:]))
    assert grown._fingerprint != first._fingerprint
    known = dict(zip(first["truncated"], first["translation"], strict=True))
    assert all(known.get(row["truncated"], row["translation"]) == row["translation"] for row in grown)


def test_the_order_of_the_corpus_decides_nothing_about_a_translation(tall, texts, tmp_path):
    one = translate(tall, corpus_of(texts, tmp_path / "one"), tmp_path / "a")
    other = translate(tall, corpus_of(texts[::-1], tmp_path / "other"), tmp_path / "b")
    fingerprint = translator_fingerprint(*tall, num_beams=2)
    assert files(tmp_path / "a" / fingerprint) == files(tmp_path / "b" / fingerprint)
    assert sorted(one["translation"]) == sorted(other["translation"])


def run_child(*arguments, processes=1):
    command = [sys.executable, CHILD, *arguments]
    if processes > 1:
        command[1:1] = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300)


def logged_calls(folder):
    return [json.loads(line) for log in sorted(folder.glob("calls-*.jsonl")) for line in log.open(encoding="utf-8")]


def test_killed_twice_and_resumed_equals_an_undisturbed_run(tall, saved, texts, tmp_path):
    corpus = corpus_of(texts, tmp_path / "killed")
    for kill in ("batch 7", "rename 2"):
        assert run_child(saved, tmp_path / "killed", kill).returncode == -9
    shards = list((tmp_path / "killed" / "shards").rglob("*.arrow"))
    assert len(shards) == 2  # one before each end
    assert list((tmp_path / "killed" / "shards").rglob(".*.unfinished"))
    finished = run_child(saved, tmp_path / "killed")
    assert finished.returncode == 0, finished.stderr

    translate(tall, corpus, tmp_path / "undisturbed")
    assert files(tmp_path / "killed" / "shards") == files(tmp_path / "undisturbed")
    calls = logged_calls(tmp_path / "killed")
    undisturbed = tall[0].asked
    # Lost were the two batches behind the first shard, and the four of the shard that was not in its place.
    assert len(calls) == len(undisturbed) + 2 + 4
    assert {tuple(batch) for batch in calls} == {tuple(batch) for batch in undisturbed}


def test_two_processes_make_what_one_makes(tall, saved, texts, tmp_path):
    corpus = corpus_of(texts, tmp_path / "two")
    finished = run_child(saved, tmp_path / "two", processes=2)
    assert finished.returncode == 0, finished.stderr
    translate(tall, corpus, tmp_path / "one")
    assert files(tmp_path / "two" / "shards") == files(tmp_path / "one")
    calls = logged_calls(tmp_path / "two")
    assert sorted(calls) == sorted(tall[0].asked)
    assert all((tmp_path / "two" / f"calls-{rank}.jsonl").exists() for rank in (0, 1))


def test_another_translator_or_other_settings_translate_anew_and_nothing_else_does(tall, composed, tmp_path):
    model, processor = tall
    fingerprint = translator_fingerprint(model, processor)
    assert fingerprint == translator_fingerprint(*composed("gated"))  # saved and loaded
    assert fingerprint == translator_fingerprint(*composed("none"))  # another bridge
    assert fingerprint == translator_fingerprint(model, processor, num_beams=2)  # its own setting, spelt out
    with torch.no_grad():
        model.encoder.llm.get_input_embeddings().weight.add_(1)
        model.lm_head.weight.add_(1)
    assert fingerprint == translator_fingerprint(model, processor)

    corpus = corpus_of(sentences(8), tmp_path)
    before = translate(tall, corpus, tmp_path / "shards")
    count = len(model.asked)
    others = {fingerprint, translator_fingerprint(model, processor, num_beams=1)}
    translate(tall, corpus, tmp_path / "shards", num_beams=1)
    assert len(model.asked) == 2 * count
    with torch.no_grad():
        model.encoder.translator.get_input_embeddings().weight[7, 3] += 1
    others.add(translator_fingerprint(model, processor))
    after = translate(tall, corpus, tmp_path / "shards")
    assert len(model.asked) == 3 * count and after._fingerprint != before._fingerprint
    processor.max_source_length = 5
    others.add(translator_fingerprint(model, processor))
    processor.source_tokenizer.add_tokens(["דנה"])
    others.add(translator_fingerprint(model, processor))
    model.to(torch.bfloat16)
    others.add(translator_fingerprint(model, processor))
    others.add(translator_fingerprint(model, processor, backend="ctranslate2"))
    others.add(translator_fingerprint(model, processor, backend="ctranslate2", compute_type="float32"))
    assert len(others) == 8


def test_a_full_disk_says_what_to_do_and_leaves_nothing_half_written(tall, texts, tmp_path, monkeypatch):
    model, _ = tall
    corpus = corpus_of(texts, tmp_path)
    writes = []

    def full(descriptor):
        writes.append(descriptor)
        if len(writes) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(
            OSError, match=r"The disk of .*shards.* is full .*No space left.*run the same command again"
        ) as caught:
            translate(tall, corpus, tmp_path / "shards")
    assert caught.value.errno == errno.ENOSPC
    kept = files(tmp_path / "shards")
    assert len(kept) == 2 and all(name.endswith(".arrow") for name in kept)

    translate(tall, corpus, tmp_path / "shards")
    repeated = [count for count in asked(model).values() if count > 1]
    assert len(repeated) == SETTINGS["shard_size"]
    model.asked.clear()
    translate(tall, corpus, tmp_path / "undisturbed")
    assert files(tmp_path / "undisturbed") == files(tmp_path / "shards")


def test_a_damaged_shard_is_named(tall, tmp_path):
    corpus = corpus_of(sentences(8), tmp_path / "a")
    translate(tall, corpus, tmp_path / "shards")
    [shard] = (tmp_path / "shards" / translator_fingerprint(*tall, num_beams=2)).iterdir()
    shard.write_bytes(b"garbage" * 9)
    with pytest.raises(ValueError, match=rf"{shard.name} is damaged .* Delete it"):
        translate(tall, corpus_of(sentences(12, seed=1), tmp_path / "b"), tmp_path / "shards")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"backend": "marian"}, "`backend` must be one of 'transformers', 'ctranslate2', got 'marian'"),
        ({"do_sample": True}, "would sample"),
        ({"beams": 4}, "'beams' is no setting of `generate`"),
    ],
)
def test_settings_that_cannot_be(tall, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        translate(tall, corpus_of(sentences(3), tmp_path), tmp_path / "shards", **options)
    assert not (tmp_path / "shards").exists()


def test_progress_tells_the_speed(tall, tmp_path):
    console = Console(file=io.StringIO(), width=120)
    translate(tall, corpus_of(sentences(8), tmp_path), tmp_path / "shards", console=console)
    assert "8/8" in console.file.getvalue() and "sentences/s" in console.file.getvalue()


# --- CTranslate2 -----------------------------------------------------------------------------------------------------


def start_from(model, value):
    """Set the embedding of the start token, which is zero in OPUS-MT's translators: CTranslate2 takes that for granted."""
    translator = model.encoder.translator
    with torch.no_grad():
        translator.get_input_embeddings().weight[translator.generation_config.decoder_start_token_id] = value


@pytest.mark.parametrize("translator", ["marian", "nllb"])
@pytest.mark.parametrize("num_beams", [None, 1, 3])
def test_ctranslate2_agrees_with_transformers(fresh, translator, num_beams, tmp_path):
    pytest.importorskip("ctranslate2", reason="the extra `ct2` is not installed")
    tall = fresh("gated", translator)
    if translator == "marian":
        start_from(tall[0], 0)
    corpus = corpus_of(sentences(40), tmp_path)
    # Without, their own: NLLB's settings have none, as those of the real one.
    own = {} if num_beams is None else {"num_beams": num_beams}
    assert tall[0].encoder.translator.generation_config.num_beams == {"marian": 2, "nllb": None}[translator]
    ours = translate_corpus(*tall, corpus, tmp_path / "shards", **own)["translation"][:]
    options = {"backend": "ctranslate2", "compute_type": "float32", **own}
    theirs = translate_corpus(*tall, corpus, tmp_path / "shards", **options)["translation"][:]
    assert sum(a == b for a, b in zip(ours, theirs, strict=True)) >= 0.95 * len(ours)


def test_ctranslate2_in_int8_agrees_with_transformers(tmp_path):
    pytest.importorskip("ctranslate2", reason="the extra `ct2` is not installed")
    # Trained parts: with random weights one rounding makes another sentence, more or less often by the processor.
    tall = compose(*(str(component_path(part)) for part in ("lr_hr", "llm", "hr_lr")))
    start_from(tall[0], 0)
    world = World(0)
    texts = [world.record(entity, "city", 0).text for entity in range(40)]
    corpus = corpus_of(texts, tmp_path)
    ours = translate_corpus(*tall, corpus, tmp_path / "shards", num_beams=1)["translation"][:]
    options = {"backend": "ctranslate2", "compute_type": "int8", "num_beams": 1}
    theirs = translate_corpus(*tall, corpus, tmp_path / "shards", **options)["translation"][:]
    assert sum(a == b for a, b in zip(ours, theirs, strict=True)) >= 0.9 * len(ours)


def test_what_ctranslate2_cannot_do_is_refused(fresh, tmp_path):
    pytest.importorskip("ctranslate2", reason="the extra `ct2` is not installed")
    tall = fresh("gated")
    corpus = corpus_of(sentences(4), tmp_path)
    start_from(tall[0], 0.1)
    with pytest.raises(ValueError, match="embedding of zeros"):
        translate(tall, corpus, tmp_path / "shards", backend="ctranslate2")
    start_from(tall[0], 0)
    with pytest.raises(ValueError, match="does not know 'top_k'"):
        translate(tall, corpus, tmp_path / "shards", backend="ctranslate2", top_k=3)
    mbart = fresh("gated", "mbart50")
    with pytest.raises(ValueError, match="cannot convert this translator .*use the backend 'transformers'"):
        translate(mbart, corpus, tmp_path / "shards", backend="ctranslate2")


def test_ctranslate2_that_is_not_installed_is_asked_for(tall, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(ImportError, match=r"pip install tall-hf\[ct2\]"):
        translate(tall, corpus_of(sentences(3), tmp_path), tmp_path / "shards", backend="ctranslate2")
