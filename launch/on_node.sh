#!/usr/bin/env bash
# Run a command on one node of the job, with this script's standard input and output: launch/on_node.sh NODE COMMAND...
#
#   COUPLER_AGENT   a program that is called with NODE and a command line as ssh is; ssh, if the job is not of Slurm or Flux
#
# NODE "localhost" is this one, and needs no agent.
set -euo pipefail

node=${1:?"on_node.sh: name a node"}
shift

# The component of a heterogeneous job that a node is in, as srun wants it.
component_of() {
  local number list
  for ((number = 0; number < ${SLURM_HET_SIZE:-0}; number++)); do
    list=SLURM_JOB_NODELIST_HET_GROUP_$number
    if scontrol show hostnames "${!list}" | grep --quiet --line-regexp --fixed-strings "$1"; then
      echo "--het-group=$number"
      return
    fi
  done
}

if [[ $node == localhost ]]; then
  exec "$@"
elif [[ -n ${COUPLER_AGENT:-} ]]; then
  exec "$COUPLER_AGENT" "$node" "$(printf '%q ' "$@")"
elif [[ -n ${SLURM_JOB_ID:-} ]]; then
  component=$(component_of "$node")
  # --overlap: beside the ranks, on the same cores; what starts here moves to the cores that no rank is bound to.
  exec srun ${component:+"$component"} --overlap --nodes=1 --ntasks=1 --nodelist="$node" --cpu-bind=none --mpi=none --unbuffered "$@"
elif [[ -n ${FLUX_URI:-} ]]; then
  exec flux exec --quiet --rank="$(flux overlay lookup "$node")" "$@"
else
  exec ssh -o BatchMode=yes "$node" "$(printf '%q ' "$@")"
fi
