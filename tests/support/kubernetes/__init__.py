"""A Kubernetes cluster for tests: an API server on loopback whose pods are processes of this machine."""

from __future__ import annotations

from tests.support.kubernetes.cluster import StubCluster

__all__ = ["StubCluster"]
