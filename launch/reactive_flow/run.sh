#!/usr/bin/env bash
# Run a case of this folder: launch/reactive_flow/run.sh [CASE] [RANKS] [--set section.key=value ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

case=ignition_2d
ranks=2
if [[ "${1:-}" =~ ^[a-z] ]]; then
  case=$1
  shift
fi
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then
  ranks=$1
  shift
fi
if [[ ! -e launch/reactive_flow/$case.toml ]]; then
  echo "run.sh: there is no case \"$case\" in launch/reactive_flow: $(cd launch/reactive_flow && echo *.toml)" >&2
  exit 2
fi
export PATH="$PWD/.venv/bin:$PATH"
export OMPI_MCA_mpi_yield_when_idle=1 # a rank that waits gives its core to the server
if ((EUID == 0)); then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
exec mpirun --oversubscribe -n "$ranks" coupler run "launch/reactive_flow/$case.toml" "$@"
