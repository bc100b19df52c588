#!/usr/bin/env bash
# A chaotic system once by physics alone and once certified, other members in each, and whether their climates agree:
# launch/compare.sh FOLDER [--set section.key=value ...], with FOLDER/compare.py to say what a climate is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

system=${1:?"compare.sh: name a folder of launch/, as in launch/compare.sh lorenz96"}
shift
folder=$(launch/free_folder.sh "$system")

"launch/$system/run.sh" 2 --set kernel.params.seed=1 --set controller.mode=physics --out "$folder/physics" "$@"
"launch/$system/run.sh" 2 --set kernel.params.seed=2 --out "$folder/certified" "$@"
.venv/bin/python "launch/$system/compare.py" "$folder/physics" "$folder/certified"
