# A Slurm of our own on one machine: authentication, controller, and a daemon for each node in the namespace of hosts.sh's
# host with the same number. To be sourced; needs root and hosts_up.
#   slurm_up FOLDER      then srun, sbatch, ... in this shell
#   kill_node nodeN      that machine dies, with everything on it
#   slurm_down           ends what it started, by process id
slurm_pids=()
declare -A node_pids=()

slurm_up() {
  local n folder=$1
  mkdir -p "$folder"/{log,state,spool}
  chmod 755 "$folder"
  head -c 256 /dev/urandom >"$folder/munge.key"
  chmod 600 "$folder/munge.key"
  cat >"$folder/slurm.conf" <<END
ClusterName=troupe
SlurmctldHost=$(hostname -s)($kNet.1)
SlurmctldPort=17717
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/%n
SlurmdTimeout=10
MessageTimeout=5
KillWait=5
ReturnToService=2
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MailProg=/bin/true
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
END
  for ((n = 1; n <= hosts_count; ++n)); do
    echo "NodeName=node$n NodeHostname=node$n NodeAddr=$kNet.$((10 + n)) Port=$((17717 + n)) CPUs=2 RealMemory=1000"
  done >>"$folder/slurm.conf"
  echo "PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP" >>"$folder/slurm.conf"
  export SLURM_CONF=$folder/slurm.conf
  munged --foreground --force --key-file="$folder/munge.key" --socket="$folder/munge.sock" \
    --pid-file="$folder/munged.pid" --log-file="$folder/log/munged" --seed-file="$folder/munge.seed" \
    >/dev/null 2>&1 &
  slurm_pids+=($!)
  for _ in $(seq 50); do [[ -S $folder/munge.sock ]] && break || sleep 0.1; done
  slurmctld -D -c -f "$SLURM_CONF" >/dev/null 2>&1 &
  slurm_pids+=($!)
  for ((n = 1; n <= hosts_count; ++n)); do start_node node$n; done
  for _ in $(seq 100); do
    [[ $(timeout 5 sinfo -h -N -o %T 2>/dev/null | grep -c '^idle$') == "$hosts_count" ]] && return
    sleep 0.2
  done
  return 1
}

# Every node is the first process of a machine: when it is killed, all that ran there ends with it.
start_node() {
  nsenter --net=/run/netns/troupe-host${1#node} unshare --pid --uts --ipc --mount --fork --kill-child --mount-proc bash -c \
    'hostname "$0"; slurmd -D -N "$0" -f "$1" & wait' "$1" "$SLURM_CONF" >/dev/null 2>&1 &
  node_pids[$1]=$!
  disown
}
kill_node() { kill -9 "${node_pids[$1]}"; }

slurm_down() {
  ((${#node_pids[@]} == 0)) || kill -9 "${node_pids[@]}" 2>/dev/null || true
  ((${#slurm_pids[@]} == 0)) || kill "${slurm_pids[@]}" 2>/dev/null || true
}
