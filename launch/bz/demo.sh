#!/usr/bin/env bash
# The demo: the same spirals once by physics alone and once with a surrogate that learns on the way, then side by side.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

folder=$(launch/free_folder.sh demo)

echo "1 of 2: physics alone, 2 ranks"
launch/bz/run.sh 2 --set controller.mode=physics --set output.pictures=false --out "$folder/physics" "$@"
echo
echo "2 of 2: certified, 2 ranks, with a Ray-served surrogate that learns while it runs"
launch/bz/run.sh 2 --set output.pictures=false --out "$folder/certified" "$@"
.venv/bin/python launch/demo.py "$folder/physics" "$folder/certified"
echo "page     $(.venv/bin/coupler report "$folder/physics" "$folder/certified" --out "$folder/report.html")"
