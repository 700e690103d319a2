"""The commands `tall fusion ...`: a LayerFusionForCausalLM composed, trained and evaluated, from a terminal."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from transformers import set_seed
from transformers.utils import logging as transformers_logging

from tall_hf import saving
from tall_hf.classification import (
    TASKS,
    evaluate_classification,
    read_pairs,
    read_task,
    read_training_examples,
)
from tall_hf.data.examples import OUTPUT, prepare_examples
from tall_hf.data.folder import check_prepared_output
from tall_hf.files import full_disk_named
from tall_hf.kinds import LAYER_FUSION, check_kind
from tall_hf.layer_fusion import compose_layer_fusion
from tall_hf.modeling.processing_layer_fusion import LayerFusionProcessor
from tall_hf.training.layer_fusion_run import LayerFusionRun

from .choices import Dtype, EvaluationDtype, Fusion, Mapping, Normalize
from .errors import user_errors
from .evaluate import named_models
from .parameters import print_parameters


# The paper trained on at most so many.
PAPER_EXAMPLES = 100_000


_TASK_HELP = f"{', '.join(TASKS)}, or a YAML file of your own."
_FILES_HELP = (
    "Local files in place of the Hub: a path with {language} and {split} where they differ (CSV, TSV, JSON, JSON lines, "
    "parquet)."
)


def register(app: typer.Typer):
    """Add the sub-app `fusion` to `app`."""
    fusion = typer.Typer(
        help="A frozen LLM that reads the layers of a multilingual encoder (LayerFusionForCausalLM, arXiv 2508.09091).",
        no_args_is_help=True,
    )
    app.add_typer(fusion, name="fusion")

    @fusion.command()
    def compose(
        encoder: Annotated[
            str,
            typer.Option(
                help="The multilingual encoder, or an encoder-decoder: Hub id or folder, optional @revision."
            ),
        ],
        llm: Annotated[str, typer.Option(help="The language model, likewise.")],
        output: Annotated[Path, typer.Option(help="Folder for the composed model.")],
        source_lang: Annotated[
            str | None, typer.Option(help="Code of the language trained on, for NLLB, M2M100 and mBART.")
        ] = None,
        source_fusion: Annotated[
            Fusion,
            typer.Option(
                help="Layers of the encoder: the last (LangBridge), or all, weighed in one of two learned ways."
            ),
        ] = "token_softmax",
        mapping_type: Annotated[Mapping, typer.Option(help="The paper's linear map, or MindMerger's MLP.")] = "linear",
        end_vector_std: Annotated[
            float, typer.Option(help="Spread of the vector behind the source at the start; LangBridge has 1.")
        ] = 0.0,
        max_source_length: Annotated[int, typer.Option(min=1, help="Longest source in tokens.")] = 200,
        repeat_source: Annotated[
            bool, typer.Option(help="Let the LLM read the source in its own tokens too (MindMerger's second stage).")
        ] = False,
        dtype: Annotated[Dtype, typer.Option(help="One dtype for both parts.")] = "float32",
        allow_pickle: Annotated[bool, typer.Option(help="Accept parts that have pickled weights only.")] = False,
        seed: Annotated[int, typer.Option(help="Of what is trained, at its start.")] = 0,
        token: Annotated[str | None, typer.Option(envvar="HF_TOKEN", help="For private repositories.")] = None,
    ):
        """Join a multilingual encoder and a language model, with a fresh fusion, mapping and end vector.

        Example: tall fusion compose --encoder google/mt5-large --llm meta-llama/Llama-3.2-1B-Instruct --output outputs/fusion
        """
        with user_errors():
            saving.check_output(output)
            set_seed(seed)
            model, processor = compose_layer_fusion(
                encoder,
                llm,
                source_lang=source_lang,
                max_source_length=max_source_length,
                repeat_source=repeat_source,
                dtype=str(dtype),
                token=token,
                allow_pickle=allow_pickle,
                source_fusion=str(source_fusion),
                mapping_type=str(mapping_type),
                end_vector_std=end_vector_std,
            )
            with full_disk_named(output.parent):
                saving.save(model, processor, output)
        print_parameters(model, Console())
        typer.echo(f"Saved to {output}. Next: tall fusion prepare.")

    @fusion.command(context_settings={"ignore_unknown_options": True})
    def train(
        arguments: Annotated[
            list[str],
            typer.Argument(metavar="[CONFIG.yaml] [--NAME VALUE]...", help="Settings, in a file and by name."),
        ],
        resume: Annotated[bool, typer.Option(help="Go on after the last checkpoint, if there is one.")] = False,
    ):
        """Train fusion, mapping and end vector on what `tall fusion prepare` wrote, and save the best model.

        Settings are `model`, `dataset`, `output_dir` and the other fields of LayerFusionTrainingArguments, in a YAML file or
        by name, as `--learning_rate 1e-4` or `--set learning_rate=1e-4`. Several processes: as for `tall train`.

        Example: tall fusion train --model outputs/fusion --dataset data/xnli --output_dir outputs/xnli
        """
        with user_errors():
            config, overrides = LayerFusionRun.read_command_line(arguments)
            settings, args = LayerFusionRun.read_settings(config, **overrides)
            check_kind(settings.model, LAYER_FUSION)
            final = LayerFusionRun(settings, args).run(resume=resume)
        if args.process_index == 0:
            typer.echo(f"Saved to {final}. `tall fusion evaluate {final} ...` asks it.")

    @fusion.command()
    def prepare(
        model: Annotated[str, typer.Argument(help="Folder or Hub id of a LayerFusionForCausalLM.")],
        output: Annotated[Path, typer.Option(help="Folder for the training rows.")],
        task: Annotated[str | None, typer.Option(help=_TASK_HELP)] = None,
        pairs: Annotated[
            Path | None,
            typer.Option(help="In place of a task, translation pairs into English (MindMerger's first stage)."),
        ] = None,
        data_files: Annotated[str | None, typer.Option(help=_FILES_HELP)] = None,
        language: Annotated[
            str | None, typer.Option(help="Train on another language than the task's, which is English.")
        ] = None,
        max_examples: Annotated[
            int, typer.Option(min=1, help="Draw so many, the same ones each time.")
        ] = PAPER_EXAMPLES,
        validation_share: Annotated[float, typer.Option(help="Share of the examples held out for validation.")] = 0.02,
        source_lang: Annotated[
            str | None, typer.Option(help="Code of the language for the encoder, such as eng_Latn for NLLB.")
        ] = None,
        source_column: Annotated[str | None, typer.Option(help="Of pairs: the column of the source.")] = None,
        target_column: Annotated[str | None, typer.Option(help="Of pairs: the column of its translation.")] = None,
        prompt: Annotated[str, typer.Option(help="Of pairs: what the LLM reads behind each source.")] = "",
        repeat_source: Annotated[
            bool, typer.Option(help="Rows for `tall fusion train --repeat_source true` (MindMerger's second stage).")
        ] = False,
        skip_empty: Annotated[bool, typer.Option(help="Leave out rows without a text.")] = False,
        seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
        token: Annotated[str | None, typer.Option(envvar="HF_TOKEN", help="For private repositories.")] = None,
    ):
        """Make training rows of a task's English examples, or of translation pairs.

        Example: tall fusion prepare outputs/fusion --task xnli --output data/xnli
        """
        with user_errors():
            if (task is None) == (pairs is None):
                raise ValueError("Say what to train on: either `--task` or `--pairs`.")
            unread = {"--source-column": source_column, "--target-column": target_column, "--prompt": prompt}
            if pairs is not None:
                unread = {"--data-files": data_files, "--language": language, "--skip-empty": skip_empty}
            if given := [name for name, value in unread.items() if value]:
                raise ValueError(
                    f"{given[0]} does not go with {'--task' if pairs is None else '--pairs'}; leave it out."
                )
            check_prepared_output(output, *OUTPUT)  # before anything is fetched
            check_kind(model, LAYER_FUSION, token=token)
            processor = LayerFusionProcessor.from_pretrained(model, token=token)
            processor.repeat_source = processor.repeat_source or repeat_source
            details = {"data_files": data_files, "max_examples": max_examples, "seed": seed}
            if pairs is not None:
                examples = read_pairs(pairs, source_column, target_column, prompt, max_examples, seed)
                details |= {"pairs": str(pairs), "prompt": prompt}
            else:
                chosen = read_task(task)
                language = chosen.train_language if language is None else language
                examples = read_training_examples(
                    chosen,
                    language,
                    data_files=data_files,
                    max_examples=max_examples,
                    seed=seed,
                    skip_empty=skip_empty,
                    token=token,
                )
                details |= {"task": chosen.name, "language": language}
            prepare_examples(
                processor,
                examples,
                output,
                validation_share=validation_share,
                source_lang=source_lang,
                details=details,
            )
        typer.echo(f"Prepared {output}.")

    @fusion.command()
    def evaluate(
        models: Annotated[
            list[str],
            typer.Argument(
                metavar="MODEL...", help="Folder or Hub id of a LayerFusionForCausalLM; several as NAME=FOLDER."
            ),
        ],
        task: Annotated[str, typer.Option(help=_TASK_HELP)],
        output: Annotated[
            Path, typer.Option(help="Folder for predictions and the report; a killed command goes on there.")
        ],
        language: Annotated[
            list[str] | None, typer.Option(help="May be repeated; all of the task's if not given.")
        ] = None,
        split: Annotated[str, typer.Option(help="test or validation.")] = "test",
        data_files: Annotated[str | None, typer.Option(help=_FILES_HELP)] = None,
        max_questions: Annotated[
            int | None, typer.Option(min=1, help="Draw so many in each language, the same ones each time.")
        ] = None,
        source_lang: Annotated[
            list[str] | None,
            typer.Option(
                help="LANGUAGE=CODE for an encoder that wants one, such as sw=swh_Latn for NLLB; may be repeated."
            ),
        ] = None,
        batch_size: Annotated[int, typer.Option(min=1, help="Texts read at a time.")] = 8,
        include_end: Annotated[
            bool, typer.Option("--end/--no-end", help="Count the end of text behind a label.")
        ] = True,
        normalize: Annotated[
            Normalize, typer.Option(help="tokens: a label's score is the mean over its tokens, not their sum.")
        ] = "none",
        dtype: Annotated[EvaluationDtype, typer.Option(help="auto is bfloat16 where an accelerator has it.")] = "auto",
        skip_empty: Annotated[bool, typer.Option(help="Leave out rows without a text.")] = False,
        seed: Annotated[int, typer.Option(help="Of the draw and of the bootstrap.")] = 0,
        token: Annotated[str | None, typer.Option(envvar="HF_TOKEN", help="For private repositories.")] = None,
    ):
        """Ask models a task in many languages by scoring its labels: accuracy and macro-F1 with intervals, differences, a plot.

        Killed at any point, the same command goes on with the language where it stopped.

        Example: tall fusion evaluate outputs/fusion-trained/model --task xnli --output outputs/xnli
        """
        transformers_logging.disable_progress_bar()
        with user_errors():
            evaluate_classification(
                named_models(models, "fusion"),
                read_task(task),
                output,
                languages=language or None,
                split=split,
                data_files=data_files,
                max_questions=max_questions,
                skip_empty=skip_empty,
                source_langs=_codes(source_lang or []),
                batch_size=batch_size,
                include_end=include_end,
                normalize=None if normalize == "none" else str(normalize),
                dtype=str(dtype),
                seed=seed,
                token=token,
                console=Console(),
            )
        typer.echo(f"Saved to {output}: report.md, results.json, accuracy.png, predictions.")


def _codes(specs: list[str]) -> dict[str, str]:
    codes = {}
    for spec in specs:
        language, separator, code = spec.partition("=")
        if not (language and separator and code):
            raise ValueError(f"A source language is given as LANGUAGE=CODE, got {spec!r}.")
        codes[language] = code
    return codes
