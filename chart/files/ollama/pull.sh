#!/bin/bash
# Has every model of the arguments on the volume. What is there already needs no network.
set -euo pipefail
ollama serve &
server=$!
trap 'kill "$server"; wait "$server" || true' EXIT
until ollama list >/dev/null 2>&1; do
  kill -0 "$server" || { echo "ollama serve did not start" >&2; exit 1; }
  sleep 0.2
done
for model in "$@"; do
  if ollama show "$model" >/dev/null 2>&1; then
    echo "$model is there"
  else
    echo "pulling $model"
    ollama pull "$model"
  fi
done
