#!/usr/bin/env bash
# Run the Lorenz-96 case: launch/lorenz96/run.sh [RANKS] [--set section.key=value ...]
exec "$(dirname "${BASH_SOURCE[0]}")/../run.sh" launch/lorenz96/case.toml "$@"
