#!/usr/bin/env bash
# A run under PBS Professional or OpenPBS. From the root of the checkout:
#
#   qsub -v CASE=CASE.toml launch/pbs.sh
#   qsub -v CASE=CASE.toml,SETTINGS="run.steps=10 controller.target=0.01" launch/pbs.sh
#   qsub -v CASE=CASE.toml,COUPLER_SWEEP=sweep.txt -J 0-7 launch/pbs.sh             eight runs, a line of the file for each
#
# Five minutes before its time is up the run writes a checkpoint and the next job of the chain is sent off, which goes on
# from there. PBS gives that one the resources written below, not those on a command line: change them here.
#PBS -N coupler
#PBS -l select=1:ncpus=8:mpiprocs=7
#PBS -l walltime=24:00:00
#PBS -j oe
#PBS -r y
set -euo pipefail
cd "$PBS_O_WORKDIR"
source launch/signals.sh

# The seconds that the job may take by its walltime, HH:MM:SS; nothing if PBS does not say.
walltime() {
  qstat -f "$PBS_JOBID" | sed -n 's/ *Resource_List.walltime = //p' | awk -F: '{ print $1 * 3600 + $2 * 60 + $3 }'
}

# A line of the node file is a rank; a host's lines stand together.
COUPLER_HOSTS=$(uniq -c "$PBS_NODEFILE" | awk '{ print $2 ":" $1 }' | paste -s -d ,)
COUPLER_NODES=$(uniq "$PBS_NODEFILE" | paste -s -d ' ')
COUPLER_RANKS=${COUPLER_RANKS:-$(wc -l <"$PBS_NODEFILE")}
COUPLER_NODE_CORES=${NCPUS:-$(nproc)}
COUPLER_JOB=${COUPLER_JOB:-${PBS_JOBNAME:-coupler}-${PBS_JOBID%%[.[]*}}
COUPLER_TASK=${PBS_ARRAY_INDEX:-${COUPLER_TASK:-0}}
if [[ -z ${COUPLER_SECONDS:-} ]] && seconds=$(walltime) && [[ -n $seconds ]]; then
  COUPLER_SECONDS=$((seconds > 600 ? seconds - 300 : seconds / 2))
fi
if [[ $COUPLER_NODES != *" "* ]]; then
  COUPLER_HOSTS="" # one node: mpirun need not be told
fi
export COUPLER_HOSTS COUPLER_NODES COUPLER_RANKS COUPLER_NODE_CORES COUPLER_JOB COUPLER_TASK COUPLER_SECONDS

settings=()
for setting in ${SETTINGS:-}; do
  settings+=(--set "$setting")
done
run_child launch/job.sh "${CASE:?pbs.sh: name a case, qsub -v CASE=CASE.toml launch/pbs.sh}" "${settings[@]}"
if ((status == 75)); then
  # Users of PBS may not put a job back into the queue themselves.
  qsub -v "CASE=$CASE,SETTINGS=${SETTINGS:-},COUPLER_JOB=$COUPLER_JOB,COUPLER_TASK=$COUPLER_TASK,COUPLER_SWEEP=${COUPLER_SWEEP:-}" launch/pbs.sh
fi
exit "$status"
