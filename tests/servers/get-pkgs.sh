#!/bin/bash
# Fetches Postfix (with smtp-sink) and what its AUTH needs, and makes the users it runs as. Can be repeated.
#
# Nothing is installed but shared libraries and openssl: the package of a mail server starts a service and throws out
# whatever other mail server there is, so its files are only unpacked into a cache folder (common.sh says which).
# Needs root, and Debian or a relative of it.
. "$(dirname "$0")/common.sh"

export DEBIAN_FRONTEND=noninteractive
wanted=(postfix sasl2-bin libsasl2-modules libsasl2-modules-db)

getent group "$postfix_setgid_group" >/dev/null || groupadd --system "$postfix_setgid_group"
for user in "$postfix_user" "$mailbox_user"; do
    id "$user" >/dev/null 2>&1 ||
        useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$user"
done

is_complete() {
    command -v openssl >/dev/null || return 1
    for package in "${wanted[@]}"; do
        [ -e "$packages/$package/.libraries-installed" ] || return 1
    done
}
if is_complete; then
    echo "the servers are installed"
    exit 0
fi

apt-get update -qq
# The libraries that these packages depend on, by whatever names this release has for them.
mapfile -t libraries < <(apt-cache depends "${wanted[@]}" | sed -n 's/^ *Depends: \(lib[^ ]*\)$/\1/p' | sort -u)
apt-get install -y -qq --no-install-recommends openssl netbase "${libraries[@]}" >/dev/null

mkdir -p "$packages"
download=$(mktemp -d)
trap 'rm -rf "$download"' EXIT
chmod 755 "$download"
for package in "${wanted[@]}"; do
    (cd "$download" && apt-get download -qq "$package" 2>/dev/null)
    rm -rf "${packages:?}/$package"
    dpkg-deb -x "$download/$package"_*.deb "$packages/$package"
    touch "$packages/$package/.libraries-installed"
done
echo "the servers are unpacked in $packages"
