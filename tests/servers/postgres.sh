#!/bin/bash
# A private PostgreSQL: postgres.sh start DIR PORT | stop DIR
#
# It listens on 127.0.0.1 alone, without a socket file. All its state is in DIR: whoever starts it again in the same DIR finds its data
# as it was. Root starts it as an ordinary user, anybody else as themselves.
#
#   DIR/url        postgresql://user:password@127.0.0.1:PORT/database, for its owner's eyes
#   DIR/log        what it says
. "$(dirname "$0")/common.sh"
parse_arguments "$@"
programs=$(postgres_programs) || fail "PostgreSQL is not installed: run tests/servers/get-pkgs.sh first"
data=$dir/data

as_user() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid="$postgres_user" --regid="$postgres_user" --clear-groups -- "$@"
    else
        "$@"
    fi
}

if [ "$command" = stop ]; then
    [ -f "$data/postmaster.pid" ] || exit 0
    (cd / && as_user "$programs/pg_ctl" --pgdata="$data" --mode=fast --wait --timeout=30 --silent stop) >/dev/null 2>&1 ||
        (cd / && as_user "$programs/pg_ctl" --pgdata="$data" --mode=immediate --wait --timeout=30 --silent stop) ||
        [ ! -f "$data/postmaster.pid" ]
    exit 0
fi
[ "$command" = start ] || fail "it has nothing to $command"

[ "$(id -u)" != 0 ] || id "$postgres_user" >/dev/null 2>&1 ||
    fail "no user $postgres_user: run tests/servers/get-pkgs.sh first"
port=${ports[0]}
need_free_port "$port"
mkdir -p "$dir"
[ "$(id -u)" != 0 ] || chown "$postgres_user" "$dir"
cd "$dir"

if [ ! -s "$data/PG_VERSION" ]; then
    (umask 077 && od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$dir/password")
    [ "$(id -u)" != 0 ] || chown "$postgres_user" "$dir/password"
    # C is the one locale that is everywhere. No sync: there is nothing here yet that a crash could take.
    as_user "$programs/initdb" --pgdata="$data" --username=owner --pwfile="$dir/password" --auth=scram-sha-256 \
        --encoding=UTF8 --locale=C --no-sync >"$dir/initdb.log" 2>&1 || fail "initdb: $(<"$dir/initdb.log")"
    cat >>"$data/postgresql.conf" <<END
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
# Needs LLVM.
jit = off
END
fi
if ! as_user "$programs/pg_ctl" --pgdata="$data" --log="$dir/log" --options="-p $port" --wait --timeout=60 --silent start \
    </dev/null >"$dir/start" 2>&1; then
    cat "$dir/start" "$dir/log" >&2 || true
    fail "PostgreSQL did not start"
fi
(umask 077 && echo "postgresql://owner:$(<"$dir/password")@127.0.0.1:$port/postgres" >"$dir/url")
