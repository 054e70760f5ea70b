#!/bin/sh
# Fail when mpcnode/wire is not what proto/ says.
set -eu
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
sh proto/generate.sh "$fresh"
for file in "$fresh"/*; do
  if ! cmp -s "$file" "mpcnode/wire/$(basename "$file")"; then
    echo "mpcnode/wire/$(basename "$file") is not what proto/ generates: run 'make proto'" >&2
    exit 1
  fi
done
echo "mpcnode/wire matches proto/"
