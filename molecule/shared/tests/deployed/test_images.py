"""Images from a registry instead of ones built on the host: the same platform, on the same data."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from stack import Stack, wait_until

REGISTRY = "127.0.0.1:5999"

# What the host has built, under the names by which the world knows such images.
MIRRORED = {
    "mlflow-stack/debian": "library/debian:13.1-slim",
    "mlflow-stack/postgres": "library/postgres:17.6",
    "mlflow-stack/jupyter-base": "jupyter/minimal-notebook:2025-03-14",
}


@pytest.fixture
def registry(stack: Stack) -> Iterator[str]:
    """A registry that mirrors Docker Hub and Quay as far as the platform needs them. It is unpacked, not installed."""
    stack.run(
        "mkdir -p /opt/registry && cd /opt/registry"
        " && apt-get update && apt-get download docker-registry && dpkg-deb --extract docker-registry_*.deb ."
    )
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": "/opt/registry/data"}},
        "http": {"addr": REGISTRY},
    }
    stack.run("echo %s > /opt/registry/config.yml", json.dumps(settings))
    serve = "/opt/registry/usr/bin/docker-registry serve /opt/registry/config.yml"
    pid = stack.run(f"setsid {serve} > /dev/null 2>&1 & echo $!").strip()
    wait_until(lambda: f"{REGISTRY} " in stack.run("ss --listening --tcp --numeric"), seconds=10)
    for built, name in MIRRORED.items():
        newest = stack.run(f"docker images --quiet {built} | head -n 1").strip()
        stack.run(f"docker tag {newest} {REGISTRY}/{name} && docker push --quiet {REGISTRY}/{name}")
        stack.run(f"docker rmi {REGISTRY}/{name}")
    yield REGISTRY
    stack.run(f"kill {pid} && rm -r /opt/registry")


@pytest.mark.once
def test_images_from_a_registry(stack: Stack, registry: str) -> None:
    origin = {"image_origin": "upstream", "image_registry": registry}

    deployment = stack.deploy(f"--extra-vars={json.dumps(origin)}")

    assert deployment.returncode == 0, deployment.stdout[-2000:]
    assert "Images: pulled from the registry" in deployment.stdout
    assert stack.services()["postgres"]["Config"]["Image"] == f"{registry}/library/postgres:17.6"
    pulled = stack.run(f"docker images --no-trunc --quiet {registry}/jupyter/minimal-notebook").strip()
    assert pulled in stack.run("docker history --no-trunc --quiet " + stack.services()["jupyter"]["Image"])

    back = stack.deploy()
    assert back.returncode == 0, back.stdout[-2000:]
    assert stack.services()["postgres"]["Config"]["Image"].startswith("mlflow-stack/postgres")
