#!/usr/bin/env bash
# The same system once by physics alone and once certified, other members in each, and whether the climate of X and Y agrees.
exec "$(dirname "${BASH_SOURCE[0]}")/../compare.sh" lorenz96 "$@"
