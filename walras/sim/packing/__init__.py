"""Pods packed onto a production cluster: the published policies and ours, with what they evict and move."""
