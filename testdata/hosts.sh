#!/usr/bin/env bash
# hosts.sh - real machines to install on, made of namespaces on one Linux machine.
#
# Each host has namespaces of its own (net, mount, pid, uts, ipc, cgroup) with
#   * systemd as PID 1 (or a bare sshd, HOSTS_INIT=plain), sshd, its own host key,
#     host name, machine-id, /etc/hosts and the address 10.88.0.(10+n);
#   * its own root: an overlay of this machine's / whose upper part is an ext4 image
#     of its own, so that df, a full disk and rm -rf are real;
#   * /var/lib, /root and /home straight on that image, because overlayfs cannot
#     be stacked on overlayfs and containerd wants one.
# The hosts share a bridge inside the namespace NAME-ctl (10.88.0.1), which leads
# nowhere: the machine's own network stays as it is, no packet gets out, and several
# instances (HOSTS_NAME) run side by side with the same addresses.
#
#   hosts.sh up N               make and boot hosts 1..N; boots stopped ones; idempotent
#   hosts.sh down               kill, unmount and delete everything of this instance
#   hosts.sh exec n CMD...      run CMD in host n, as root, without ssh
#   hosts.sh exec ctl CMD...    run CMD in the hosts' network with this machine's files
#   hosts.sh ssh n [CMD...]     ssh into host n by key, from ctl
#   hosts.sh list               number, name, address and state of each host
#   hosts.sh stop n...          pull the plug: kill -9 of PID 1; the disk stays
#   hosts.sh start n...         boot from that disk
#   hosts.sh net n up|down      the network cable
#
# Settings come from the environment; give every call the same HOSTS_NAME.
#   HOSTS_NAME=th        the instance, at most 8 characters
#   HOSTS_STATE=/var/tmp/test-hosts-$HOSTS_NAME    disks, keys, process ids, logs
#   HOSTS_BASE=/         root below the overlay: / or, for a bare host, a debootstrap folder
#   HOSTS_INIT=systemd   systemd | plain
#   HOSTS_CGROUP=v2      v2: unified only | v1: the machine's v1 controllers too, which
#                        runc, containerd and a kubelet need on a machine with both
#   HOSTS_SYSCTL=ro      rw: hosts may write global sysctls, as a kubelet insists on
#                        doing; those in KUBELET_SYSCTLS are put back by the last 'down'
#   HOSTS_DISK=20G       size of each host's sparse disk
#   HOSTS_PASSWORD=sealrs     password of root and of HOSTS_USER
#   HOSTS_USER=ops       a second account without root rights ('' for none)
#   HOSTS_BIND="source:target ..."    files and folders bound read-only into each host
# Left in HOSTS_STATE: id_ed25519, known_hosts, ssh_config and n/{disk.img,log,pid}.
#
# Needs root and the Debian packages openssh-server openssh-client iproute2 systemd dbus
# e2fsprogs util-linux. Installing packages on the machine while hosts run changes the
# layer below them, which overlayfs leaves undefined: boot them again afterwards.
set -euo pipefail

NAME=${HOSTS_NAME:-th}
STATE=${HOSTS_STATE:-/var/tmp/test-hosts-$NAME}
BASE=${HOSTS_BASE:-/}
INIT=${HOSTS_INIT:-systemd}
CGROUP=${HOSTS_CGROUP:-v2}
SYSCTL=${HOSTS_SYSCTL:-ro}
DISK=${HOSTS_DISK:-20G}
PASSWORD=${HOSTS_PASSWORD:-sealrs}
SECOND_USER=${HOSTS_USER-ops}
BIND=${HOSTS_BIND:-}

SELF=$(readlink -f "$0")
KUBELET_SYSCTLS="vm/overcommit_memory kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes"
SHARED=/run/test-hosts
BOOT_AT_ONCE=4

die() { echo "hosts.sh: $*" >&2; exit 1; }
address() { local v=$((10 + $1)); echo "10.88.$((v / 256)).$((v % 256))"; }
in_netns() { local n=$1; shift; ip netns exec "$NAME-$n" "$@"; }
has_netns() { [ -e "/run/netns/$NAME-$1" ]; }
number() { local n=${1#node}; [[ $n =~ ^[1-9][0-9]*$ ]] || die "no such host: $1"; echo "$n"; }
host_numbers() {
    local d
    for d in "$STATE"/[0-9]*; do if [ -d "$d" ]; then echo "${d##*/}"; fi; done | sort -n
}

# The pid file of a host names the process and its start time, so that a number
# which another process got meanwhile is never signalled.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
pid_of() {
    local p t
    read -r p t 2>/dev/null <"$STATE/$1/pid" || return 1
    [ -n "$t" ] && [ "$(start_time "$p")" = "$t" ] && echo "$p"
}

# This process's cgroups, one "<hierarchy> <directory>" a line. Those of the hosts are
# made below them, so whatever accounts for the caller goes on doing so.
own_cgroups() {
    local id controllers path mount
    while IFS=: read -r id controllers path; do
        case $id:$controllers in
        0:)
            mount=$(awk '$3=="cgroup2"{print $2; exit}' /proc/mounts)
            controllers=unified
            ;;
        *) mount=$(awk -v c="${controllers#name=}" '$3=="cgroup" && ","$4"," ~ "[,=]"c","{print $2; exit}' /proc/mounts) ;;
        esac
        if [ -n "$mount" ] && [ -d "$mount$path" ]; then echo "${controllers#name=} ${mount%/}${path%/}"; fi
    done </proc/self/cgroup
}

# ---------------------------------------------------------------- network
network_base() {
    has_netns ctl && return
    ip netns add "$NAME-ctl"
    in_netns ctl ip link set lo up
    in_netns ctl ip link add br0 type bridge
    in_netns ctl ip addr add 10.88.0.1/16 dev br0
    in_netns ctl ip link set br0 up
}

# A host boots with a network namespace that knows nothing of the last boot's links,
# routes and packet filters. Only the cable stays as it was.
network_host() {
    local n=$1 cable=up
    if has_netns "$n"; then
        [[ $(in_netns ctl ip link show "v$n") == *[,\<]UP[,\>]* ]] || cable=down
        in_netns ctl ip link del "v$n"
        ip netns del "$NAME-$n"
    fi
    ip netns add "$NAME-$n"
    in_netns ctl ip link add "v$n" type veth peer name eth0 netns "$NAME-$n"
    in_netns ctl ip link set "v$n" master br0 "$cable"
    in_netns "$n" ip link set lo up
    in_netns "$n" ip addr add "$(address "$n")/16" dev eth0
    in_netns "$n" ip link set eth0 up
    in_netns "$n" ip route add default via 10.88.0.1
}

# ---------------------------------------------------------------- inside a new host
# Runs as PID 1 of the new namespaces: builds the root, pivots into it, becomes init.
boot() {
    local n=$1 d=$STATE/$1 r=$STATE/$1/root x=$STATE/$1/disk first='' f
    mount --make-rprivate /
    mount -o loop,noatime "$d/disk.img" "$x"
    [ -d "$x/upper" ] || first=1
    mkdir -p "$x/upper" "$x/work" "$x/volumes/var-lib" "$x/volumes/root" "$x/volumes/home"
    chmod 700 "$x/volumes/root"
    [ -z "$first" ] || hide_configuration "$x/upper"
    mount -t overlay -o "lowerdir=$BASE,upperdir=$x/upper,workdir=$x/work" node "$r"
    if [ -n "$first" ]; then # the little of /var/lib that a system needs
        for f in dpkg/status systemd dbus pam misc; do
            [ -e "$r/var/lib/$f" ] || continue
            mkdir -p "$(dirname "$x/volumes/var-lib/$f")"
            cp -a "$r/var/lib/$f" "$x/volumes/var-lib/$f"
        done
    fi
    mount --bind "$x/volumes/var-lib" "$r/var/lib"
    mount --bind "$x/volumes/root" "$r/root"
    mount --bind "$x/volumes/home" "$r/home"
    boot_kernel_filesystems "$r"
    boot_cgroups "$r"
    for f in /mnt /media /srv /var/tmp; do # the machine's own, this instance's state among it
        [ -d "$r$f" ] && mount -t tmpfs -o mode=1777 none "$r$f"
    done
    for f in $BIND; do boot_bind "${f%%:*}" "$r${f#*:}"; done
    [ -z "$first" ] || first_boot "$n" "$r"

    hostname "node$n"
    cd "$r"
    mkdir -p mnt/old
    pivot_root . mnt/old
    cd /
    umount -l /mnt/old
    rmdir /mnt/old 2>/dev/null || true
    mkdir -p /run/sshd
    if [ "$INIT" = systemd ]; then
        exec env -i container=test-host PATH=/usr/sbin:/usr/bin:/sbin:/bin \
            /lib/systemd/systemd --show-status=no --log-target=journal --system
    fi
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
        bash -c 'while :; do /usr/sbin/sshd -D -e; sleep 0.2; done'
}

# What this machine runs or has configured is none of the host's. A character device 0,0
# in the upper part makes overlayfs show nothing there.
hide_configuration() {
    local upper=$1 f
    mkdir -p "$upper/etc/systemd/system"
    for f in rancher kubernetes containerd docker cni sealer k0s containers; do
        mknod "$upper/etc/$f" c 0 0
    done
    for f in "$BASE"/etc/systemd/system/*.wants; do
        [ -d "$f" ] && mknod "$upper/etc/systemd/system/${f##*/}" c 0 0
    done
    return 0
}

boot_kernel_filesystems() {
    local r=$1 f major minor
    mount -t proc proc "$r/proc"
    if [ "$SYSCTL" = ro ]; then # only those of this network namespace may be set
        mount --bind "$r/proc/sys" "$r/proc/sys"
        mount --bind "$r/proc/sys/net" "$r/proc/sys/net"
        mount -o remount,bind,ro "$r/proc/sys"
    fi
    mount -t sysfs -o ro sysfs "$r/sys"
    mount -t tmpfs -o mode=755 dev "$r/dev"
    mkdir -p "$r/dev/pts" "$r/dev/shm" "$r/dev/net" "$r/dev/mqueue"
    for f in null,1,3 zero,1,5 full,1,7 random,1,8 urandom,1,9 tty,5,0 kmsg,1,11 fuse,10,229 net/tun,10,200; do
        IFS=, read -r f major minor <<<"$f"
        mknod -m 666 "$r/dev/$f" c "$major" "$minor"
    done
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$r/dev/pts"
    ln -s pts/ptmx "$r/dev/ptmx"
    ln -s /proc/self/fd "$r/dev/fd"
    for f in stdin,0 stdout,1 stderr,2; do ln -s "/proc/self/fd/${f#*,}" "$r/dev/${f%,*}"; done
    mount -t tmpfs -o mode=1777 shm "$r/dev/shm"
    mount -t mqueue mqueue "$r/dev/mqueue"
    mount -t tmpfs -o mode=755 run "$r/run"
    mount -t tmpfs -o mode=1777 tmp "$r/tmp"
}

boot_cgroups() {
    local r=$1 c
    if [ "$CGROUP" = v2 ] || ! awk '$3=="cgroup"{f=1} END{exit !f}' /proc/mounts; then
        mount -t cgroup2 cgroup2 "$r/sys/fs/cgroup"
        return
    fi
    mount -t tmpfs -o mode=755 cgroup "$r/sys/fs/cgroup"
    own_cgroups | while read -r c _; do
        mkdir -p "$r/sys/fs/cgroup/$c"
        case $c in
        unified) mount -t cgroup2 cgroup2 "$r/sys/fs/cgroup/unified" ;;
        systemd) mount -t cgroup -o none,name=systemd cgroup "$r/sys/fs/cgroup/systemd" ;;
        *) mount -t cgroup -o "$c" cgroup "$r/sys/fs/cgroup/$c" ;;
        esac
    done
}

boot_bind() {
    local source=$1 target=$2
    if [ -d "$source" ]; then
        mkdir -p "$target"
    else
        mkdir -p "$(dirname "$target")"
        [ -e "$target" ] || : >"$target"
    fi
    mount --bind "$source" "$target"
    mount -o remount,bind,ro "$target"
}

# What makes this host itself. All of it lands on its own disk.
first_boot() {
    local n=$1 r=$2 units=$2/etc/systemd/system u
    echo "node$n" >"$r/etc/hostname"
    printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n%s node%s\n' "$(address "$n")" "$n" >"$r/etc/hosts"
    printf '# no network but the hosts: no name server\n' >"$r/etc/resolv.conf"
    echo "$NAME-$n" | md5sum | cut -d' ' -f1 >"$r/etc/machine-id"
    rm -f "$r"/etc/ssh/ssh_host_* "$r/var/lib/dbus/machine-id"
    ssh-keygen -q -t ed25519 -N '' -C "node$n" -f "$r/etc/ssh/ssh_host_ed25519_key"
    cp "$r/etc/ssh/ssh_host_ed25519_key.pub" "$STATE/$n/"
    mkdir -p "$r/etc/ssh/sshd_config.d"
    printf 'PermitRootLogin yes\nPasswordAuthentication yes\nPubkeyAuthentication yes\nUseDNS no\n' \
        >"$r/etc/ssh/sshd_config.d/00-test-host.conf"
    install -d -m 700 "$r/root/.ssh"
    install -m 600 "$STATE/id_ed25519.pub" "$r/root/.ssh/authorized_keys"
    cp -a "$r/etc/skel/." "$r/root/" 2>/dev/null || true
    if [ -n "$SECOND_USER" ] && ! grep -q "^$SECOND_USER:" "$r/etc/passwd"; then
        chroot "$r" useradd -m -s /bin/bash "$SECOND_USER"
        install -d -m 700 "$r/home/$SECOND_USER/.ssh"
        cp "$STATE/id_ed25519.pub" "$r/home/$SECOND_USER/.ssh/authorized_keys"
        chroot "$r" chown -R "$SECOND_USER:" "/home/$SECOND_USER/.ssh"
        [ -d "$r/etc/sudoers.d" ] && echo "$SECOND_USER ALL=(ALL) NOPASSWD:ALL" >"$r/etc/sudoers.d/$SECOND_USER"
    fi
    for u in root $SECOND_USER; do printf '%s:%s\n' "$u" "$PASSWORD"; done | chroot "$r" chpasswd -c SHA256

    ln -sfn /lib/systemd/system/multi-user.target "$units/default.target"
    mkdir -p "$units/multi-user.target.wants"
    ln -sfn /lib/systemd/system/ssh.service "$units/multi-user.target.wants/ssh.service"
    for u in getty.target console-getty.service systemd-logind.service systemd-udevd.service \
        systemd-udev-trigger.service systemd-timesyncd.service systemd-networkd.service \
        systemd-resolved.service proc-sys-fs-binfmt_misc.automount dev-hugepages.mount \
        sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount \
        systemd-modules-load.service; do
        ln -sfn /dev/null "$units/$u"
    done
}

# ---------------------------------------------------------------- outside of a host
start_host() {
    local n=$1 d=$STATE/$1 p c dir children=()
    pid_of "$n" >/dev/null && return
    mkdir -p "$d/root" "$d/disk"
    if [ ! -e "$d/disk.img" ]; then
        truncate -s "$DISK" "$d/disk.img.new"
        mkfs.ext4 -q -F -m 0 -O ^has_journal -E lazy_itable_init=1 "$d/disk.img.new"
        mv "$d/disk.img.new" "$d/disk.img"
    fi
    network_host "$n"
    (   # enter the host's cgroups first: they become the root of its cgroup namespace
        own_cgroups | while read -r c dir; do
            [ "$CGROUP" = v1 ] || [ "$c" = unified ] || continue
            dir=$dir/$NAME-$n
            mkdir -p "$dir"
            if [ "$c" = cpuset ]; then
                cat "$dir/../cpuset.cpus" >"$dir/cpuset.cpus"
                cat "$dir/../cpuset.mems" >"$dir/cpuset.mems"
            fi
            echo "$dir"
        done >"$d/cgroups"
        while read -r dir; do echo "$BASHPID" >"$dir/cgroup.procs"; done <"$d/cgroups"
        exec setsid nsenter --net="/run/netns/$NAME-$n" \
            unshare --mount --uts --ipc --cgroup --pid --fork --kill-child --propagation private \
            "$SELF" __boot "$n" </dev/null >"$d/log" 2>&1
    ) &
    p=$!
    disown "$p"
    for _ in $(seq 200); do # its PID 1: the child of unshare that is 1 in its namespace
        read -ra children 2>/dev/null <"/proc/$p/task/$p/children" || true
        for c in "${children[@]}"; do
            [[ $(grep NSpid "/proc/$c/status" 2>/dev/null) =~ [[:space:]]1$ ]] || continue
            echo "$c $(start_time "$c")" >"$d/pid"
            return
        done
        sleep 0.03
    done
    die "node$n did not start: $(tail -3 "$d/log")"
}

wait_ssh() { # for a real answer, an open port is not enough
    local n=$1 a
    a=$(address "$n")
    for _ in $(seq 300); do
        # shellcheck disable=SC2016 # the inner shell expands it
        if in_netns ctl timeout 2 bash -c 'exec 3<>"/dev/tcp/$0/22" && read -t 2 -r l <&3 && [[ $l == SSH-2* ]]' "$a" 2>/dev/null; then return; fi
        pid_of "$n" >/dev/null || die "node$n died: $(tail -5 "$STATE/$n/log")"
        sleep 0.2
    done
    die "no sshd on node$n"
}

stop_host() {
    local n=$1 p dir
    if p=$(pid_of "$n"); then
        kill -KILL "$p" 2>/dev/null || true
        for _ in $(seq 100); do
            [ -d "/proc/$p" ] || break
            sleep 0.05
        done
    fi
    rm -f "$STATE/$n/pid"
    [ -f "$STATE/$n/cgroups" ] || return 0
    while read -r dir; do
        for _ in $(seq 40); do
            [ -d "$dir" ] || break
            find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.05
        done
    done <"$STATE/$n/cgroups"
}

write_client_files() {
    local n
    : >"$STATE/known_hosts.new"
    printf 'Host *\n  User root\n  IdentityFile %s/id_ed25519\n  UserKnownHostsFile %s/known_hosts\n  StrictHostKeyChecking yes\n  IdentitiesOnly yes\n' \
        "$STATE" "$STATE" >"$STATE/ssh_config"
    for n in $(host_numbers); do
        echo "$(address "$n"),node$n $(cut -d' ' -f1,2 "$STATE/$n/ssh_host_ed25519_key.pub")" >>"$STATE/known_hosts.new"
        printf 'Host node%s\n  HostName %s\n' "$n" "$(address "$n")" >>"$STATE/ssh_config"
    done
    mv "$STATE/known_hosts.new" "$STATE/known_hosts"
}

# The machine's sysctls belong to all instances together: the first 'up' notes them
# below SHARED, the last 'down' puts them back.
keep_sysctls() {
    local t
    mkdir -p "$SHARED/instances"
    exec 9>"$SHARED/lock"
    flock 9
    [ -e "$SHARED/sysctls" ] || for t in fs/inotify/max_user_instances $KUBELET_SYSCTLS; do
        echo "$t $(cat "/proc/sys/$t")"
    done >"$SHARED/sysctls"
    : >"$SHARED/instances/$NAME"
    exec 9>&-
}

put_sysctls_back() {
    local t value
    [ -e "$SHARED/instances/$NAME" ] || return 0
    exec 9>"$SHARED/lock"
    flock 9
    rm -f "$SHARED/instances/$NAME"
    if [ -z "$(ls "$SHARED/instances")" ]; then
        while read -r t value; do
            [ "$(cat "/proc/sys/$t")" = "$value" ] || echo "$value" >"/proc/sys/$t"
        done <"$SHARED/sysctls"
        rm -f "$SHARED/sysctls"
    fi
    exec 9>&-
}

raise_sysctl() {
    [ "$(cat "/proc/sys/$1")" -ge "$2" ] || echo "$2" >"/proc/sys/$1"
}

# ---------------------------------------------------------------- commands
command_up() {
    local n t
    [[ ${1:-} =~ ^[1-9][0-9]*$ ]] || die "up N"
    [ "$(id -u)" = 0 ] || die "must be root"
    [ ${#NAME} -le 8 ] || die "HOSTS_NAME: at most 8 characters"
    for t in ip mkfs.ext4 nsenter unshare sshd ssh-keygen ssh; do
        command -v $t >/dev/null || die "missing: $t"
    done
    mkdir -p "$STATE"
    chmod 700 "$STATE"
    keep_sysctls
    # An idle systemd holds 6 inotify instances of the 128 that root has by default.
    raise_sysctl fs/inotify/max_user_instances $((128 + $1 * 32))
    [ -e "$STATE/id_ed25519" ] || ssh-keygen -q -t ed25519 -N '' -C "$NAME" -f "$STATE/id_ed25519"
    network_base
    for n in $(seq "$1"); do
        start_host "$n" || exit
        [ $((n % BOOT_AT_ONCE)) != 0 ] || wait_ssh "$n"
    done
    for n in $(seq "$1"); do wait_ssh "$n"; done
    write_client_files
}

command_down() {
    local n
    for n in $(host_numbers); do stop_host "$n"; done
    for n in $(ip netns list 2>/dev/null | awk -v p="$NAME-" 'index($1,p)==1{print $1}'); do
        ip netns del "$n"
    done
    put_sysctls_back
    rm -rf --one-file-system "$STATE"
}

command_exec() {
    local h=${1:-} p dir
    [ $# -ge 2 ] || die "exec ctl|n CMD..."
    shift
    [ "$1" != -- ] || shift
    if [ "$h" = ctl ]; then exec nsenter --net="/run/netns/$NAME-ctl" -- "$@"; fi
    h=$(number "$h")
    p=$(pid_of "$h") || die "node$h is not running"
    while read -r dir; do # be counted in the host's cgroups
        if mkdir -p "$dir/exec.scope" 2>/dev/null; then echo $$ >"$dir/exec.scope/cgroup.procs" || true; fi
    done 2>/dev/null <"$STATE/$h/cgroups"
    exec nsenter -t "$p" --mount --uts --ipc --net --pid --cgroup --root="/proc/$p/root" --wd="/proc/$p/root" -- \
        env -i container=test-host HOME=/root USER=root LANG=C.UTF-8 TERM="${TERM:-dumb}" \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

command_ssh() {
    local h
    h=$(number "${1:-}")
    shift
    exec nsenter --net="/run/netns/$NAME-ctl" -- ssh -F "$STATE/ssh_config" "node$h" "$@"
}

command_list() {
    local n
    for n in $(host_numbers); do
        echo "$n node$n $(address "$n") $(if pid_of "$n" >/dev/null; then echo up; else echo off; fi)"
    done
}

command_net() {
    local n
    n=$(number "${1:-}")
    case ${2:-} in
    up | down) in_netns ctl ip link set "v$n" "$2" ;;
    *) die "net n up|down" ;;
    esac
}

case ${1:-} in
up) shift; command_up "$@" ;;
down) command_down ;;
exec) shift; command_exec "$@" ;;
ssh) shift; command_ssh "$@" ;;
list) command_list ;;
stop) shift; for n in "$@"; do stop_host "$(number "$n")"; done ;;
start) shift; for n in "$@"; do n=$(number "$n"); start_host "$n"; wait_ssh "$n"; done ;;
net) shift; command_net "$@" ;;
__boot) boot "$2" ;;
*) sed -n '2,/^set -/p' "$0" | sed '$d; s/^# \{0,1\}//'; [ "${1:-}" = help ] || exit 2 ;;
esac
