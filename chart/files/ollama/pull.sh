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
for model in "$@"; do
  if ollama show "$model" >/dev/null 2>&1; then
    echo "$model is there"
  elif [ ! -w "$OLLAMA_MODELS" ]; then
    echo "$model is not in $OLLAMA_MODELS of the image; there are:" >&2
    ollama list >&2
    exit 1
  else
    echo "pulling $model"
    ollama pull "$model"
  fi
done
