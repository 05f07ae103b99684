#!/bin/bash
# Postfix's smtp-source, which sends one message after the other: source.sh PORT CONNECTIONS MESSAGES LENGTH
# All messages together over so many connections, none of which is closed between two messages. No TLS.
. "$(dirname "$0")/common.sh"
[ $# = 4 ] || fail "usage: $0 PORT CONNECTIONS MESSAGES LENGTH"
need_installed postfix
export LD_LIBRARY_PATH=$packages/postfix/usr/lib/postfix
exec "$packages/postfix/usr/sbin/smtp-source" -d -s "$2" -m "$3" -l "$4" -M localhost \
    -f from@example.com -t to@example.com "127.0.0.1:$1"
