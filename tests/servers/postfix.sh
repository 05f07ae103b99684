#!/bin/bash
# A private Postfix: postfix.sh start DIR SMTP_PORT [TLS_PORT] | stop DIR | reload DIR
#
# STARTTLS on SMTP_PORT, implicit TLS on TLS_PORT, AUTH (user@example.com, secret) under TLS only. Configuration, queue,
# log and mail are in DIR; whoever starts it again in the same DIR finds queue and mail as they were.
#
#   DIR/tls/ca.pem            the CA to trust; the server's certificate is for localhost, not for 127.0.0.1
#   DIR/tls/other-ca.pem      a CA that has signed nothing here
#   DIR/log/maillog           the log: one "queue active" for each message taken into the queue
#   DIR/mail/inbox/new/*      one file for each recipient of a delivered message
#
#   anybody@example.com       is delivered            reject*@example.com    550 at RCPT
#   tempfail*@example.com     450 at RCPT             bye*@example.com       421 at RCPT, and the connection is closed
#   anybody@elsewhere         554 without AUTH; with it, accepted and thrown away
#
# Environment: SASL_USERS='name name' are further users @example.com with the same password, from the first start in DIR on;
# POSTFIX_MAIN='name = value;name = value' are further settings of main.cf, with start and with reload.
. "$(dirname "$0")/common.sh"
parse_arguments "$@"
need_installed postfix
root=$packages/postfix
libraries=$root/usr/lib/postfix
export LD_LIBRARY_PATH=$libraries

# What is set again replaces what was set before: of a setting that is there twice every process warns, the log writer too, and that one
# waits for itself for ever when as much as its socket holds is still to be written.
set_further() {
    local setting
    while IFS= read -r -d ';' setting; do
        [ -n "$setting" ] || continue
        sed -i "/^${setting%%[ =]*} *=/d" "$dir/etc/main.cf"
        printf '%s\n' "$setting" >>"$dir/etc/main.cf"
    done <<<"${POSTFIX_MAIN:-};"
}

# The processes of this Postfix, by name and by the folder that they work in. Any of them may outlive the master, and holds its ports.
family() {
    local process
    for process in /proc/[0-9]*; do
        if [ "$process/cwd" -ef "$dir/spool" ] && [[ $(readlink "$process/exe") == */postfix/sbin/* ]]; then
            echo "${process#/proc/}"
        fi
    done
}

is_running() {
    [ -n "$(family)" ]
}

if [ "$command" = stop ]; then
    [ -f "$dir/etc/main.cf" ] || exit 0
    timeout 30 "$root/usr/sbin/postfix" -c "$dir/etc" stop >/dev/null 2>&1 || true
    # That has ended the master and sent its children a signal. What is left after a second ends by force.
    for attempt in {1..200}; do
        mapfile -t left < <(family)
        [ ${#left[@]} -gt 0 ] || break
        kill "$([ "$attempt" -le 20 ] && echo -TERM || echo -KILL)" "${left[@]}" 2>/dev/null || true
        sleep 0.05
    done
    ! is_running || fail "not all of it ends in $dir"
    rm -f "$dir/pid"
    exit 0
fi
if [ "$command" = reload ]; then
    is_running || fail "not running in $dir"
    set_further
    "$root/usr/sbin/postfix" -c "$dir/etc" reload >>"$dir/log/start" 2>&1 || fail "$(<"$dir/log/start")"
    exit 0
fi

is_running && fail "already running in $dir"
smtp_port=${ports[0]} tls_port=${ports[1]:-}
for port in "${ports[@]}"; do need_free_port "$port"; done
id "$mailbox_user" >/dev/null 2>&1 || fail "no user $mailbox_user: run tests/servers/get-pkgs.sh first"

mkdir -p "$dir"/{etc/sasl,spool,data,log,mail,sasl,tls}
chmod 755 "$dir" "$dir/mail"
chown root "$dir/spool"
chown "$postfix_user" "$dir/data"
chown "$mailbox_user" "$dir/mail"

# --- certificates, made once for each DIR
if [ ! -s "$dir/tls/server.pem" ]; then
    make_ca() { # NAME
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -sha256 \
            -subj "/CN=$1 of a private test server" -addext basicConstraints=critical,CA:TRUE \
            -addext keyUsage=critical,keyCertSign,cRLSign -keyout "$dir/tls/$1.key" -out "$dir/tls/$1.pem"
    }
    {
        make_ca ca
        make_ca other-ca
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost \
            -keyout "$dir/tls/server.key" -out "$dir/tls/server.csr"
        printf '%s\n' basicConstraints=CA:FALSE keyUsage=digitalSignature extendedKeyUsage=serverAuth \
            subjectAltName=DNS:localhost >"$dir/tls/extensions"
        openssl x509 -req -in "$dir/tls/server.csr" -CA "$dir/tls/ca.pem" -CAkey "$dir/tls/ca.key" -CAcreateserial \
            -days 3650 -sha256 -extfile "$dir/tls/extensions" -out "$dir/tls/server.pem"
    } 2>"$dir/tls/openssl.log" || fail "openssl: $(<"$dir/tls/openssl.log")"
    cat "$dir/tls/server.pem" "$dir/tls/ca.pem" >"$dir/tls/chain.pem"
    chmod 644 "$dir"/tls/*.pem
    chmod 600 "$dir"/tls/*.key
fi

# --- AUTH from a file, without a daemon. Debian's Postfix reads CONFIG_DIRECTORY/sasl whatever cyrus_sasl_config_path says.
sasl_plugins=$(printf ':%s' "$packages"/libsasl2-modules{,-db}/usr/lib/*/sasl2)
sasl_plugins=${sasl_plugins#:}
printf '%s\n' 'pwcheck_method: auxprop' 'auxprop_plugin: sasldb' "sasldb_path: $dir/sasl/sasldb2" \
    'mech_list: PLAIN LOGIN' >"$dir/etc/sasl/smtpd.conf"
if [ ! -s "$dir/sasl/sasldb2" ]; then
    for user in user ${SASL_USERS:-}; do
        printf secret | SASL_PATH=$sasl_plugins "$packages/sasl2-bin/usr/sbin/saslpasswd2" -c -p \
            -f "$dir/sasl/sasldb2" -u example.com "$user"
    done
fi
chown "root:$postfix_user" "$dir/sasl/sasldb2"
chmod 640 "$dir/sasl/sasldb2"

# --- configuration
printf '%s\n' '/^reject/ 550 5.1.1 no such user' '/^tempfail/ 450 4.2.0 try again later' \
    '/^bye/ 421 4.3.2 closing' >"$dir/etc/recipients"
printf '%s\n' '/^/ inbox/' >"$dir/etc/mailboxes"
cat >"$dir/etc/main.cf" <<END
compatibility_level = 3.6
queue_directory = $dir/spool
data_directory = $dir/data
command_directory = $root/usr/sbin
daemon_directory = $libraries/sbin
shlib_directory = $libraries
meta_directory = $root/etc/postfix
sendmail_path = $root/usr/sbin/sendmail
mail_owner = $postfix_user
setgid_group = $postfix_setgid_group
import_environment = MAIL_CONFIG MAIL_LOGTAG TZ LANG=C LD_LIBRARY_PATH=$libraries SASL_PATH=$sasl_plugins POSTLOG_SERVICE POSTLOG_HOSTNAME
maillog_file = $dir/log/maillog
maillog_file_prefixes = $dir
# A queue id that names one message for ever, so that the log can be counted.
enable_long_queue_ids = yes
# Tests kill its processes: without this the master waits a minute before it starts another.
service_throttle_time = 1s
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = localhost
myorigin = example.com
mydestination =
mynetworks =
alias_maps =
alias_database =
local_recipient_maps =
default_database_type = texthash
# Content stays as it came: no header is added to it or rewritten in it.
local_header_rewrite_clients =
virtual_mailbox_domains = example.com
virtual_mailbox_maps = regexp:$dir/etc/mailboxes
virtual_mailbox_base = $dir/mail
virtual_minimum_uid = 1
virtual_uid_maps = static:$(id -u "$mailbox_user")
virtual_gid_maps = static:$(id -g "$mailbox_user")
virtual_mailbox_limit = 0
default_transport = discard:
relay_transport = discard:
message_size_limit = 20480000
smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access regexp:$dir/etc/recipients, permit_sasl_authenticated, reject_unauth_destination
smtpd_tls_security_level = may
smtpd_tls_chain_files = $dir/tls/server.key, $dir/tls/chain.pem
smtpd_tls_session_cache_database =
smtpd_tls_auth_only = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
# Limits on clients hold for this machine too, and are off unless a test sets them.
smtpd_client_event_limit_exceptions =
smtpd_client_connection_count_limit = 0
smtpd_peername_lookup = no
notify_classes =
END
set_further
# A queue manager that is started by a reload skips what its predecessor is still delivering until it is next woken: each second, not each
# five minutes.
cat >"$dir/etc/master.cf" <<END
127.0.0.1:$smtp_port inet n - n - 100 smtpd
${tls_port:+127.0.0.1:$tls_port inet n - n - 100 smtpd -o smtpd_tls_wrappermode=yes}
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
END

# What a killed Postfix has left behind half-way is told of by a program that is this user when the next one starts, and that does not start
# if it cannot be told.
touch "$dir/log/maillog"
chown "$postfix_user" "$dir/log/maillog"

if ! "$root/usr/sbin/postfix" -c "$dir/etc" start </dev/null >"$dir/log/start" 2>&1; then
    cat "$dir/log/start" "$dir/log/maillog" >&2 || true
    fail "Postfix did not start"
fi
for port in "${ports[@]}"; do wait_for_port "$port"; done
wait_for_greeting "$smtp_port"
tr -d ' \n' <"$dir/spool/pid/master.pid" >"$dir/pid"
