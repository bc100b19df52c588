#!/usr/bin/env bash
# Run the Kuramoto-Sivashinsky case: launch/kuramoto_sivashinsky/run.sh [RANKS] [--set section.key=value ...]
exec "$(dirname "${BASH_SOURCE[0]}")/../run.sh" launch/kuramoto_sivashinsky/case.toml "$@"
