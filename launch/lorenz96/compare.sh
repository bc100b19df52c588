#!/usr/bin/env bash
# The same system once by physics alone and once certified, other members in each, and whether the climate of X and Y agrees.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

number=1
while [[ -e runs/lorenz96-$(printf %03d "$number") ]]; do number=$((number + 1)); done
folder=runs/lorenz96-$(printf %03d "$number")
mkdir -p "$folder"

launch/lorenz96/run.sh 2 --set kernel.params.seed=1 --set controller.mode=physics --out "$folder/physics" "$@"
launch/lorenz96/run.sh 2 --set kernel.params.seed=2 --out "$folder/certified" "$@"
.venv/bin/python launch/lorenz96/compare.py "$folder/physics" "$folder/certified"
