#!/usr/bin/env bash
# tests/launch/private_slurm.sh -- a Slurm of virtual nodes on this machine, for tests: nothing under /etc, no systemd.
#   private_slurm.sh up DIR [NODES]      then: export SLURM_CONF=DIR/slurm.conf
#   private_slurm.sh down DIR
# Root's; needs slurmctld, slurmd, slurm-client and munge.
set -euo pipefail
command=${1:?usage: private_slurm.sh up|down DIR [NODES]}
mkdir -p "${2:?}"
dir=$(cd "$2" && pwd)
nodes=${3:-2}

stop() {
  local file
  for file in "$dir"/run/slurmd.*.pid "$dir/run/slurmctld.pid" "$dir/run/munged.pid"; do
    if [ -f "$file" ]; then kill "$(cat "$file")" 2>/dev/null || true; fi
  done
}

configure() {
  local host cores i
  host=$(hostname -s)
  cores=$(nproc)
  cat <<TXT
ClusterName=private
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$dir/run/munge.sock
SlurmctldPort=26917
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool.%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd.%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0,requeue_setup_env_fail
MailProg=/bin/true
SlurmctldTimeout=30
SlurmdTimeout=30
KillWait=5
TXT
  for ((i = 0; i < nodes; ++i)); do
    echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=$((26920 + i)) CPUs=$cores Boards=1 SocketsPerBoard=1" \
         "CoresPerSocket=$cores ThreadsPerCore=1 RealMemory=1000 State=UNKNOWN"
  done
  echo "PartitionName=main Nodes=n[0-$((nodes - 1))] Default=YES MaxTime=INFINITE State=UP"
}

start() {
  local i
  mkdir -p "$dir"/{state,log,run}
  configure >"$dir/slurm.conf"
  install -d -o munge -g munge -m 0755 "$dir/munge"
  if [ ! -f "$dir/munge/key" ]; then
    head -c 128 /dev/urandom >"$dir/munge/key"
    chown munge:munge "$dir/munge/key"
    chmod 400 "$dir/munge/key"
  fi
  chown munge:munge "$dir/run"
  chmod 755 "$dir/run"
  runuser -u munge -- /usr/sbin/munged --force --socket="$dir/run/munge.sock" --key-file="$dir/munge/key" \
    --pid-file="$dir/run/munged.pid" --log-file="$dir/munge/log" --seed-file="$dir/munge/seed"
  export SLURM_CONF=$dir/slurm.conf
  /usr/sbin/slurmctld -i
  for ((i = 0; i < nodes; ++i)); do
    mkdir -p "$dir/spool.n$i"
    /usr/sbin/slurmd -N "n$i"
  done
  for ((i = 0; i < 300; ++i)); do
    if [ "$(sinfo -h -o %t 2>/dev/null)" = idle ]; then return 0; fi
    sleep 0.1
  done
  sinfo >&2
  echo "private_slurm: the nodes did not become idle; logs are in $dir/log" >&2
  return 1
}

case "$command" in
  up) start ;;
  down) stop ;;
  *) echo "usage: private_slurm.sh up|down DIR [NODES]" >&2; exit 2 ;;
esac
