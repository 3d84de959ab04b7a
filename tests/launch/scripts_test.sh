#!/usr/bin/env bash
# tests/launch/scripts_test.sh -- what the scripts in launch/ say before they do anything, and that
# setup.sh installs once. dpkg-query, apt-get and id are stand-ins: nothing of this machine changes.
set -uo pipefail
cd "$(dirname "$0")/../.."
fake=$(mktemp -d)
trap 'rm -rf "$fake"' EXIT
failed=0

# expect NAME STATUS PART COMMAND...: the command's status, and a part of what it printed.
expect() {
  local name=$1 want=$2 part=$3 got out
  shift 3
  out=$("$@" 2>&1)
  got=$?
  if [ $got -ne "$want" ] || [[ $out != *"$part"* ]]; then
    printf 'FAILED %s: status %d, expected %d and "%s" in:\n%s\n' "$name" $got "$want" "$part" "$out"
    failed=1
  else
    printf '%s: %s\n' "$name" "$(grep -m1 -F -- "$part" <<<"$out")"
  fi
}

for script in launch/{quickstart,setup,test,build,preflight}.sh launch/slurm/train.sbatch tests/launch/{private_slurm,slurm_test}.sh; do
  bash -n $script || failed=1
done
expect "help" 0 "quickstart.sh [--text FILE]" launch/quickstart.sh --help
expect "unknown argument" 2 "quickstart: unknown argument --texts" launch/quickstart.sh --texts x
expect "no file named" 2 "quickstart: --text needs a file" launch/quickstart.sh --text
expect "no such file" 2 "quickstart: cannot read the file $PWD/nowhere.txt" launch/quickstart.sh --text nowhere.txt
expect "a folder" 2 "quickstart: cannot read the file /" launch/quickstart.sh --text /
(cd / && expect "help from elsewhere" 0 "Installs the packages" "$OLDPWD/launch/quickstart.sh" -h; exit $failed) || failed=1
expect "test.sh" 2 "usage: test.sh [--sanitize | --tsan | --portable]" launch/test.sh --asan
expect "build.sh" 1 "usage: build.sh DIR" launch/build.sh
expect "preflight.sh" 2 "usage: preflight.sh RANKS|slurm CONFIG" launch/preflight.sh 4
expect "preflight.sh without a program" 2 "preflight: no program /nowhere" env SLUICE=/nowhere launch/preflight.sh 4 c.yaml
expect "train.sbatch without a config" 2 "usage: sbatch [OPTIONS] train.sbatch CONFIG" env SLURM_SUBMIT_DIR=. launch/slurm/train.sbatch
expect "train.sbatch without a program" 2 "train.sbatch: no program /nowhere" env SLURM_SUBMIT_DIR=. SLUICE=/nowhere launch/slurm/train.sbatch c.yaml
expect "setup.sh" 2 "usage: setup.sh" launch/setup.sh --all

# A machine that lacks two packages until apt-get has run.
cat >"$fake/dpkg-query" <<'TXT'
#!/bin/bash
case "${!#}" in ninja-build | libfmt-dev) [ -e "$FAKE/installed" ] || exit 1 ;; esac
echo -n "install ok installed"
TXT
cat >"$fake/apt-get" <<'TXT'
#!/bin/bash
echo "$*" >>"$FAKE/calls"
[ ! -e "$FAKE/broken" ] || { echo "E: no network"; exit 100; }
if [ "$1" = install ]; then touch "$FAKE/installed"; fi
TXT
printf '#!/bin/bash\necho "$FAKE_ID"\n' >"$fake/id"
chmod +x "$fake"/*
export FAKE=$fake PATH=$fake:$PATH FAKE_ID=1000
line="sudo sh -c 'apt-get update && apt-get install -y --no-install-recommends ninja-build libfmt-dev'"
expect "not root" 1 "$line" launch/setup.sh
[ ! -e "$fake/calls" ] || { echo "FAILED: apt-get ran without root"; failed=1; }
export FAKE_ID=0
touch "$fake/broken"
expect "apt-get fails" 1 "E: no network" launch/setup.sh
rm "$fake/broken"
expect "root" 0 "setup: installing ninja-build libfmt-dev" launch/setup.sh
rm "$fake/calls"
expect "the second time" 0 "setup: every package is there" launch/setup.sh
expect "with the text" 0 "setup: every package is there" launch/setup.sh --with-text
[ ! -e "$fake/calls" ] || { echo "FAILED: apt-get ran again"; failed=1; }
exit $failed
