#!/usr/bin/env bash
# The encoder -> LLM model on a village of the little world: LangBridge against both fusions of all layers, and MindMerger's
# mapping, trained on English alone and asked in English, Hebrew and Turkish about people whom only the language model knows.
#   bash examples/fusion_microworld.sh [FOLDER] [SEEDS] [JOBS]
# Seeds are such as "0 1 2" (0); JOBS trainings run at a time (1). LangBridge and the fusions are trained with three pairs of
# learning rates each, of the mapping and of the fusion; the pair that answers most of the validation people's questions, over languages
# and seeds, is asked about the test people.
# Killed, the same command goes on where it stopped.
set -euo pipefail
export here=$(cd "$(dirname "$0")" && pwd)
export out=${1:-outputs/microworld-fusion}
seeds=${2:-0}
jobs=${3:-1}
mkdir -p "$out"
[ -e "$out/village/README.md" ] || python -m tall_hf.microworld.build --output "$out/village" \
    --multilingual he tr en --village --jobs 1
python "$here/microworld_questions.py" "$out/questions" --village

compose() {  # KIND SEED
    local options
    case $1 in
        langbridge) options=(--source-fusion last --end-vector-std 1) ;;
        zeros) options=(--source-fusion last) ;;  # LangBridge, but with the end vector of the fusions
        mindmerger) options=(--source-fusion last --mapping-type mlp) ;;
        *) options=(--source-fusion "$1") ;;
    esac
    [ -e "$out/$1-$2/composed/config.json" ] || tall fusion compose --encoder "$out/village/many_en" \
        --llm "$out/village/llm" "${options[@]}" --seed "$2" --output "$out/$1-$2/composed"
    [ -e "$out/rows/fusion_rows.json" ] || tall fusion prepare "$out/$1-$2/composed" --task "$out/questions/microworld.yaml" \
        --validation-share 0.05 --output "$out/rows"
}

train() {  # KIND SEED RATE FUSION_RATE
    [ -e "$out/$1-$2/trained_$3_$4/metrics.json" ] || tall fusion train "$here/configs/microworld_fusion.yaml" \
        --model "$out/$1-$2/composed" --dataset "$out/rows" --output_dir "$out/$1-$2/trained_$3_$4" --seed "$2" --resume \
        --learning_rate "$3" --fusion_learning_rate "$4"
}
export -f train

trainings=()
models=()
for seed in $seeds; do
    for kind in langbridge zeros global_softmax token_softmax mindmerger; do
        compose "$kind" "$seed"
        case $kind in
            # The paper's rate of a fusion is 0.00003.
            *_softmax) pairs=("0.005 0.001" "0.005 0.00003" "0.0015 0.00003") ;;
            langbridge) pairs=("0.005 0.001" "0.0015 0.001" "0.015 0.001") ;;
            *) pairs=("0.005 0.001") ;;
        esac
        for pair in "${pairs[@]}"; do
            trainings+=("$kind $seed $pair")
            folder=${pair/ /_}
            models+=("${kind}_$folder-$seed=$out/$kind-$seed/trained_$folder/model")
        done
    done
done
printf '%s\n' "${trainings[@]}" | xargs -P "$jobs" -I{} bash -euo pipefail -c 'train {}'
tall fusion evaluate "${models[@]}" --task "$out/questions/microworld.yaml" --split validation --batch-size 64 \
    --output "$out/validation"
python "$here/fusion_table.py" "$out/validation"
mapfile -t chosen < <(python "$here/fusion_table.py" "$out/validation" --best)
tall fusion evaluate "${chosen[@]}" --task "$out/questions/microworld.yaml" --split test --batch-size 64 --output "$out/test"
python "$here/fusion_table.py" "$out/test"
