#!/bin/sh
# Prepares a container to be a host that runs a Docker of its own, then becomes the host's first process.
set -eu

# Docker mounts these read-only; the nested Docker makes control groups in them.
awk '$5 ~ "^/sys($|/fs/cgroup)" { print $5 }' /proc/self/mountinfo | while read -r mountpoint; do
    mount -o remount,bind,rw "$mountpoint"
done

# cgroup v2 delegates controllers only from a group without processes. systemd sees to that itself.
if [ "$1" != /sbin/init ] && [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mkdir /sys/fs/cgroup/init
    while read -r pid; do echo "$pid" > /sys/fs/cgroup/init/cgroup.procs || true; done < /sys/fs/cgroup/cgroup.procs
    sed 's/\(^\| \)/\1+/g' /sys/fs/cgroup/cgroup.controllers > /sys/fs/cgroup/cgroup.subtree_control
fi

exec "$@"
