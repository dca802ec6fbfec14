#!/usr/bin/env bash
# Two clones and a DVC remote behind a real sshd on the loopback interface: the first computes and
# pushes, the second pulls and computes nothing. Uses the preset quick, in a temporary folder.
#
#   scripts/share_over_ssh.sh              needs sshd (openssh-server) and the [ssh] extra
set -euo pipefail
cd "$(dirname "$0")/.."

sshd="$(command -v sshd || command -v /usr/sbin/sshd || true)"
if [[ -z "$sshd" ]]; then
  echo "no sshd here; install openssh-server" >&2
  exit 2
fi
python -c "import dvc_ssh" || {
  echo "no dvc-ssh here; pip install -c constraints.txt -e '.[ssh]'" >&2
  exit 2
}

work="$(mktemp -d)"
port="$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
cleanup() {
  [[ -s "$work/sshd.pid" ]] && kill "$(cat "$work/sshd.pid")"
  rm -rf "$work"
}
trap cleanup EXIT

say() { printf '\n== %s\n' "$1"; }
git_here() { git -c user.name=tester -c user.email=tester@example.org "$@"; }

say "sshd on 127.0.0.1:$port with keys of its own"
ssh-keygen -q -t ed25519 -N '' -f "$work/host_key"
ssh-keygen -q -t ed25519 -N '' -f "$work/user_key"
cp "$work/user_key.pub" "$work/authorized_keys"
cat >"$work/sshd_config" <<EOF
Port $port
ListenAddress 127.0.0.1
HostKey $work/host_key
PidFile $work/sshd.pid
AuthorizedKeysFile $work/authorized_keys
PasswordAuthentication no
StrictModes no
UsePAM no
Subsystem sftp internal-sftp
EOF
mkdir -p /run/sshd 2>/dev/null || true
"$sshd" -f "$work/sshd_config" -E "$work/sshd.log"

say "first clone computes and pushes"
python tests/project.py "$work/first"
cd "$work/first"
snakemake --cores 8 all
PYTHONPATH=src python -m distillery.cli adopt
dvc remote add --default team "ssh://$(id -un)@127.0.0.1:$port$work/remote"
dvc remote modify team verify true
dvc remote modify --local team keyfile "$work/user_key"
dvc push --run-cache
git_here add dvc.lock .dvc/config
git_here commit --quiet --message "share"

say "second clone pulls and computes nothing"
git clone --quiet "$work/first" "$work/second"
cd "$work/second"
dvc remote modify --local team keyfile "$work/user_key"
dvc repro --pull | tee "$work/repro.log"
if grep -q "Running stage" "$work/repro.log"; then
  echo "FAILED: the second clone computed something" >&2
  exit 1
fi
PYTHONPATH=src python -m distillery.cli trust
snakemake --dry-run all 2>&1 | grep "Nothing to be done"

say "a changed training key reuses the first clone's cache of the teacher"
sed -i 's/steps: 4}/steps: 3}/' params.yaml
dvc repro --pull distill_unet@elr | tee "$work/repro.log"
test "$(grep -c "Running stage" "$work/repro.log")" -eq 1

say "passed"
