#!/usr/bin/env bash
# Teach a model before the runs that it is for: launch/teach.sh CASE.toml FOLDER [RANKS] [--set section.key=value ...]
#
# The settings make a relative of the case, which is solved by physics and recorded. A model is trained on that and
# answers in the same relative; what its answers led to is collected, and the next model is trained on both, twice. A part
# that is there already is not done again, and a run that was interrupted goes on. docs/howto/begin-trained.md says more.
#
#   COUPLER_SECONDS   processor time of the last training [s]; 300, two thirds of it for those before
#   COUPLER_FIRST     --set ... for the trainings before the last, as jolts that make up for what is not collected yet
#   COUPLER_TRAINERS  ranks that share the last training, no more than the surrogate has members; 1
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly MISTAKE=2

case=$(realpath "${1:?"teach.sh: name a case, as in launch/teach.sh launch/reactive_flow/flame_2d.toml runs/taught"}")
folder=$(realpath -m "${2:?"teach.sh: name a folder for what is made, as in launch/teach.sh $1 runs/taught"}")
shift 2
ranks=2
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then
  ranks=$1
  shift
fi
relative=("$@")
last=${COUPLER_SECONDS:-300}
trainers=${COUPLER_TRAINERS:-1}
read -ra first <<<"${COUPLER_FIRST:-}"
cd "$here/.."
export PATH="$PWD/${COUPLER_VENV:-.venv}/bin:$PATH"

# What was asked for is written down: half of one model and half of another would be none.
asked="$case --seconds $last ${relative[*]} :first ${first[*]}"
if ((trainers > 1)); then asked+=" :trainers $trainers"; fi
if [[ -d $folder && -n $(ls -A "$folder") && $(cat "$folder/asked.txt" 2>/dev/null) != "$asked" ]]; then
  echo "teach.sh: $folder holds something else already: name a new folder, or type what $folder/asked.txt says" >&2
  exit "$MISTAKE"
fi
mkdir -p "$folder"
echo "$asked" >"$folder/asked.txt"

solve() {
  grep -qs '"status": "finished"' "$folder/$1/summary.json" && return
  if [[ -z $(ls -A "$folder/$1/checkpoints" 2>/dev/null) ]]; then rm -rf "${folder:?}/$1"; fi
  local began=$SECONDS
  COUPLER_RESUME=yes "$here/run.sh" "$case" "$ranks" --out "$folder/$1" "${relative[@]}" "${@:2}"
  echo "$((SECONDS - began)) $1" >>"$folder/seconds.txt"
}
train() { # RANKS NAME SECONDS WHAT...
  local who=() began=$SECONDS
  if (($1 > 1)); then who=("$here/ranks.sh" "$1"); fi
  shift
  [[ -d $folder/$1 && ! -e $folder/$1/.lock ]] && return
  rm -rf "${folder:?}/$1"
  "${who[@]}" coupler train --seconds "$2" --out "$folder/$1" "${@:3}"
  echo "$((SECONDS - began)) $1" >>"$folder/seconds.txt"
}

truth=("$folder/recorded")
solve recorded --set controller.mode=physics --set output.tape=true
for round in 1 2; do
  train 1 "model-$round" $((last * 2 / 3)) "${truth[@]}" "${first[@]}"
  solve "collected-$round" --set "learning.start=$folder/model-$round" --set learning.mode=collect
  truth+=("$folder/collected-$round")
done
train "$trainers" model "$last" "${truth[@]}"
echo "begin with it: --set learning.start=$folder/model --set learning.mode=off"
