"""What `torch.compile` is worth: encoder and decoder compiled with dynamic shapes, beside the plain ones, by the same weights.

    python -m benchmarks.compiled                                                   # layers as wide as the paper's, few of them
    python -m benchmarks.compiled --layers 24 --vocabulary 65839 --device cuda --dtype bfloat16 --mode reduce-overhead    # CUDA graphs

Compiled are `model.encoder` and `model.decoder`, not the whole model: in one graph the LM head would be computed at every position
of a target. On a CPU seconds are those of the processor, of all threads, which other processes disturb less than the clock's.
"""

import argparse
import itertools
import os
import time

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import meters, scaling, sizes
from benchmarks.options import count, device
from benchmarks.training_profile import shallow
from tall_hf import TALLForCausalLM
from tall_hf.training.attention import training_attention
from tall_hf.training.light import cast_frozen


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sizes.NAMES, default="qwen", help="whose widths")
    parser.add_argument("--what", nargs="+", choices=("read", "learn"), default=["read", "learn"])
    parser.add_argument("--layers", type=count, default=4, help="of the LLM; 24 are the paper's")
    parser.add_argument("--vocabulary", type=count, default=2000)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the frozen parts")
    parser.add_argument("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--mode",
        choices=("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
        default="default",
        help="of torch.compile; reduce-overhead is CUDA graphs",
    )
    parser.add_argument(
        "--backend", choices=("inductor", "eager"), default="inductor", help="of torch.compile; eager compiles nothing"
    )
    parser.add_argument("--batch", type=count, default=16)
    parser.add_argument(
        "--lengths", type=count, nargs="+", default=[25, 17, 31], help="of the batches, one after another"
    )
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    torch.manual_seed(options.seed)
    with torch.device(options.device):
        model = TALLForCausalLM(shallow(sizes.configuration(options.size), options.layers, options.vocabulary))
    if options.dtype == "bfloat16":
        cast_frozen(model, torch.bfloat16)
    for module in model.modules():  # gradients are compared
        for name in ("p", "dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    batches = [scaling.random_inputs(options.batch, length, options.device) for length in options.lengths]
    precision = {"device_type": torch.device(options.device).type, "dtype": torch.bfloat16}

    def read():
        """Stages 1 to 7 of all batches, without gradients; the last logits of each."""
        model.eval()
        with torch.no_grad(), torch.autocast(**precision, enabled=options.dtype == "bfloat16"):
            return [model(**inputs, logits_to_keep=1, use_cache=False).logits.float() for inputs in batches]

    def learn():
        """Forward and backward of all batches; the gradient of a weight that everything before it decides."""
        model.train()
        model.zero_grad()
        for inputs in batches:
            labels = torch.full_like(inputs["decoder_input_ids"], -100)
            labels[:, -1] = 7
            with torch.autocast(**precision, enabled=options.dtype == "bfloat16"), training_attention(inputs):
                loss = model(**inputs, labels=labels).loss
            loss.backward()
        return [model.encoder.target_encoder.layers[0].fc1.weight.grad.clone()]

    works = {name: work for name, work in (("read", read), ("learn", learn)) if name in options.what}
    plain = {name: _timed(work, options) for name, work in works.items()}
    for part in (model.encoder, model.decoder):
        part.compile(dynamic=True, backend=options.backend, mode=options.mode)
    table = Table(
        "what",
        "plain, s",
        "compiled, s",
        "ratio",
        "compiling, s",
        "pays after",
        "differs by",
        title=str(vars(options)),
    )
    found = {}
    for name, work in works.items():
        first, results, seconds = _timed(work, options)
        _, wanted, before = plain[name]
        gain = before - seconds
        found[name] = {
            "plain": before,
            "compiled": seconds,
            "compiling": first - seconds,
            "difference": max(
                float((a - b).abs().max() / b.abs().max()) for a, b in zip(results, wanted, strict=True)
            ),
        }
        after = f"{(first - seconds) / gain * len(batches):,.0f} batches" if gain > 0 else "never"
        figures = (before, seconds, before / seconds, first - seconds)
        table.add_row(name, *(f"{one:.3g}" for one in figures), after, f"{found[name]['difference']:.1g}")
    Console(width=150).print(table)
    return found


def _timed(work, options) -> tuple[float, list[torch.Tensor], float]:
    """Seconds of the first call, which compiles if something is to be compiled, what it gave, and the least seconds of some more."""
    # Of this process and of the C++ compiler's.
    clock = time.perf_counter if options.device == "cuda" else lambda: sum(os.times()[:4])
    marks = [clock()]
    for _ in range(1 + options.repeats):
        results = work()
        meters.synchronize(options.device)
        marks.append(clock())
    times = [later - earlier for earlier, later in itertools.pairwise(marks)]
    return times[0], results, min(times[1:])


if __name__ == "__main__":
    main()
