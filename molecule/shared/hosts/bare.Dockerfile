# A host as many containers are: root, no systemd, no sudo, no package lists; `service` is all there is.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}

RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends iproute2 procps tini \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin

COPY entrypoint.sh /entrypoint.sh
ENTRYPOINT ["/entrypoint.sh"]
CMD ["tini", "--", "sleep", "infinity"]
