#!/bin/sh
# Make the members of a cluster on one machine, each in a folder of /cluster (or of the folder given), once.
# On separate machines every member runs its own `mpcnode init` and only cards travel; here one script plays all of them.
set -eu
cluster=${1:-/cluster}
if [ -e "$cluster/cluster.toml" ]; then
  echo "$cluster/cluster.toml is there already"
  exit 0
fi
cd "$cluster"
for name in helper clinic_a clinic_b; do
  mpcnode init --name "$name" --address "$name:7000" --dir "$name"
done
mpcnode init --name analyst --dir analyst
coordinator init helper/card.toml clinic_a/card.toml clinic_b/card.toml analyst/card.toml \
  --helper helper --dir coordinator --address coordinator:7000 --out cluster.toml
