#!/usr/bin/env bash
# The encoder -> LLM model on a village of the little world: LangBridge against both fusions of all layers, and MindMerger's
# mapping, trained on English alone and asked in English, Hebrew and Turkish about people whom only the language model knows.
#   bash examples/fusion_microworld.sh [FOLDER] [SEEDS] [SPLIT]
# Seeds are such as "0 1 2" (0); the split is test, or validation to choose settings by.
# Killed, the same command goes on where it stopped.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-outputs/microworld-fusion}
seeds=${2:-0}
split=${3:-test}
mkdir -p "$out"
[ -e "$out/village/README.md" ] || python -m tall_hf.microworld.build --output "$out/village" \
    --multilingual he tr en --village --jobs 1
python "$here/microworld_questions.py" "$out/questions" --village

models=()
for seed in $seeds; do
    for name in langbridge global_softmax token_softmax mindmerger; do
        case $name in
            langbridge) options=(--source-fusion last --end-vector-std 1) ;;
            mindmerger) options=(--source-fusion last --mapping-type mlp) ;;
            *) options=(--source-fusion "$name") ;;
        esac
        run="$out/$name-$seed"
        [ -e "$run/composed/config.json" ] || tall fusion compose --encoder "$out/village/many_en" --llm "$out/village/llm" \
            "${options[@]}" --seed "$seed" --output "$run/composed"
        tall fusion prepare "$run/composed" --task "$out/questions/microworld.yaml" --validation-share 0.05 --output "$out/rows"
        [ -e "$run/trained/metrics.json" ] || tall fusion train "$here/configs/microworld_fusion.yaml" --model "$run/composed" \
            --dataset "$out/rows" --output_dir "$run/trained" --seed "$seed" --resume
        models+=("$name-$seed=$run/trained/model")
    done
done
tall fusion evaluate "${models[@]}" --task "$out/questions/microworld.yaml" --split "$split" --batch-size 64 \
    --output "$out/$split"
