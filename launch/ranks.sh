#!/usr/bin/env bash
# Start a command on N ranks with what starts ranks here: launch/ranks.sh N COMMAND...
#
#   COUPLER_LAUNCHER       srun, flux or mpirun; if unset, what the job that this is in belongs to, and mpirun elsewhere
#   COUPLER_HOSTS          for mpirun, HOST:RANKS,HOST:RANKS,...; this machine if unset
#   COUPLER_THREADS        threads of a rank, on as many cores of its own; 1
#   COUPLER_SERVER_CORES   cores of a node that no rank is bound to, for server and trainer; 1
#   COUPLER_BIND           core or none; if unset, core where ranks and server fit the cores of a node
#   COUPLER_SRUN_MPI       srun --mpi=...; pmix (Open MPI), for MPICH pmi2
#
# `launch/ranks.sh N coupler doctor` shows who then runs where.
set -euo pipefail

ranks=${1:?"ranks.sh: say how many ranks, as in launch/ranks.sh 4 coupler doctor"}
shift
threads=${COUPLER_THREADS:-1}
export OMP_NUM_THREADS=$threads NUMBA_NUM_THREADS=$threads
export OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
export OMPI_MCA_mpi_yield_when_idle=1 # a rank that waits gives its core to the server; nobody but Open MPI reads it

if [[ -z ${COUPLER_LAUNCHER:-} ]]; then
  if [[ -n ${SLURM_JOB_ID:-} ]]; then
    COUPLER_LAUNCHER=srun
  elif [[ -n ${FLUX_URI:-} ]]; then
    COUPLER_LAUNCHER=flux
  else
    COUPLER_LAUNCHER=mpirun
  fi
fi

# The most ranks that one node has: of COUPLER_HOSTS, or of NODES equal ones.
most_ranks_of_a_node() {
  if [[ -n ${COUPLER_HOSTS:-} ]]; then
    tr , '\n' <<<"$COUPLER_HOSTS" | sed 's/.*://' | sort -n | tail -n 1
  else
    local nodes=${1:-1}
    echo $(((ranks + nodes - 1) / nodes))
  fi
}

# core or none, from the ranks and the cores of a node.
binding() {
  local needed=$(($1 * threads + ${COUPLER_SERVER_CORES:-1}))
  if ((needed <= $2)); then
    echo "${COUPLER_BIND:-core}"
  else
    echo "${COUPLER_BIND:-none}"
  fi
}

with_srun() {
  local group=() bind
  if [[ -n ${SLURM_HET_SIZE:-} ]]; then
    group=(--het-group=0) # the ranks; servers are on the other components
  fi
  bind=$(binding "$(most_ranks_of_a_node "${SLURM_NNODES:-1}")" "${SLURM_CPUS_ON_NODE:-$(nproc)}")
  # --whole: a step has all cores of its nodes, so that a server beside bound ranks has some, too.
  exec srun "${group[@]}" --ntasks="$ranks" --cpus-per-task="$threads" --whole --overlap --kill-on-bad-exit=1 \
    --mpi="${COUPLER_SRUN_MPI:-pmix}" --cpu-bind="${bind/core/cores}" "$@"
}

with_flux() {
  local bind
  bind=$(binding "$(most_ranks_of_a_node "$(flux resource list --states=free --no-header --format='{nnodes}')")" "$(nproc)")
  exec flux run --ntasks="$ranks" --cores-per-task="$threads" -o "cpu-affinity=$([[ $bind == core ]] && echo per-task || echo off)" "$@"
}

with_mpirun() {
  local bind here
  here=$(most_ranks_of_a_node)
  bind=$(binding "$here" "${COUPLER_NODE_CORES:-$(nproc)}")
  case $(mpirun --version 2>&1) in
    *"Open MPI"*) with_open_mpi "$bind" "$@" ;;
    *HYDRA* | *MPICH* | *Intel*) with_hydra "$bind" "$@" ;;
    *) exec mpirun -n "$ranks" "$@" ;;
  esac
}

with_open_mpi() {
  local bind=$1 options=()
  shift
  if ((EUID == 0)); then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  fi
  if [[ -z ${COUPLER_HOSTS:-} ]]; then
    export OMPI_MCA_btl=${OMPI_MCA_btl:-self,sm} # on one machine no rank need listen on the network
  else
    options+=(--host "$COUPLER_HOSTS") # no --oversubscribe: with it, all ranks go to the first host
  fi
  if [[ $bind == core ]]; then
    options+=(--map-by "slot:PE=$threads" --bind-to core)
  elif [[ -n ${COUPLER_HOSTS:-} ]]; then
    options+=(--map-by slot --bind-to none)
  else
    options+=(--oversubscribe --bind-to none)
  fi
  exec mpirun "${options[@]}" -n "$ranks" "$@"
}

with_hydra() {
  local bind=$1 options=()
  shift
  if [[ -n ${COUPLER_HOSTS:-} ]]; then
    options+=(-hosts "$COUPLER_HOSTS")
  fi
  if [[ $bind == core ]]; then
    options+=(-bind-to "core:$threads")
  fi
  exec mpirun "${options[@]}" -n "$ranks" "$@"
}

"with_$COUPLER_LAUNCHER" "$@"
