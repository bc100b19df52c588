#!/usr/bin/env bash
# A run under Flux. From the root of the checkout:
#
#   flux batch launch/flux.sh CASE.toml [--set section.key=value ...]
#   flux batch --nodes=4 launch/flux.sh CASE.toml                                   several nodes, a server on each
#   COUPLER_SWEEP=sweep.txt flux bulksubmit --wait --env=COUPLER_TASK={} flux batch launch/flux.sh CASE.toml ::: $(seq 0 7)
#
# Five minutes before its time is up the run writes a checkpoint and the next job of the chain is sent off, which goes on
# from there. That one gets the resources written below, not those on a command line: change them here.
# flux: --job-name=coupler
# flux: --nodes=1
# flux: --exclusive
# flux: --time-limit=24h
# flux: --output=coupler-{{id}}.out
set -euo pipefail
cd "${COUPLER_ROOT:-$PWD}" # Flux runs a copy of this file, in the folder it was sent off from
source launch/signals.sh

COUPLER_NODES=$(flux hostlist --expand local)
read -ra nodes <<<"$COUPLER_NODES"
cores=$(flux resource list --states=free --no-header --format='{ncores}')
COUPLER_RANKS=${COUPLER_RANKS:-$((cores > ${#nodes[@]} ? cores - ${#nodes[@]} : 1))} # less one core per node, for its server
COUPLER_JOB=${COUPLER_JOB:-coupler-$(flux getattr jobid)}
COUPLER_TASK=${COUPLER_TASK:-0}
if [[ -z ${COUPLER_SECONDS:-} ]] && seconds=$(flux job timeleft 2>/dev/null) && [[ $seconds =~ ^[0-9]+$ ]]; then
  COUPLER_SECONDS=$((seconds > 600 ? seconds - 300 : seconds / 2))
fi
export COUPLER_NODES COUPLER_RANKS COUPLER_JOB COUPLER_TASK COUPLER_SECONDS

run_child launch/job.sh "$@"
if ((status == 75)); then
  flux --parent batch --env="COUPLER_JOB=$COUPLER_JOB" --env="COUPLER_TASK=$COUPLER_TASK" launch/flux.sh "$@"
fi
exit "$status"
