#!/bin/bash
# A Slurm of one node on this machine, and the preset quick on it: scripts/try_slurm.sh [TARGET ...]
# Needs root on Debian or Ubuntu (apt-get install slurm-wlm, 1 min) and the extra [cluster]. It runs the
# targets (all), then trains for longer than a job's time limit and sees the training go on where it
# was. Everything lies in a scratch folder, named at the end; the daemons are ended. To go on in that
# folder: ROOT=/tmp/try-slurm.abcd scripts/try_slurm.sh. LIMIT: that job's minutes, for a slow machine.
set -euo pipefail
cd "$(dirname "$0")/.."
targets=("${@:-all}")
root=${ROOT:-$(mktemp -d /tmp/try-slurm.XXXX)}
limit=${LIMIT:-1}
chmod 755 "$root"
export SLURM_CONF=$root/slurm.conf DVC_NO_ANALYTICS=1

command -v slurmctld >/dev/null || { apt-get update -q && DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -q --no-install-recommends slurm-wlm munge; } >"$root/apt.log"
python -c "import snakemake_executor_plugin_slurm" 2>/dev/null \
  || { echo "no Slurm plugin: pip install -c constraints.txt -e '.[cluster]'"; exit 2; }

host=$(hostname -s) cores=$(nproc)
memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
cat >"$SLURM_CONF" <<CONF
ClusterName=try
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MinJobAge=600
KillWait=5
ReturnToService=2
SlurmctldPidFile=$root/ctld.pid
SlurmdPidFile=$root/d.pid
SlurmctldLogFile=$root/ctld.log
SlurmdLogFile=$root/d.log
StateSaveLocation=$root/state
SlurmdSpoolDir=$root/spool
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
# Jobs do not get SLURM_CONF: what is started in one looks here.
usual=/etc/slurm/slurm.conf
[ ! -e "$usual" ] || { echo "$usual: this machine has a Slurm of its own; use that"; exit 2; }
mkdir -p "$root/state" "$root/spool" /run/munge /etc/slurm
ln -s "$SLURM_CONF" "$usual"
started=()
stop() { rm -f "$usual"; for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done; }
trap stop EXIT
if ! munge -n >/dev/null 2>&1; then
  [ -s /etc/munge/munge.key ] || mungekey --create
  chown -R munge: /etc/munge /run/munge
  setpriv --reuid=munge --regid=munge --init-groups munged --foreground >"$root/munge.log" 2>&1 &
  started+=($!)
  sleep 2
fi
slurmctld -D >/dev/null 2>&1 & started+=($!)
sleep 2
slurmd -D -N "$host" >/dev/null 2>&1 & started+=($!)
for _ in $(seq 30); do sinfo -h -o %t 2>/dev/null | grep -q idle && break; sleep 1; done
sinfo

[ -d "$root/project" ] \
  || PYTHONPATH=src:tests python -W ignore tests/project.py "$root/project" >"$root/make.log" 2>&1
cd "$root/project"
run=(python -m snakemake --workflow-profile profiles/slurm --seconds-between-status-checks 5
  --latency-wait 5 --default-resources "slurm_partition=main" "runtime=10" "mem_mb=1000")
echo "== ${targets[*]}"
"${run[@]}" -- "${targets[@]}" 2>&1 | tee -a "$root/run.log" | grep --line-buffered -E "steps \(|Done|rror|Finished" || true
grep -q "Done. Open" "$root/run.log"

echo "== a training that takes longer than its time limit, $limit min"
sed -i '/^distill_unet:/,/^finetune_control:/ {
  s/steps: 4}/steps: 100000}/
  s/_every_steps: 2/_every_steps: 20/ }' params.yaml
grep -q "steps: 100000}" params.yaml
"${run[@]}" --set-resources "distill_unet:runtime=$limit" --restart-times 5 -- models/unet/elr \
  >"$root/limit.log" 2>&1 & snakemake=$!
resumed=(grep -rhoE "resumed at step [1-9][0-9]*" .snakemake/slurm_logs)
for _ in $(seq 100); do sleep "$((3 * limit))"; "${resumed[@]}" >"$root/resumed" 2>/dev/null && break; done
kill "$snakemake" || true  # it waits for the job
scancel --me
wait "$snakemake" || true
grep -o "SLURM status is: 'TIMEOUT'" "$root/limit.log"
cat "$root/resumed"
grep -q resumed "$root/resumed"

echo "== what a job on a GPU asks of Slurm, which has none here and refuses it"
"${run[@]}" --restart-times 0 --config device=cuda -- models/unet/elr >"$root/gpu.log" 2>&1 || true
grep -oE -- "--mem [0-9]+|--cpus-per-task=[0-9]+|--gpus=[0-9]+" "$root/gpu.log"
grep -q -- "--gpus=1" "$root/gpu.log"
echo "Slurm ran it, and a job that met its limit went on. Logs: $root"
