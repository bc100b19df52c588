#!/usr/bin/env bash
# A flame once by physics alone and once with a model that was taught on its relative, then side by side.
#
# The model in taught/ has seen a tape of the flame in gas of another stratification, and what two runs of that flame
# kept, which one jolted net had led; of two nets without jolts, 400 s on one core:
#
#   COUPLER_FIRST="--set surrogate.params.members=1 --set surrogate.params.jolt=0.3" COUPLER_SECONDS=400 \
#     launch/teach.sh launch/reactive_flow/flame_2d.toml FOLDER 2 --set kernel.params.stratification=0.3
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

folder=$(launch/free_folder.sh flame)

echo "1 of 2: physics alone, 2 ranks"
launch/reactive_flow/run.sh flame_2d 2 --set controller.mode=physics --set output.pictures=false --out "$folder/physics" "$@"
echo
echo "2 of 2: certified, 2 ranks, which begin with a model that has seen another flame"
launch/reactive_flow/run.sh flame_2d 2 --set "learning.start=$PWD/launch/reactive_flow/taught" --set learning.mode=off \
  --set exchange.transport=inprocess --set output.pictures=false --out "$folder/certified" "$@"
.venv/bin/python launch/demo.py "$folder/physics" "$folder/certified"
echo "page     $(.venv/bin/coupler report "$folder/physics" "$folder/certified" --out "$folder/report.html")"
