#!/usr/bin/env bash
# Every approach on the little world, from text to table, by the command line alone; about 25 minutes on two CPU cores.
#   bash examples/evaluate_microworld.sh [FOLDER]
#   bash examples/evaluate_microworld.sh FOLDER LANGUAGE COMPONENTS     # not Hebrew: a code such as tr, and what
#       python -m tall_hf.microworld.build --language LANGUAGE --output COMPONENTS     wrote
# Killed, the same command goes on where it stopped.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-outputs/microworld-evaluation}
mkdir -p "$out"
language=${2:-he}
parts=$(python -c "import sys; from tall_hf.microworld import components_folder as c; print(c(*sys.argv[1:]))" \
    "$language" ${3:+"$3"})
roles=(--lr-hr "$parts/lr_hr" --llm "$parts/llm" --hr-lr "$parts/hr_lr")

python "$here/microworld_text.py" --language "$language" > "$out/train.txt"
python "$here/microworld_text.py" --language "$language" --held-out > "$out/held_out.jsonl"
for name in tall translator_only; do
    without=()
    [ "$name" = tall ] || without=(--leave-out-llm)
    [ -e "$out/$name/config.json" ] ||
        tall compose "${roles[@]}" --bridge gated --warm-start "${without[@]}" --output "$out/$name"
    tall prepare "$out/train.txt" --model "$out/$name" --output "$out/data"
    [ -e "$out/$name-trained/metrics.json" ] ||
        tall train "$here/configs/microworld.yaml" --model "$out/$name" --dataset "$out/data" \
            --output_dir "$out/$name-trained" --resume
done
tall evaluate "$out/tall-trained/model" --translator-only "$out/translator_only-trained/model" \
    --text "$out/held_out.jsonl" --group-column group --dataset "$out/data" --budget-steps 800 --budget-batch-size 48 \
    --output "$out/evaluation"
