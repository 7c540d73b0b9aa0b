#!/bin/bash
# Exit status 0 when the model of the argument has answered one token; loading it takes as long as it takes.
set -euo pipefail
body="{\"model\": \"$1\", \"prompt\": \"Hi\", \"stream\": false, \"options\": {\"num_predict\": 1}}"
exec 3<>/dev/tcp/127.0.0.1/11434
printf 'POST /api/generate HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' \
  "${#body}" "$body" >&3
read -r _ status _ <&3
[ "$status" = 200 ] || { echo "$1: HTTP $status" >&2; cat <&3 >&2; exit 1; }
