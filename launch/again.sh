#!/usr/bin/env bash
# Bring a run to its end over interruptions: launch/again.sh DIR FIRST... :then LATER...
#
# FIRST starts the run in the folder DIR, LATER goes on from the last checkpoint in DIR/checkpoints. After FIRST, LATER is
# tried while the run ends with code 75 (it was asked to stop and wrote a checkpoint) or because a rank died, and has
# checkpoints. Code 2 is a mistake in what was typed and would be the same again. When this script itself was asked to
# stop (SIGUSR1, SIGTERM: the time of the job is nearly up), it passes that on and tries nothing more here.
#
#   COUPLER_TRIES    how often LATER may be tried; 3
#   COUPLER_RESUME   yes: begin with LATER where DIR has checkpoints, as in a job that was put into the queue again
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/signals.sh"

readonly MISTAKE=2 STOPPED=75 INTERRUPTED=130
directory=${1:?"again.sh: name the run folder, as in launch/again.sh DIR FIRST... :then LATER..."}
shift
first=()
while (($#)) && [[ $1 != :then ]]; do
  first+=("$1")
  shift
done
(($# > 1)) || { echo "again.sh: no command after :then" >&2; exit "$MISTAKE"; }
later=("${@:2}")
tries=${COUPLER_TRIES:-3}

say() { echo "again.sh: $1" >&2; }

# The newest file of all checkpoints with its time; empty where there is none.
newest() {
  [[ -d $directory/checkpoints ]] || return 0
  find "$directory/checkpoints" -type f -printf '%T@ %p\n' | sort -n | tail -n 1
}

command=("${first[@]}")
if [[ ${COUPLER_RESUME:-no} == yes && -n $(newest) ]]; then
  say "$directory has checkpoints: going on from there"
  command=("${later[@]}")
fi
while true; do
  before=$(newest)
  run_child "${command[@]}"
  case $status in
    0 | "$MISTAKE" | "$INTERRUPTED") exit "$status" ;;
  esac
  now=$(newest)
  if [[ -n $asked ]]; then
    say "asked to stop by SIG$asked; the run ended with code $status. To go on: ${later[*]}"
    exit "$status"
  elif [[ -z $now ]]; then
    say "the run ended with code $status before its first checkpoint, so there is nothing to go on from"
    exit "$status"
  elif ((status != STOPPED)) && [[ $now == "$before" ]]; then
    say "the run ended with code $status and came to no new checkpoint: it would end the same way again"
    exit "$status"
  elif ((tries <= 0)); then
    say "the run ended with code $status, and there are no tries left. To go on: ${later[*]}"
    exit "$status"
  fi
  tries=$((tries - 1))
  say "the run ended with code $status: going on from its last checkpoint, tries left after this one: $tries"
  command=("${later[@]}")
done
