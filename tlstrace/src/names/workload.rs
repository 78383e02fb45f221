//! What a pod was made for, from its own name and labels: controllers mark what they make.

use std::sync::Arc;

use super::identity::Workload;

/// Of a pod, where its labels tell.
///
/// A Deployment's pods are a ReplicaSet's, which is called as the Deployment and the hash in the label; the names of
/// the others end with the name of their owner and one more part.
pub(super) fn of_labels<'a>(pod: &str, label: impl Fn(&str) -> Option<&'a str>) -> Option<Workload> {
    let workload = |kind: &str, name: &str| {
        (!name.is_empty()).then(|| Workload { kind: kind.into(), name: Arc::from(name) })
    };
    let (owner, _) = pod.rsplit_once('-')?;
    if let Some(hash) = label("pod-template-hash") {
        return workload("Deployment", owner.strip_suffix(hash)?.strip_suffix('-')?);
    }
    if let Some(name) = label("batch.kubernetes.io/job-name").or_else(|| label("job-name")) {
        return workload("Job", name);
    }
    if label("statefulset.kubernetes.io/pod-name").is_some() {
        return workload("StatefulSet", owner);
    }
    // StatefulSets have this label too, and the one above since Kubernetes 1.9.
    label("controller-revision-hash").and_then(|_| workload("DaemonSet", owner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_told_by_what_they_put_on_pods() {
        let workload = |pod: &str, labels: &[(&str, &'static str)]| {
            let label = |name: &str| labels.iter().find(|(label, _)| *label == name).map(|(_, value)| *value);
            of_labels(pod, label).map(|workload| format!("{}/{}", workload.kind, workload.name))
        };
        assert_eq!(
            workload("web-api-7d9f5-x2x4z", &[("pod-template-hash", "7d9f5")]).unwrap(),
            "Deployment/web-api"
        );
        assert_eq!(workload("web-api-7d9f5-x2x4z", &[("pod-template-hash", "other")]), None);
        assert_eq!(workload("backup-28-abcde", &[("job-name", "backup-28")]).unwrap(), "Job/backup-28");
        let revision = ("controller-revision-hash", "1");
        assert_eq!(workload("fluentbit-gke-abcde", &[revision]).unwrap(), "DaemonSet/fluentbit-gke");
        let ordinal = ("statefulset.kubernetes.io/pod-name", "db-0");
        assert_eq!(workload("db-0", &[revision, ordinal]).unwrap(), "StatefulSet/db");
        assert_eq!(workload("alone", &[]), None);
    }
}
