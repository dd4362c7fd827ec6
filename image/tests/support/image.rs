//! Small images in an OCI layout, made from nothing.

use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use sealrs_image::digest::Digest;
use sealrs_image::platform::Platform;
use sealrs_image::spec::{Descriptor, Index, media_type};
use serde_json::json;

/// Writes a layout in `folder` with an image `TAG` whose layers hold one file each with these bytes. With two or more
/// `platforms` (`linux/amd64`) the image is an index.
pub fn layout(folder: &Path, tag: &str, platforms: &[&str], layers: &[Vec<u8>]) {
    std::fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    let blob = |bytes: &[u8], kind: &str| {
        let descriptor = Descriptor::of(kind, bytes);
        std::fs::write(folder.join("blobs/sha256").join(descriptor.digest.hex()), bytes).unwrap();
        descriptor
    };
    let mut members = Vec::new();
    for platform in platforms {
        let platform: Platform = platform.parse().unwrap();
        let (mut diff_ids, mut descriptors) = (Vec::new(), Vec::new());
        for (number, content) in layers.iter().enumerate() {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("file-{number}"), content.as_slice())
                .unwrap();
            let tar = tar.into_inner().unwrap();
            diff_ids.push(Digest::of(&tar));
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            std::io::Write::write_all(&mut packed, &tar).unwrap();
            descriptors.push(blob(&packed.finish().unwrap(), media_type::LAYER_GZIP));
        }
        let config = json!({
            "os": platform.os, "architecture": platform.architecture, "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = blob(&serde_json::to_vec(&config).unwrap(), media_type::CONFIG);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": descriptors,
        });
        let mut member = blob(&serde_json::to_vec(&manifest).unwrap(), media_type::MANIFEST);
        member.platform = Some(platform);
        members.push(member);
    }
    let mut root = match members.as_slice() {
        [only] => only.clone(),
        _ => blob(&serde_json::to_vec(&Index::new(members)).unwrap(), media_type::INDEX),
    };
    root.annotations
        .insert("org.opencontainers.image.ref.name".to_owned(), tag.to_owned());
    let index = serde_json::to_vec(&Index::new(vec![root])).unwrap();
    std::fs::write(folder.join("index.json"), index).unwrap();
    std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}
