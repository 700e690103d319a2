"""The Hub's token: what no header can hold is refused before it is sent, and no message quotes one."""

import re

from huggingface_hub import get_token


_TOKEN = re.compile(r"hf_[A-Za-z0-9]{20,}")
# As in an address that git takes: https://user:token@huggingface.co/org/name
_CREDENTIALS = re.compile(r"(?<=://)[^\s/@]+(?=@)")


def without_tokens(message: str) -> str:
    """A message in which tokens, and the credentials of addresses, are stars: somebody may have given one for a name."""
    return _TOKEN.sub("***", _CREDENTIALS.sub("***", message))


def token_to_send(token: str | bool | None = None) -> str | None:
    """The token that a request to the Hub is made with, if any.

    Args:
        token: as for huggingface_hub: a token, False for none, or None or True for the one of `HF_TOKEN` or of `hf auth login`.
    """
    if isinstance(token, str):
        return token
    return None if token is False else get_token()


def check_token(token: str | bool | None = None) -> None:
    """Refuse the token that a request to the Hub would be made with, if it would break that request, whose error quotes it.

    Args:
        token: as for `token_to_send`.

    Raises:
        PermissionError: it has characters that no token has.
    """
    sent = token_to_send(token)
    if sent and not (sent.isascii() and sent.isprintable() and " " not in sent):
        raise PermissionError(
            "The Hub's token has characters that no token has; copy it again from the Hub's settings."
        )
