#!/usr/bin/env bash
# Trains clerk from nothing to a model file, on a GPU if there is one: generates documents, trains, evaluates, imports, and
# writes the tables of the model card. Started again with --resume it goes on where it was stopped.
#
#   crates/clerk/training/run.sh --minutes 10 --out DIR [--documents 600000] [--shape clerk|tiny] [--resume] [--check 1000]
#
# Needs python3 with requirements.txt (PYTHON names another one), and dovetail-clerk: DOVETAIL_CLERK names the program,
# else it is built. The import needs dovetail-worker (DOVETAIL_WORKER, else target/release): without it the checkpoint
# stays in DIR/result, to be imported elsewhere. What has to be kept of a run lies in DIR/result alone.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../../.." && pwd)"

minutes=10 out="" documents=600000 shape=clerk resume="" check=1000 tokens="" threads="$(nproc)"
while [ $# -gt 0 ]; do
    case "$1" in
        --minutes) minutes="$2"; shift 2 ;;
        --out) out="$2"; shift 2 ;;
        --documents) documents="$2"; shift 2 ;;
        --shape) shape="$2"; shift 2 ;;
        --check) check="$2"; shift 2 ;;
        --tokens) tokens="$2"; shift 2 ;;
        --threads) threads="$2"; shift 2 ;;
        --resume) resume="--resume"; shift ;;
        *) echo "unknown argument $1" >&2; exit 2 ;;
    esac
done
[ -n "$out" ] || { echo "name a folder: --out DIR" >&2; exit 2; }
mkdir -p "$out/result"
out="$(cd "$out" && pwd)"
python="${PYTHON:-python3}"
export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=true RAYON_NUM_THREADS="$threads" PYTHONDONTWRITEBYTECODE=1

clerk="${DOVETAIL_CLERK:-}"
if [ -z "$clerk" ]; then
    clerk="$root/target/release/dovetail-clerk"
    [ -x "$clerk" ] || (cd "$root" && cargo build --release -p dovetail-clerk)
fi
worker="${DOVETAIL_WORKER:-$root/target/release/dovetail-worker}"

# One file a core, each from a seed of its own. A file is put in place when it is whole.
files="$threads"
[ "$files" -gt 16 ] && files=16
each=$(((documents + files - 1) / files))
generate() {
    [ -e "$3" ] || { "$clerk" generate --wide --count "$1" --seed "$2" --world "$4" --out "$3.new" && mv "$3.new" "$3"; }
}
echo "$documents documents"
running=() data=()
for file in $(seq 1 "$files"); do
    data+=("$out/train-$file.jsonl")
    generate "$each" "$((1000 + file))" "$out/train-$file.jsonl" training &
    running+=("$!")
done
generate 2000 3 "$out/dev.jsonl" unseen
for one in "${running[@]}"; do wait "$one"; done

[ -e "$out/tokenizer.json" ] ||
    "$python" "$here/tokenizer.py" --data "${data[0]}" --out "$out/tokenizer.json" | tee "$out/result/tokens.txt"

if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    tokens="${tokens:-131072}"
else
    tokens="${tokens:-8192}"
fi
"$python" "$here/train.py" --data "${data[@]}" --check "$out/dev.jsonl" --tokenizer "$out/tokenizer.json" \
    --out "$out" --shape "$shape" --minutes "$minutes" --tokens "$tokens" --threads "$threads" --half $resume 2>&1 |
    tee -a "$out/result/train.log"
cp "$out"/checkpoint/* "$out/result/"
"$python" "$here/evaluate.py" --model "$out/result" --data "$out/dev.jsonl" --count "$check" --threads "$threads" \
    --table "$out/result/float.md"

if [ -x "$worker" ]; then
    "$worker" model import "$out/result" --name clerk --out "$out/clerk.safetensors"
    size="$(stat -c %s "$out/clerk.safetensors")"
    echo "clerk.safetensors has $size bytes"
    [ "$size" -le 8388608 ] || { echo "more than the 8 MB that the source may hold" >&2; exit 1; }
    echo "Measure it: cargo xtask bench clerk --wide --outside --model $out/clerk.safetensors"
else
    echo "No dovetail-worker here. Import it elsewhere: dovetail-worker model import $out/result --name clerk --out clerk.safetensors"
fi
