#!/usr/bin/env bash
# Runs all checks (.ci/run) under Debian 13's Python 3.13 with the newest release of every dependency.
#
#   sudo scripts/check_versions.sh FOLDER
#
# Installs Debian 13 into FOLDER (about 0.4 GB; kept, so that a second call need not do it again), clones what is
# committed into it, and runs .ci/run there by chroot: a fresh environment, README's test command, ruff, mypy.
# Needs root and debootstrap (Debian, Ubuntu: apt install debootstrap). Exits with the code of .ci/run.
set -euo pipefail

if [ $# -ne 1 ]; then
  echo "usage: scripts/check_versions.sh FOLDER (a folder for Debian 13; it is made if it does not exist)" >&2
  exit 2
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "scripts/check_versions.sh: chroot and debootstrap need root; run it with sudo" >&2
  exit 2
fi
if ! command -v debootstrap >/dev/null; then
  echo "scripts/check_versions.sh: debootstrap is not installed; apt install debootstrap" >&2
  exit 2
fi
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [ -d "$1" ] && [ -n "$(ls -A "$1")" ] && [ ! -e "$1/prfl_jax.debian13" ]; then
  echo "scripts/check_versions.sh: $1 holds other files; name a new or an empty folder" >&2
  exit 2
fi
mkdir -p "$1"
debian="$(cd "$1" && pwd)"

if [ ! -e "$debian/prfl_jax.debian13" ] || [ ! -e "$debian/usr/bin/python3" ]; then
  touch "$debian/prfl_jax.debian13"
  debootstrap --variant=minbase --include=python3,python3-venv,git,ca-certificates trixie "$debian"
fi

# The machine's own names and certificates, so that pip finds what it finds outside.
cp /etc/resolv.conf /etc/hosts "$debian/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$debian/etc/ssl/certs/"
rm -rf "$debian/root/prfl_jax"
git clone --quiet --no-hardlinks "$root" "$debian/root/prfl_jax"

# In a mount namespace of its own: what is mounted here is gone with the process, however it ends.
unshare --mount bash -euc '
  mount -t proc proc "$0/proc"
  mount --rbind /dev "$0/dev"
  exec chroot "$0" env HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin bash -euc "
    echo \"\$(python3 --version), Debian \$(cat /etc/debian_version)\"
    cd /root/prfl_jax
    .ci/run
  "
' "$debian"
