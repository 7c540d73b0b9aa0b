#!/bin/sh
# Writes the broker's definitions to the file of the first argument. DEFINITIONS is their JSON, in which `@KEY@` stands for
# what the file /etc/selfheal/credentials/KEY holds.
set -eu
umask 077
folder=${CREDENTIALS:-/etc/selfheal/credentials}
# The text $1 with $3 for each $2.
replaced() {
  rest=$1 done=
  while :; do
    case $rest in
      *"$2"*) done=$done${rest%%"$2"*}$3 rest=${rest#*"$2"} ;;
      *) break ;;
    esac
  done
  printf '%s' "$done$rest"
}
backslash=\\
for key in username password monitor-username monitor-password; do
  value=$(cat "$folder/$key")
  case $value in
    '') echo "the Secret's $key is empty: set it" >&2; exit 1 ;;
    *[[:cntrl:]]*) echo "the Secret's $key has a line break or another control character: make it one line" >&2; exit 1 ;;
  esac
  value=$(replaced "$value" "$backslash" "$backslash$backslash")
  value=$(replaced "$value" '"' '\"')
  DEFINITIONS=$(replaced "$DEFINITIONS" "@$key@" "$value")
done
printf '%s\n' "$DEFINITIONS" >"$1"
