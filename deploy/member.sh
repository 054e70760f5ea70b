#!/bin/sh
# What a member's container does before its command: make this member's identity, the first time; post its card; wait
# for cluster.toml.  NAME and, if it serves, ADDRESS; MPCNODE_DIR: its own folder; CARDS: the folder for what is public.
set -eu
if [ ! -e "$MPCNODE_DIR/card.toml" ]; then
  mpcnode init --name "$NAME" ${ADDRESS:+--address "$ADDRESS"} --dir "$MPCNODE_DIR"
fi
cp "$MPCNODE_DIR/card.toml" "$CARDS/.$NAME.toml"
mv "$CARDS/.$NAME.toml" "$CARDS/$NAME.toml"
until [ -e "$CARDS/cluster.toml" ]; do sleep 0.2; done
exec "$@"
