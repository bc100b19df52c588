#!/usr/bin/env bash
# Run a case of this folder: launch/reactive_flow/run.sh [CASE] [RANKS] [--set section.key=value ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

case=ignition_2d
if [[ "${1:-}" =~ ^[a-z] ]]; then
  case=$1
  shift
fi
if [[ ! -e launch/reactive_flow/$case.toml ]]; then
  echo "run.sh: there is no case \"$case\" in launch/reactive_flow: $(cd launch/reactive_flow && echo *.toml)" >&2
  exit 2
fi
exec launch/run.sh "launch/reactive_flow/$case.toml" "$@"
