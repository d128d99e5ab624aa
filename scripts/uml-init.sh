#!/bin/bash
# The first process inside user-mode-linux: makes it a machine with IPVS and runs one command. scripts/uml.ts starts it, and says in
# UML_DIR where `argv`, `env` and `directory` stand, and where `status` is to be written. What the command says goes to /dev/tty1.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /run
mkdir -p /run/netns /dev/shm /dev/pts
mount -t tmpfs shm /dev/shm
mount -t devpts pts /dev/pts 2>/dev/null
mount --bind /usr/lib/uml/modules /lib/modules
stty -F /dev/tty1 raw
while IFS= read -r -d '' entry; do export "${entry?}"; done <"$UML_DIR/env"
# nf_tables' nat does not work in this kernel, so the programs are the legacy ones, also under the plain names.
mkdir /run/bin
for family in iptables ip6tables; do
  for program in $family $family-save $family-restore; do ln -s "$(command -v xtables-legacy-multi)" "/run/bin/$program"; done
done
export PATH="/run/bin:$PATH:/usr/sbin:/sbin"
ip link set lo up
for module in ip_vs ip_vs_rr ip_vs_sh ip_vs_lc nf_conntrack nf_conntrack_netlink dummy veth iptable_nat ip6table_nat iptable_filter \
  ip6table_filter; do
  modprobe "$module" 2>/dev/null
done
mapfile -d '' -t argv <"$UML_DIR/argv"
cd "$(cat "$UML_DIR/directory")" && "${argv[@]}" >/dev/tty1 2>&1 </dev/null
echo $? >"$UML_DIR/status"
sync
poweroff -f
