#!/usr/bin/env bash
# Teach a model before the runs that it is for: launch/teach.sh CASE.toml FOLDER [RANKS] [--set section.key=value ...]
#
# The settings make a relative of the case, which is solved by physics and recorded. A model is trained on that and
# answers in the same relative; what its answers led to is collected, and the next model is trained on both, twice. Each
# part that is there already is not done again. docs/howto/begin-trained.md says more.
#
#   COUPLER_SECONDS   processor time of the last training [s]; 300, two thirds of it for those before
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

case=${1:?"teach.sh: name a case, as in launch/teach.sh launch/reactive_flow/flame_2d.toml runs/taught"}
folder=${2:?"teach.sh: name a folder for what is made, as in launch/teach.sh $case runs/taught"}
shift 2
ranks=2
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then
  ranks=$1
  shift
fi
relative=("$@")
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$here/.."
export PATH="$PWD/${COUPLER_VENV:-.venv}/bin:$PATH"
last=${COUPLER_SECONDS:-300}

solve() {
  grep -qs '"status": "finished"' "$folder/$1/summary.json" && return
  rm -rf "${folder:?}/$1"
  "$here/run.sh" "$case" "$ranks" --out "$folder/$1" "${relative[@]}" "${@:2}"
}
train() {
  [[ -d $folder/$1 && ! -e $folder/$1/.lock ]] && return
  rm -rf "${folder:?}/$1"
  coupler train "${@:3}" --seconds "$2" --out "$folder/$1"
}

truth=("$folder/recorded")
solve recorded --set controller.mode=physics --set output.tape=true
for round in 1 2; do
  train "model-$round" $((last * 2 / 3)) "${truth[@]}"
  solve "collected-$round" --set "learning.start=$folder/model-$round" --set learning.mode=collect
  truth+=("$folder/collected-$round")
done
train model "$last" "${truth[@]}"
echo "begin with it: --set learning.start=$folder/model --set learning.mode=off"
