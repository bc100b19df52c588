#!/usr/bin/env bash
# A Ray cluster for as long as a command runs: launch/ray_cluster.sh COMMAND...
#
# The command finds it in RAY_ADDRESS and its token in RAY_AUTH_TOKEN_PATH, a file of mode 0600 on every node; the token
# is drawn here and goes to the nodes through pipes. No port is fixed. On one machine the cluster listens on loopback. It
# ends with this script: every node works only while its pipe is open, and a pipe closes however its owner ends.
#
#   COUPLER_NODES         the nodes, separated by spaces, the one of rank 0 first; this machine alone if unset. NODE=NAME
#                         gives the node the Ray resource NAME, so that ray.servers = "NAME" puts servers there
#   COUPLER_INTERFACE     the network device they meet on, such as ib0 or hsn0; if unset, the way from one to the other
#   COUPLER_RAY_SECONDS   the longest that a node may take to be there; 90
#   COUPLER_AGENT         how nodes are reached; see launch/on_node.sh
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/signals.sh"

(($#)) || { echo "ray_cluster.sh: no command, as in launch/ray_cluster.sh launch/run.sh CASE.toml 4" >&2; exit 2; }
export PATH="$here/../${COUPLER_VENV:-.venv}/bin:$PATH"
python=$(command -v python)
read -ra nodes <<<"${COUPLER_NODES:-localhost}"
seconds=${COUPLER_RAY_SECONDS:-90}
usual=$(umask)
umask 077
work=$(mktemp -d)                            # what the nodes say, here only
name=$(od -An -N4 -tx1 /dev/urandom | tr -d ' \n')
token=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
folder=/tmp/coupler-ray-$name                # on every node; short, as the names of sockets must be
holds=()
keepers=()

say() { echo "ray_cluster.sh: $1" >&2; }

# Start a node and keep the writing end of its pipe. The path of this checkout goes along: ssh brings no environment.
start() { # NODE OPTIONS...
  local node=${1%%=*} number=${#holds[@]} hold
  shift
  if [[ ${nodes[number]} == *=* ]]; then
    set -- "$@" --resource="${nodes[number]#*=}"
  fi
  exec {hold}> >(
    let_go
    exec "$here/on_node.sh" "$node" env "PYTHONPATH=$here/..${PYTHONPATH:+:$PYTHONPATH}" \
      "$python" -m coupler.serving.node "$folder" "$@" >"$work/$number" 2>&1
  )
  keepers+=("$!")
  holds+=("$hold")
  echo "$token" >&"$hold"
}

# Close this process's copies of the pipes: a node ends when the last copy is closed.
let_go() {
  local hold
  for hold in "${holds[@]}"; do
    exec {hold}>&-
  done
}

# Wait until a node says where its cluster is, and leave that in $address.
wait_for() { # NUMBER
  local ends=$((SECONDS + seconds)) said
  until said=$(grep --max-count=1 '^ready ' "$work/$1" 2>/dev/null); do
    if [[ -n $asked ]]; then
      say "asked to stop by SIG$asked before the cluster was there"
      exit 1
    elif ! kill -0 "${keepers[$1]}" 2>/dev/null; then
      say "no Ray on ${nodes[$1]}: $(tail -n 5 "$work/$1")"
      exit 1
    elif ((SECONDS >= ends)); then
      say "no Ray on ${nodes[$1]} within $seconds s; what it said: $(tail -n 5 "$work/$1")"
      exit 1
    fi
    sleep 0.1
  done
  address=${said#ready }
}

# shellcheck disable=SC2329 # the trap below calls it
tear_down() {
  local keeper ends=$((SECONDS + 20)) # a node needs some seconds; one that nobody reaches any more is not waited for
  trap '' USR1 TERM INT
  let_go
  for keeper in "${keepers[@]}"; do
    while kill -0 "$keeper" 2>/dev/null && ((SECONDS < ends)); do sleep 0.05; done
    kill "$keeper" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap tear_down EXIT

interface=(${COUPLER_INTERFACE:+"--interface=$COUPLER_INTERFACE"})
if ((${#nodes[@]} == 1)); then
  start "${nodes[0]}" --alone
else
  start "${nodes[0]}" --towards="${nodes[1]%%=*}" "${interface[@]}"
fi
wait_for 0
head=$address
for node in "${nodes[@]:1}"; do
  start "$node" --join="$head" "${interface[@]}"
done
for ((number = 1; number < ${#nodes[@]}; number++)); do
  wait_for "$number"
done
say "Ray is on ${#nodes[@]} node(s), at $head"

# shellcheck disable=SC2329 # run_child calls it
with_cluster() {
  let_go
  umask "$usual"
  if ((${#nodes[@]} == 1)); then
    export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 # or the driver looks for the cluster at the address of the network
  fi
  export RAY_ADDRESS=$head RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$folder/token
  exec "$@"
}
run_child with_cluster "$@"
exit "$status"
