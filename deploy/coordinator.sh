#!/bin/sh
# What the coordinator's container does before its command, the first time: wait for the cards of MEMBERS, and make its
# identity and cluster.toml.  The rest as in member.sh.
set -eu
if [ ! -e "$CARDS/cluster.toml" ]; then
  cards=
  for member in $MEMBERS; do
    until [ -e "$CARDS/$member.toml" ]; do sleep 0.2; done
    cards="$cards $CARDS/$member.toml"
  done
  # shellcheck disable=SC2086  # paths of names, which hold no blanks
  coordinator init $cards --helper helper --name "$NAME" --address "$ADDRESS" --dir "$MPCNODE_DIR" \
    --out "$CARDS/cluster.toml"
fi
exec "$@"
