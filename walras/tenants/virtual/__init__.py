"""KubeVirt's kinds: virtual machines, the instances in which they run, and the pods that those are."""
