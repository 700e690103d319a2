"""Where the time of a training step goes: attention kernels side by side in one run, and torch's profile by operator.

    python -m benchmarks.training_profile --dtype bfloat16              # layers as wide as the paper's, few of them
    python -m benchmarks.training_profile --dtype bfloat16 --layers 24 --profile 20

Seconds are those of the processor, of all threads, which other processes on the machine disturb less than the clock's.
"""

import argparse
import contextlib
import itertools
import time

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from benchmarks import scaling, sizes
from benchmarks.options import count
from tall_hf import TALLConfig, TALLForCausalLM
from tall_hf.training.attention import training_attention
from tall_hf.training.light import cast_frozen


def shallow(config: TALLConfig, layers: int, vocab_size: int) -> TALLConfig:
    """The configuration with `layers` layers in the LLM, a quarter of them in each translator, and a small vocabulary."""
    quarter = max(1, layers // 4)
    parts = {"llm_config": config.llm_config.to_dict() | {"num_hidden_layers": layers, "vocab_size": vocab_size}}
    parts["llm_config"].pop("layer_types", None)
    special = {"pad_token_id": vocab_size - 1, "decoder_start_token_id": vocab_size - 1}
    for name in ("lr_hr_config", "hr_lr_config"):
        fewer = {"encoder_layers": quarter, "decoder_layers": quarter, "vocab_size": vocab_size}
        parts[name] = getattr(config, name).to_dict() | fewer | special | {"decoder_vocab_size": vocab_size}
    return TALLConfig(**parts)


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sizes.NAMES, default="qwen", help="whose widths")
    parser.add_argument("--layers", type=count, default=4, help="of the LLM; 24 are the paper's")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="bfloat16: of the frozen parts"
    )
    parser.add_argument("--batch", type=count, default=16)
    parser.add_argument("--length", type=count, default=25)
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument(
        "--profile", type=int, default=0, help="show so many operators of a step as the Trainer makes it"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    torch.manual_seed(options.seed)
    in_bfloat16 = options.dtype == "bfloat16"
    model = TALLForCausalLM(shallow(sizes.configuration(options.size), options.layers, vocab_size=2000)).train()
    if in_bfloat16:
        cast_frozen(model, torch.bfloat16)
    inputs = scaling.random_inputs(options.batch, options.length, "cpu")
    labels = torch.full_like(inputs["decoder_input_ids"], -100)
    labels[:, -1] = 7
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)

    def step(kernel) -> dict[str, float]:
        times = [time.process_time()]
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16), kernel():
            loss = model(**inputs, labels=labels).loss
        times.append(time.process_time())
        loss.backward()
        times.append(time.process_time())
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.process_time())
        return dict(
            zip(
                ("forward", "backward", "optimizer"),
                (later - earlier for earlier, later in itertools.pairwise(times)),
                strict=True,
            )
        )

    kernels = {
        "sdpa, torch's choice": contextlib.nullcontext,
        "sdpa, plain products in float32": lambda: sdpa_kernel(SDPBackend.MATH),
        "sdpa as the Trainer has it": lambda: training_attention(inputs),
        "eager": contextlib.nullcontext,
    }
    table = Table(
        "attention", "forward", "backward", "optimizer", "all", title=f"processor seconds of a step, {vars(options)}"
    )
    step(contextlib.nullcontext)
    found = {}
    for name, kernel in kernels.items():
        model.set_attn_implementation("eager" if name == "eager" else "sdpa")
        found[name] = min((step(kernel) for _ in range(options.repeats)), key=lambda times: sum(times.values()))
        figures = [*found[name].values(), sum(found[name].values())]
        table.add_row(name, *(f"{seconds:.3f}" for seconds in figures))
    console = Console(width=150)
    console.print(table)
    if options.profile:
        model.set_attn_implementation("sdpa")
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            step(kernels["sdpa as the Trainer has it"])
        print(profiled.key_averages().table(sort_by="self_cpu_time_total", row_limit=options.profile))
    return found


if __name__ == "__main__":
    main()
