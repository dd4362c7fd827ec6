//! The ClusterImages that are installed: a runtime, two archives of images, settings, and a pod as the image's command.

use std::fs;
use std::process::Command;

use super::host::{GIVEN, Host, testdata};
use super::product::Product;
use super::upstream::Upstream;
use crate::support::{Scratch, succeed};

/// What the image's command starts, from an archive in `images/`.
const POD: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: bundled}
spec:
  containers:
  - name: main
    image: busybox:1.35
    command: [sleep, \"100000\"]
";

/// How the image of a runtime is built.
fn kubefile(product: &Product) -> String {
    let Product { name, version, .. } = product;
    format!(
        "FROM scratch\nLABEL cluster.alpha.sealer.io/cluster-runtime-type={name} \
         cluster.alpha.sealer.io/cluster-runtime-version={version}\nCOPY rootfs .\n\
         CMDS [\"kubectl apply -f manifests/pod.yaml\"]\n"
    )
}

/// A build context, from which images are built in the connected network.
#[derive(Debug)]
pub struct Bundle<'h> {
    scratch: &'h Scratch,
    product: &'static Product,
}

impl<'h> Bundle<'h> {
    pub fn new(host: &'h Host) -> Self {
        Self::of(host.product, &host.scratch)
    }

    pub fn of(product: &'static Product, scratch: &'h Scratch) -> Self {
        let bundle = Self { scratch, product };
        let file = |path: &str, content: &str| drop(scratch.write(&format!("context/{path}"), content));
        file("Kubefile", &kubefile(product));
        file("rootfs/manifests/pod.yaml", POD);
        let (path, settings) = product.settings;
        file(&format!("rootfs/{path}"), settings);
        for folder in ["bin", "images"] {
            fs::create_dir_all(scratch.path(&format!("context/rootfs/{folder}"))).unwrap();
        }
        bundle.archive("pause", product.pause, "pause.tar");
        bundle.archive("busybox", "docker.io/library/busybox:1.35", "busybox.tar");
        let program = format!("context/rootfs/bin/{}", product.name);
        product.put(&scratch.path(&program));
        bundle
    }

    /// Makes an archive of an image in `images/`.
    pub fn archive(&self, kind: &str, name: &str, file: &str) {
        let path = self.scratch.path(&format!("context/rootfs/images/{file}"));
        succeed(Command::new(testdata("images/make-image.sh")).args([kind, name, &path]));
    }

    /// Makes an archive of an image with a file `/content` that holds `content`, outside of the context.
    pub fn image_with(&self, content: &str) -> String {
        let file = self.scratch.write(&format!("images/{content}/content"), content);
        let archive = self.scratch.path(&format!("images/{content}.tar"));
        let arguments = ["busybox", "docker.io/library/unnamed:1", &archive, &file];
        succeed(Command::new(testdata("images/make-image.sh")).args(arguments));
        archive
    }

    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        self.scratch.write(&format!("context/{path}"), content);
    }

    pub fn read(&self, path: &str) -> Vec<u8> {
        self.scratch.read(&format!("context/{path}"))
    }

    /// Builds and saves the image; gives the archive's path on the host.
    pub fn save(&self, name: &str, upstream: Option<&Upstream<'_>>) -> String {
        let scratch = self.scratch;
        let context = scratch.path("context");
        let (kubefile, root) = (scratch.path("context/Kubefile"), scratch.path("root"));
        let image = format!("{name}:test");
        // The images of its manifests are archives in `images/`.
        let mut arguments = vec![
            "--root",
            &root,
            "--quiet",
            "build",
            "--no-discovery",
            "-f",
            &kubefile,
            "-t",
            &image,
        ];
        let ca = upstream.map(Upstream::ca);
        arguments.extend(ca.iter().flat_map(|ca| ["--ca-file", ca]));
        arguments.push(&context);
        let program = env!("CARGO_BIN_EXE_sealrs");
        let mut command = match upstream {
            Some(upstream) => upstream.connected(program, &arguments),
            None => Command::new(program),
        };
        if upstream.is_none() {
            command.args(&arguments);
        }
        succeed(&mut command);
        let archive = format!("{name}.tar");
        let given = scratch.path(&format!("given/{archive}"));
        succeed(Command::new(program).args(["--root", &root, "--quiet", "save", &image, "-o", &given]));
        format!("{GIVEN}/{archive}")
    }
}
