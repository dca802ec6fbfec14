#!/usr/bin/env bash
# Kills, damage, crowds and changes, on a small project in a temporary folder; prints one table of
# what was tried, what survived and what was lost. Needs Linux; some parts need root (`unshare`).
#
#   scripts/torture.sh [MINUTES] [--seed N] [--folder F] [--out FILE]
#
# 5 minutes if not said, and what it takes to make the project and to try what has no share of the
# time: two Snakemakes at once, read-only inputs, the clock, what reruns after a change.
set -euo pipefail
cd "$(dirname "$0")/.."
minutes="${1:-5}"
[[ $# -gt 0 ]] && shift
export PYTHONPATH=src:tests:scripts OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
exec nice -n 19 python -m torture --minutes "$minutes" "$@"
