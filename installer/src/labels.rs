//! Labels and taints of nodes, and their roles, by kubectl on the first master.

use std::collections::BTreeMap;
use std::path::Path;

use sealrs_image::error::{Error, ErrorKind, Result};

use crate::action::{Action, Program};
use crate::member::Member;
use crate::plan::{Context, Step};
use crate::runtime::Runtime;

/// The steps on the founder that give the nodes of these members what is wanted of them.
///
/// # Errors
/// [`ErrorKind::Input`] when the cluster has no kubeconfig to do it with.
pub(crate) fn steps<'m>(
    founder: &Context<'_>,
    runtime: &dyn Runtime,
    members: impl Iterator<Item = &'m Member>,
) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for member in members {
        let Some(peer) = founder.peers.iter().find(|peer| peer.address == member.address) else {
            continue;
        };
        let commands = commands(member, &runtime.node_name(peer, founder.options));
        if commands.is_empty() {
            continue;
        }
        if !runtime.layout().kubeconfig {
            return Err(Error::new(
                ErrorKind::Input,
                format!(
                    "{} has labels or taints, but runtime {} makes no kubeconfig to set them with",
                    member.address,
                    runtime.name()
                ),
            )
            .hint("leave them out of the Clusterfile"));
        }
        for (number, (title, command)) in commands.into_iter().enumerate() {
            let program = Program {
                argv: vec!["bash".to_owned(), "-c".to_owned(), command],
                folder: founder.files.rootfs(),
                env: kubeconfig(&founder.files.kubeconfig()),
            };
            let id = format!("node-{}-{}", member.address, number + 1);
            steps.push(founder.step(id, title, Action::Run(program))?);
        }
    }
    Ok(steps)
}

fn kubeconfig(path: &Path) -> BTreeMap<String, String> {
    BTreeMap::from([("KUBECONFIG".to_owned(), path.to_string_lossy().into_owned())])
}

/// What is done to a node, with words for it. No label or taint has a letter that means something to a shell: they were
/// checked.
fn commands(member: &Member, node: &str) -> Vec<(String, String)> {
    let mut labels: Vec<String> = member
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    // Runtimes mark masters themselves.
    labels.extend(
        member
            .roles
            .iter()
            .filter(|role| *role != "master")
            .map(|role| format!("node-role.kubernetes.io/{}=", role.replace('/', "."))),
    );
    let mut commands = Vec::new();
    if !labels.is_empty() {
        commands.push((
            format!("label node {node}"),
            format!("kubectl label --overwrite node {node} {}", labels.join(" ")),
        ));
    }
    let (gone, set): (Vec<&str>, Vec<&str>) = member
        .taints
        .iter()
        .map(String::as_str)
        .partition(|taint| taint.ends_with('-'));
    if !set.is_empty() {
        commands.push((
            format!("taint node {node}"),
            format!("kubectl taint --overwrite node {node} {}", set.join(" ")),
        ));
    }
    for taint in gone {
        commands.push((
            format!("take the taint {} from node {node}", taint.trim_end_matches('-')),
            // One that is not there is as good as one that was taken away.
            format!(
                "said=$(kubectl taint node {node} {taint} 2>&1) || case $said in *'not found'*) ;; *) echo \"$said\" >&2; exit 1 ;; esac"
            ),
        ));
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::{Access, Role};

    #[test]
    fn labels_roles_and_taints_are_set_and_taken_away() {
        let mut member = Member::new("10.0.0.5".parse().unwrap(), Role::Node, Access::default());
        assert!(commands(&member, "n").is_empty());
        member.labels.insert("zone".into(), "a".into());
        member.roles = vec!["node".into(), "storage".into()];
        member.taints = ["a-b=c:NoSchedule", "x-y-", "z:NoExecute-"].map(str::to_owned).to_vec();
        let all: Vec<String> = commands(&member, "n").into_iter().map(|(_, command)| command).collect();
        assert_eq!(
            all[..2],
            [
                "kubectl label --overwrite node n zone=a node-role.kubernetes.io/node= node-role.kubernetes.io/storage=",
                "kubectl taint --overwrite node n a-b=c:NoSchedule",
            ]
        );
        assert!(all[2].contains("taint node n x-y- ") && all[3].contains("taint node n z:NoExecute- "));
        member.roles = vec!["master".into()];
        assert_eq!(commands(&member, "n")[0].1, "kubectl label --overwrite node n zone=a");
    }
}
