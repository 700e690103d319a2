"""What the licences of the parts leave for the whole: looked up or handed in, joined, and never guessed."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from transformers.utils import logging

from tall_hf.hub_token import check_token
from tall_hf.saving import model_folder

from .parts import ROLE_TITLES, Part, read_parts


logger = logging.get_logger(__name__)

UNKNOWN = "unknown"
OTHER = "other"
# The identifiers of the Hub, from what asks nothing to what asks for the author's name. Each may go into a work under a
# later one.
_SIMPLE = (
    *("cc0-1.0", "unlicense", "wtfpl", "pddl"),
    *("mit", "isc", "zlib", "bsl-1.0", "ncsa", "bsd", "bsd-2-clause", "bsd-3-clause", "afl-3.0", "apache-2.0"),
    *("odc-by", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0"),
)
_IDENTIFIER = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
# The licence of the embedded components, as their README says.
_EMBEDDED_LICENSE = "apache-2.0"


@dataclass(frozen=True)
class License:
    """The licence of a composed model.

    Attributes:
        identifier: the Hub's, such as "apache-2.0"; "unknown", or "other" for several that do not go together.
        reason: a sentence that says where it comes from.
        warnings: what whoever publishes or uses the model must know.
    """

    identifier: str
    reason: str
    warnings: list[str] = field(default_factory=list)


def look_up_licenses(folder: str | os.PathLike, token: str | bool | None = None) -> dict[str, str]:
    """Ask the Hub for the licences of the parts that came from there, at their revisions; the one step of a card that
    needs a network.

    Args:
        folder: a saved model, or the `output_dir` of its training.
        token: for private repositories.

    Returns:
        Licences by role, for `part_licenses` of a card; a part that cannot be asked about,
        or whose card names none, is left out with a warning.
    """
    found = {}
    for role, part in read_parts(model_folder(folder)).items():
        if part.repo_id is None:
            continue
        check_token(token)
        try:
            info = HfApi().model_info(part.repo_id, revision=part.revision, token=token)
        except (HfHubHTTPError, HTTPError, OSError) as error:
            # The error's own text may quote the request; its kind says enough.
            logger.warning(f"The licence of {part.repo_id} could not be looked up ({type(error).__name__}).")
            continue
        if (license := _of_card(info.card_data)) is None:
            logger.warning(f"The card of {part.repo_id} names no licence.")
        else:
            found[role] = license
    return found


def local_licenses(parts: Mapping[str, Part]) -> dict[str, str]:
    """Licences by role of the embedded components, and of parts in folders whose README.md names one."""
    found = {}
    for role, part in parts.items():
        if part.folder is None:
            continue
        readme = part.folder / "README.md"
        if part.is_embedded:
            found[role] = _EMBEDDED_LICENSE
        elif readme.is_file() and (license := _of_card(ModelCard.load(readme, ignore_metadata_errors=True).data)):
            found[role] = license
    return found


def join_licenses(parts: Mapping[str, str | None], chosen: str | None = None) -> License:
    """The licence of a model that holds all its parts.

    Where every licence may go into a work under another one of them, that one is the whole's. What is not known, or does not
    go together, is said so and left to people.

    Args:
        parts: licences of the Hub's identifiers by role; None where nobody knows.
        chosen: what the publisher asks for; it stays, with a warning where a part asks for something else.

    Raises:
        ValueError: an identifier that the Hub would refuse.
    """
    for name in (chosen, *parts.values()):
        if name is not None:
            check_identifier(name)
    unknown = [role for role in parts if parts[role] in (None, UNKNOWN)]
    known = {role: license for role, license in parts.items() if role not in unknown}
    warnings = [_unknown_warning(unknown)] if unknown else []
    # A simple licence goes into any other work; the others bind the whole.
    binding = {license for license in known.values() if license not in _SIMPLE}
    if non_commercial := [role for role in known if "-nc" in known[role]]:
        warnings.append(
            f"The licence of {_listed(non_commercial, known)} forbids commercial use, whatever the other parts permit."
        )
    if no_derivatives := [role for role in known if "-nd" in known[role]]:
        warnings.append(
            f"The licence of {_listed(no_derivatives, known)} forbids passing on what is made of it: ask its owners "
            "before publishing this model."
        )
    if len(binding) > 1:
        warnings.append(
            f"The parts have licences that may not go together ({_listed(known, known)}): each part stays under its own, "
            "and nobody has checked what they permit for the whole."
        )
    if chosen is not None:
        differing = [role for role in known if not _goes_into(known[role], chosen)]
        if differing:
            warnings.append(
                f"The publisher chose `{chosen}`; the licence of {_listed(differing, known)} asks for more or for something "
                "else, and that part stays under it."
            )
        return License(chosen, "chosen by the publisher.", warnings)
    if unknown:
        return License(UNKNOWN, "not known, because not every part's is.", warnings)
    if len(binding) > 1 or no_derivatives:
        return License(OTHER, "no single licence covers all parts.", warnings)
    if binding:
        return License(binding.pop(), "the most demanding of the parts' licences.", warnings)
    strictest = max(known.values(), key=_SIMPLE.index)
    same = len(set(known.values())) == 1
    return License(
        strictest, "that of every part." if same else "the most demanding of the parts' licences.", warnings
    )


def check_identifier(license: str) -> None:
    """ValueError for what cannot be a licence identifier of the Hub's."""
    if not _IDENTIFIER.fullmatch(license):
        raise ValueError(
            f"{license!r} is no licence identifier; the Hub writes them like 'apache-2.0' or 'cc-by-nc-4.0' (see "
            "https://huggingface.co/docs/hub/repositories-licenses)."
        )


def _goes_into(license: str, other: str) -> bool:
    """Whether what is under a licence may go into a work under another one, as far as the list above says."""
    if license == other or license not in _SIMPLE:
        return license == other
    return other not in _SIMPLE or _SIMPLE.index(license) <= _SIMPLE.index(other)


def _of_card(data) -> str | None:
    """The licence that card data names, in the Hub's identifier; of several "other", which no derivation passes over."""
    license = data.get("license") if data else None
    if isinstance(license, list):
        license = license[0] if len(license) == 1 else OTHER if license else None
    return license if license is None or isinstance(license, str) and _IDENTIFIER.fullmatch(license) else OTHER


def _unknown_warning(roles) -> str:
    names = " and ".join(ROLE_TITLES[role] for role in roles)
    return f"Nobody has said what the licence of {names} is. Find out before you use or pass on this model."


def _listed(roles, licenses) -> str:
    return ", ".join(f"{ROLE_TITLES[role]} (`{licenses[role]}`)" for role in roles)
