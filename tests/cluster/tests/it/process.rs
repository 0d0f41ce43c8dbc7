//! The operator as a process: its harness, its election, its end.

use luminate_cluster::{Cluster, Installation, until};

#[test]
fn three_lines_are_an_installation() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace();
    let installation = Installation::only(cluster, &[&namespace]);
    let operator = installation.operator().start();
    namespace.apply(include_str!("../../../../deploy/examples/rocksdb.yaml"));
    until("it is ready", || {
        let resource = namespace.get("luminate", "small").expect("it was applied");
        resource["status"]["readyReplicas"] == 1
    });
    assert!(operator.leads());
    operator.stop();
}
