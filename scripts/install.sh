#!/bin/sh
# Installs what is missing, and says what: Node packages by npm ci, programs by apt-get (Debian, Ubuntu).
# Usage: install.sh [lab] [test]     lab: what the namespaces need; test: what the tests need besides.
# Quick when nothing is missing.
set -eu
cd "$(dirname "$0")/.."

say() { echo "switchyard: $*" >&2; }

# program:package
lab='ip:iproute2 iptables:iptables nft:nftables unshare:util-linux nsenter:util-linux mount:mount'
test='linux.uml:user-mode-linux modprobe:kmod ipvsadm:ipvsadm ipset:ipset conntrack:conntrack nfacct:nfacct tcpdump:tcpdump setpriv:util-linux git:git openssl:openssl debootstrap:debootstrap buildah:buildah runc:runc /usr/lib/cni/portmap:containernetworking-plugins'

PATH="$PATH:/usr/sbin:/sbin"
missing=
for group in "$@"; do
  case $group in
    lab) wanted=$lab ;;
    test) wanted=$test ;;
    *) say "Cannot install \"$group\": the groups are lab and test"; exit 2 ;;
  esac
  for pair in $wanted; do
    command -v "${pair%%:*}" >/dev/null 2>&1 && continue
    case " $missing " in *" ${pair#*:} "*) ;; *) missing="$missing ${pair#*:}" ;; esac
  done
done

if [ -n "$missing" ]; then
  if [ "$(id -u)" -ne 0 ]; then
    say "Cannot install$missing as an ordinary user: run \"apt-get install$missing\" as root first"
    exit 2
  fi
  if ! command -v apt-get >/dev/null 2>&1; then
    say "Cannot install$missing: there is no apt-get here, install them by your system's own means"
    exit 2
  fi
  say "installing$missing (apt-get)"
  log=$(mktemp)
  # The package lists of a fresh machine are empty or old: fetch them when installing does not work without.
  # shellcheck disable=SC2086
  if ! DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >"$log" 2>&1; then
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1 || {
      tail -n 15 "$log" >&2
      rm -f "$log"
      say "Cannot install$missing: apt-get failed, see above"
      exit 2
    }
  fi
  rm -f "$log"
fi

# Node packages are as locked if they were installed from this very lock file, or by hand after it was last changed.
if [ ! -x node_modules/.bin/node ] || [ ! -e node_modules/.package-lock.json ] ||
  { [ package-lock.json -nt node_modules/.package-lock.json ] && ! cmp -s package-lock.json node_modules/.installed-lock; }; then
  say 'installing Node packages (npm ci)'
  npm ci --no-audit --no-fund --loglevel=error >&2 || { say 'Cannot install Node packages: npm ci failed, see above'; exit 2; }
  cp package-lock.json node_modules/.installed-lock
fi
