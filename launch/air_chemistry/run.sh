#!/usr/bin/env bash
# Run the air chemistry case: launch/air_chemistry/run.sh [RANKS] [--set section.key=value ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

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
exec mpirun --oversubscribe -n "$ranks" coupler run launch/air_chemistry/case.toml "$@"
