"""NVIDIA cards as their driver has them: found, cut, shared and read; and a simulator of the driver."""
