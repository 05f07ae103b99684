# Sourced by the scripts beside it; not run by itself.
# shellcheck shell=bash
set -euo pipefail

# Where get-pkgs.sh unpacks the servers: a cache, never inside a checkout.
cache=${SMTP_POOL_SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/smtp-pool-servers}
packages=$cache/packages
# Users of a private Postfix: its own, and the one that its mailboxes belong to.
postfix_user=postfix
postfix_setgid_group=postdrop
mailbox_user=smtp-pool-mail

fail() {
    echo "$0: $*" >&2
    exit 1
}

# start DIR PORT... | stop DIR | reload DIR -> command, dir, ports
parse_arguments() {
    command=${1:-} dir=${2:-}
    shift $(($# < 2 ? $# : 2))
    ports=("$@")
    case $command:${#ports[@]} in
        start:[1-9] | stop:0 | reload:0) ;;
        *) fail "usage: $0 start DIR PORT... | stop DIR | reload DIR" ;;
    esac
    # Other users' processes read it: every folder above must be searchable for them.
    [[ $dir == /* ]] || fail "DIR must be an absolute path"
}

need_installed() {
    [ -d "$packages/$1" ] || fail "$1 is not installed: run tests/servers/get-pkgs.sh first"
}

# A zombie that nobody has reaped yet is dead.
is_alive() {
    kill -0 "$1" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null
}

is_running() {
    [ -s "$dir/pid" ] && is_alive "$(<"$dir/pid")"
}

# Ends the process of DIR/pid: politely, and after 5 s by force.
stop_process() {
    [ -s "$dir/pid" ] || return 0
    local pid
    pid=$(<"$dir/pid")
    kill -TERM "$pid" 2>/dev/null || true
    for _ in {1..100}; do
        is_alive "$pid" || break
        sleep 0.05
    done
    kill -KILL "$pid" 2>/dev/null || true
    rm -f "$dir/pid"
}

accepts_connections() {
    (exec 9<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

need_free_port() {
    ! accepts_connections "$1" || fail "port $1 is taken"
}

# Waits until the port takes connections, 20 s at most.
wait_for_port() {
    for _ in {1..400}; do
        ! accepts_connections "$1" || return 0
        sleep 0.05
    done
    fail "nothing answers on port $1"
}

# Waits until an SMTP server greets on the port, a minute at most: one that has just started takes connections before it serves them.
wait_for_greeting() {
    wait_for_port "$1"
    (
        exec 9<>"/dev/tcp/127.0.0.1/$1"
        read -r -t 60 greeting <&9 && [[ $greeting == 220* ]]
    ) 2>/dev/null || fail "no SMTP server greets on port $1"
}
