"""The commands `tall publish` and `tall update-code`: a trained model put on the Hub, and its remote code kept up to date."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from tall_hf import cards, publishing
from tall_hf.kinds import LAYER_FUSION, check_kind
from tall_hf.publishing.planning import read_config
from tall_hf.saving import model_folder

from .errors import user_errors


def register(app: typer.Typer):
    """Add the commands to `app`."""

    @app.command()
    def publish(
        folder: Annotated[
            Path, typer.Argument(help="What `tall train` or `tall fusion train` wrote, or any saved model.")
        ],
        repo_id: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The repository; made if it is not there.")],
        private: Annotated[
            bool | None,
            typer.Option("--private/--public", help="Who sees it; by default as the account's settings say."),
        ] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Show every file, and use no network.")] = False,
        trainable_only: Annotated[
            bool, typer.Option("--trainable-only", help="The adapters alone, for tall_hf.load_light.")
        ] = False,
        language: Annotated[
            list[str] | None,
            typer.Option(
                help="For the card: ISO code of the language, such as he; of an encoder → LLM model several."
            ),
        ] = None,
        license: Annotated[
            str | None, typer.Option(help="For the card: the Hub's name of it; that of the parts if not given.")
        ] = None,
        evaluation: Annotated[
            Path | None, typer.Option(help="For the card: what `tall evaluate` or `tall fusion evaluate` wrote.")
        ] = None,
        dataset: Annotated[Path | None, typer.Option(help="For the card: what `tall prepare` wrote.")] = None,
        verify: Annotated[
            bool,
            typer.Option("--verify/--no-verify", help="Load it back in a fresh process and compare, bit for bit."),
        ] = True,
    ):
        """Put a trained model on the Hub in one commit, with its card, and check that strangers load the same model.

        The token is the one of `hf auth login`, or HF_TOKEN. Checkpoints and the state of the training stay here.

        Example: tall publish outputs/he-qwen-trained my-name/tall-he-qwen --language he --evaluation outputs/evaluation
        """
        console = Console()
        with user_errors():
            saved = model_folder(folder)
            if not dry_run:
                publishing.signed_in_user()  # before the work that a card takes
            card = None
            if read_config(saved)["trainable_only"]:
                # A card shows what the model predicts, for which the parts would have to be fetched first.
                console.print(f"{saved} is a checkpoint of adapters alone: it is published without a card.")
            else:
                options = {
                    "repo_id": repo_id,
                    "license": license,
                    "evaluation": evaluation,
                    "part_licenses": None if dry_run else cards.look_up_licenses(folder),
                    "trainable_only": trainable_only,
                }
                if check_kind(saved) is LAYER_FUSION:
                    if dataset is not None:
                        raise ValueError("`--dataset` is of a TALL's card; leave it out.")
                    card = cards.layer_fusion_card(folder, languages=language or (), **options)
                else:
                    if language and len(language) > 1:
                        raise ValueError(f"A TALL is of one language; `--language` names {', '.join(language)}.")
                    card = cards.model_card(
                        folder, language=language[0] if language else None, dataset=dataset, **options
                    )
            if dry_run:
                _print_files(publishing.plan(folder, trainable_only=trainable_only, card=card), repo_id, console)
                return
            published = publishing.publish(
                folder,
                repo_id,
                private=private,
                trainable_only=trainable_only,
                card=card,
                verify=verify,
                console=console,
            )
        checked = ", and checked there" if verify else ""
        typer.echo(
            f"Published {published.url} at {published.commit}{checked}. To pin it: revision={published.commit!r}."
        )

    @app.command()
    def update_code(
        repo_id: Annotated[str, typer.Argument(metavar="ORG/NAME", help="A model on the Hub that you may write to.")],
        verify: Annotated[
            bool, typer.Option("--verify/--no-verify", help="Run old and new code there, and compare the logits.")
        ] = True,
    ):
        """Bring the remote code of a published model up to that of the installed tall-hf; weights and card stay.

        Both the code that is there and the new one are run, each in a process of its own.

        Example: tall update-code my-name/tall-he-qwen
        """
        with user_errors():
            published = publishing.update_code(repo_id, verify=verify)
        if published.files:
            names = ", ".join(file.path_in_repo for file in published.files)
            typer.echo(f"Updated {names} in {published.url}, at {published.commit}.")
        else:
            typer.echo(f"{published.url} has the installed code already, at {published.commit}.")


def _print_files(files: list[publishing.PublishedFile], repo_id: str, console: Console):
    table = Table(title=f"To be published as {repo_id}", title_justify="left", show_footer=True)
    table.add_column("file", footer=f"{len(files)} files", overflow="fold")
    table.add_column("size", footer=decimal(sum(file.size for file in files)), justify="right")
    for file in files:
        table.add_row(file.path_in_repo, decimal(file.size))
    console.print(table)
