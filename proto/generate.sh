#!/bin/sh
# Regenerate mpcnode/wire from proto/ (or into the folder given): `make proto`; `make lint` fails when the two differ.
set -eu
cd "$(dirname "$0")/.."
out=${1:-mpcnode/wire}
python=${PYTHON:-.venv/bin/python}
PATH="$(cd "$(dirname "$python")" && pwd):$PATH"
"$python" -m grpc_tools.protoc -Iproto --python_out="$out" --grpc_python_out="$out" --mypy_out=quiet:"$out" --mypy_grpc_out=quiet:"$out" proto/*.proto
# protoc imports its siblings as top-level modules; ours live in a package
sed -i -E 's/^import ([a-z]+_pb2)( as|$)/from mpcnode.wire import \1\2/' "$out"/*_pb2.py "$out"/*_pb2_grpc.py
sed -i -E 's/^import (graph_pb2|node_pb2|peer_pb2|coordinator_pb2)( as .*|)$/from mpcnode.wire import \1\2/' "$out"/*.pyi
