//! Whatever is in a Clusterfile, reading it ends with a result or with errors that can be shown.

use proptest::prelude::*;
use sealrs_image::finding::listed;

use super::Clusterfile;

const DOCUMENTS: [&str; 3] = [
    include_str!("example.yaml"),
    "apiVersion: sealer.io/v2\nkind: K3sConfig\nspec:\n  server: {disable: [traefik], tls-san: [a]}\n  agent:\n    kubelet-arg: [a=b]\n",
    "apiVersion: sealer.cloud/v1\nkind: Cluster\nspec:\n  network: {podCIDR: 10.1.0.0/16}\n  masters: {ipList: [fd00::1-fd00::3]}\n---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nx: [1, ~]\n",
];
const PIECES: [&str; 36] = [
    "\n",
    "\r\n",
    "\u{feff}",
    "---\n",
    "...\n",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "<<: *a",
    "!!int ",
    "!x ",
    "|\n",
    ">-\n",
    "\"",
    "'",
    "\\",
    "#",
    "%YAML 9\n",
    "\t",
    "\0",
    "ä",
    "𝒳",
    "~",
    "null",
    "1e999",
    "0x",
    "-",
    ",",
    "10.0.0.1-255",
    "::-ffff::",
    "key=",
];

fn mutated() -> impl Strategy<Value = String> {
    let change = (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        0..5_usize,
        0..40_usize,
    );
    let changes = prop::collection::vec(change, 1..8);
    (prop::sample::select(&DOCUMENTS[..]), changes).prop_map(|(document, changes)| {
        let mut text: Vec<char> = document.chars().collect();
        for (place, other, sort, length) in changes {
            let at = place.index(text.len() + 1);
            let end = (at + length).min(text.len());
            match sort {
                0 => text.truncate(at),
                1 => drop(text.drain(at..end)),
                2 => {
                    let copied = text[at..end].to_vec();
                    let to = other.index(text.len() + 1);
                    text.splice(to..to, copied);
                }
                _ => {
                    let piece = PIECES[other.index(PIECES.len())];
                    text.splice(at..at, piece.chars());
                }
            }
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_file_is_too_strange(text in mutated()) {
        let lint = Clusterfile::lint("Clusterfile", &text);
        prop_assert_eq!(Clusterfile::parse("Clusterfile", &text).is_ok(), lint.errors.is_empty());
        let lines = text.lines().count() + 2;
        for finding in lint.errors.iter().chain(&lint.warnings) {
            prop_assert!(finding.line.unwrap_or(1) <= lines, "{}", finding);
            prop_assert!(!finding.message.is_empty());
        }
        prop_assert_eq!(listed(&lint.errors).is_empty(), lint.errors.is_empty());
    }

    #[test]
    fn no_text_is_too_strange(text in "\\PC{0,200}") {
        let _ = Clusterfile::lint("Clusterfile", &text);
        let _ = Clusterfile::lint("Clusterfile", &format!("apiVersion: sealer.io/v2\nkind: Cluster\nspec: {text}"));
    }
}
