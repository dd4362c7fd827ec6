#!/usr/bin/env bash
# Everything on a host that an installation could leave behind, one thing a line. Read from standard input by `bash -s`.
set -u
export LC_ALL=C

# What systemd and journald change by themselves is left out.
find /etc /usr/local /usr/libexec /opt /root /home /srv /tmp /run /var/lib /var/log /var/spool -xdev \
    \( -path /run/systemd -o -path /run/log -o -path /var/log/journal -o -path /tmp/sealrs-test \) -prune \
    -o -printf 'path %p %y %m %u:%g %l\n'
# The files that end in - are what useradd and userdel keep of the ones before.
find /etc -xdev -type f ! -regex '/etc/\(passwd\|shadow\|group\|gshadow\)-' -exec sha256sum {} + | sed 's/^/content /'
find /usr/local /root -xdev -type f -printf 'file %p %s %T@\n'
awk '{print "mount " $5}' /proc/self/mountinfo
ip -o link | awk '{sub(/@.*/, "", $2); print "link " $2}'
ip route | sed 's/^/route /'
# Empty tables and chains that let everything through stay where iptables has once been used.
nft list ruleset 2>/dev/null | awk '
    /^table/ { table = $2 " " $3 }
    /^\tchain/ { chain = $2; if (chain !~ /^(PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING)$/) print "chain " table " " chain }
    { gsub(/counter packets [0-9]+ bytes [0-9]+/, "") }
    /^\t\t/ && !/type .* hook .* policy accept;$/ { print "rule " table " " chain ":" $0 }'
find /sys/fs/cgroup -mindepth 2 -type d -not -name 'exec.scope' | sed 's/^/cgroup /'
systemctl list-unit-files --no-legend | sed 's/^/unit file /'
systemctl list-units --all --plain --no-legend | awk '{print "unit " $1, $2, $3, $4}'
ps -eo args= | grep -vE '^(bash -s|ps -eo args=|grep -vE .*|sed .*)$' | sed 's/^/process /'
