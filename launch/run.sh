#!/usr/bin/env bash
# Run a case on ranks: launch/run.sh CASE.toml [RANKS] [--out DIR] [--set section.key=value ...]
#
# Given --out, a run that was stopped or lost a rank goes on from its last checkpoint; see launch/again.sh. How ranks are
# started, and on which cores, says launch/ranks.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

case=${1:?"run.sh: name a case, as in launch/run.sh launch/bz/case.toml"}
shift
ranks=2
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then
  ranks=$1
  shift
fi
cd "$here/.."
export PATH="$PWD/${COUPLER_VENV:-.venv}/bin:$PATH" # without such a folder, the coupler that is on PATH
start=("$here/ranks.sh" "$ranks" coupler)

out=""
words=("$@")
for index in "${!words[@]}"; do
  case ${words[index]} in
    --out) out=${words[index + 1]:-} ;;
    --out=*) out=${words[index]#--out=} ;;
  esac
done
if [[ -z $out ]]; then
  exec "${start[@]}" run "$case" "$@"
fi
exec "$here/again.sh" "$out" "${start[@]}" run "$case" "$@" :then "${start[@]}" resume "$out"
