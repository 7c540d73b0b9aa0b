#!/bin/bash
# The server, and beside it one who asks for a token of the model of the argument until it is there; then there is the
# file that the startup probe looks for. A probe cannot ask by itself: Ollama gives up loading a model when whoever asked
# goes away, and a probe goes away when its time is over.
set -euo pipefail
answered="$HOME/answered"
rm -f "$answered"
{
  until ollama list >/dev/null 2>&1; do sleep 0.2; done
  until /bin/bash "${0%/*}/answers.sh" "$1"; do sleep 5; done
  : >"$answered"
  echo "$1 has answered"
} &
exec ollama serve
