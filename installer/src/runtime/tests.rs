use super::*;
use sealrs_image::digest::Digest;
use sealrs_image::spec::{Descriptor, media_type};

/// A ClusterImage with these labels.
pub(crate) fn cluster_image(labels: &[(&str, &str)]) -> ClusterImage {
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": labels.iter().copied().collect::<std::collections::BTreeMap<_, _>>()},
        "rootfs": {"type": "layers", "diff_ids": []},
    });
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": Descriptor::of(media_type::CONFIG, b"{}"),
        "layers": [],
    });
    ClusterImage {
        descriptor: Descriptor::new(media_type::MANIFEST, Digest::of(b"image"), 1),
        manifest: serde_json::from_value(manifest).unwrap(),
        config: serde_json::from_value(config).unwrap(),
        extension: serde_json::from_str("{}").unwrap(),
        container_images: Vec::new(),
    }
}

/// A ClusterImage for a runtime.
pub(crate) fn runtime_image(runtime: &str) -> ClusterImage {
    cluster_image(&[(name::RUNTIME_TYPE, runtime)])
}

#[test]
fn the_label_chooses_the_runtime() {
    for name in ["k0s", "k3s", "kubernetes", "script"] {
        assert_eq!(of(&runtime_image(name)).unwrap().name(), name);
    }
    assert_eq!(of(&cluster_image(&[])).unwrap().name(), "kubernetes");
    let error = of(&runtime_image("nomad")).unwrap_err();
    assert!(error.to_string().contains("`nomad` is not known"), "{error:?}");
    assert!(error.remedy().unwrap().contains("k0s, k3s, kubernetes, script"));
}

/// What the core knows of the runtimes, as docs/runtimes.md shows it.
fn table() -> String {
    let list = |words: Vec<String>| {
        if words.is_empty() {
            "–".to_owned()
        } else {
            words.join(", ")
        }
    };
    let code = |words: &[&str]| list(words.iter().map(|word| format!("`{word}`")).collect());
    let ports = |ports: &[u16]| list(ports.iter().map(u16::to_string).collect());
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let row = |title: &str, cell: &dyn Fn(&Layout) -> String| {
        let cells = ALL.iter().map(|runtime| cell(&runtime.layout()));
        format!("| {title} | {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let names: Vec<&str> = ALL.iter().map(|runtime| runtime.name()).collect();
    [
        format!("| | {} |\n|{}\n", names.join(" | "), " --- |".repeat(names.len() + 1)),
        row("needs root", &|layout| yes(layout.needs_root)),
        row("brings containerd", &|layout| yes(layout.own_containerd)),
        row("makes a kubeconfig", &|layout| yes(layout.kubeconfig)),
        row("several masters agree by majority", &|layout| yes(layout.quorum)),
        row("programs for people", &|layout| code(layout.programs)),
        row("read from the image", &|layout| code(layout.documents)),
        row("TCP ports on every host", &|layout| ports(layout.ports)),
        row("TCP ports on masters besides", &|layout| ports(layout.master_ports)),
        row("where it was before, a host is refused", &|layout| {
            code(layout.leftovers)
        }),
    ]
    .concat()
}

#[test]
fn the_documentation_shows_what_the_core_knows() {
    let text = include_str!("../../../docs/runtimes.md");
    let (_, rest) = text.split_once("<!-- made by the code: begin -->\n").unwrap();
    let (shown, _) = rest.split_once("<!-- made by the code: end -->").unwrap();
    let made = table();
    assert_eq!(shown, made, "put this into docs/runtimes.md:\n{made}");
}
