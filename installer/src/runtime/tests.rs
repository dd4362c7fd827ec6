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
    for name in ["k0s", "k3s", "script"] {
        assert_eq!(of(&runtime_image(name)).unwrap().name(), name);
    }
    for (label, says) in [
        (Some("kubernetes"), "`kubernetes` is not available yet"),
        (Some("nomad"), "`nomad` is not known"),
        (None, "means `kubernetes`"),
    ] {
        let image = label.map_or_else(|| cluster_image(&[]), runtime_image);
        let error = of(&image).unwrap_err();
        assert!(error.to_string().contains(says), "{error:?}");
        assert!(error.remedy().unwrap().contains("k0s, k3s, script"));
    }
}
