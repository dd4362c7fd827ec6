//! The system users under which a controller runs its parts. Those that were there before stay when the cluster is deleted.

use sealrs_image::error::Result;

use super::DATA;
use crate::action::{Action, Claim, Program};
use crate::command::word;
use crate::plan::{Context, Step};

const USERS: [&str; 4] = ["etcd", "konnectivity-server", "kube-apiserver", "kube-scheduler"];

/// Notes each user before it is made, and makes it as k0s does. The list is the first argument, the home the second.
const MAKE: &str = r#"
set -eu
for user in $USERS; do
    if id -u "$user" >/dev/null 2>&1; then continue; fi
    echo "$user" >>"$LIST"
    sync "$LIST" 2>/dev/null || sync
    if command -v useradd >/dev/null; then
        useradd --home "$HOME_FOLDER" --shell /usr/sbin/nologin --system --no-create-home "$user"
    else
        adduser -S -D -H -h "$HOME_FOLDER" -s /sbin/nologin "$user"
    fi
done"#;

/// Removes the users of the list.
const REMOVE: &str = r#"
set -eu
[ -e "$LIST" ] || exit 0
while read -r user; do
    if ! id -u "$user" >/dev/null 2>&1; then continue; fi
    if command -v userdel >/dev/null; then userdel "$user"; else deluser "$user"; fi
done <"$LIST""#;

/// How they are removed again.
pub(super) fn claim(context: &Context<'_>) -> Claim {
    Claim::Command(shell(context, REMOVE))
}

pub(super) fn step(context: &Context<'_>) -> Result<Step> {
    context.step(
        "k0s-users",
        "make k0s's system users",
        Action::Run(shell(context, MAKE)),
    )
}

fn shell(context: &Context<'_>, script: &str) -> Program {
    let variables = [
        ("LIST", word(&context.files.data().join("k0s-users"))),
        ("HOME_FOLDER", DATA.to_owned()),
        ("USERS", USERS.join(" ")),
    ];
    Program {
        argv: ["sh", "-c", script.trim_start()].map(str::to_owned).to_vec(),
        folder: context.files.data(),
        env: variables.map(|(name, value)| (name.to_owned(), value)).into(),
    }
}
