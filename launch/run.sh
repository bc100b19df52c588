#!/usr/bin/env bash
# Run a case under mpirun: launch/run.sh CASE.toml [RANKS] [--set section.key=value ...]; the case from the root of the checkout.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case=${1:?"run.sh: name a case, as in launch/run.sh launch/bz/case.toml"}
shift
ranks=2
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then
  ranks=$1
  shift
fi
export PATH="$PWD/.venv/bin:$PATH"
export OMPI_MCA_mpi_yield_when_idle=1 # a rank that waits gives its core to the server
if ((EUID == 0)); then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
exec mpirun --oversubscribe -n "$ranks" coupler run "$case" "$@"
