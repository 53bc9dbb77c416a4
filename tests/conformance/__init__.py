"""Kubernetes' own conformance specs, run against the embedded server or the real one."""
