#!/bin/bash
# Fetches Postfix (with smtp-sink) and what its AUTH needs, and PostgreSQL unless it is installed, and makes the users they run as.
# Can be repeated.
#
# Nothing is installed but shared libraries and openssl: the package of a mail server starts a service and throws out
# whatever other mail server there is, and that of PostgreSQL makes a cluster and starts it, so their files are only unpacked into a
# cache folder (common.sh says which).
# Needs root, and Debian or a relative of it.
. "$(dirname "$0")/common.sh"

export DEBIAN_FRONTEND=noninteractive
wanted=(postfix sasl2-bin libsasl2-modules libsasl2-modules-db)

getent group "$postfix_setgid_group" >/dev/null || groupadd --system "$postfix_setgid_group"
for user in "$postfix_user" "$mailbox_user" "$postgres_user"; do
    id "$user" >/dev/null 2>&1 ||
        useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$user"
done

is_complete() {
    command -v openssl >/dev/null || return 1
    for package in "${wanted[@]}"; do
        [ -e "$packages/$package/.libraries-installed" ] || return 1
    done
    postgres_programs >/dev/null
}
if is_complete; then
    echo "the servers are installed"
    exit 0
fi

apt-get update -qq
# The package of PostgreSQL is named after its version, which differs from release to release.
postgres_package=
if ! postgres_programs >/dev/null; then
    postgres_package=$(apt-cache depends postgresql | sed -n 's/^ *Depends: \(postgresql-[0-9]*\)$/\1/p')
    [ -n "$postgres_package" ] || fail "no package of a PostgreSQL server is known here"
fi
# The libraries that these packages depend on, by whatever names this release has for them.
# LLVM is PostgreSQL's compiler of queries: a hundred megabytes, and switched off (postgres.sh).
mapfile -t libraries < <(apt-cache depends "${wanted[@]}" $postgres_package |
    sed -n 's/^ *Depends: \(lib[^ ]*\)$/\1/p' | grep -v '^libllvm' | sort -u)
apt-get install -y -qq --no-install-recommends openssl netbase tzdata "${libraries[@]}" >/dev/null

mkdir -p "$packages"
download=$(mktemp -d)
trap 'rm -rf "$download"' EXIT
chmod 755 "$download"
unpack() { # PACKAGE FOLDER
    (cd "$download" && apt-get download -qq "$1" 2>/dev/null)
    rm -rf "${2:?}"
    mkdir -p "$2"
    dpkg-deb -x "$download/$1"_*.deb "$2"
    touch "$2/.libraries-installed"
}
for package in "${wanted[@]}"; do unpack "$package" "$packages/$package"; done
[ -z "$postgres_package" ] || unpack "$postgres_package" "$postgres"
echo "the servers are unpacked in $packages"
