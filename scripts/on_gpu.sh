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
# It ends with 1 where a part did not finish or a row failed, which the last lines name; with 2, and nothing
# written, where it can't begin.
set -uo pipefail

refuse() {
  echo "$1" >&2
  exit 2
}

dry=() photos=() places=()
for word in "$@"; do
  case "$word" in
    -h | --help)
      sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    --dry) dry=(--dry) ;;
    '' | -*) refuse "'$word': neither a folder nor an option; see scripts/on_gpu.sh --help" ;;
    *) places+=("$(realpath -ms -- "$word")") ;;
  esac
done
[[ ${#places[@]} -gt 0 ]] || refuse "OUT: no folder for results given; see scripts/on_gpu.sh --help"
[[ ${#places[@]} -lt 3 ]] || refuse "${places[2]}: a third folder; give OUT and PHOTOS, quoted where a blank is in them"
out="${places[0]}" work="${places[0]}.work"
for place in "$out" "$work"; do
  [[ -d "$place" || ! (-e "$place" || -L "$place") ]] || refuse "$place: is no folder; give another OUT"
done
if [[ ${#places[@]} -eq 2 ]]; then
  photos=(--photos "${places[1]}")
  [[ -n "$(find -L "${places[1]}/" -iname '*.tar' -print -quit 2>/dev/null)" ]] \
    || refuse "${places[1]}: no folder with .tar shards of img2dataset in it; give another, or none"
fi
cd "$(dirname "$0")/.." || exit 2
python="$(command -v python || command -v python3)" \
  || refuse "python: not found; activate an environment that has it" # some machines have python3 only
export PYTHONPATH=src:benchmarks CUBLAS_WORKSPACE_CONFIG=:4096:8 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
"$python" scripts/gpu/run.py "${dry[@]}" --out "$out" --check || exit 2
mkdir -p "$work" "$out" 2>/dev/null && [[ -w "$work" && -w "$out" ]] \
  || refuse "$out: can't be made or written; give another OUT"

unfinished=()
run() { # SECONDS PART...
  local limit="$1"
  shift
  timeout --signal=INT --kill-after=10 "$limit" \
    "$python" scripts/gpu/run.py "${dry[@]}" "${photos[@]}" --out "$out" "$@" 2>&1 | tee -a "$work/log.txt"
  local status="${PIPESTATUS[0]}"
  case "$status" in
    0) ;;
    124) unfinished+=("$*: its $limit s were up; run again to go on") ;;
    *) unfinished+=("$*: ended with $status, for the reason above; run again when it is put right") ;;
  esac
}

if [[ ${#dry[@]} -gt 0 ]]; then
  export OMP_NUM_THREADS=1
  run 600 correctness profile training sampling kernels stages
else
  # What profile predicts takes the CPU a minute, so it is done while the GPU has other work, and before
  # anything is timed that waits for the CPU.
  predictions=()
  for file in 0 1 2 3 4; do
    timeout 90 "$python" scripts/gpu/run.py --out "$out" --predict "$file" >/dev/null 2>&1 &
    predictions+=("$!")
  done
  trap 'kill $(jobs -p) 2>/dev/null' EXIT
  run 90 correctness
  wait "${predictions[@]}"
  run 120 profile
  run 90 training
  run 60 sampling
  run 30 kernels
  run 70 stages
fi
status=0
for part in "${unfinished[@]}"; do
  echo "not finished: $part" | tee -a "$work/log.txt"
  status=1
done
"$python" scripts/gpu/run.py --out "$out" --failed | tee -a "$work/log.txt" || status=1
exit "$status"
