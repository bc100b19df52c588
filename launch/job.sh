#!/usr/bin/env bash
# What every batch script does once it knows its job: launch/job.sh CASE.toml [--set section.key=value ...]
#
#   COUPLER_JOB      name of the run's folder, the same when the job comes again
#   COUPLER_RUNS     where that folder lies, such as a disk for large files; runs
#   COUPLER_RANKS    ranks
#   COUPLER_NODES    nodes of the job, as launch/ray_cluster.sh takes them
#   COUPLER_SERVERS  ray.servers of the case, where the job decides it: a resource of some of its nodes
#   COUPLER_SWEEP    a file of which line COUPLER_TASK (from 0) is this run's own section.key=value ...
#   COUPLER_SECONDS  after so many the run is asked to stop; never, if unset
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case=${1:?"job.sh: name a case"}
shift
read -ra nodes <<<"$COUPLER_NODES"
settings=("$@")
folder=${COUPLER_RUNS:-runs}/$COUPLER_JOB
if [[ -n ${COUPLER_SERVERS:-} ]]; then
  settings+=(--set "ray.servers=$COUPLER_SERVERS")
fi
if [[ -n ${COUPLER_SWEEP:-} ]]; then
  folder=$folder/$(printf %03d "$COUPLER_TASK")
  line=$(sed -n "$((COUPLER_TASK + 1))p" "$COUPLER_SWEEP")
  [[ -n $line ]] || { echo "job.sh: $COUPLER_SWEEP has no line for task $COUPLER_TASK" >&2; exit 2; }
  mapfile -t words < <(xargs -n 1 <<<"$line") # words as in a shell, quotes and all
  for word in "${words[@]}"; do
    settings+=(--set "$word")
  done
fi
export COUPLER_RESUME=yes # the folder is this job's own: whatever is in it, it did itself before it came again

command=(launch/run.sh "$case" "$COUPLER_RANKS" --out "$folder" "${settings[@]}")
if ((${#nodes[@]} > 1)); then
  command=(launch/ray_cluster.sh "${command[@]}") # on one node, a run starts a cluster of its own
fi
if [[ -n ${COUPLER_SECONDS:-} ]]; then
  command=(timeout --foreground --preserve-status --signal=USR1 "$COUPLER_SECONDS" "${command[@]}")
fi
exec "${command[@]}"
