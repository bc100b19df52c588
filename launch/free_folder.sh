#!/usr/bin/env bash
# Make the first folder runs/NAME-NNN that is not there yet and say which: launch/free_folder.sh NAME
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

name=${1:?"free_folder.sh: give a name"}
mkdir -p runs
number=1
until mkdir "runs/$name-$(printf %03d "$number")" 2>/dev/null; do
  [[ -w runs ]] || { echo "free_folder.sh: $PWD/runs cannot be written" >&2; exit 1; }
  number=$((number + 1))
done
echo "runs/$name-$(printf %03d "$number")"
