#!/usr/bin/env bash
# Compile burn.c to libburn.so beside it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

compiler=${CC:-cc}
command -v "$compiler" >/dev/null || {
  echo "There is no C compiler \"$compiler\": install one (apt-get install gcc, or module load gcc), or name yours: CC=icx $0" >&2
  exit 1
}
# To another name first: a run that starts meanwhile finds the old library or the new one. No -ffast-math: with it a
# row's answer may depend on the rows beside it.
"$compiler" -O3 -fPIC -shared -o libburn.so.part burn.c -lm
mv libburn.so.part libburn.so
echo "made $PWD/libburn.so"
