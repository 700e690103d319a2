"""How the embedded components are trained and stored, and how what they have learned is measured."""

import contextlib
import itertools
import math
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import MarianMTModel, MarianTokenizer, Qwen2ForCausalLM, Qwen2Tokenizer

from tall_hf.modeling.text_rows_tall import pad_rows


# What stands between a question and its answer where a language model reads both.
ANSWER = " :"


# --- training --------------------------------------------------------------------------------------------------------


def translation_batches(
    tokenizer: MarianTokenizer, pairs: list[tuple[str, str]], size: int, seed: int
) -> Iterator[dict[str, Tensor]]:
    """Endless shuffled batches of (source, target) sentences as a Marian model's forward arguments."""
    encoded = tokenizer([source for source, _ in pairs], text_target=[target for _, target in pairs])
    rows = list(zip(encoded["input_ids"], encoded["labels"], strict=True))
    for batch in _endless(rows, size, seed):
        source, mask = pad_rows([row[0] for row in batch], tokenizer.pad_token_id, "right")
        labels, _ = pad_rows([row[1] for row in batch], -100, "right")
        yield {"input_ids": source, "attention_mask": mask, "labels": labels}


def text_batches(tokenizer: Qwen2Tokenizer, texts: list[str], size: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """Endless shuffled batches of sentences, each closed by the end-of-text token, for a causal language model."""
    rows = [ids + [tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]]
    for batch in _endless(rows, size, seed):
        labels, mask = pad_rows(batch, -100, "right")
        yield {
            "input_ids": labels.masked_fill(labels == -100, tokenizer.pad_token_id),
            "attention_mask": mask,
            "labels": labels,
        }


def question_batches(
    tokenizer: Qwen2Tokenizer,
    statements: list[str],
    questions: list[tuple[str, str]],
    size: int,
    seed: int,
) -> Iterator[dict[str, Tensor]]:
    """Endless batches, a quarter of them statements, for a language model that is to understand what is only nearly right.

    The rest are questions with their answers, of which only the answer is learned. Of every other question the words are in
    any order, and up to three letters that mean nothing stand anywhere among them.

    Args:
        tokenizer: of the language model, of bytes.
        statements: sentences, learned whole.
        questions: (question, answer), to be read as one text.
        size: rows of a batch.
        seed: of all that is drawn.
    """
    rng = random.Random(f"questions {seed}")
    letters = [token for token in tokenizer.get_vocab() if len(token) == 1]
    letters = sorted(tokenizer.convert_tokens_to_ids(letters))
    told = _endless([ids + [tokenizer.eos_token_id] for ids in tokenizer(statements)["input_ids"]], size // 4, seed)
    for asked in _endless(list(questions), size - size // 4, seed):
        rows = [(ids, ids) for ids in next(told)]
        for question, answer in asked:
            words = question.split()
            if rng.random() < 0.5:
                rng.shuffle(words)
            ids = tokenizer(rng.choice(("", " ")) + " ".join(words))["input_ids"]
            for _ in range(rng.choice((0, 0, 1, 2, 3))):
                ids.insert(rng.randrange(len(ids) + 1), rng.choice(letters))
            ids += tokenizer(ANSWER)["input_ids"]
            learned = tokenizer(answer)["input_ids"] + [tokenizer.eos_token_id]
            rows.append((ids + learned, [-100] * len(ids) + learned))
        ids, mask = pad_rows([row for row, _ in rows], tokenizer.pad_token_id, "right")
        labels, _ = pad_rows([row for _, row in rows], -100, "right")
        yield {"input_ids": ids, "attention_mask": mask, "labels": labels}


@contextlib.contextmanager
def disturbed(module: torch.nn.Module, spread: float) -> Iterator[None]:
    """While this is open, what a module gives in training has normal noise on it, of another strength in each row.

    Args:
        module: gives (rows, length, width), as a tensor or as the `last_hidden_state` of an encoder's output.
        spread: the greatest strength, in standard deviations of what the module gives; none in a row is greater.
    """

    def disturb(module, _, output):
        if not (module.training and spread):  # without noise no random numbers are drawn either
            return output
        states = output if isinstance(output, Tensor) else output.last_hidden_state
        strength = spread * states.detach().std() * torch.rand(len(states), 1, 1)
        noisy = states + strength * torch.randn_like(states)
        if isinstance(output, Tensor):
            return noisy
        output.last_hidden_state = noisy
        return output

    handle = module.register_forward_hook(disturb)
    try:
        yield
    finally:
        handle.remove()


def _endless(rows: list, size: int, seed: int) -> Iterator[list]:
    rng = random.Random(seed)
    while True:
        rng.shuffle(rows)
        for start in range(0, len(rows) - size + 1, size):
            yield rows[start : start + size]


def train(model, batches: Iterator[dict[str, Tensor]], steps: int, learning_rate: float, title: str) -> None:
    """AdamW with a short warm-up and a cosine to zero; leaves the model in eval mode."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    warm_up = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * step / steps))),
    )
    model.train()
    bar = tqdm(itertools.islice(batches, steps), total=steps, desc=title, unit="step", mininterval=1.0)
    for batch in bar:
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    model.eval()


# --- storing ---------------------------------------------------------------------------------------------------------


def round_to_bfloat16(model) -> None:
    """Give the weights the values that their stored form has, so that what is measured is what is shipped."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))


def save_component(model, tokenizer, folder: Path) -> None:
    """Store a model as bfloat16 safetensors, and its tokenizer, in `folder`."""
    tokenizer.save_pretrained(folder)
    model.to(torch.bfloat16).save_pretrained(folder)
    model.to(torch.float32)


# --- measuring -------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def translate(model: MarianMTModel, tokenizer: MarianTokenizer, sentences: list[str], size: int = 200) -> list[str]:
    """Translate with the model's own generation settings."""
    translations: list[str] = []
    for start in range(0, len(sentences), size):
        inputs = tokenizer(sentences[start : start + size], return_tensors="pt", padding=True)
        outputs = model.generate(**inputs)
        translations += [tokenizer.decode(row, skip_special_tokens=True) for row in outputs]
    return translations


def exact_match(model: MarianMTModel, tokenizer: MarianTokenizer, pairs: list[tuple[str, str]]) -> float:
    """Share of the (source, target) pairs whose translation equals the target, character for character."""
    translations = translate(model, tokenizer, [source for source, _ in pairs])
    return sum(found == target for found, (_, target) in zip(translations, pairs, strict=True)) / len(pairs)


@torch.inference_mode()
def knowledge(
    model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, prompts: list[str], words: list[str], size: int = 200
) -> float:
    """Share of the prompts after which the likeliest next token begins the wanted word."""
    hits = 0
    for start in range(0, len(prompts), size):
        inputs = tokenizer(prompts[start : start + size], return_tensors="pt", padding=True, padding_side="left")
        best = model(**inputs, logits_to_keep=1).logits[:, -1].argmax(-1)
        wanted = [tokenizer(" " + word)["input_ids"][0] for word in words[start : start + size]]
        hits += sum(found == word for found, word in zip(best.tolist(), wanted, strict=True))
    return hits / len(prompts)
