#!/usr/bin/env bash
# Run the case: launch/cavity/run.sh [RANKS] [--set section.key=value ...]
exec "$(dirname "${BASH_SOURCE[0]}")/../run.sh" launch/cavity/case.toml "$@"
