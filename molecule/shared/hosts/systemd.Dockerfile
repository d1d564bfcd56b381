# A server as a hoster hands it out: systemd, sshd, and an administrator `ops` who logs in with a key and may sudo.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}

RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
      dbus iproute2 kmod openssh-server procps python3-apt sudo systemd-sysv \
 && apt-get clean \
 && apt-cache gencaches

# Masked: what cannot work in a container, and timers that would write to the host while a test watches it.
RUN systemctl mask systemd-modules-load.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
      fstrim.timer systemd-tmpfiles-clean.timer \
 && useradd --create-home --shell /bin/bash ops \
 && echo 'ops ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ops

COPY entrypoint.sh /entrypoint.sh
STOPSIGNAL SIGRTMIN+3
ENTRYPOINT ["/entrypoint.sh"]
# Without the word, systemd 256 and newer refuse to start on cgroup v1; on v2 it means nothing.
CMD ["/sbin/init", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"]
