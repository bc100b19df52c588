#!/usr/bin/env bash
# Run the case: launch/gray_scott/run.sh [RANKS] [--set section.key=value ...]
exec "$(dirname "${BASH_SOURCE[0]}")/../run.sh" launch/gray_scott/case.toml "$@"
