#!/bin/bash
# Has every model of the arguments on the volume, or in the image. What is there already needs no network.
set -euo pipefail
ollama serve &
server=$!
trap 'kill "$server"; wait "$server" || true' EXIT
until ollama list >/dev/null 2>&1; do
  kill -0 "$server" || { echo "ollama serve did not start" >&2; exit 1; }
  sleep 0.2
done
there() {
  ollama show "$1" >/dev/null 2>&1
}
# One replica on a shared volume pulls; the others wait, and find what it has pulled. They do not wait for ever: on a
# network file system the lock of a node that died may stay. An image without flock pulls without a lock.
pull() {
  (
    flock -w 1800 9 || echo "no lock on $OLLAMA_MODELS: others may pull at the same time" >&2
    there "$1" || { echo "pulling $1"; ollama pull "$1"; }
  ) 9>"$OLLAMA_MODELS/.pull.lock"
}
for model in "$@"; do
  if there "$model"; then
    echo "$model is there"
  elif [ ! -w "$OLLAMA_MODELS" ]; then
    echo "$model is not in $OLLAMA_MODELS of the image; there are:" >&2
    ollama list >&2
    exit 1
  else
    pull "$model"
  fi
done
