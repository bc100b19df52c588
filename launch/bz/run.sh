#!/usr/bin/env bash
# Run the BZ case: launch/bz/run.sh [RANKS] [--set section.key=value ...]
exec "$(dirname "${BASH_SOURCE[0]}")/../run.sh" launch/bz/case.toml "$@"
