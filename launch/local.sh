#!/usr/bin/env bash
# Run a case on a workstation: launch/local.sh CASE.toml [RANKS] [--set section.key=value ...]
#
# As many ranks as cores less those of the server, unless RANKS says otherwise, each on cores of its own; a folder of its
# own below runs/, and up to COUPLER_TRIES (3) resumes from its checkpoints. `coupler doctor` says what this machine lacks.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case=${1:?"local.sh: name a case, as in launch/local.sh launch/bz/case.toml"}
shift
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then
  ranks=$1
  shift
else
  ranks=$((($(nproc) - ${COUPLER_SERVER_CORES:-1}) / ${COUPLER_THREADS:-1}))
  ranks=$((ranks > 0 ? ranks : 1))
fi
name=$(basename "$(dirname "$(realpath "$case")")")
folder=$(launch/free_folder.sh "$name")
exec env COUPLER_LAUNCHER=mpirun launch/run.sh "$case" "$ranks" --out "$folder" "$@"
