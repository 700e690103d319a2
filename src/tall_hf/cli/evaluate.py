"""The command `tall evaluate`: approaches to the missing word compared, from a terminal."""

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from transformers.utils import logging as transformers_logging

from tall_hf.evaluation.approach import PROTOCOLS, Approach
from tall_hf.evaluation.benchmark import evaluate as run_evaluation
from tall_hf.evaluation.build import APPROACHES
from tall_hf.evaluation.report import REPORT_NAME

from .choices import EvaluationDtype, Protocol
from .errors import user_errors


def register(app: typer.Typer):
    """Add the command to `app`."""

    @app.command()
    def evaluate(
        models: Annotated[
            list[str], typer.Argument(metavar="MODEL...", help="Folder or Hub id of a TALL; several as NAME=FOLDER.")
        ],
        text: Annotated[
            Path, typer.Option(help="Held-out sentences: .txt, .csv, .tsv, .json, .jsonl, each also .gz.")
        ],
        output: Annotated[
            Path, typer.Option(help="Folder for answers and the report; a killed command goes on there.")
        ],
        dataset: Annotated[
            Path | None, typer.Option(help="What `tall prepare` wrote: the text that approaches learn from.")
        ] = None,
        approach: Annotated[
            list[str] | None,
            typer.Option(help=f"May be repeated; all that can be asked if not given: {', '.join(APPROACHES)}."),
        ] = None,
        protocol: Annotated[list[Protocol] | None, typer.Option(help="May be repeated; both if not given.")] = None,
        column: Annotated[
            str | None, typer.Option(help="Column of the text; 'text' in files that have columns.")
        ] = None,
        group_column: Annotated[str | None, typer.Option(help="Column by which the report also splits.")] = None,
        max_questions: Annotated[
            int | None, typer.Option(min=1, help="Draw so many sentences, the same ones each time.")
        ] = None,
        strip_niqqud: Annotated[bool, typer.Option(help="Remove Hebrew vowel points, as `tall prepare` did.")] = False,
        exclude_overlap: Annotated[
            int | None,
            typer.Option(min=1, help="Leave out sentences that share so many words in a row with the dataset."),
        ] = None,
        llm: Annotated[
            str | None, typer.Option(help="The language model with its head; that of the TALL if not given.")
        ] = None,
        hr_lr: Annotated[
            str | None, typer.Option(help="Translator back into the language; that of the TALL if not given.")
        ] = None,
        translator_only: Annotated[
            str | None, typer.Option(help="A TALL that was composed with --leave-out-llm, and trained.")
        ] = None,
        budget_steps: Annotated[
            int | None,
            typer.Option(min=1, help="Steps of each approach that is trained here; one epoch if not given."),
        ] = None,
        budget_batch_size: Annotated[
            int | None, typer.Option(min=1, help="Sentences in each of these steps; 16 if not given.")
        ] = None,
        budget_group_by_length: Annotated[
            bool, typer.Option(help="Give these steps sentences of similar length, which spares padding.")
        ] = False,
        soft_prompt_sentences: Annotated[
            int | None,
            typer.Option(min=1, help="Training sentences that soft_prompt looks for words for; 20,000 if not given."),
        ] = None,
        batch_size: Annotated[int, typer.Option(min=1, help="Questions in a batch.")] = 32,
        top_k: Annotated[int, typer.Option(min=1, help="Words an approach may propose.")] = 5,
        seed: Annotated[int, typer.Option(help="Of what approaches draw at random.")] = 0,
        dtype: Annotated[EvaluationDtype, typer.Option(help="auto is bfloat16 where an accelerator has it.")] = "auto",
        user_approach: Annotated[
            list[str] | None, typer.Option(help="An approach of your own, as package.module:Class; may be repeated.")
        ] = None,
        allow_pickle: Annotated[bool, typer.Option(help="Accept parts that have pickled weights only.")] = False,
        token: Annotated[str | None, typer.Option(envvar="HF_TOKEN", help="For private repositories.")] = None,
    ):
        """Compare approaches to the missing last word: accuracy with intervals, significance, cost, plots.

        Killed at any point, the same command goes on where it stopped. An approach that fails is listed with its error, the
        others' results are kept, and the command ends with exit code 1.

        Example: tall evaluate outputs/trained/model --text held_out.txt --dataset data/hebrew --output outputs/evaluation
        """
        transformers_logging.disable_progress_bar()  # a bar for each model that is loaded would cut ours in pieces
        with user_errors():
            results, _ = run_evaluation(
                named_models(models, "tall"),
                text,
                output,
                dataset=dataset,
                approaches=approach or None,
                user_approaches=[_load_approach(spec) for spec in user_approach or ()],
                protocols=[name for name in PROTOCOLS if name in (protocol or PROTOCOLS)],
                column=column,
                group_column=group_column,
                max_questions=max_questions,
                strip_niqqud=strip_niqqud,
                exclude_overlap=exclude_overlap,
                llm=llm,
                hr_lr=hr_lr,
                translator_only=translator_only,
                budget_steps=budget_steps,
                budget_batch_size=budget_batch_size,
                budget_group_by_length=budget_group_by_length,
                soft_prompt_sentences=soft_prompt_sentences,
                batch_size=batch_size,
                top_k=top_k,
                seed=seed,
                dtype=str(dtype),
                allow_pickle=allow_pickle,
                token=token,
            )
        typer.echo(f"Saved to {output}: {REPORT_NAME}, results.json, sentences, plots.")
        if results.failed:
            names = ", ".join(sorted({run.approach for run in results.failed}))
            typer.secho(f"Failed: {names}. The same command tries them again.", err=True, fg="red")
            raise typer.Exit(1)


def named_models(specs: list[str], only: str) -> dict[str, str]:
    """Models by name, as several are given; `only` is the name of one that is given without.

    Raises:
        ValueError: one of several has no name, or two have the same.
    """
    if len(specs) == 1 and "=" not in specs[0]:
        return {only: specs[0]}
    models = {}
    for spec in specs:
        name, separator, folder = spec.partition("=")
        if not (separator and name and folder):
            raise ValueError(f"Several models are given as NAME=FOLDER, got {spec!r}.")
        if name in models:
            raise ValueError(f"Two models are called {name!r}; give each a name of its own.")
        models[name] = folder
    return models


def _load_approach(spec: str) -> Approach:
    """The approach that a class named by `package.module:Class` makes without arguments."""
    module_name, _, class_name = spec.partition(":")
    if not module_name or not class_name:
        raise ValueError(f"An approach of your own is named package.module:Class, got {spec!r}.")
    if os.getcwd() not in sys.path:  # a console script does not look where it was called
        sys.path.insert(0, os.getcwd())
    made = getattr(importlib.import_module(module_name), class_name, None)
    if not (isinstance(made, type) and issubclass(made, Approach)):
        raise ValueError(f"{module_name} has no class {class_name} that extends tall_hf.evaluation.approach.Approach.")
    return made()
