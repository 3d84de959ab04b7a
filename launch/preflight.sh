#!/usr/bin/env bash
# launch/preflight.sh -- `sluice doctor` on the ranks that a run will have, before it starts.
#   preflight.sh RANKS CONFIG [--set a.b=c ...]        on this machine, or the hosts of MPIRUN_ARGS
#   preflight.sh slurm CONFIG [--set a.b=c ...]        on all ranks of this Slurm allocation (salloc, sbatch)
# SLUICE names the program (build/launch/sluice). Exits 0 if nothing is in the way of the run.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: preflight.sh RANKS|slurm CONFIG [--set a.b=c ...]" >&2; exit 2; }
ranks=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
program=${SLUICE:-$here/../build/launch/sluice}
[ -x "$program" ] || { echo "preflight: no program $program; build it (launch/build.sh build sluice) or set SLUICE" >&2; exit 2; }
if [ "$ranks" = slurm ]; then
  ranks=${SLURM_NTASKS:?preflight.sh slurm is for an allocation of Slurm}
  export MPIRUN_ARGS=${MPIRUN_ARGS:---map-by slot}  # mpirun takes the nodes from Slurm
fi
exec "$here/mpirun.sh" "$ranks" "$program" doctor "$@"
