#!/usr/bin/env bash
# launch/mpirun.sh -- starts ranks on this machine (or on the hosts of MPIRUN_ARGS) with Open MPI.
#   mpirun.sh RANKS COMMAND [ARG ...]       e.g.  launch/mpirun.sh 8 build/launch/sluice train configs/kda-1b.yaml
# Every rank runs the same command. More ranks than cores are allowed. MPIRUN_ARGS is passed on, e.g. "--hostfile hosts".
# Exits 77 if there is no mpirun.
set -euo pipefail
ranks=${1:?usage: mpirun.sh RANKS COMMAND [ARG ...]}
shift
[ $# -gt 0 ] || { echo "usage: mpirun.sh RANKS COMMAND [ARG ...]" >&2; exit 2; }
if ! command -v mpirun >/dev/null; then
  echo "mpirun.sh: SKIPPED: there is no mpirun (launch/setup.sh installs Open MPI)" >&2
  exit 77
fi
if [ "$(id -u)" -eq 0 ]; then  # containers
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# One machine needs no remote shell.
if [ -z "${MPIRUN_ARGS:-}" ]; then
  export OMPI_MCA_plm=isolated
fi
# Each rank takes its share of the machine itself, so MPI must not bind it to one core.
# shellcheck disable=SC2086
exec mpirun -np "$ranks" --oversubscribe --bind-to none ${MPIRUN_ARGS:-} "$@"
