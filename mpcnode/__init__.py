"""The machine: one party's node of a secure multi-party computation, and the instruction set that it runs."""

import os

# gRPC reads this once, when it is loaded: let the thread that waits for a message read it from the socket, instead of
# being woken by one of gRPC's own.  Whoever has set the variable knows better.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
