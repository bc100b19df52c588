#!/usr/bin/env bash
# Make the first folder NAME-NNN that is not there yet and say which: launch/free_folder.sh NAME
#
#   COUPLER_RUNS   where it lies; runs
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

name=${1:?"free_folder.sh: give a name"}
runs=${COUPLER_RUNS:-runs}
mkdir -p "$runs"
[[ -w $runs ]] || { echo "free_folder.sh: $runs cannot be written" >&2; exit 2; }
number=1
until mkdir "$runs/$name-$(printf %03d "$number")" 2>/dev/null; do
  number=$((number + 1))
done
echo "$runs/$name-$(printf %03d "$number")"
