"""The command `tall`: each verb of the library for a terminal."""

import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from tall_hf import (
    components,
    publishing,
    saving,
)
from tall_hf.data import CorpusSettings
from tall_hf.data import prepare as prepare_corpus
from tall_hf.data.folder import check_prepared_output
from tall_hf.data.prepare import OUTPUT, load_prepared
from tall_hf.data.translation import launched_processes
from tall_hf.files import full_disk_named, locked
from tall_hf.kinds import TALL, check_kind
from tall_hf.measuring.device import accelerator_or_cpu
from tall_hf.microworld.demo import demo as run_demo
from tall_hf.training.alignment import pretrain_alignments
from tall_hf.training.alignment_report import PretrainingReport
from tall_hf.training.alignment_settings import AlignmentSettings
from tall_hf.training.run import TALLRun

from . import evaluate as evaluate_command
from . import info, languages, layer_fusion, publish, sweep
from .choices import Alignment, Backend, Bridge, Dtype, Fusion, Objective, Truncation
from .errors import show_traceback, user_errors
from .parameters import print_parameters


app = typer.Typer(
    help="Let a frozen LLM work in a low-resource language (TALL, arXiv 2506.05057).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show an error's traceback, not its message alone.")] = False,
):
    show_traceback.set(debug)


@app.command()
def compose(
    lr_hr: Annotated[str, typer.Option(help="Translator out of the language: Hub id or folder, optional @revision.")],
    llm: Annotated[str, typer.Option(help="The language model, likewise.")],
    hr_lr: Annotated[str, typer.Option(help="Translator back into the language, likewise.")],
    output: Annotated[Path, typer.Option(help="Folder for the composed model.")],
    source_lang: Annotated[str | None, typer.Option(help="Code of the language, for NLLB, M2M100 and mBART.")] = None,
    pivot_lang: Annotated[str | None, typer.Option(help="Code of the LLM's language, likewise.")] = None,
    bridge: Annotated[
        Bridge,
        typer.Option(
            help="How the source reaches the LLM: custom decoder 1 writes what it reads (marian, the paper) or adds to it "
            "behind a gate (gated), source states stand before the translation (concat), or not at all (none)."
        ),
    ] = "gated",
    source_fusion: Annotated[
        Fusion,
        typer.Option(help="Layers of the source encoder: the last, or all, weighed in one of two learned ways."),
    ] = "last",
    bridge_heads: Annotated[
        int | None, typer.Option(help="Attention heads of custom decoder 1; the LR→HR translator's if not given.")
    ] = None,
    alignment_type: Annotated[Alignment, typer.Option(help="The paper's MLPs, linear maps, or nothing.")] = "mlp",
    alignment_hidden_size: Annotated[
        int | None, typer.Option(help="Hidden width of the alignments; twice their output width if not given.")
    ] = None,
    alignment_dropout: Annotated[float, typer.Option(help="Dropout inside the alignments.")] = 0.1,
    gate_init: Annotated[float, typer.Option(help="Where a gated bridge's gate starts; 0 is closed.")] = 0.2,
    look_ahead: Annotated[
        int,
        typer.Option(
            min=0, help="Tokens that the LLM writes behind the translation before the next stages read its states."
        ),
    ] = 0,
    warm_start: Annotated[bool, typer.Option(help="Start the adapters from the translators' own layers.")] = False,
    leave_out_llm: Annotated[
        bool, typer.Option(help="Keep the LLM's embeddings alone: a control for tall evaluate.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(help="Draws the adapters' first weights; always the same without.")
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="One dtype for all parts.")] = "float32",
    allow_pickle: Annotated[bool, typer.Option(help="Accept parts that have pickled weights only.")] = False,
    token: Annotated[str | None, typer.Option(envvar="HF_TOKEN", help="For private repositories.")] = None,
):
    """Join two translators and a language model into a TALL with fresh adapters.

    Example: tall compose --lr-hr Helsinki-NLP/opus-mt-tc-big-he-en --llm Qwen/Qwen2.5-0.5B
    --hr-lr Helsinki-NLP/opus-mt-en-he --output outputs/hebrew
    """
    with user_errors():
        saving.check_output(output)
        if seed is not None:
            torch.manual_seed(seed)
        model, processor = components.compose(
            lr_hr,
            llm,
            hr_lr,
            source_lang=source_lang,
            pivot_lang=pivot_lang,
            dtype=str(dtype),
            allow_pickle=allow_pickle,
            warm_start=warm_start,
            leave_out_llm=leave_out_llm,
            token=token,
            source_bridge=str(bridge),
            source_fusion=str(source_fusion),
            bridge_attention_heads=bridge_heads,
            alignment_type=str(alignment_type),
            alignment_hidden_size=alignment_hidden_size,
            alignment_dropout=alignment_dropout,
            gate_init=gate_init,
            look_ahead=look_ahead,
        )
        with full_disk_named(output.parent):
            saving.save(model, processor, output)
    print_parameters(model, Console())
    typer.echo(f"Saved to {output}. `tall info {output}` shows this again.")


@app.command()
def prepare(
    text: Annotated[Path, typer.Argument(help="Sentences: .txt, .csv, .tsv, .json or .jsonl, each also .gz.")],
    model: Annotated[str, typer.Option(help="Folder or Hub id of the TALL to train.")],
    output: Annotated[Path, typer.Option(help="Folder for the prepared corpus.")],
    column: Annotated[str | None, typer.Option(help="Column of the text; 'text' in files that have columns.")] = None,
    min_words: Annotated[int, typer.Option(help="Leave out sentences of fewer words.")] = 5,
    max_words: Annotated[int, typer.Option(help="Leave out sentences of more words.")] = 30,
    strip_niqqud: Annotated[bool, typer.Option(help="Remove Hebrew vowel points.")] = False,
    validation_share: Annotated[float, typer.Option(help="Share of the sentences kept for validation.")] = 0.02,
    truncation: Annotated[
        Truncation,
        typer.Option(
            help="What training sentences lose: last_word, all from a random_word on, or none (see docs/guide/prepare.md)."
        ),
    ] = "last_word",
    num_beams: Annotated[
        int | None, typer.Option(help="Beams of the translation; as many as the translator has if not given.")
    ] = None,
    backend: Annotated[Backend, typer.Option(help="What translates; ctranslate2 is the extra ct2.")] = "transformers",
    compute_type: Annotated[
        str, typer.Option(help="What ctranslate2 computes in: int8, int8_float16, float32, ...")
    ] = "int8",
    batch_size: Annotated[int, typer.Option(help="Sentences in a batch at most.")] = 64,
    batch_tokens: Annotated[int, typer.Option(help="Source tokens in a batch at most, with padding.")] = 4096,
    shard_size: Annotated[int, typer.Option(help="Translations in a file: what a kill loses at most.")] = 512,
):
    """Clean a text, take each sentence's last word away, translate the rest once, and save rows to train on.

    Killed at any point, the same command goes on where it stopped. Under `accelerate launch` or `torchrun` the processes
    share the work.

    Example: tall prepare hebrew.txt.gz --model outputs/hebrew --output data/hebrew
    """
    with user_errors():
        settings = CorpusSettings(min_words, max_words, strip_niqqud, validation_share, truncation=str(truncation))
        check_prepared_output(output, *OUTPUT)
        check_kind(model, TALL)
        tall, processor = TALL.load(model)
        prepare_corpus(
            tall.to(launched_processes().device),
            processor,
            text,
            output,
            column=column,
            settings=settings,
            backend=str(backend),
            compute_type=compute_type,
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            shard_size=shard_size,
            **({} if num_beams is None else {"num_beams": num_beams}),
        )
    if launched_processes().is_main_process:
        typer.echo(
            f"Prepared {output}. Next: tall train, or first tall pretrain-alignment {model} --dataset {output}."
        )


@app.command()
def pretrain_alignment(
    model: Annotated[str, typer.Argument(help="Folder or Hub id of a TALL.")],
    dataset: Annotated[Path, typer.Option(help="What `tall prepare` wrote; its training split is read.")],
    output: Annotated[Path, typer.Option(help="Folder for the TALL with pretrained alignments, and the report.")],
    objective: Annotated[
        Objective,
        typer.Option(
            help="autoencoder, the paper's; or embeddings, for what was composed with --warm-start: alignment 2 learns to speak to "
            "the translator back."
        ),
    ] = "autoencoder",
    learning_rate: Annotated[float, typer.Option(help="AdamW's at the start.")] = 1e-3,
    batch_size: Annotated[int, typer.Option(help="Sentences in a batch.")] = 64,
    max_epochs: Annotated[int, typer.Option(help="Where to stop at the latest.")] = 100,
    validation_share: Annotated[float, typer.Option(help="Share of the training split that is held out.")] = 0.05,
    max_sentences: Annotated[int | None, typer.Option(help="Use only so many sentences.")] = None,
    seed: Annotated[int, typer.Option(help="Draws what is held out, the order and the first weights.")] = 0,
):
    """Pretrain the alignments on the frozen parts' states (optional, before `tall train`).

    As autoencoders both keep what they read. By the objective embeddings alignment 2 learns, on the translations, what the
    HR→LR translator's own encoder would read there; compose with --warm-start, which takes that encoder over.

    Killed, it goes on with its last epoch when it is called again; until it is done its state is kept beside the output.

    Example: tall pretrain-alignment outputs/hebrew --dataset data/hebrew --output outputs/hebrew-aligned
    """
    console = Console()
    with user_errors():
        settings = AlignmentSettings(
            objective=str(objective),
            learning_rate=learning_rate,
            batch_size=batch_size,
            max_epochs=max_epochs,
            validation_share=validation_share,
            max_sentences=max_sentences,
            seed=seed,
        )
        if launched_processes().num_processes > 1:
            raise ValueError(
                "`tall pretrain-alignment` works in one process; start it without torchrun or accelerate."
            )
        saving.check_output(output)
        check_kind(model, TALL)
        tall, processor = TALL.load(model)
        rows = load_prepared(dataset, tall, processor)["train"]
        tall.to(accelerator_or_cpu())
        state_dir = output.with_name(f"{output.name}.unfinished")
        state_dir.mkdir(parents=True, exist_ok=True)
        with locked(state_dir), full_disk_named(state_dir):
            report = pretrain_alignments(tall, processor, rows, settings, state_dir)
            saving.save(tall, processor, output)
            report.save(output)
        shutil.rmtree(state_dir)
    _print_alignments(report, console)
    typer.echo(f"Saved to {output}, with alignment_pretraining.json and .png. Next: tall train.")


@app.command(context_settings={"ignore_unknown_options": True})
def train(
    arguments: Annotated[
        list[str], typer.Argument(metavar="[CONFIG.yaml] [--NAME VALUE]...", help="Settings, in a file and by name.")
    ],
    resume: Annotated[bool, typer.Option(help="Go on after the last checkpoint, if there is one.")] = False,
):
    """Train the adapters of a TALL on what `tall prepare` wrote, and save the best model.

    Settings are `model`, `dataset`, `output_dir` and the other fields of TALLTrainingArguments, in a YAML file (see
    examples/configs) or by name, as `--learning_rate 1e-4` or `--set learning_rate=1e-4`. Several processes: `torchrun
    --nproc-per-node 2 -m tall_hf.cli train ...`, or `accelerate launch -m`.

    Example: tall train examples/configs/he_qwen.yaml --output_dir outputs/he-qwen --seed 1
    """
    with user_errors():
        config, overrides = TALLRun.read_command_line(arguments)
        settings, args = TALLRun.read_settings(config, **overrides)
        check_kind(settings.model, TALL)
        final = TALLRun(settings, args).run(resume=resume)
    if args.process_index == 0:
        typer.echo(f"Saved to {final}. `tall predict {final} ...` lists next words.")


languages.register(app)
info.register(app)
evaluate_command.register(app)
sweep.register(app)
publish.register(app)
layer_fusion.register(app)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="Folder or Hub id of a TALL.")],
    texts: Annotated[list[str], typer.Argument(help="Unfinished sentences.")],
    top_k: Annotated[int, typer.Option(min=1, help="How many words to list.")] = 5,
):
    """List the most probable next words of sentences.

    Example: tall predict outputs/demo "מנשה אזולאי גר בעיר"
    """
    console = Console()
    with user_errors():
        check_kind(model, TALL)
        publishing.warn_if_code_differs(model, TALL)
        tall, processor = TALL.load(model)
        answers = tall.to(accelerator_or_cpu()).next_words(texts, processor, top_k=top_k)
    for text, words in zip(texts, answers, strict=True):
        table = Table(title=text, title_justify="left")
        table.add_column("probability", justify="right")
        table.add_column("next word")
        for word, probability in words:
            table.add_row(f"{probability:.4f}", word)
        console.print(table)


@app.command()
def demo(
    text: Annotated[list[str], typer.Option(help="A sentence of your own to complete; may be repeated.")] = (),
    output: Annotated[Path, typer.Option(help="Folder for the trained model.")] = Path("outputs/demo"),
    seed: Annotated[int, typer.Option(help="Who is held out, and the adapters' first weights.")] = 0,
):
    """Compose, train, compare, save and reload a small TALL, offline, in minutes on a laptop.

    Example: tall demo --text "מנשה אזולאי גר בעיר"
    """
    with user_errors():
        run_demo(texts=text, output=output, seed=seed)


def _print_alignments(report: PretrainingReport, console: Console):
    table = Table(title=f"Alignments, on {report.validation_sentences:,} held-out sentences", title_justify="left")
    table.add_column("alignment")
    for column in ("explained variance before", "after", "best epoch", "epochs"):
        table.add_column(column, justify="right")
    for name, alignment in report.alignments.items():
        before, after = (f"{share:.1%}" for share in alignment.explained_variance)
        epochs = len(alignment.history) - 1
        table.add_row(name.replace("_", " "), before, after, str(alignment.best_epoch), str(epochs))
    console.print(table)
