#!/bin/bash
# Postfix's smtp-sink, which takes every message and keeps none: sink.sh start DIR PORT | stop DIR
# All its state is in DIR. No TLS, no AUTH.
#
# Environment: SINK_KEEPS=1 keeps each message as a file of DIR/mail, complete before it is acknowledged.
. "$(dirname "$0")/common.sh"
parse_arguments "$@"
if [ "$command" = stop ]; then
    stop_process
    exit 0
fi
[ "$command" = start ] || fail "it has nothing to $command"

need_installed postfix
is_running && fail "already running in $dir"
need_free_port "${ports[0]}"
mkdir -p "$dir"
keeping=()
if [ -n "${SINK_KEEPS:-}" ]; then
    mkdir -p "$dir/mail"
    chmod 755 "$dir"
    chown nobody "$dir/mail"
    # Its random numbers are the same after each start, and it gives up where a file is there already: one that is started again within
    # a second needs names of its own.
    keeping=(-d "$dir/mail/%s.$$.")
fi
export LD_LIBRARY_PATH=$packages/postfix/usr/lib/postfix
"$packages/postfix/usr/sbin/smtp-sink" -u nobody "${keeping[@]}" -h localhost "127.0.0.1:${ports[0]}" 512 \
    </dev/null >"$dir/sink.log" 2>&1 &
echo $! >"$dir/pid"
wait_for_port "${ports[0]}"
