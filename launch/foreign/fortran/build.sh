#!/usr/bin/env bash
# Compile growth.f90 to libgrowth.so beside it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

compiler=${FC:-gfortran}
command -v "$compiler" >/dev/null || {
  echo "There is no Fortran compiler \"$compiler\": install one (apt-get install gfortran, or module load gcc), or name yours: FC=ifx $0" >&2
  exit 1
}
# To another name first: a run that starts meanwhile finds the old library or the new one.
"$compiler" -O3 -fPIC -shared -J "$(mktemp -d)" -o libgrowth.so.part growth.f90
mv libgrowth.so.part libgrowth.so
echo "made $PWD/libgrowth.so"
