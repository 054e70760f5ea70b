"""The machine: one party's node of a secure multi-party computation, and the instruction set that it runs."""
