#!/usr/bin/env bash
# Everything worth knowing from a bare machine with a GPU and torch, in under eight minutes.
#
#   scripts/on_gpu.sh OUT [PHOTOS]    PHOTOS: a folder of img2dataset shards; else scenes are drawn
#   scripts/on_gpu.sh --dry OUT       the same at tiny sizes on the CPU, all in one process
#
# Six parts, each with its own time limit, each one Python process (starting one takes 12 s there):
#   correctness  weights under every runtime, after a resume, from run to run
#   profile      SD 1.5 and 2.1, fp16 evaluations, bf16 training, eager and recorded
#   training     images/s of the product's loop, of the bare loop, of the reference way
#   sampling     a step of every model, eager, compiled, recorded, against the bare recorded step
#   kernels      where the time of a step goes
#   stages       the chain at Stable Diffusion's shapes; a rerun and a resume compared by hash
# Beside torch it needs diffusers, transformers, peft and accelerate; the chain of stages also pydantic
# and duckdb, and is left out, with a line that says so, where they are missing. Without a network:
#   pip download -d wheels --only-binary=:all: --python-version 3.12 diffusers pydantic duckdb   and there
#   pip install --no-index --no-deps wheels/{diffusers,pydantic,pydantic_core,annotated_types,typing_inspection,duckdb}-*
# Run it again to go on: what is in OUT is not measured again. OUT gets at most 8 files, of the form
# docs/results has; `cp -r OUT/* docs/results/` keeps them. OUT.work holds the log and what may be thrown away.
set -uo pipefail

dry=()
if [[ "${1:-}" == --dry ]]; then
  dry=(--dry)
  shift
fi
if [[ $# -lt 1 ]]; then
  sed -n '2,5p' "$0" >&2
  exit 2
fi
out="$(mkdir -p "$1" && cd "$1" && pwd)" work="$out.work"
mkdir -p "$work"
photos=()
[[ $# -gt 1 ]] && photos=(--photos "$(cd "$2" && pwd)")
cd "$(dirname "$0")/.."
python="$(command -v python || command -v python3)" # some machines have the latter only
export PYTHONPATH=src:benchmarks CUBLAS_WORKSPACE_CONFIG=:4096:8 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

run() { # SECONDS PART...
  local limit="$1"
  shift
  timeout --signal=INT --kill-after=10 "$limit" \
    "$python" scripts/gpu/run.py "${dry[@]}" "${photos[@]}" --out "$out" "$@" 2>&1 | tee -a "$work/log.txt"
  local status="${PIPESTATUS[0]}"
  [[ "$status" -eq 0 ]] || echo "$*: ended with $status (124: time was up); run again to go on" \
    | tee -a "$work/log.txt"
  return "$status"
}

if [[ ${#dry[@]} -gt 0 ]]; then
  export OMP_NUM_THREADS=1
  run 600 correctness profile training sampling kernels stages
  exit
fi
# What profile predicts takes the CPU a minute, so it is done while the GPU has other work, and before
# anything is timed that waits for the CPU.
predictions=()
for file in 0 1 2 3 4; do
  timeout 90 "$python" scripts/gpu/run.py --out "$out" --predict "$file" >/dev/null 2>&1 &
  predictions+=("$!")
done
trap 'kill $(jobs -p) 2>/dev/null' EXIT
failed=0
run 90 correctness || failed=1
wait "${predictions[@]}"
run 120 profile || failed=1
run 90 training || failed=1
run 60 sampling || failed=1
run 30 kernels || failed=1
run 70 stages || failed=1
exit "$failed"
