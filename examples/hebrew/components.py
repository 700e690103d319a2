"""Train the parts of a TALL from plain files: two Marian translators and a Qwen2 language model, and measure them.

python components.py lr_hr hr_lr llm --language he.yaml --scale cpu.yaml --data outputs/hebrew/data --output outputs/hebrew/components

--data is the folder that data.py wrote. Each part is a folder that `tall compose` takes, with a `report.json`: BLEU and chrF,
or perplexity, seconds, peak memory. Killed, the same command goes on after the last checkpoint; finished parts are kept.
"""

import argparse
import json
import math
import platform
import resource
import shutil
import time
from pathlib import Path

import sacrebleu
import torch
import torch.nn.functional as F
from data import read_jsonl, read_language, read_scale, text_name
from datasets import Dataset
from short_first import BatchesTrainer, ShortFirst
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    GenerationConfig,
    MarianConfig,
    MarianMTModel,
    MarianTokenizer,
    Qwen2Config,
    Qwen2ForCausalLM,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from tall_hf.files import read_json, write_json
from tall_hf.microworld.architectures import qwen2_tokenizer, train_sentencepiece
from tall_hf.training.checkpoints import last_checkpoint


TRANSLATORS = ("lr_hr", "hr_lr")
ROLES = (*TRANSLATORS, "llm")
PARTS = (*ROLES, "random_llm")
REPORT = "report.json"
CHECKPOINTS = "checkpoints"


# --- translators -----------------------------------------------------------------------------------------------------


def marian_tokenizer(pairs: list[dict], source: str, target: str, vocab_size: int, folder: Path) -> MarianTokenizer:
    """Train the two SentencePiece models of a translator, of `vocab_size` pieces each, and join them as OPUS-MT does.

    Args:
        pairs: rows of `english` and `text`.
        source, target: codes of the languages; "en" is English.
        vocab_size: pieces of each model.
        folder: where the files are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pieces = ["</s>", "<unk>"]
    for role, code in (("source", source), ("target", target)):
        # Once each, however often a pair is read.
        sentences = dict.fromkeys(row["english" if code == "en" else "text"] for row in pairs)
        sentences = [sentence for sentence in sentences if sentence]
        pieces += train_sentencepiece(sentences, folder / f"{role}.spm", vocab_size)
    pieces = [piece for piece in dict.fromkeys(pieces) if piece not in ("<s>", "<pad>")]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, "<pad>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    files = {f"{role}_spm": str(folder / f"{role}.spm") for role in ("source", "target")}
    return MarianTokenizer(vocab=str(folder / "vocab.json"), **files, source_lang=source, target_lang=target)


def new_translator(tokenizer: MarianTokenizer, sizes: dict) -> MarianMTModel:
    """A MarianMTModel with the settings of an OPUS-MT checkpoint, random weights, and sizes of its own."""
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    ids = {"pad_token_id": pad, "eos_token_id": eos, "decoder_start_token_id": pad}
    model = MarianMTModel(
        MarianConfig(
            vocab_size=len(tokenizer),
            decoder_vocab_size=len(tokenizer),
            d_model=sizes["d_model"],
            encoder_layers=sizes["encoder_layers"],
            decoder_layers=sizes["decoder_layers"],
            encoder_attention_heads=sizes["heads"],
            decoder_attention_heads=sizes["heads"],
            encoder_ffn_dim=sizes["ffn_dim"],
            decoder_ffn_dim=sizes["ffn_dim"],
            max_position_embeddings=sizes["max_length"],
            activation_function="swish",
            dropout=sizes["dropout"],
            scale_embedding=True,
            init_std=sizes["d_model"] ** -0.5,
            forced_eos_token_id=None,
            **ids,
        )
    )
    model.generation_config = GenerationConfig(
        **ids, bad_words_ids=[[pad]], num_beams=sizes["num_beams"], max_length=sizes["max_translation"]
    )
    return model


def smoothed_loss(smoothing: float):
    """Cross-entropy with label smoothing in one pass over the logits, in float32 also where the model computes in bfloat16."""

    def loss(outputs, labels, num_items_in_batch=None):
        logits = outputs.logits.flatten(0, 1).float()
        reduction = "mean" if num_items_in_batch is None else "sum"
        total = F.cross_entropy(logits, labels.flatten(), label_smoothing=smoothing, reduction=reduction)
        return total if num_items_in_batch is None else total / num_items_in_batch

    return loss


class StartOfZeros(TrainerCallback):
    """Keeps the embedding of Marian's start token, which is its padding token, at zeros, as OPUS-MT's are.

    The output layer shares the table and would move it. CTranslate2 takes it to be zeros.
    """

    def on_step_end(self, args, state, control, model=None, **kwargs):
        with torch.no_grad():
            model.get_input_embeddings().weight[model.config.pad_token_id] = 0.0


def train_translator(
    part: str, language: dict, sizes: dict, run: dict, data: Path, folder: Path, seed: int, clock
) -> dict:
    """Train a translator into `folder`, and return its figures. `part` is "lr_hr", "hr_lr" or another one in that direction."""
    codes = {"text": language["language"], "english": language["pivot"]}
    source, target = ("text", "english") if part.startswith("lr_hr") else ("english", "text")
    pairs = read_jsonl(data / "pairs.train.jsonl")
    unpaired = []
    if target == "text" and sizes["unpaired_from"] < 1:
        # Behind an empty source the decoder learns how the language goes, of which there is more text than pairs.
        paired = {row["text"] for row in pairs}
        texts = (row["text"] for row in read_jsonl(data / text_name(None)))
        unpaired = [{"english": "", "text": text} for text in texts if text not in paired]
    set_seed(seed)
    tokenizer = marian_tokenizer([*pairs, *unpaired], codes[source], codes[target], sizes["vocab_size"], folder)
    tokenizer.model_max_length = sizes["max_length"]
    model = new_translator(tokenizer, sizes)
    if not torch.accelerator.is_available():
        # The fused attention of processors prepares a product of its own for each sentence and head, at every new length.
        model.set_attn_implementation("eager")

    def rows(pairs):
        def encode(batch):
            return tokenizer(batch[source], text_target=batch[target], truncation=True)

        return Dataset.from_list(pairs).map(encode, batched=True, remove_columns=["english", "text"])

    train = rows([*pairs, *unpaired])
    lengths = [max(len(row["input_ids"]), len(row["labels"])) for row in train]
    trainer = BatchesTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            **arguments(folder, sizes, run, seed), lr_scheduler_type="linear", adam_beta2=0.98
        ),
        batches=ShortFirst(
            lengths,
            sizes["batch_tokens"],
            sizes["steps"],
            sizes["short_first"],
            seed,
            late=len(unpaired),
            late_from=sizes["unpaired_from"],
        ),
        train_dataset=train,
        eval_dataset=rows(read_jsonl(data / "pairs.validation.jsonl")),
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        compute_loss_func=smoothed_loss(sizes["label_smoothing"]),
        processing_class=tokenizer,
        callbacks=[clock, StartOfZeros()],
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(folder / CHECKPOINTS))
    figures = {
        "parameters": model.num_parameters(),
        "validation_loss": trainer.evaluate()["eval_loss"],
        "validation_loss_of_other_sources": trainer.evaluate(with_other_sources(trainer.eval_dataset))["eval_loss"],
        "tests": {},
    }
    for name in language["translation_tests"]:
        test = read_jsonl(data / f"{name}.pairs.jsonl")[: sizes.get("test_sentences")]
        found = translate(model, tokenizer, [row[source] for row in test])
        figures["tests"][name] = translation_quality(found, [row[target] for row in test])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return figures


def with_other_sources(rows: Dataset) -> Dataset:
    """The same targets, each behind the source of the next row: a loss that hardly grows is a translator that does not read."""
    names = ("input_ids", "attention_mask")
    sources = {name: [*rows[name][1:], *rows[name][:1]] for name in names}
    return Dataset.from_dict({"labels": rows["labels"][:], **sources})


@torch.inference_mode()
def translate(
    model: MarianMTModel, tokenizer: MarianTokenizer, sentences: list[str], batch_size: int = 64
) -> list[str]:
    """Translate with the model's own generation settings, sentences of similar length together."""
    model.eval()
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
    found = [""] * len(sentences)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        inputs = tokenizer([sentences[i] for i in batch], return_tensors="pt", padding=True, truncation=True)
        outputs = model.generate(**inputs.to(model.device))
        for i, text in zip(batch, tokenizer.batch_decode(outputs, skip_special_tokens=True), strict=True):
            found[i] = text
    return found


def translation_quality(found: list[str], references: list[str]) -> dict:
    """BLEU and chrF of sacrebleu, with their signatures."""
    quality = {"sentences": len(found)}
    for metric in (sacrebleu.BLEU(), sacrebleu.CHRF()):
        score = metric.corpus_score(found, [references])
        quality[score.name] = round(score.score, 2)
        quality[f"{score.name}_signature"] = str(metric.get_signature())
    return quality


# --- language model --------------------------------------------------------------------------------------------------


def train_llm(sizes: dict, run: dict, data: Path, folder: Path, seed: int, clock) -> dict:
    """Train a language model on the English text into `folder`, and return its figures."""
    texts = {name: (data / f"english.{name}.txt").read_text("utf-8").splitlines() for name in ("train", "validation")}
    set_seed(seed)
    tokenizer = qwen2_tokenizer(texts["train"], sizes["vocab_size"])
    tokenizer.model_max_length = sizes["max_length"]
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=sizes["hidden_size"],
            intermediate_size=sizes["intermediate_size"],
            num_hidden_layers=sizes["layers"],
            num_attention_heads=sizes["heads"],
            num_key_value_heads=sizes["heads"],
            max_position_embeddings=sizes["max_length"],
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
            use_sliding_window=False,
        )
    )

    def packed(batch):
        """Sentences one after another, each closed by the end of text, cut into rows of one length."""
        ids = [token for row in tokenizer(batch["text"])["input_ids"] for token in (*row, tokenizer.eos_token_id)]
        length = sizes["block"]
        rows = [ids[start : start + length] for start in range(0, len(ids) - length + 1, length)]
        return {"input_ids": rows, "labels": rows}

    datasets = {
        name: Dataset.from_dict({"text": lines}).map(packed, batched=True, batch_size=2000, remove_columns=["text"])
        for name, lines in texts.items()
    }
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**arguments(folder, sizes, run, seed), lr_scheduler_type="cosine", adam_beta2=0.98),
        train_dataset=datasets["train"],
        eval_dataset=datasets["validation"],
        data_collator=default_data_collator,
        processing_class=tokenizer,
        callbacks=[clock],
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(folder / CHECKPOINTS))
    loss = trainer.evaluate()["eval_loss"]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    words = sum(len(line.split()) for line in texts["validation"])
    tokens = len(datasets["validation"]) * sizes["block"]
    return {
        "parameters": model.num_parameters(),
        "validation_loss": loss,
        "perplexity": math.exp(loss),
        # Of words, so that language models with other vocabularies compare.
        "word_perplexity": math.exp(loss * tokens / words),
        "validation_tokens": tokens,
        "train_tokens": len(datasets["train"]) * sizes["block"],
    }


def randomize_llm(llm: str, folder: Path, seed: int) -> dict:
    """The same language model with random weights: a control. `llm` is a folder or a Hub id with optional @revision."""
    name, _, revision = llm.partition("@")
    options = {"revision": revision or "main"}
    set_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(name, **options), dtype=torch.float32)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(name, **options).save_pretrained(folder)
    return {"parameters": model.num_parameters(), "control_of": llm}


# --- all of them -----------------------------------------------------------------------------------------------------


class Clock(TrainerCallback):
    """Seconds of a training, those before its last checkpoint included when it was killed and started again."""

    def __init__(self, path: Path):
        self.path = path
        self.before = read_json(path) if path.exists() else 0.0
        self.start = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.start

    def on_save(self, args, state, control, **kwargs):
        write_json(self.path, self.seconds)


def arguments(folder: Path, sizes: dict, run: dict, seed: int) -> dict:
    """What all trainings have in common, as TrainingArguments take it."""
    on_cpu = not torch.accelerator.is_available()
    return {
        "output_dir": str(folder / CHECKPOINTS),
        "max_steps": sizes["steps"],
        "per_device_train_batch_size": sizes.get("batch_size", 1),
        "per_device_eval_batch_size": sizes.get("batch_size", 32),
        "learning_rate": sizes["learning_rate"],
        "warmup_steps": max(1, int(sizes["steps"] * sizes["warmup"])),
        "weight_decay": 0.01,
        "bf16": run["bf16"],
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "save_steps": max(1, sizes["steps"] // run["checkpoints"]),
        "save_total_limit": 1,
        "logging_steps": max(1, sizes["steps"] // 50),
        "eval_strategy": "steps",
        "eval_steps": max(1, sizes["steps"] // 5),
        "prediction_loss_only": True,
        "report_to": "none",
        "seed": seed,
    }


def build(part: str, settings: dict, data: Path, output: Path, llm: str | None = None) -> Path:
    """Make one part in `output/part`, or keep the one that is there.

    Args:
        part: one of PARTS, or a name that begins with a role's and that the scale holds, as `hr_lr_long`.
        settings: "language", "scale" (both as their files have them) and "seed".
        data: folder that data.py wrote.
        output: folder of the parts; an unfinished one is kept in `part.unfinished`.
        llm: what "random_llm" is a control of; the language model in `output` when not given.

    Raises:
        FileExistsError: a part made with other settings is there.
    """
    final, folder = output / part, output / f"{part}.unfinished"
    scale, seed = settings["scale"], settings["seed"]
    made_with = {"part": part, "seed": seed, "data": read_json(data / "counts.json")}
    sizes = part_sizes(part, scale)
    made_with |= {"sizes": sizes, "run": scale["run"], "llm": llm}
    for path in (final / REPORT, folder / "settings.json"):
        if path.exists():
            found = read_json(path)
            if found.get("made_with", found) != made_with:
                raise FileExistsError(
                    f"{path.parent} was made with other settings or data; delete it, or name another --output."
                )
    if (final / REPORT).exists():
        return final
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "settings.json", made_with)
    clock = Clock(folder / "seconds.json")
    run = made_with["run"]
    if part == "random_llm":
        figures = randomize_llm(llm or str(output / "llm"), folder, seed)
    elif part.startswith("llm"):
        figures = train_llm(sizes, run, data, folder, seed, clock)
    else:
        figures = train_translator(part, settings["language"], sizes, run, data, folder, seed, clock)
    report = {
        "made_with": made_with,
        **figures,
        "seconds": round(clock.seconds, 1),
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "peak_accelerator_memory": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "torch": torch.__version__,
    }
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    (folder / "settings.json").unlink()
    clock.path.unlink(missing_ok=True)
    write_json(folder / REPORT, report)
    folder.rename(final)
    return final


def part_sizes(part: str, scale: dict) -> dict:
    """What both translators share, what parts of its role have of their own, and what this part has of its own.

    Raises:
        ValueError: there is no such part.
    """
    role = "llm" if part == "random_llm" else next((role for role in ROLES if part.startswith(role)), None)
    if role is None or not (part in PARTS or part in scale):
        raise ValueError(f"No part {part!r}: there are {', '.join(PARTS)}, and those whose sizes the scale has.")
    shared = scale["translator"] if role in TRANSLATORS else {}
    return {**shared, **scale.get(role, {}), **scale.get(part, {})}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "parts", nargs="+", metavar="PART", help=f"{', '.join(PARTS)}, or one whose sizes the scale has"
    )
    parser.add_argument("--language", required=True, help="configuration of the language, such as he.yaml")
    parser.add_argument("--scale", required=True, help="sizes, such as cpu.yaml")
    parser.add_argument("--data", type=Path, required=True, help="folder that data.py wrote")
    parser.add_argument("--output", type=Path, required=True, help="folder of the parts")
    parser.add_argument("--llm", help="what random_llm is a control of; the llm in --output when not given")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    settings = {"language": read_language(options.language), "scale": read_scale(options.scale), "seed": options.seed}
    for part in options.parts:
        print(build(part, settings, options.data, options.output, options.llm))


if __name__ == "__main__":
    main()
