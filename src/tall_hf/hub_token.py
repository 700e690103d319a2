"""The Hub's token before it is sent: what no header can hold is refused without being quoted."""

from huggingface_hub import get_token


def check_token(token: str | bool | None = None) -> None:
    """Refuse the token that a request to the Hub would be made with, if it would break that request, whose error quotes it.

    Args:
        token: as for huggingface_hub: a token, False for none, or None or True for the one of `HF_TOKEN` or of `hf auth login`.

    Raises:
        PermissionError: it has characters that no token has.
    """
    used = token if isinstance(token, str) else None if token is False else get_token()
    if used and not (used.isascii() and used.isprintable() and " " not in used):
        raise PermissionError(
            "The Hub's token has characters that no token has; copy it again from the Hub's settings."
        )
