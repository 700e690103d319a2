"""The translators for a user's language: its codes in NLLB-200, M2M100 and mBART-50, and the OPUS-MT repositories of a pair."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HTTPError, RepositoryNotFoundError
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES as M2M100_CODES
from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES as MBART50_CODES
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as NLLB_CODES
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from tall_hf.hub_token import check_token


# ISO 639-1 beside ISO 639-3, which transformers has no table of.
_ISO_639_TABLE = """
aa:aar ab:abk ae:ave af:afr ak:aka am:amh an:arg ar:ara as:asm av:ava ay:aym az:aze ba:bak be:bel bg:bul
bi:bis bm:bam bn:ben bo:bod br:bre bs:bos ca:cat ce:che ch:cha co:cos cr:cre cs:ces cu:chu cv:chv cy:cym
da:dan de:deu dv:div dz:dzo ee:ewe el:ell en:eng eo:epo es:spa et:est eu:eus fa:fas ff:ful fi:fin fj:fij
fo:fao fr:fra fy:fry ga:gle gd:gla gl:glg gn:grn gu:guj gv:glv ha:hau he:heb hi:hin ho:hmo hr:hrv ht:hat
hu:hun hy:hye hz:her ia:ina id:ind ie:ile ig:ibo ii:iii ik:ipk io:ido is:isl it:ita iu:iku ja:jpn jv:jav
ka:kat kg:kon ki:kik kj:kua kk:kaz kl:kal km:khm kn:kan ko:kor kr:kau ks:kas ku:kur kv:kom kw:cor ky:kir
la:lat lb:ltz lg:lug li:lim ln:lin lo:lao lt:lit lu:lub lv:lav mg:mlg mh:mah mi:mri mk:mkd ml:mal mn:mon
mr:mar ms:msa mt:mlt my:mya na:nau nb:nob nd:nde ne:nep ng:ndo nl:nld nn:nno no:nor nr:nbl nv:nav ny:nya
oc:oci oj:oji om:orm or:ori os:oss pa:pan pi:pli pl:pol ps:pus pt:por qu:que rm:roh rn:run ro:ron ru:rus
rw:kin sa:san sc:srd sd:snd se:sme sg:sag sh:hbs si:sin sk:slk sl:slv sm:smo sn:sna so:som sq:sqi sr:srp
ss:ssw st:sot su:sun sv:swe sw:swa ta:tam te:tel tg:tgk th:tha ti:tir tk:tuk tl:tgl tn:tsn to:ton tr:tur
ts:tso tt:tat tw:twi ty:tah ug:uig uk:ukr ur:urd uz:uzb ve:ven vi:vie vo:vol wa:wln wo:wol xh:xho yi:yid
yo:yor za:zha zh:zho zu:zul
"""
_ISO_639 = dict(pair.split(":") for pair in _ISO_639_TABLE.split())
# Of languages that are several, the one that NLLB-200 has, by the code that both share.
_IN_NLLB = {
    "ara": "arb",
    "aym": "ayr",
    "aze": "azj",
    "fas": "pes",
    "ful": "fuv",
    "kau": "knc",
    "kur": "kmr",
    "lav": "lvs",
    "mlg": "plt",
    "mon": "khk",
    "msa": "zsm",
    "nep": "npi",
    "nor": "nob",
    "ori": "ory",
    "orm": "gaz",
    "pus": "pbt",
    "que": "quy",
    "sqi": "als",
    "swa": "swh",
    "uzb": "uzn",
    "yid": "ydd",
}
# Codes that have been replaced, and a second one that is in use.
_REPLACED = {"iw": "he", "in": "id", "ji": "yi", "jw": "jv", "mo": "ro", "fil": "tl", "ns": "nso", "cmn": "zh"}
# Countries that stand for another script than their language's first in NLLB-200.
_SCRIPTS_OF_COUNTRIES = {("zh", "tw"): "hant", ("zh", "hk"): "hant", ("zh", "mo"): "hant"}
# Where a family's code is not ISO's.
_IN_M2M100 = {"nso": "ns", "nb": "no"}
_IN_OPUS = {"ja": ("ja", "jap")}
# An OPUS-MT translator of some hundred languages into English. Its mirror image writes as many, and learns which one from
# a mark in its own encoder's text, which a TALL does not use.
_MANY_TO_ENGLISH = "Helsinki-NLP/opus-mt-mul-en"
_NLLB_CHECKPOINT = "facebook/nllb-200-distilled-600M"
_M2M100_CHECKPOINT = "facebook/m2m100_418M"
_MBART50_CHECKPOINT = "facebook/mbart-large-50-many-to-many-mmt"


@dataclass(frozen=True)
class Language:
    """A language as the translators' families call it.

    Attributes:
        code: ISO 639-1 if it has one, else ISO 639-3.
        name: in English; None of those that transformers has no name for.
        nllb: codes of NLLB-200, one for each script; empty if it does not have the language.
        m2m100, mbart50: the code there; None likewise.
    """

    code: str
    name: str | None
    nllb: tuple[str, ...]
    m2m100: str | None
    mbart50: str | None

    def __str__(self):
        return f"{self.name} ({self.code})" if self.name else self.code


@dataclass(frozen=True)
class Candidate:
    """An OPUS-MT repository that would translate in one direction.

    Attributes:
        repo_id: its name on the Hub.
        exists: whether it is there; None where the Hub was not asked.
        has_safetensors: whether its weights are there as safetensors; None where that is not known.
        is_cached: whether it is in the local cache.
    """

    repo_id: str
    exists: bool | None = None
    has_safetensors: bool | None = None
    is_cached: bool = False


@dataclass(frozen=True)
class Translators:
    """What there is to translate a language into the LLM's and back.

    Attributes:
        language, pivot: the two.
        lr_hr, hr_lr: OPUS-MT repositories out of the language and back into it, in the order to try them.
        asked: whether the Hub was asked.
    """

    language: Language
    pivot: Language
    lr_hr: list[Candidate]
    hr_lr: list[Candidate]
    asked: bool

    @property
    def is_found(self) -> bool:
        """Whether both directions have an OPUS-MT repository, as far as the Hub was asked."""
        return all(any(one.exists for one in side) for side in (self.lr_hr, self.hr_lr))

    @property
    def multilingual(self) -> dict[str, list[str]]:
        """Checkpoints of the families that have both languages, with the codes to compose them by."""
        found = {}
        if self.language.nllb and self.pivot.nllb:
            found[_NLLB_CHECKPOINT] = [self.language.nllb[0], self.pivot.nllb[0]]
        for checkpoint, own, other in (
            (_M2M100_CHECKPOINT, self.language.m2m100, self.pivot.m2m100),
            (_MBART50_CHECKPOINT, self.language.mbart50, self.pivot.mbart50),
        ):
            if own and other:
                found[checkpoint] = [own, other]
        return found


def find_language(text: str) -> Language:
    """A language by a code or its English name: "he", "heb", "heb_Hebr", "he_IL", "iw", "Hebrew".

    Raises:
        ValueError: no such language is known, or NLLB-200 does not have it in the script that is named; the message says what
            is near.
    """
    wanted = text.strip()
    head, *tags = re.split("[_-]", TO_LANGUAGE_CODE.get(wanted.lower(), wanted).lower())
    code = _two_letters().get(head, _REPLACED.get(head, head))
    three = _ISO_639.get(code, code)
    nllb = tuple(one for one in NLLB_CODES if one.split("_")[0] in (three, _IN_NLLB.get(three)))
    # Who names a script, which has four letters, means that one; two letters are a country, which seldom says which.
    scripts = [tag for tag in tags if len(tag) == 4]
    scripts = scripts or [_SCRIPTS_OF_COUNTRIES[code, tag] for tag in tags if (code, tag) in _SCRIPTS_OF_COUNTRIES]
    if scripts:
        others, nllb = nllb, tuple(one for one in nllb if one.split("_")[1].lower() in scripts)
        if others and not nllb:
            raise ValueError(
                f"{text!r}: NLLB-200 does not have this language in that script, but as {', '.join(others)}. Name one of these, or "
                f"{code!r} alone; a translator that reads another script has to be looked for by hand."
            )
    m2m100 = next((one for one in (_IN_M2M100.get(code), code) if one in M2M100_CODES["m2m100"]), None)
    mbart50 = next((one for one in MBART50_CODES if one.split("_")[0] == code), None)
    if code not in _ISO_639 and code not in _names() and not (nllb or m2m100):
        raise ValueError(_unknown(text))
    return Language(code, _names().get(code), nllb, m2m100, mbart50)


def find_translators(
    language: str, pivot: str = "en", ask_hub: bool = False, token: str | bool | None = None
) -> Translators:
    """The translators of a language into the LLM's and back.

    Args:
        language: as for `find_language`.
        pivot: the LLM's language, likewise.
        ask_hub: look on the Hub which OPUS-MT repositories exist; without, only the names they would have are given.
        token: of the Hub.

    Raises:
        ValueError: an unknown language, or twice the same.
        ConnectionError: the Hub cannot be reached.
    """
    own, other = find_language(language), find_language(pivot)
    if own.code == other.code:
        raise ValueError(f"{language!r} and {pivot!r} are both {own}; the LLM's language must be another one.")
    sides = []
    for source, target in ((own, other), (other, own)):
        names = list(_opus_names(source.code, target.code))
        if target.code == "en":
            names.append(_MANY_TO_ENGLISH)
        sides.append([_candidate(name, source, ask_hub, token) for name in names])
    return Translators(own, other, *sides, asked=ask_hub)


def advice(found: Translators) -> list[str]:
    """What there is and what to do, in sentences."""
    lines = []
    for side, source, target in (
        (found.lr_hr, found.language, found.pivot),
        (found.hr_lr, found.pivot, found.language),
    ):
        if found.asked and not any(one.exists for one in side):
            names = ", ".join(one.repo_id for one in side)
            lines.append(f"There is no OPUS-MT translator from {source} into {target}: looked for {names}.")
    if found.is_found:
        lr_hr, hr_lr = (next(one for one in side if one.exists) for side in (found.lr_hr, found.hr_lr))
        lines.append(f"tall compose --lr-hr {lr_hr.repo_id} --llm ... --hr-lr {hr_lr.repo_id} --output ...")
        if pickled := [one.repo_id for one in (lr_hr, hr_lr) if one.has_safetensors is False]:
            lines.append(
                f"{' and '.join(dict.fromkeys(pickled))}: weights as pickles only. Name a branch that has safetensors, such as "
                "@refs/pr/1, or compose with --allow-pickle."
            )
    for checkpoint, (own, other) in found.multilingual.items():
        lines.append(
            f"tall compose --lr-hr {checkpoint} --llm ... --hr-lr {checkpoint} --source-lang {own} --pivot-lang {other} "
            "--output ..."
        )
    if found.asked and not found.is_found:
        lines.append(_without_a_pair(found))
    if not found.asked:
        lines.append("The Hub was not asked which of the repositories exist; --hub does.")
    return lines


def _without_a_pair(found: Translators) -> str:
    there = [one.repo_id for side in (found.lr_hr, found.hr_lr) for one in side if one.exists]
    one_way = f"For the other direction there is {there[0]}. " if there else ""
    if found.multilingual:
        return f"{one_way}Take a multilingual translator for the rest, as above; both may be of one family."
    return (
        f"{one_way}NLLB-200, M2M100 and mBART-50 do not have both languages either. Look on the Hub for a Marian, NLLB, M2M100 "
        "or mBART checkpoint that somebody trained for them, compose by way of a related language, or train a translator "
        "(examples/hebrew does)."
    )


def _candidate(repo_id: str, source: Language, ask_hub: bool, token: str | bool | None) -> Candidate:
    is_cached = isinstance(try_to_load_from_cache(repo_id, "config.json"), str)
    if not ask_hub:
        return Candidate(repo_id, is_cached=is_cached)
    check_token(token)
    try:
        info = HfApi().model_info(repo_id, token=token)
    except RepositoryNotFoundError:
        return Candidate(repo_id, exists=False, is_cached=is_cached)
    except (HfHubHTTPError, HTTPError, OSError) as error:
        raise ConnectionError(
            f"The Hub cannot be asked whether {repo_id} exists ({type(error).__name__}). Look to the connection and to "
            "HF_HUB_OFFLINE, or leave out --hub: codes are known without a network."
        ) from error
    exists = True
    if repo_id == _MANY_TO_ENGLISH:
        languages = getattr(info.card_data, "language", None) or []
        exists = source.code in ([languages] if isinstance(languages, str) else languages)
    files = [file.rfilename for file in info.siblings or []]
    return Candidate(repo_id, exists, any(name.endswith(".safetensors") for name in files), is_cached)


def _opus_names(source: str, target: str) -> Iterable[str]:
    for own in _IN_OPUS.get(source, (source,)):
        for other in _IN_OPUS.get(target, (target,)):
            for kind in ("opus-mt-tc-big", "opus-mt"):  # the larger ones first
                yield f"Helsinki-NLP/{kind}-{own}-{other}"


@cache
def _two_letters() -> dict[str, str]:
    """ISO 639-1 codes by ISO 639-3 codes, those of the languages in NLLB-200 among them."""
    found = {three: two for two, three in _ISO_639.items()}
    return found | {inside: found[three] for three, inside in _IN_NLLB.items() if inside not in found}


@cache
def _names() -> dict[str, str]:
    """English names by code, the first of each language."""
    names: dict[str, str] = {}
    for name, code in TO_LANGUAGE_CODE.items():
        names.setdefault(_REPLACED.get(code, code), name.title())
    return names


def _unknown(text: str) -> str:
    names = difflib.get_close_matches(text.strip().lower(), TO_LANGUAGE_CODE, n=2)
    near = difflib.get_close_matches(text.strip(), NLLB_CODES, n=2)
    hint = f" Near are {', '.join([name.title() for name in names] + near)}." if names or near else ""
    return (
        f"{text!r} is no language known here.{hint} Give an ISO 639 code such as 'he' or 'heb', NLLB's such as 'heb_Hebr', or "
        "an English name. Of languages without a code of two letters only those of NLLB-200 and M2M100 are known, by their codes; "
        "look on the Hub for a translator of another."
    )
