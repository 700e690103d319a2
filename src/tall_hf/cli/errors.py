"""Errors that the user of a command can mend, which end it in one line."""

import contextlib
from contextvars import ContextVar

import typer

from tall_hf import publishing
from tall_hf.hub_token import without_tokens


# What bad input raises; anything else is our bug and shows its traceback.
USER_ERRORS = (ValueError, OSError, ImportError, FloatingPointError, publishing.VerificationError)

# Of `tall --debug`.
show_traceback: ContextVar[bool] = ContextVar("show_traceback", default=False)


@contextlib.contextmanager
def user_errors():
    """End the command with the message of an error that the user can mend; with `tall --debug`, with its traceback."""
    try:
        yield
    except USER_ERRORS as error:
        if show_traceback.get():
            raise
        typer.secho(f"Error: {without_tokens(str(error))}", err=True, fg="red")
        raise typer.Exit(1) from error
