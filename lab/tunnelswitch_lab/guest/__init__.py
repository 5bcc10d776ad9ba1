"""The virtual machine of the workload `vm`: what it is made of, and how QEMU is started for it."""
