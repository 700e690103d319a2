"""What each link of the chain can do by itself: the language model in English, and the translator back behind a translation.

python links.py --llm components/llm --llm components/llm_long --hr-lr components/hr_lr --data outputs/he-cpu/data \\
    --output outputs/he-cpu/links.json

Asked are the held-out sentences of which there is a translation by people. The language model is asked for the last word of
that translation, behind what stands before it, beside an n-gram model of the text that it has read. The translator back is
asked for the last word of the sentence, given the translation, another sentence's, and nothing. It is teacher-forced: a
word counts as found where each of its tokens is the most probable one behind the right ones before it. That may find less
than a search for whole words, as `decoder_only` makes for an empty source, since what is no word (punctuation, the end) may be
more probable. Sentences that are longer than the translator reads, or whose last word changes the tokens before it, are left out
there. A TALL reads the sentence itself besides, so these are no bounds of it; but what no link knows it must learn from the
sentences alone.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from data import other_sentences, read_jsonl
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from tall_hf.data.words import normalize, split_last_word, strip_punctuation, words_of
from tall_hf.evaluation.approaches.language_model import LanguageModel
from tall_hf.evaluation.build import model_loader
from tall_hf.evaluation.kneser_ney import KneserNey, Spelling
from tall_hf.files import write_json
from tall_hf.measuring.device import accelerator_or_cpu
from tall_hf.measuring.statistics import share
from tall_hf.measuring.tables import markdown_table, percent_with_interval
from tall_hf.progress import progress_bars


IGNORED = -100
DEVICE = accelerator_or_cpu()


def language_model(spec: str, questions: list[tuple[str, str]], batch_size: int) -> dict:
    """How many last words of English sentences a causal language model finds.

    Args:
        spec: a folder or a Hub id.
        questions: sentences without their last word, and that word.
        batch_size: sentences in a batch.
    """
    llm, tokenizer = model_loader(AutoModelForCausalLM, spec, device=DEVICE)()
    # Texts that it was trained on began behind the end of another one, unless they had a mark of their own.
    start = llm.get_input_embeddings().weight[[tokenizer.eos_token_id]] if tokenizer.bos_token_id is None else None
    model, found = LanguageModel(llm, tokenizer, start), []
    for batch in batches(questions, batch_size, Path(spec).name, length=lambda question: len(question[0])):
        answers = model.next_words([text for text, _ in batch], 1)
        # Judged as `tall evaluate` judges: an answer's punctuation is no part of it.
        found += [
            [strip_punctuation(best) for best, _ in words] == [word]
            for words, (_, word) in zip(answers, batch, strict=True)
        ]
    return share(found)


def ngram(lines: list[str], questions: list[tuple[str, str]], order: int = 4) -> dict:
    """The same of an n-gram model of English text."""
    sentences = [words_of(normalize(line), str.split) for line in lines]
    counts: dict[str, int] = {}
    for sentence in sentences:
        for word in sentence:
            counts[word] = counts.get(word, 0) + 1
    model = KneserNey(sentences, order, Spelling(counts).log_probabilities)
    answers = model.most_probable([words_of(text, str.split) for text, _ in questions], 1)
    return share([words[:1] == [word] for words, (_, word) in zip(map(list, answers), questions, strict=True)])


@torch.inference_mode()
def translator_back(spec: str, sources: list[str], questions: list[tuple[str, str]], batch_size: int) -> dict:
    """Loss a token of whole sentences behind their sources, and how many of their last words are found."""
    model, tokenizer = model_loader(AutoModelForSeq2SeqLM, spec, device=DEVICE)()
    limit = model.config.max_position_embeddings
    rows, found, loss, tokens = [], [], 0.0, 0
    for source, (text, word) in zip(sources, questions, strict=True):
        before, whole = (
            tokenizer(text_target=target, add_special_tokens=False)["input_ids"] for target in (text, f"{text} {word}")
        )
        if is_asked(before, whole) and len(whole) <= limit:
            rows.append((source, len(before), whole))
    start = model.generation_config.decoder_start_token_id
    for batch in batches(rows, batch_size, Path(spec).name):
        sources = [source for source, *_ in batch]
        encoded = tokenizer(sources, return_tensors="pt", padding=True, truncation=True, max_length=limit).to(DEVICE)
        longest = max(len(row) for *_, row in batch)
        labels = torch.tensor([row + [IGNORED] * (longest - len(row)) for *_, row in batch], device=DEVICE)
        # What stands behind a row's end is not looked at.
        inputs = torch.tensor(
            [[start, *row[:-1]] + [start] * (longest - len(row)) for *_, row in batch], device=DEVICE
        )
        logits = model(**encoded, decoder_input_ids=inputs).logits
        loss += torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum").item()
        tokens += int((labels != IGNORED).sum())
        best = logits.argmax(-1)
        found += [best[i, before : len(row)].tolist() == row[before:] for i, (_, before, row) in enumerate(batch)]
    return {**share(found), "loss": loss / tokens}


def is_asked(before: list[int], whole: list[int]) -> bool:
    """Whether a last word leaves the tokens before it as they are, and has some of its own."""
    return len(whole) > len(before) and whole[: len(before)] == before


def batches(
    rows: list[tuple], size: int, name: str, length: Callable[[tuple], int] = lambda row: len(row[-1])
) -> Iterator[list[tuple]]:
    """Rows of like length together; with a progress bar."""
    if not rows:
        sys.exit(f"{name} can be asked for no last word: each changes the tokens before it, or is too far behind.")
    ordered = sorted(rows, key=length)
    with progress_bars("sentences") as bars:
        task = bars.add_task(name, total=len(rows))
        for start in range(0, len(ordered), size):
            batch = ordered[start : start + size]
            yield batch
            bars.advance(task, len(batch))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", action="append", required=True, help="a language model; repeatable")
    parser.add_argument("--hr-lr", required=True, help="the translator back")
    parser.add_argument("--data", type=Path, required=True, help="folder that data.py wrote")
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--strip-niqqud", action="store_true")
    parser.add_argument("--batch-size", type=int, default=48)
    options = parser.parse_args()
    rows = list(read_jsonl(options.data / "held_out.references.jsonl"))
    english = [split_last_word(normalize(row["english"])) for row in rows]
    asked = [question for question in english if all(question)]
    text = [split_last_word(normalize(row["text"], options.strip_niqqud)) for row in rows]
    whole = [row["english"] for row, question in zip(rows, text, strict=True) if all(question)]
    text = [question for question in text if all(question)]
    if not asked or not text:
        parser.error(f"no sentence of {options.data / 'held_out.references.jsonl'} has a last word in both languages")
    others = other_sentences(whole)
    figures = {
        f"language model {Path(spec).name}, last word of the translation": language_model(
            spec, asked, options.batch_size
        )
        for spec in options.llm
    }
    lines = (options.data / "english.train.txt").read_text(encoding="utf-8").splitlines()
    figures["n-gram of all text for the language model, last word of the translation"] = ngram(lines, asked)
    for name, sources in (
        ("the translation", whole),
        ("another sentence's", others),
        ("nothing", [""] * len(whole)),
    ):
        figures[f"translator back, last word of the sentence, behind {name}"] = translator_back(
            options.hr_lr, sources, text, options.batch_size
        )
    write_json(options.output, figures)
    print(table(figures))


def table(figures: dict) -> str:
    """The figures in Markdown."""
    rows = []
    for name, found in figures.items():
        loss = f"{found['loss']:.2f}" if "loss" in found else ""
        rows.append([name, percent_with_interval(found), f"{found['n']:,}", loss])
    return markdown_table(["link", "words found % [95%]", "words", "loss a token"], rows)


if __name__ == "__main__":
    main()
