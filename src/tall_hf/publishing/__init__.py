"""A model saved to a folder, planned, pushed to the Hub, and checked there as a stranger would load it."""

from tall_hf.saving import check_output, save

from .planning import PublishedFile, plan
from .push import Published, publish, signed_in_user, update_code
from .remote_code import warn_if_code_differs
from .verification import VerificationError, verify


__all__ = [
    "Published",
    "PublishedFile",
    "VerificationError",
    "check_output",
    "plan",
    "publish",
    "save",
    "signed_in_user",
    "update_code",
    "verify",
    "warn_if_code_differs",
]
