"""`tall info`: what a model is made of, from its configuration alone."""

from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from tall_hf import publishing
from tall_hf.kinds import TALL, ModelKind, check_kind

from .errors import user_errors
from .parameters import print_parameters


def register(app: typer.Typer):
    """Add the command to `app`."""

    @app.command()
    def info(
        model: Annotated[str, typer.Argument(help="Folder or Hub id of a TALL or a LayerFusionForCausalLM.")],
    ):
        """Print a model's parameters, where its parts came from, and its switches.

        Only the configuration is read, no weights.

        Example: tall info outputs/demo
        """
        console = Console()
        with user_errors():
            kind = check_kind(model)
            publishing.warn_if_code_differs(model, kind)
            config = kind.config_class.from_pretrained(model)
            with torch.device("meta"):
                shape = kind.model_class(config)
        print_parameters(shape, console)
        console.print(_parts(kind, config))
        console.print(_switches(kind, config))


def _parts(kind: ModelKind, config) -> Table:
    table = Table(title="Parts", title_justify="left")
    for column in ("part", "type", "from", "revision"):
        table.add_column(column, overflow="fold")
    for role in kind.roles:
        origin = (config.components or {}).get(role, {})
        part = getattr(config, f"{role}_config")
        table.add_row(role, part.model_type, origin.get("name_or_path") or "-", origin.get("revision") or "-")
    return table


def _switches(kind: ModelKind, config) -> Table:
    values = kind.chosen(config)
    if kind is TALL:
        if values["alignment_hidden_size"] is None:
            values["alignment_hidden_size"] = "twice the output width"
        values["bridge_attention_heads"] = config.bridge_heads
        if config.source_bridge not in ("marian", "gated"):
            del values["bridge_attention_heads"]
        if config.source_bridge != "gated":
            del values["gate_init"]
    values["dtype"] = str(config.dtype).removeprefix("torch.")
    table = Table(title="Switches", title_justify="left")
    for column in ("switch", "value"):
        table.add_column(column)
    for name, value in values.items():
        table.add_row(name, str(value))
    return table
