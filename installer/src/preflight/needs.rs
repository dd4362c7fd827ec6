//! What each cluster runtime needs of a host besides what it tells the core itself.

use crate::options::Options;

/// Needs of a runtime's hosts. Those that are not known are not checked.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Needs {
    /// It runs pods: kernel, control groups, network and so on have to be right.
    pub(super) pods: bool,
    /// Memory of a master in MiB: without that much it does not run, and with that much it runs well.
    pub(super) master_memory: (u64, u64),
    /// The same of a node.
    pub(super) node_memory: (u64, u64),
    /// Processors of a master.
    pub(super) master_cpus: usize,
    /// Swap keeps its kubelet from starting.
    pub(super) no_swap: bool,
    /// It writes into /etc/cni/net.d, and reads what others left there.
    pub(super) shares_cni: bool,
    /// It has the programs of iptables from the host.
    pub(super) iptables_of_host: bool,
    /// It finds addresses by the default route.
    pub(super) default_route: bool,
    /// It resolves the host's own name.
    pub(super) own_name: bool,
    /// Programs that have to be on the host.
    pub(super) tools: &'static [&'static str],
    /// A share of the disk, in percent, below which its kubelet removes images and pods.
    pub(super) free_percent: u64,
    /// TCP ports of a master when there are several masters.
    pub(super) quorum_ports: &'static [u16],
    /// The networks of pods and services.
    pub(super) networks: &'static [Network],
    /// The kinds of documents of a Clusterfile that it reads.
    pub(super) documents: &'static [&'static str],
}

/// A network inside of the cluster.
#[derive(Debug, Clone, Copy)]
pub(super) struct Network {
    /// Who is in it.
    pub(super) what: &'static str,
    /// Where nothing else is said.
    default: &'static str,
    /// The setting that says it, where the runtime has one.
    setting: &'static str,
    /// Its place in a document of a Clusterfile (RFC 6901).
    place: &'static str,
    /// The variable that says it.
    variable: &'static str,
}

const K3S: Needs = Needs {
    pods: true,
    master_memory: (512, 2000),
    node_memory: (256, 500),
    master_cpus: 1,
    no_swap: false,
    shares_cni: false,
    iptables_of_host: false,
    default_route: false,
    own_name: false,
    tools: &[],
    free_percent: 5,
    quorum_ports: &[2379, 2380, 2381],
    networks: &[
        Network {
            what: "pods",
            default: "10.42.0.0/16",
            setting: "cluster-cidr",
            place: "/spec/server/cluster-cidr",
            variable: "",
        },
        Network {
            what: "services",
            default: "10.43.0.0/16",
            setting: "service-cidr",
            place: "/spec/server/service-cidr",
            variable: "",
        },
    ],
    documents: &["K3sConfig"],
};

const K0S: Needs = Needs {
    pods: true,
    master_memory: (1000, 2000),
    node_memory: (500, 1000),
    master_cpus: 1,
    no_swap: false,
    shares_cni: true,
    iptables_of_host: false,
    default_route: true,
    own_name: false,
    tools: &["modprobe", "mount", "umount"],
    free_percent: 15,
    // They are among those of a master already.
    quorum_ports: &[],
    networks: &[
        Network {
            what: "pods",
            default: "10.244.0.0/16",
            setting: "",
            place: "/spec/network/podCIDR",
            variable: "",
        },
        Network {
            what: "services",
            default: "10.96.0.0/12",
            setting: "",
            place: "/spec/network/serviceCIDR",
            variable: "",
        },
    ],
    documents: &["ClusterConfig"],
};

const KUBERNETES: Needs = Needs {
    pods: true,
    master_memory: (1700, 2000),
    node_memory: (500, 1000),
    master_cpus: 2,
    no_swap: true,
    shares_cni: true,
    iptables_of_host: true,
    default_route: true,
    own_name: true,
    tools: &["ip", "iptables", "mount", "nsenter", "umount"],
    free_percent: 15,
    quorum_ports: &[2379, 2380],
    networks: &[
        Network {
            what: "pods",
            default: "100.64.0.0/10",
            setting: "",
            place: "/networking/podSubnet",
            variable: "PodCIDR",
        },
        Network {
            what: "services",
            default: "10.96.0.0/22",
            setting: "",
            place: "/networking/serviceSubnet",
            variable: "SvcCIDR",
        },
    ],
    documents: &[
        "ClusterConfiguration",
        "InitConfiguration",
        "JoinConfiguration",
        "KubeProxyConfiguration",
        "KubeletConfiguration",
    ],
};

impl Needs {
    /// What any of them needs.
    pub(super) const ANY: Self = Self {
        master_memory: (512, 1000),
        node_memory: (256, 500),
        networks: &[],
        quorum_ports: &[],
        free_percent: 0,
        ..K3S
    };

    /// Those of the runtime of this name.
    pub(super) fn of(runtime: &str) -> Self {
        match runtime {
            "k3s" => K3S,
            "k0s" => K0S,
            "kubernetes" => KUBERNETES,
            _ => Self::default(),
        }
    }
}

impl Network {
    /// The ranges of addresses that it has.
    pub(super) fn ranges(&self, options: &Options) -> Vec<String> {
        let setting = options.runtime_config.iter().rev();
        let setting = setting
            .filter_map(|setting| setting.trim_start_matches('-').split_once('='))
            .find(|(name, _)| *name == self.setting)
            .map(|(_, value)| value.to_owned());
        let document = || {
            let documents = options.runtime_documents.iter();
            let values = documents.filter_map(|document| document.pointer(self.place));
            values
                .filter_map(|value| match value {
                    serde_json::Value::String(text) => Some(text.clone()),
                    serde_json::Value::Array(texts) => {
                        let texts: Vec<&str> = texts.iter().filter_map(|text| text.as_str()).collect();
                        Some(texts.join(","))
                    }
                    _ => None,
                })
                .next_back()
        };
        let variable = || options.env.get(self.variable).cloned();
        let given = setting.or_else(document).or_else(variable);
        let ranges = given.unwrap_or_else(|| self.default.to_owned());
        ranges.split(',').map(|range| range.trim().to_owned()).collect()
    }

    /// How another one is given.
    pub(super) fn remedy(&self) -> String {
        let how = match (self.setting, self.variable) {
            ("", "") => format!(
                "`{}` of the runtime's document in a Clusterfile",
                self.place.trim_start_matches('/').replace('/', ".")
            ),
            ("", variable) => format!("`-e {variable}=RANGE`"),
            (setting, _) => format!("`--runtime-config {setting}=RANGE`"),
        };
        format!("choose another range for {} with {how}", self.what)
    }
}
