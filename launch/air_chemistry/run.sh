#!/usr/bin/env bash
# Run the air chemistry case: launch/air_chemistry/run.sh [RANKS] [--set section.key=value ...]
exec "$(dirname "${BASH_SOURCE[0]}")/../run.sh" launch/air_chemistry/case.toml "$@"
