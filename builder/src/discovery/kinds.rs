//! Where the kinds of Kubernetes and of well-known operators name container images.

/// A kind and its paths.
pub(super) struct KindPaths {
    /// The group of its `apiVersion`; empty for the core.
    group: &'static str,
    kind: &'static str,
    /// Pod specs; the empty path is the object itself.
    pub(super) pods: &'static [&'static str],
    /// Whole references.
    pub(super) images: &'static [&'static str],
}

/// Where a pod spec names images.
pub(super) struct Pod {
    pub(super) containers: [&'static str; 3],
    pub(super) volumes: &'static str,
}

/// The containers and volumes of a pod spec.
pub(super) const POD: Pod = Pod {
    containers: ["containers.*", "initContainers.*", "ephemeralContainers.*"],
    volumes: "volumes.*.image.reference",
};

/// Arguments whose value is an image.
pub(super) const ARGUMENTS: [&str; 3] = [
    "--acme-http01-solver-image=",
    "--prometheus-config-reloader=",
    "--config-reloader-image=",
];

/// Environment variables of operators that name the images they start.
pub(super) const VARIABLES: &str = "RELATED_IMAGE_";

const fn pods(group: &'static str, kind: &'static str, pods: &'static [&'static str]) -> KindPaths {
    KindPaths {
        group,
        kind,
        pods,
        images: &[],
    }
}

const fn images(group: &'static str, kind: &'static str, images: &'static [&'static str]) -> KindPaths {
    KindPaths {
        group,
        kind,
        pods: &[],
        images,
    }
}

const fn both(
    group: &'static str,
    kind: &'static str,
    pods: &'static [&'static str],
    images: &'static [&'static str],
) -> KindPaths {
    KindPaths {
        group,
        kind,
        pods,
        images,
    }
}

const TEMPLATE: &[&str] = &["spec.template.spec"];
const ARGO: &[&str] = &[
    "spec.templates.*.container.image",
    "spec.templates.*.script.image",
    "spec.templates.*.initContainers.*.image",
    "spec.templates.*.sidecars.*.image",
    "spec.templates.*.containerSet.containers.*.image",
];
const CRON_ARGO: &[&str] = &[
    "spec.workflowSpec.templates.*.container.image",
    "spec.workflowSpec.templates.*.script.image",
    "spec.workflowSpec.templates.*.initContainers.*.image",
    "spec.workflowSpec.templates.*.sidecars.*.image",
    "spec.workflowSpec.templates.*.containerSet.containers.*.image",
];
const TEKTON: &[&str] = &["spec.steps.*.image", "spec.sidecars.*.image", "spec.stepTemplate.image"];
const TEKTON_PIPELINE: &[&str] = &[
    "spec.tasks.*.taskSpec.steps.*.image",
    "spec.tasks.*.taskSpec.sidecars.*.image",
    "spec.finally.*.taskSpec.steps.*.image",
    "spec.finally.*.taskSpec.sidecars.*.image",
];
const KUBEVIRT: &[&str] = &["spec.template.spec.volumes.*.containerDisk.image"];

const TABLE: &[KindPaths] = &[
    pods("", "Pod", &["spec"]),
    pods("", "PodTemplate", &["template.spec"]),
    pods("", "ReplicationController", TEMPLATE),
    pods("apps", "Deployment", TEMPLATE),
    pods("apps", "DaemonSet", TEMPLATE),
    pods("apps", "ReplicaSet", TEMPLATE),
    pods("apps", "StatefulSet", TEMPLATE),
    pods("extensions", "Deployment", TEMPLATE),
    pods("extensions", "DaemonSet", TEMPLATE),
    pods("extensions", "ReplicaSet", TEMPLATE),
    pods("batch", "Job", TEMPLATE),
    pods("batch", "CronJob", &["spec.jobTemplate.spec.template.spec"]),
    both(
        "monitoring.coreos.com",
        "Prometheus",
        &["spec"],
        &["spec.image", "spec.thanos.image"],
    ),
    both("monitoring.coreos.com", "PrometheusAgent", &["spec"], &["spec.image"]),
    both("monitoring.coreos.com", "Alertmanager", &["spec"], &["spec.image"]),
    both("monitoring.coreos.com", "ThanosRuler", &["spec"], &["spec.image"]),
    pods("apps.openshift.io", "DeploymentConfig", TEMPLATE),
    pods("apps.kruise.io", "CloneSet", TEMPLATE),
    pods("apps.kruise.io", "DaemonSet", TEMPLATE),
    pods("apps.kruise.io", "StatefulSet", TEMPLATE),
    pods("batch.volcano.sh", "Job", &["spec.tasks.*.template.spec"]),
    pods("keda.sh", "ScaledJob", &["spec.jobTargetRef.template.spec"]),
    pods(
        "jobset.x-k8s.io",
        "JobSet",
        &["spec.replicatedJobs.*.template.spec.template.spec"],
    ),
    both(
        "operators.coreos.com",
        "ClusterServiceVersion",
        &["spec.install.spec.deployments.*.spec.template.spec"],
        &["spec.relatedImages.*.image"],
    ),
    images("operators.coreos.com", "CatalogSource", &["spec.image"]),
    images("postgresql.cnpg.io", "Cluster", &["spec.imageName"]),
    images("rabbitmq.com", "RabbitmqCluster", &["spec.image"]),
    images("opentelemetry.io", "OpenTelemetryCollector", &["spec.image"]),
    images("ceph.rook.io", "CephCluster", &["spec.cephVersion.image"]),
    pods("argoproj.io", "Rollout", TEMPLATE),
    images("argoproj.io", "Workflow", ARGO),
    images("argoproj.io", "WorkflowTemplate", ARGO),
    images("argoproj.io", "ClusterWorkflowTemplate", ARGO),
    images("argoproj.io", "CronWorkflow", CRON_ARGO),
    images("tekton.dev", "Task", TEKTON),
    images("tekton.dev", "ClusterTask", TEKTON),
    images("tekton.dev", "Pipeline", TEKTON_PIPELINE),
    images("kubevirt.io", "VirtualMachine", KUBEVIRT),
    images(
        "kubevirt.io",
        "VirtualMachineInstance",
        &["spec.volumes.*.containerDisk.image"],
    ),
    pods("serving.knative.dev", "Service", TEMPLATE),
    images("elasticsearch.k8s.elastic.co", "Elasticsearch", &["spec.image"]),
    images("kibana.k8s.elastic.co", "Kibana", &["spec.image"]),
];

/// What is known of a kind.
pub(super) fn of(api_version: &str, kind: &str) -> Option<&'static KindPaths> {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    TABLE.iter().find(|entry| entry.group == group && entry.kind == kind)
}
