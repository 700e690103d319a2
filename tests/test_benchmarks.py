"""The benchmarks at small size: ours answers as the reference does, what is counted is what is done, and all of it runs."""

import functools
import json
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from tall_hf import LastTokenCollator, TALLForCausalLM
from tall_hf.microworld import World


ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

from benchmarks import (  # noqa: E402
    beam_search,
    budget,
    compiled,
    decoder_cache,
    lm_head,
    meters,
    reference,
    scaling,
    scaling_page,
    sizes,
    speed,
    speed_report,
    speed_rows,
    training_profile,
    translation_reuse,
)


LENGTH = 10


@pytest.fixture(scope="module")
def tiny():
    return sizes.random_tall("tiny", LENGTH, beams=4, seed=0, device="cpu")


@pytest.fixture
def texts():
    return sizes.number_texts(5, LENGTH, seed=0, vocab_size=200)


def test_a_random_model_translates_to_the_length_it_is_told_and_a_word_is_a_token(tiny, texts):
    model, processor = tiny
    translations = model.translate(texts, processor)
    assert [len(translation.split()) for translation in translations] == [LENGTH] * len(texts)
    inputs = processor(text=texts, translations=translations, return_tensors="pt")
    assert inputs["llm_input_ids"].shape == inputs["input_ids"].shape == (len(texts), LENGTH)
    assert len(set(translations)) > 1


@torch.no_grad()
def test_the_references_logits_are_the_models_on_a_padded_batch(tiny, composed, texts):
    for model, processor in (tiny, composed("gated")):
        uneven = [text.rsplit(" ", count)[0] for count, text in enumerate(texts)]
        translations = [text.rsplit(" ", 5 - count)[0] for count, text in enumerate(texts)]
        encoded = processor(text=uneven, translations=translations, text_target=texts)
        rows = [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]
        batch = LastTokenCollator(processor)(rows)
        batch.pop("labels")
        written = batch["decoder_attention_mask"].bool()
        ours = model(**batch).logits[written]
        batch.pop("decoder_attention_mask")
        torch.testing.assert_close(reference.logits(model, **batch)[written], ours)


def test_complete_that_reads_again_writes_the_references_tokens(tiny, texts):
    model, processor = tiny
    wanted = [reference.complete(model, processor, text, 6) for text in texts[:2]]
    ours = [model.complete(text, processor, max_words=6, refresh_words=1)[0] for text in texts[:2]]
    assert ours == wanted
    assert wanted != model.complete(texts[:2], processor, max_words=6)  # which reads once, so it could have differed


@pytest.mark.parametrize("bridge", ["concat", "none"])
def test_the_reference_refuses_what_the_authors_have_not(composed, bridge):
    model, processor = composed(bridge)
    with pytest.raises(ValueError, match=f"'{bridge}'"):
        reference.next_token(model, processor, "דנה גרה")


def test_the_budget_is_what_torch_counts():
    model, _ = sizes.random_tall("tiny", LENGTH, beams=4, seed=0, device="cpu")
    model.set_attn_implementation("eager")  # torch does not count its fused kernel
    inputs = scaling.random_inputs(3, LENGTH, "cpu")
    labels = torch.full((3, LENGTH), -100)
    labels[:, -1] = 5
    model.train()
    with FlopCounterMode(display=False) as counter:
        model(**inputs, labels=labels).loss.backward()
    model.eval()
    stages = budget.training_step(model, 3, LENGTH, LENGTH, LENGTH, 4)
    assert sum(stage.flop for stage in stages) == pytest.approx(counter.get_total_flops(), rel=0.01)

    with FlopCounterMode(display=False) as counter:
        model.encoder.translator.generate(inputs["input_ids"])
    counted = sum(stage.flop for stage in budget.translating(model, 3, LENGTH, LENGTH, 4, 4))
    # `generate` projects the source once for each beam.
    assert 0.7 * counter.get_total_flops() < counted <= counter.get_total_flops()


def test_peak_memory_counts_what_is_held_at_a_time():
    with meters.PeakMemory("cpu") as peak:
        for _ in range(3):
            torch.zeros(2**20, dtype=torch.uint8)
    assert 2**20 <= peak.bytes < 2**20 + 2**16


def test_the_quick_run(tmp_path):
    # Loading takes a process of its own for each precision; a test below loads once.
    rows = [name for name in speed.ROWS if name != "load"]
    results = speed.main(["--quick", "--slow-bfloat16", "--sizes", "tiny", "--rows", *rows, "--output", str(tmp_path)])
    assert json.loads((tmp_path / "speed.json").read_text()) == json.loads(json.dumps(results))
    assert (tmp_path / "speed.png").stat().st_size > 0
    rows = {(row["what"].split()[0], row["dtype"]): row for row in results["rows"]}
    assert {what for what, _ in rows} == {
        "complete",
        "missing",
        "of",
        "next",
        "training",
        "its",
        "encode",
    }
    assert all(row["exact"] or row["settings"] for row in rows.values())
    for (_, dtype), row in rows.items():
        assert row["reference"] > 0
        assert dtype == "bfloat16" or row["exact"] > 0
    assert rows["complete", "float32"]["equal"] == "6/6 tokens"
    assert rows["missing", "float32"]["equal"] == "8/8 tokens"
    assert "refresh_words=0" in rows["complete", "float32"]["settings"]
    assert results["ceilings"]["float32"]["flop_per_second"] > 0


def test_bfloat16_is_left_out_where_it_is_far_slower(tmp_path, monkeypatch, capsys):
    tried = []

    def rate(dtype, device, width):
        tried.append((dtype, width))
        return {torch.float32: 52e9, torch.bfloat16: 0.57e9}[dtype]

    monkeypatch.setattr(meters, "matmul_rate", rate)
    small = ["--quick", "--sizes", "tiny", "--rows", "next word", "--output", str(tmp_path), "--matmul-width", "4096"]
    results = speed.main(small)
    assert [row["dtype"] for row in results["rows"]] == ["float32"]
    # A wide product would take minutes.
    assert (torch.bfloat16, 4096) not in tried
    assert (torch.float32, 4096) in tried
    printed = capsys.readouterr().out
    assert "makes 0.57 GFLOP/s in it and 52 in float32" in printed
    assert "--slow-bfloat16" in printed
    results = speed.main([*small, "--slow-bfloat16"])
    assert [row["dtype"] for row in results["rows"]] == ["float32", "bfloat16"]
    assert (torch.bfloat16, 4096) in tried


def test_bfloat16_is_compared_with_float32_in_products_of_one_width(monkeypatch):
    """A GPU makes a twentieth of its rate in a narrow product, in either precision."""
    rates = {
        torch.float32: {"narrow": 3e12, "wide": 5e13},
        torch.bfloat16: {"narrow": 3e12, "wide": 6e14},
    }
    monkeypatch.setattr(
        meters, "matmul_rate", lambda dtype, device, width: rates[dtype]["wide" if width == 4096 else "narrow"]
    )
    ceilings, slow = speed.measure_ceilings(speed.arguments(["--copy-bytes", "1000", "--device", "cpu"]))
    assert slow == []
    assert {name: one["flop_per_second"] for name, one in ceilings.items()} == {"float32": 5e13, "bfloat16": 6e14}


def subject_of(tiny, *arguments):
    model, processor = tiny
    options = speed.arguments(["--quick", "--device", "cpu", *arguments])
    options.ceilings = {"float32": {"flop_per_second": 1e11}}
    return speed_rows.Subject("tiny", model, processor, sizes.number_texts(8, options.length, 0, 199), options)


def test_sentences_of_a_batch_share_what_is_fetched(tiny, monkeypatch):
    monkeypatch.setattr(speed_rows, "find_spec", lambda name: None)
    (alone, alone_translated), (shared, shared_translated) = (
        speed_rows.missing_word(subject_of(tiny, "--batch", str(batch)), [None, None]) for batch in (1, 4)
    )
    for one, of_four in ((alone, shared), (alone_translated, shared_translated)):
        for stage, part in zip(one.stages, of_four.stages, strict=True):
            assert part.bytes == pytest.approx(stage.bytes / 4)
            assert part.flop == pytest.approx(stage.flop)


def test_the_reference_is_warm_when_it_is_timed(tiny, monkeypatch):
    """As ours is: a row may be the first that is measured, as each is of the aims on a GPU."""
    read, seen = reference.read, []

    def slow_at_first(*arguments):
        if not seen:
            time.sleep(2)
        seen.append(arguments)
        return read(*arguments)

    monkeypatch.setattr(reference, "read", slow_at_first)
    monkeypatch.setattr(speed_rows, "find_spec", lambda name: None)
    (row,) = speed_rows.next_word(subject_of(tiny), None)
    assert row.reference < 1.5
    seen.clear()
    row, _ = speed_rows.missing_word(subject_of(tiny, "--reference-sentences", "1"), [None, None])
    assert row.reference < 1.5
    # A training step that has met its batch before has its memory at hand: both sides', or neither.
    step, batches = reference.Training.step, []

    def count_rows(self, batch):
        batches.append(len(batch["input_ids"]))
        return step(self, batch)

    monkeypatch.setattr(reference.Training, "step", count_rows)
    model, processor = sizes.random_tall("tiny", 12, beams=1, seed=0, device="cpu")
    speed_rows.training(subject_of((model, processor)), None, None)
    assert len(batches) > 1
    assert set(batches) == {4}


def test_the_loss_that_is_compared_is_that_of_the_training(monkeypatch):
    model, processor = sizes.random_tall("tiny", 12, beams=1, seed=0, device="cpu")
    forward = TALLForCausalLM.forward

    @functools.wraps(forward)  # the Trainer reads what it takes
    def another_in_training(self, *arguments, **inputs):
        outputs = forward(self, *arguments, **inputs)
        if self.training:
            outputs.loss = outputs.loss + 1
        return outputs

    monkeypatch.setattr(TALLForCausalLM, "forward", another_in_training)
    row, _ = speed_rows.training(subject_of((model, processor)), None, None)
    assert row.exact is None
    assert not model.training


def test_what_cannot_be_measured_is_refused_before_anything_is(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(speed, "run", lambda options: pytest.fail("It began to measure."))
    wrong = [
        (speed, ["--batch", "0"], "at least 1 is expected, got '0'"),
        (speed, ["--step-sentences", "3"], "two halves too, got 3"),
        (speed, ["--length", "1"], "got 1"),
        (speed, ["--trained", str(tmp_path)], "holds no config.json"),
        (speed, ["--device", "abacus"], "and not 'abacus'"),
        (scaling, ["--llms", "9B"], "'9B'"),
        (scaling, ["--size", "9B"], "'9B'"),
        (compiled, ["--mode", "fast"], "'fast'"),
        (compiled, ["--lengths", "0"], "got '0'"),
        (scaling_page, ["--measured", str(tmp_path)], "holds neither speed.json nor scaling.json"),
    ]
    for module, arguments, said in wrong:
        output = ["--output", str(tmp_path / "output")] if module in (speed, scaling, scaling_page) else []
        with pytest.raises(SystemExit) as stopped:
            module.main([*arguments, *output])
        assert stopped.value.code == 2
        assert said in capsys.readouterr().err
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        speed.main(["--quick", "--output", str(tmp_path / "file")])
    with pytest.raises(ValueError, match="one of qwen, bloomz, tiny, 0.5B.*got '9B'"):
        sizes.configuration("9B")


def test_a_plot_is_whole_or_not_there(tmp_path, monkeypatch):
    def savefig(self, path, **settings):
        Path(path).write_bytes(b"half of it")
        raise OSError("The disk is full.")

    figure = speed_report.figure_class()
    monkeypatch.setattr(figure, "savefig", savefig)
    with pytest.raises(OSError, match="full"):
        speed_report.plot({"rows": []}, tmp_path / "speed.png")
    assert list(tmp_path.iterdir()) == []


def test_loading_is_beside_touching(tiny):
    (row,) = speed_rows.load(speed_rows.Subject("tiny", *tiny, [], speed.arguments(["--quick", "--device", "cpu"])))
    assert row.exact > row.reference > 0


def test_the_little_world_is_measured_too(tmp_path):
    results = speed.main(
        [
            "--quick",
            "--sizes",
            "microworld",
            "--no-bfloat16",
            "--rows",
            "missing word",
            "training",
            "--output",
            str(tmp_path),
        ]
    )
    assert [row["equal"] for row in results["rows"] if row["what"].startswith("missing word")] == ["8/8 tokens"]
    assert all(row["exact"] for row in results["rows"])


def test_an_answer_that_differs_is_no_exact_figure_and_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "complete", lambda model, processor, text, count: text + " 1" * count)
    with pytest.raises(SystemExit, match="differs from the reference"):
        speed.main(["--quick", "--sizes", "tiny", "--no-bfloat16", "--rows", "completion", "--output", str(tmp_path)])
    (row,) = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert row["exact"] is None
    assert row["settings"]["rounding"] > 0


def test_no_row_is_begun_after_the_time_is_up(tmp_path, capsys):
    results = speed.main(["--quick", "--sizes", "tiny", "--no-bfloat16", "--minutes", "0", "--output", str(tmp_path)])
    assert results["rows"] == []
    assert results["left_out"] == [f"tiny, float32, {name}" for name in speed.ROWS]
    assert "Left out for want of time: tiny, float32, training;" in capsys.readouterr().out.replace("\n", " ")


def test_rows_that_took_too_long_of_the_size_before_are_left_out(monkeypatch):
    for name in ("next_word", "encode"):
        monkeypatch.setattr(speed_rows, name, lambda *_: [])
    options = speed.arguments(["--quick", "--no-bfloat16", "--device", "cpu", "--rows", "next word", "encode"])
    options.console, options.left_out = Console(quiet=True), []
    options.until = time.perf_counter() + 1000
    before = [
        {"size": "qwen", "dtype": "float32", "rows": name, "seconds": seconds}
        for name, seconds in (("next word", 2000), ("encode", 1))
    ]
    options.taken = list(before)
    speed.measure("tiny", options)
    assert options.left_out == ["tiny, float32, next word"]
    (measured,) = options.taken[len(before) :]
    assert (measured["size"], measured["rows"]) == ("tiny", "encode")


def test_a_translation_that_starts_from_zeros_is_the_same(tmp_path):
    """So CTranslate2, which starts so, can be asked with the little world's weights."""
    model, processor = sizes.microworld_tall(seed=0, device="cpu")
    texts = sizes.microworld_texts(8, seed=0)
    wanted = model.translate(texts, processor, num_beams=1)
    sizes.start_from_zeros(model.encoder.translator)
    assert model.translate(texts, processor, num_beams=1) == wanted
    pytest.importorskip("ctranslate2")
    with speed_rows.translation_backend(model, processor, "ctranslate2", "float32", {"num_beams": 1}) as translate:
        assert translate(texts) == wanted


def test_what_settings_cost_is_asked_of_a_trained_model(tmp_path, monkeypatch):
    model, processor = sizes.microworld_tall(seed=0, device="cpu")
    records = World().records()[1][:6]
    monkeypatch.setattr(World, "records", lambda self, seed=0: ([], records))
    right = [record.missing_word for record in records]
    answers = iter([right, ["wrong", *right[1:]], right, right])
    monkeypatch.setattr(speed, "predict_words", lambda *_: next(answers))
    # The second word that is written counts, and no sentence is found to end with it when everything is read but once.
    monkeypatch.setattr(
        TALLForCausalLM,
        "complete",
        lambda self, texts, processor, max_words, refresh_words: [
            f"{text} בעיר {word}." if refresh_words else f"{text} {word}"
            for text, word in zip(texts, right, strict=True)
        ],
    )
    monkeypatch.setattr(speed_rows, "find_spec", lambda name: None)
    options = speed.arguments(["--quick"])
    options.trained = str(tmp_path / "nothing")
    assert speed.accuracies(options) == []
    options.trained = str(tmp_path)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    found = {row["setting"].split(":")[0]: (row["accuracy"], row["change"]) for row in speed.accuracies(options)}
    assert found == {
        "exact": (1.0, None),
        "greedy translation": (5 / 6, 5 / 6 - 1.0),
        "exact, the second of two words": (1.0, None),
        "refresh_words=0, likewise": (0.0, -1.0),
        "bfloat16": (1.0, 0.0),
    }


def test_the_same_translation_survives_whole():
    model, processor = sizes.random_tall("tiny", LENGTH, beams=2, seed=0, device="cpu")
    steady = {"steps": 3 * LENGTH, "best beam": 1.0, "all beams": 1.0}
    # To a translator that reads no more than the last words, a sentence of the same words stays the same.
    processor.max_source_length = 4
    assert translation_reuse.surviving(model, processor, ["7 7 7 7 7 7 7 7"], words=3) == steady


def test_the_smaller_benchmarks_run(capsys):
    found = translation_reuse.main(["--sizes", "tiny", "--sentences", "2", "--words", "2", "--length", "6"])
    assert found["tiny"]["steps"] == 2 * 2 * 6
    assert all(0 <= found["tiny"][name] < 1 for name in ("best beam", "all beams"))
    small = ["--size", "tiny", "--layers", "2", "--batch", "2", "--length", "5", "--repeats", "1", "--profile", "3"]
    assert len(training_profile.main([*small, "--dtype", "bfloat16"])) == 4
    assert "aten::" in capsys.readouterr().out
    cache = ["--size", "tiny", "--length", "6", "--new-tokens", "3", "--repeats", "1", "--device", "cpu"]
    assert set(decoder_cache.main(cache)) == {"with", "without"}
    heads = lm_head.main(["--vocabulary", "50", "--width", "8", "--batches", "1", "3", "--repeats", "1"])
    beams = beam_search.main(["--width", "64", "--batch-size", "3", "--length", "6", "--repeats", "1"])
    assert beams["same"] == 3 and beams["steps"] > 0
    assert [(row["dtype"], row["batch"]) for row in heads] == [(d, b) for d in ("float32", "bfloat16") for b in (1, 3)]


@pytest.mark.slow
def test_what_is_compiled_gives_the_same():
    """Traced alone, by the backend that compiles nothing: a compiler of C++ is not needed."""
    small = [
        "--size",
        "tiny",
        "--layers",
        "2",
        "--batch",
        "2",
        "--lengths",
        "5",
        "7",
        "--repeats",
        "1",
        "--device",
        "cpu",
    ]
    found = compiled.main([*small, "--backend", "eager"])
    assert set(found) == {"read", "learn"}
    assert all(row["plain"] > 0 and row["difference"] < 1e-5 for row in found.values())
