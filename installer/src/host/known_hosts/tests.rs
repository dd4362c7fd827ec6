use std::process::Command;

use proptest::prelude::*;

use super::*;

const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5zCF";
const OTHER: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

fn try_with(text: &str, policy: HostKeyPolicy, address: &str, port: u16) -> (Result<()>, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ssh/known_hosts");
    if !text.is_empty() {
        fs::create_dir(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
    }
    let key = parse_public_key_base64(KEY).unwrap();
    let result = check(policy, &file, address, port, &key);
    (result, fs::read_to_string(file).unwrap_or_default())
}

/// The text with hashed names, as OpenSSH hashes them.
fn hashed(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("known");
    fs::write(&file, text).unwrap();
    let done = Command::new("ssh-keygen").arg("-H").arg("-f").arg(&file).output();
    assert!(done.unwrap().status.success());
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("|1|"), "{text}");
    text
}

fn has_ssh_keygen() -> bool {
    let is_there = Command::new("ssh-keygen").arg("-?").output().is_ok();
    if !is_there {
        println!("skipped: this test needs `ssh-keygen`");
    }
    is_there
}

#[test]
fn a_new_host_is_noted_once_or_refused() {
    let (result, text) = try_with("", HostKeyPolicy::AcceptNew, "10.0.0.1", 2222);
    result.unwrap();
    assert_eq!(text, format!("[10.0.0.1]:2222 ssh-ed25519 {KEY}\n"));
    let (result, again) = try_with(&text, HostKeyPolicy::Strict, "10.0.0.1", 2222);
    result.unwrap();
    assert_eq!(again, text);
    let (result, text) = try_with("", HostKeyPolicy::Strict, "fd00::1", 22);
    assert!(result.unwrap_err().to_string().contains("SHA256:"));
    assert_eq!(text, "");
    // The last line has no end.
    let (result, text) = try_with("# nothing", HostKeyPolicy::AcceptNew, "FD00::1", 22);
    result.unwrap();
    assert_eq!(text, format!("# nothing\nfd00::1 ssh-ed25519 {KEY}\n"));
}

#[test]
fn a_changed_or_revoked_key_is_refused_with_its_place() {
    let changed = format!("# mine\na,b ssh-ed25519 {OTHER}\n");
    let (result, after) = try_with(&changed, HostKeyPolicy::AcceptNew, "b", 22);
    let error = result.unwrap_err();
    assert!(error.to_string().contains("known_hosts:2 has SHA256:"), "{error}");
    assert!(error.remedy().unwrap().contains("ssh-keygen -R 'b'"));
    assert_eq!(after, changed);
    let revoked = format!("b ssh-ed25519 {KEY}\n@revoked * ssh-ed25519 {KEY}\n");
    let (result, _) = try_with(&revoked, HostKeyPolicy::AcceptNew, "b", 22);
    assert!(result.unwrap_err().to_string().contains("revoked"));
    try_with(&changed, HostKeyPolicy::Off, "b", 22).0.unwrap();
}

/// Whether the host is known, by the text before the key's type.
#[test]
fn names_of_every_sort_are_understood() {
    let cases = [
        ("node1", "node1", 22, true),
        ("node1", "NODE1", 22, true),
        ("Node1", "node1", 22, true),
        ("node1", "node1", 2222, true),
        ("[node1]:2222", "node1", 2222, true),
        ("[node1]:2222", "node1", 22, false),
        ("[node1]:2222", "node1", 2223, false),
        ("[*]:2222", "node1", 2222, true),
        ("a,node1,b", "node1", 22, true),
        ("anode1", "node1", 22, false),
        ("node1.example", "node1", 22, false),
        ("node?", "node1", 22, true),
        ("node?", "node", 22, false),
        ("*", "node1", 22, true),
        ("*.example,!bad.example", "good.example", 22, true),
        ("*.example,!bad.example", "bad.example", 22, false),
        ("!bad.example", "good.example", 22, false),
        ("10.0.*", "10.0.7.1", 22, true),
        ("fd00::1", "FD00::1", 22, true),
        ("[fd00::1]:2222", "fd00::1", 2222, true),
        ("@cert-authority *", "node1", 22, false),
        ("@unheard-of node1", "node1", 22, false),
        ("#node1", "node1", 22, false),
        ("# node1", "node1", 22, false),
        ("  node1", "node1", 22, true),
        ("|1|no salt", "node1", 22, false),
        ("|1|bm8=|aGFzaA==", "node1", 22, false),
    ];
    for (names, address, port, known) in cases {
        let (result, _) = try_with(
            &format!("{names} ssh-ed25519 {KEY}\n"),
            HostKeyPolicy::Strict,
            address,
            port,
        );
        assert_eq!(result.is_ok(), known, "{names} for {address}:{port}: {result:?}");
    }
    for (line, known) in [
        (format!("\tnode1\t ssh-ed25519   {KEY} comment of mine\r\n"), true),
        (format!("node1 ssh-ed25519 {KEY}"), true),
        (format!("node1 {KEY}\n"), false),
        ("node1 ssh-ed25519 AAAA\n".to_owned(), false),
        ("node1 1024 35 12345678901234567890\n".to_owned(), false),
    ] {
        let (result, _) = try_with(&line, HostKeyPolicy::Strict, "node1", 22);
        assert_eq!(result.is_ok(), known, "{line:?}: {result:?}");
    }
}

#[test]
fn a_key_without_a_port_counts_where_none_has_the_port() {
    let plain = format!("node1 ssh-ed25519 {OTHER}\n");
    // It differs: the server at that port is another one.
    let (result, text) = try_with(&plain, HostKeyPolicy::AcceptNew, "node1", 2222);
    result.unwrap();
    assert!(text.ends_with(&format!("[node1]:2222 ssh-ed25519 {KEY}\n")), "{text}");
    let both = format!("node1 ssh-ed25519 {KEY}\n[node1]:2222 ssh-ed25519 {OTHER}\n");
    try_with(&both, HostKeyPolicy::AcceptNew, "node1", 2222).0.unwrap_err();
}

#[test]
fn names_may_be_hashed() {
    if !has_ssh_keygen() {
        return;
    }
    let text = hashed(&format!("[node1]:2022 ssh-ed25519 {KEY}\n"));
    try_with(&text, HostKeyPolicy::Strict, "node1", 2022).0.unwrap();
    try_with(&text, HostKeyPolicy::Strict, "node1", 22).0.unwrap_err();
    let text = hashed(&format!("node1 ssh-ed25519 {OTHER}\n"));
    let error = try_with(&text, HostKeyPolicy::AcceptNew, "node1", 22).0.unwrap_err();
    assert!(error.to_string().contains("has changed"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// OpenSSH's own reader finds a host in a line exactly when this one does.
    #[test]
    fn finds_the_lines_that_openssh_finds(
        names in prop::collection::vec("!?[ab*?]{0,3}(\\.[a*])?", 1..4),
        address in "[ab]{1,3}(\\.[ab])?",
        with_port in any::<bool>(),
    ) {
        if !has_ssh_keygen() {
            return Ok(());
        }
        let port = if with_port { 2222 } else { 22 };
        let names: Vec<String> = names
            .into_iter()
            .map(|name| if with_port { format!("{}[{}]:2222", if name.starts_with('!') { "!" } else { "" }, name.trim_start_matches('!')) } else { name })
            .collect();
        let names = names.join(",");
        // OpenSSH skips lines without a name in a way of its own.
        prop_assume!(!names.is_empty() && !names.starts_with(','));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("known");
        fs::write(&file, format!("{names} ssh-ed25519 {KEY}\n")).unwrap();
        let name = name(&address, port);
        let found = Command::new("ssh-keygen").args(["-F", &name, "-f"]).arg(&file).output().unwrap();
        prop_assert_eq!(matches(&names, &name), found.status.success(), "{} for {}", names, name);
    }

    #[test]
    fn no_text_makes_it_panic_or_know_a_host(text in "[ -~\\n\\t|@!,\\[\\]é]{0,200}", address in "[ -~]{0,20}", port in any::<u16>()) {
        prop_assert!(entries(&text, &name(&address, port)).is_empty());
    }

    /// Patterns of stars do not take for ever.
    #[test]
    fn stars_take_no_time(stars in "(\\*a){20,40}") {
        let name = "a".repeat(2000);
        let start = std::time::Instant::now();
        let pattern = format!("{stars}b");
        prop_assert!(!fits(&pattern, &name));
        prop_assert!(start.elapsed() < std::time::Duration::from_secs(1));
    }
}
