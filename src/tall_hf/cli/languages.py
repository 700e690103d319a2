"""The command `tall languages`: which translators there are for a language."""

from typing import Annotated

import typer
from rich.console import Console

from tall_hf.language_pairs import Candidate, Translators, advice, find_translators
from tall_hf.measuring.tables import rich_table

from .errors import user_errors


def register(app: typer.Typer):
    """Add the command to `app`."""

    @app.command()
    def languages(
        language: Annotated[str, typer.Argument(help="Your language: he, heb, heb_Hebr, he_IL or Hebrew.")],
        pivot: Annotated[str, typer.Option(help="The LLM's language, likewise.")] = "en",
        hub: Annotated[bool, typer.Option("--hub", help="Look on the Hub which repositories exist.")] = False,
        token: Annotated[str | None, typer.Option(envvar="HF_TOKEN", help="For the Hub.")] = None,
    ):
        """List the translators that a TALL of a language can be composed of: OPUS-MT, NLLB-200, M2M100, mBART-50.

        Without --hub no network is used. Ends with exit code 1 if there is no translator at all for the pair.

        Example: tall languages he --hub
        """
        console = Console()
        with user_errors():
            found = find_translators(language, pivot, ask_hub=hub, token=token)
            _print(found, console)
        if hub and not found.is_found and not found.multilingual:
            raise typer.Exit(1)


def _print(found: Translators, console: Console):
    rows = [
        [str(one), ", ".join(one.nllb) or "-", one.m2m100 or "-", one.mbart50 or "-"]
        for one in (found.language, found.pivot)
    ]
    console.print(rich_table("Codes", ["language", "NLLB-200", "M2M100", "mBART-50"], rows))
    rows = [
        [f"{source.code} → {target.code}", one.repo_id, _state(one), "yes" if one.is_cached else ""]
        for side, source, target in (
            (found.lr_hr, found.language, found.pivot),
            (found.hr_lr, found.pivot, found.language),
        )
        for one in side
    ]
    console.print(rich_table("OPUS-MT", ["direction", "repository", "on the Hub", "in the cache"], rows))
    for line in advice(found):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _state(one: Candidate) -> str:
    if one.exists is None:
        return "not asked"
    if not one.exists:
        return "no"
    return "yes" if one.has_safetensors else "yes, pickled weights"
