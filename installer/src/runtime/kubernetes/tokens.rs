//! Hosts join with bootstrap tokens. The API server hears of one right before, and forgets it right after.

use std::net::IpAddr;
use std::path::PathBuf;

use sealrs_image::error::Result;

use super::services::{crictl, shell};
use super::{KUBECONFIG, PKI, program, secret, secret_file, state};
use crate::action::{Action, Content};
use crate::command::word;
use crate::member::Role;
use crate::plan::{Context, Step};

/// How long a token is good for, in seconds: a join takes a minute or two, and forgetting it is what ends it.
const VALID: u32 = 3600;

/// Makes the token of a file known. What is secret goes through pipes alone.
const INVITE: &str = r#"
set -eu
token=$(cat "$TOKEN_FILE"); id=${token%%.*}; secret=${token#*.}
expires=$(date -u -d "@$(($(date +%s) + VALID))" +%Y-%m-%dT%H:%M:%SZ)
timeout -k 5 90 "$KUBECTL" apply -f - <<X
{"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
 "metadata": {"name": "bootstrap-token-$id", "namespace": "kube-system"},
 "stringData": {"token-id": "$id", "token-secret": "$secret", "expiration": "$expires",
  "description": "made by sealrs for hosts that join now",
  "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
  "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token"}}
X"#;

/// Makes the token of a file forgotten, and removes the file.
const FORGET: &str = r#"
set -eu
[ -e "$TOKEN_FILE" ] || exit 0
token=$(cat "$TOKEN_FILE"); id=${token%%.*}
timeout -k 5 90 "$KUBECTL" delete secret -n kube-system "bootstrap-token-$id" --ignore-not-found
rm -f "$TOKEN_FILE""#;

/// A member that is down lets no other in, and one of this address is what is left of an earlier try.
const MAKE_ROOM: &str = r#"
[ -e /etc/kubernetes/manifests/etcd.yaml ] || exit 0
members=$(etcdctl member list)
old=$(printf '%s\n' "$members" | awk -F', ' -v peer="https://$PEER:2380" '$4 == peer { print $1 }')
others_are_up
[ -z "$old" ] || etcdctl member remove "$old""#;

/// Shell functions to talk to etcd, from a master.
pub(super) const ETCD: &str = r#"
set -eu
etcdctl() {
    container=$($CRICTL ps -q --name '^etcd$' --state Running | head -n 1)
    [ -n "$container" ] || { echo "etcd does not run on this master" >&2; return 1; }
    $CRICTL exec "$container" etcdctl --endpoints="${AT:-https://127.0.0.1:2379}" --cacert="$PKI/etcd/ca.crt" \
        --cert="$PKI/etcd/healthcheck-client.crt" --key="$PKI/etcd/healthcheck-client.key" "$@"
}
# All members but that of the host that is meant.
others_are_up() {
    for at in $(printf '%s\n' "$members" | awk -F', ' -v peer="https://$PEER:2380" '$4 != peer { print $5 }'); do
        AT=$at etcdctl endpoint health || {
            echo "the member of etcd at $at is down, and with it down the members can't be changed safely:" \
                "bring that master up again, or take it out with \`sealrs delete --masters\` first" >&2
            exit 1
        }
    done
}"#;

/// Variables for [`ETCD`].
pub(super) fn etcd_variables(crictl: &[String], peer: IpAddr) -> [(&'static str, String); 3] {
    let host = match peer {
        IpAddr::V6(address) => format!("[{address}]"),
        IpAddr::V4(address) => address.to_string(),
    };
    [("CRICTL", crictl.join(" ")), ("PKI", PKI.to_owned()), ("PEER", host)]
}

/// Masters come one by one and each has a token of its own; nodes come together and share one.
pub(super) fn token(context: &Context<'_>) -> String {
    secret(&match context.role {
        Role::Node => "node.token".to_owned(),
        Role::Master => format!("master-{}.token", file_name(context.host)),
    })
}

fn file_name(address: IpAddr) -> String {
    address.to_string().replace(':', "-")
}

/// Where the founder has the token meanwhile.
fn known(context: &Context<'_>) -> PathBuf {
    state(context.files).join(token(context).replace('/', "-"))
}

pub(super) fn invite(context: &Context<'_>) -> Result<Vec<Step>> {
    let who = who(context);
    let mut steps = Vec::new();
    if context.role == Role::Master {
        let variables = etcd_variables(&crictl(context, &[]), context.host);
        let action = Action::Run(shell(context, &format!("{ETCD}\n{MAKE_ROOM}"), &variables));
        steps.push(on_founder(
            context,
            "kubernetes-room",
            format!("make room in etcd for {who}"),
            action,
        )?);
    }
    let file = Action::WriteFiles(vec![secret_file(known(context), Content::Secret(token(context)))]);
    steps.push(on_founder(
        context,
        "kubernetes-token",
        format!("make a token for {who}"),
        file,
    )?);
    let action = Action::Run(shell(context, INVITE, &variables(context)));
    steps.push(on_founder(
        context,
        "kubernetes-invite",
        format!("let {who} join for an hour"),
        action,
    )?);
    Ok(steps)
}

pub(super) fn forget(context: &Context<'_>) -> Result<Vec<Step>> {
    let action = Action::Run(shell(context, FORGET, &variables(context)));
    Ok(vec![on_founder(
        context,
        "kubernetes-forget",
        "let nobody join any more".to_owned(),
        action,
    )?])
}

fn who(context: &Context<'_>) -> &'static str {
    match context.role {
        Role::Node => "nodes",
        Role::Master => "a master",
    }
}

fn variables(context: &Context<'_>) -> [(&'static str, String); 4] {
    [
        ("TOKEN_FILE", word(&known(context))),
        ("KUBECTL", word(&program(context, "kubectl"))),
        ("KUBECONFIG", KUBECONFIG.to_owned()),
        ("VALID", VALID.to_string()),
    ]
}

fn on_founder(context: &Context<'_>, id: &str, title: String, action: Action) -> Result<Step> {
    let id = match context.role {
        Role::Node => format!("{id}-nodes"),
        Role::Master => format!("{id}-{}", file_name(context.host)),
    };
    Step::on(context.founder(), id, title, action)
}
