"""A TALL saved to a folder, planned, pushed to the Hub, and checked there as a stranger would load it."""

from .plan import PublishedFile, plan
from .push import Published, publish, update_code
from .remote_code import warn_if_code_differs
from .saving import check_output, save
from .verify import VerificationError, verify


__all__ = [
    "Published",
    "PublishedFile",
    "VerificationError",
    "check_output",
    "plan",
    "publish",
    "save",
    "update_code",
    "verify",
    "warn_if_code_differs",
]
