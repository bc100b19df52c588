# shellcheck shell=bash
# Sourced: run a command, and pass on to it what a batch system tells this script.
#
# SIGUSR1 ("your time is nearly up") and SIGTERM both reach the ranks as SIGUSR1, upon which they write a checkpoint and
# end with code 75: sent as it is, SIGTERM would make mpirun kill them. Ctrl-C ends the ranks at once.

asked="" # the signal that came; empty until then
child=""
interrupted=""
status=0

pass_on() {
  asked=$1
  interrupted=yes
  if [[ -n $child ]]; then
    kill -s "$2" "$child" 2>/dev/null || true
  fi
}
trap 'pass_on USR1 USR1' USR1
trap 'pass_on TERM USR1' TERM
trap 'pass_on INT TERM' INT

# Run a command to its end and leave its exit code in $status. A signal interrupts bash's wait, which then gives the
# signal's number instead of the code; asked again, it gives the code, also of a child that has ended meanwhile.
run_child() {
  "$@" &
  child=$!
  if [[ -n $asked ]]; then
    kill -s USR1 "$child" 2>/dev/null || true # it came before there was anybody to tell
  fi
  interrupted=yes
  while [[ -n $interrupted ]]; do
    interrupted=""
    status=0
    # shellcheck disable=SC2034 # for whoever sources this
    wait "$child" || status=$?
  done
  child=""
}
