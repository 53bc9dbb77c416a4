"""The container runtime: containers of images, run by Podman through its Docker-compatible API."""
