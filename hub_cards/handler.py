"""EndpointHandler: what Inference Endpoints runs to serve a TALL; it lies at the root of the model's repository.

A request is JSON, an answer too:

    {"inputs": "דנה גרה בבית", "parameters": {"top_k": 2}}
        -> [{"word": "ירוק", "score": 0.41}, {"word": "גדול", "score": 0.22}]
    {"inputs": ["דנה גרה בבית", "יוסי"], "parameters": {"max_words": 5}}
        -> [[{"generated_text": "דנה גרה בבית ..."}], [{"generated_text": "יוסי ..."}]]

Needs torch, transformers and sentencepiece, and not the package that made the model.
"""

import os
import threading

import torch
from transformers import pipeline


# What a request may ask for, and how many there may be. An environment variable of the endpoint, such as
# TALL_MAX_BATCH_SIZE, moves a limit.
LIMITS = {
    "max_characters": 10_000,  # of each text; only the last few hundred tokens fit into the model's positions
    "max_batch_size": 32,  # texts of one request
    "max_top_k": 50,  # next words of each text
    "max_words": 100,  # words added to each text
    "max_rows": 512,  # beams that are computed together; texts beyond take turns, a text by itself never
    "max_requests": 64,  # requests at a time, the one that is being answered and those that wait for their turn
}
# Beside these, the parameters for `generate` and what each may be.
_GENERATE = {
    "max_new_tokens": (int, 1, 512),
    "num_beams": (int, 1, 8),
    "do_sample": (bool, None, None),
    "temperature": (float, 0.01, 100.0),
    "top_p": (float, 0.01, 1.0),
    "repetition_penalty": (float, 0.01, 100.0),
    "no_repeat_ngram_size": (int, 0, 100),
}
_FOR_SAMPLING = ("temperature", "top_p")


class OverloadedError(RuntimeError):
    """As many requests as may wait do so. A server that calls the handler in threads makes it the status `status_code`.

    Inference Endpoints call it once at a time, so there it is never raised.
    """

    status_code = 503


class EndpointHandler:
    """Answers requests for next words, or for the text continued.

    Args:
        path: folder of the model's repository.

    Raises:
        ValueError: `path` is no folder, or a limit's variable is no positive number.
    """

    def __init__(self, path: str = ""):
        if not os.path.isdir(path):
            # A name would be looked up on the Hub, and code of somebody else's be run.
            raise ValueError(f"Expected the folder of the model's repository, got {path!r}.")
        self.limits = {name: _limit(name, default) for name, default in LIMITS.items()}
        # Remote code is what lies in this folder, beside this very file, which is running already: to trust the one
        # without the other would protect nobody.
        self.pipe = pipeline(model=str(path), trust_remote_code=True, **_placement())
        # A tokenizer keeps state while it encodes, so requests that come in several threads take turns.
        self._turn = threading.Lock()
        self._room = threading.BoundedSemaphore(self.limits["max_requests"])

    def __call__(self, data: dict) -> list:
        """Answer one request.

        Args:
            data: `inputs`, a text or a list of texts; and `parameters`: either `top_k`, how many next words to list, or
                `max_words` and `refresh_words` as in `TALLForCausalLM.complete`, with `max_new_tokens`, `num_beams`,
                `do_sample`, `temperature`, `top_p`, `repetition_penalty` and `no_repeat_ngram_size` for `generate`.

        Returns:
            For a text what the model's pipeline returns for it, `[{"generated_text": ...}]` or with `top_k`
            `[{"word": ..., "score": ...}, ...]`; for a list of texts a list of those.

        Raises:
            ValueError: the request cannot be answered; the message is for whoever sent it. The server makes it a 400.
            OverloadedError: too many requests wait already; this one may come again later.
        """
        texts, parameters = self._check(data)
        if not texts:
            return []
        settings = {name: value for name, value in parameters.items() if name not in _GENERATE}
        if generate_kwargs := {name: value for name, value in parameters.items() if name in _GENERATE}:
            settings["generate_kwargs"] = generate_kwargs
        if not self._room.acquire(blocking=False):
            raise OverloadedError(f"{self.limits['max_requests']:,} requests are waiting already; try again later.")
        try:
            with self._turn:
                return self.pipe(texts, batch_size=self._texts_at_once(texts, parameters), **settings)
        finally:
            self._room.release()

    def _texts_at_once(self, texts, parameters) -> int:
        """How many texts are computed together: a beam takes a row of logits as long as the vocabulary."""
        if not isinstance(texts, list):
            return 1
        top_k = parameters.get("top_k")
        # As many beams as `next_words` follows.
        beams = parameters.get("num_beams", 1) if top_k is None else max(16, 2 * top_k)
        return min(len(texts), max(1, self.limits["max_rows"] // beams))

    def _check(self, data) -> tuple[str | list[str], dict]:
        if not isinstance(data, dict) or "inputs" not in data:
            raise ValueError('Expected a JSON object with "inputs", a text or a list of texts.')
        # huggingface_hub's client says whether it wants a stream.
        if data.get("stream"):
            raise ValueError('This endpoint does not stream; leave "stream" out.')
        if unknown := sorted(map(str, data.keys() - {"inputs", "parameters", "stream"})):
            raise ValueError(f'Unknown {_listed(unknown)}; a request has "inputs" and "parameters".')
        texts = data["inputs"]
        if isinstance(texts, list):
            limit = self.limits["max_batch_size"]
            if len(texts) > limit:
                raise ValueError(f'"inputs" holds {len(texts):,} texts; the limit is {limit:,} in one request.')
            for i, text in enumerate(texts):
                self._check_text(f"inputs[{i}]", text)
        else:
            self._check_text("inputs", texts)
        return texts, self._check_parameters(data.get("parameters"))

    def _check_text(self, name, text):
        if not isinstance(text, str):
            raise ValueError(f'"{name}" must be text, got {_kind(text)}.')
        limit = self.limits["max_characters"]
        if len(text) > limit:
            raise ValueError(
                f'"{name}" has {len(text):,} characters; the limit is {limit:,}. Send its end: the next word depends '
                "most on the last ones."
            )
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(f'"{name}" holds half of a surrogate pair, which is no character.') from None

    def _check_parameters(self, parameters) -> dict:
        if parameters is None:
            return {}
        if not isinstance(parameters, dict):
            raise ValueError(f'"parameters" must be an object, got {_kind(parameters)}.')
        known = {
            "top_k": (int, 1, self.limits["max_top_k"]),
            "max_words": (int, 0, self.limits["max_words"]),
            "refresh_words": (int, 0, self.limits["max_words"]),
            **_GENERATE,
        }
        if unknown := sorted(map(str, parameters.keys() - known.keys())):
            raise ValueError(f"Unknown parameter {_listed(unknown)}; there are {', '.join(known)}.")
        # JSON's null is a parameter left out.
        parameters = {
            name: _checked_value(name, value, *known[name]) for name, value in parameters.items() if value is not None
        }
        if "top_k" in parameters and len(parameters) > 1:
            others = _listed(sorted(parameters.keys() - {"top_k"}))
            raise ValueError(
                f'"top_k" lists next words; {others} belongs to continuing the text. Send one or the other.'
            )
        if not parameters.get("do_sample") and (idle := [name for name in _FOR_SAMPLING if name in parameters]):
            raise ValueError(f'{_listed(idle)} takes effect in sampling only; send "do_sample": true as well.')
        return parameters


def _limit(name: str, default: int) -> int:
    variable = f"TALL_{name.upper()}"
    value = os.environ.get(variable, str(default))
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise ValueError(f"The environment variable {variable} must be a positive whole number, got {value!r}.")
    return int(value)


def _placement() -> dict:
    """Where and in which dtype the model computes: on a GPU in bfloat16 where it has it, else as it was saved."""
    if not torch.cuda.is_available():
        return {}
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return {"device": 0, "dtype": torch.bfloat16}
    return {"device": 0}


def _checked_value(name, value, kind, low, high):
    if kind is bool:
        if not isinstance(value, bool):
            raise ValueError(f'"{name}" must be true or false, got {_kind(value)}.')
        return value
    # To Python true is 1.
    fits = not isinstance(value, bool) and isinstance(value, int if kind is int else int | float)
    # Python's JSON reader lets NaN pass, which lies in no range.
    if not fits or not low <= value <= high:
        shown = str(value)[:20] if fits else _kind(value)
        wanted = "a whole number" if kind is int else "a number"
        raise ValueError(f'"{name}" must be {wanted} from {low:,} to {high:,}, got {shown}.')
    # JSON writes 1.0 as 1 as well, and `generate` takes no whole number for a temperature or a penalty.
    return kind(value)


def _kind(value) -> str:
    """What a JSON value is, without repeating it: it may be of any size."""
    if value is None:
        return "null"
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return kinds.get(type(value), type(value).__name__)


def _listed(names: list[str]) -> str:
    return ", ".join(f'"{name[:50]}"' for name in names[:10])
