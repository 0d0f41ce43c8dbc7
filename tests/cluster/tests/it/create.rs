//! From a resource to everything that it owns.

use serde_json::{Value, json};

use crate::scene::{Scene, condition, text};

const CLICKHOUSE: &str = include_str!("../../../../deploy/examples/clickhouse.yaml");
const CLICKHOUSE_FULL: &str = include_str!("../../../../deploy/examples/clickhouse-full.yaml");
const ROCKSDB: &str = include_str!("../../../../deploy/examples/rocksdb.yaml");
const ROCKSDB_FULL: &str = include_str!("../../../../deploy/examples/rocksdb-full.yaml");

/// Creates the resource and waits until it serves; its identity.
#[track_caller]
fn serving(scene: &Scene, name: &str, manifest: &str) -> String {
    scene.make(manifest);
    let resource = scene.settled(name);
    let truths: Vec<String> = ["Ready", "Progressing", "Degraded", "SpecValid"]
        .iter()
        .map(|kind| condition(&resource, kind))
        .map(|(status, reason, _)| format!("{status} {reason}"))
        .collect();
    assert_eq!(truths, ["True Available", "False Settled", "False AsExpected", "True Valid"]);
    text(&resource["metadata"]["uid"])
}

/// The columns of `kubectl get lum`, but for the age.
fn columns(scene: &Scene) -> Vec<Vec<String>> {
    let table = scene.kubectl(&["get", "lum"]);
    let columns = |line: &str| line.split_whitespace().take(5).map(str::to_owned).collect();
    table.lines().map(columns).collect()
}

/// What must hold of every object that is owned.
fn carries_labels_and_owner(scene: &Scene, name: &str, owned: &[String]) {
    for place in owned {
        let (kind, object) = place.split_once('/').expect("a kind");
        let object = scene.the(kind, object);
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/instance"], name, "{place}");
        assert_eq!(labels["app.kubernetes.io/managed-by"], "luminate-operator", "{place}");
        let owner = &object["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["kind"], &owner["controller"]), (&json!("Luminate"), &json!(true)), "{place}");
    }
}

/// The pod of either backend.
fn is_restricted(template: &Value) {
    let (spec, worker) = (&template["spec"], &template["spec"]["containers"][0]);
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    assert_eq!(spec["securityContext"]["runAsUser"], 1000);
    assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(worker["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(worker["securityContext"]["allowPrivilegeEscalation"], false);
    assert_eq!(worker["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
    let path = |probe: &str| text(&worker[probe]["httpGet"]["path"]);
    assert_eq!(path("startupProbe"), "/api/v1/health/startup");
    assert_eq!(path("livenessProbe"), "/api/v1/health/live");
    assert_eq!(path("readinessProbe"), "/api/v1/health/ready");
    // preStop, drain and the last commit, one after the other.
    assert_eq!(worker["lifecycle"]["preStop"]["sleep"]["seconds"], 15);
    assert_eq!(spec["terminationGracePeriodSeconds"], 55);
}

#[test]
fn three_lines_are_workers_over_clickhouse() {
    let scene = Scene::new();
    let uid = serving(&scene, "prod", CLICKHOUSE);
    let owned = scene.owned(&uid);
    assert_eq!(
        owned,
        [
            "configmap/prod-clickhouse",
            "deployment/prod",
            "hpa/prod",
            "networkpolicy/prod",
            "pdb/prod",
            "secret/prod-jwt",
            "service/prod",
            "serviceaccount/prod",
            "servicemonitor/prod",
        ]
    );
    carries_labels_and_owner(&scene, "prod", &owned);
    assert_eq!(scene.the("serviceaccount", "prod")["automountServiceAccountToken"], false);

    let file = text(&scene.the("configmap", "prod-clickhouse")["data"]["config.yaml"]);
    assert!(file.contains("http://clickhouse:8123") && file.contains("drain_delay"), "{file}");

    let deployment = scene.the("deployment", "prod");
    let spec = &deployment["spec"];
    assert_eq!(spec["strategy"]["rollingUpdate"], json!({ "maxUnavailable": 0, "maxSurge": 1 }));
    is_restricted(&spec["template"]);
    let pod = &spec["template"]["spec"];
    let near = &pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"];
    assert_eq!(near["topologyKey"], "kubernetes.io/hostname");
    assert_eq!(pod["topologySpreadConstraints"][0]["topologyKey"], "topology.kubernetes.io/zone");

    let scaling = scene.the("hpa", "prod")["spec"].clone();
    assert_eq!((&scaling["minReplicas"], &scaling["maxReplicas"]), (&json!(3), &json!(10)));
    let target = |at: usize| &scaling["metrics"][at]["resource"];
    let wanted = |at| (text(&target(at)["name"]), target(at)["target"]["averageUtilization"].as_i64());
    assert_eq!([wanted(0), wanted(1)], [("cpu".into(), Some(70)), ("memory".into(), Some(80))]);
    let policy = |kind, value, seconds| json!({ "type": kind, "value": value, "periodSeconds": seconds });
    let (up, down) = (&scaling["behavior"]["scaleUp"], &scaling["behavior"]["scaleDown"]);
    assert_eq!(up["policies"], json!([policy("Percent", 100, 15), policy("Pods", 2, 15)]));
    assert_eq!(down["policies"], json!([policy("Percent", 50, 60), policy("Pods", 1, 60)]));
    assert_eq!((&up["selectPolicy"], &down["selectPolicy"]), (&json!("Max"), &json!("Min")));
    assert_eq!(down["stabilizationWindowSeconds"], 300);

    assert_eq!(scene.the("pdb", "prod")["spec"]["maxUnavailable"], 1);
    let service = scene.the("service", "prod");
    assert_eq!(service["spec"]["selector"]["luminate.dev/backend"], "clickhouse");
    assert_eq!(service["spec"]["ports"][0]["port"], 8080);
    let egress = scene.the("networkpolicy", "prod")["spec"]["egress"].to_string();
    assert!(egress.contains("8123"), "{egress}");
    let ready = format!("http://prod.{}.svc:8080", scene.name());
    assert_eq!(
        columns(&scene),
        [["NAME", "BACKEND", "READY", "REPLICAS", "ENDPOINT"], ["prod", "ClickHouse", "True", "3", &ready]]
    );
    let scale: Value =
        serde_json::from_str(&scene.kubectl(&["get", "lum", "prod", "--subresource=scale", "-o", "json"]))
            .unwrap();
    assert_eq!(scale["status"]["replicas"], 3);
}

#[test]
fn three_lines_are_a_worker_with_a_volume() {
    let scene = Scene::new();
    let uid = serving(&scene, "small", ROCKSDB);
    let owned = scene.owned(&uid);
    assert_eq!(
        owned,
        [
            "configmap/small-rocksdb",
            "networkpolicy/small",
            "secret/small-jwt",
            "service/small",
            "service/small-headless",
            "serviceaccount/small",
            "servicemonitor/small",
            "statefulset/small",
        ]
    );
    carries_labels_and_owner(&scene, "small", &owned);
    let workload = scene.the("statefulset", "small");
    assert_eq!(workload["spec"]["replicas"], 1);
    assert_eq!(workload["spec"]["serviceName"], "small-headless");
    is_restricted(&workload["spec"]["template"]);
    assert_eq!(scene.the("service", "small-headless")["spec"]["clusterIP"], "None");
    let claim = scene.the("pvc", "data-small-0");
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "100Gi");
    assert_eq!(claim["status"]["phase"], "Bound");
    let secret = text(&scene.the("secret", "small-jwt")["data"]["jwt-secret"]);
    assert_eq!(secret.len(), 88, "64 hexadecimal digits, in base64");
    let ready = format!("http://small.{}.svc:8080", scene.name());
    assert_eq!(columns(&scene)[1], ["small", "RocksDB", "True", "1", &ready]);
}

#[test]
fn much_can_be_set_over_clickhouse() {
    let scene = Scene::new();
    scene.secret("clickhouse-credentials", &json!({ "username": "luminate", "password": "one" }));
    scene.secret("clickhouse-ca", &json!({ "ca.crt": "-----BEGIN CERTIFICATE-----" }));
    scene.secret("tokens", &json!({ "secret": "0123456789abcdef0123456789abcdef" }));
    let uid = serving(&scene, "prod", CLICKHOUSE_FULL);
    let owned = scene.owned(&uid);
    assert!(
        owned.contains(&"ingress/prod".into()) && !owned.contains(&"secret/prod-jwt".into()),
        "{owned:?}"
    );
    let deployment = scene.the("deployment", "prod");
    let template = &deployment["spec"]["template"];
    assert_eq!(template["metadata"]["labels"]["team"], "observability");
    let variables = template["spec"]["containers"][0]["env"].to_string();
    for part in ["\"TZ\"", "LUMINATE_STORAGE_CLICKHOUSE_PASSWORD", "clickhouse-credentials"] {
        assert!(variables.contains(part), "{variables}");
    }
    assert!(!deployment.to_string().contains("\"one\""), "the password is mounted, not written down");
    let ingress = scene.the("ingress", "prod");
    assert_eq!(ingress["spec"]["ingressClassName"], "nginx");
    assert_eq!(ingress["spec"]["rules"][0]["host"], "metrics.example.com");
    assert_eq!(ingress["spec"]["tls"][0]["secretName"], "metrics-tls");
    let service = scene.the("service", "prod");
    assert_eq!(
        (&service["spec"]["type"], &service["spec"]["ports"][0]["port"]),
        (&json!("LoadBalancer"), &json!(443))
    );
    assert_eq!(scene.the("servicemonitor", "prod")["metadata"]["labels"]["release"], "prometheus");
    assert_eq!(scene.the("luminate", "prod")["status"]["endpoint"], "https://metrics.example.com");
}

#[test]
fn much_can_be_set_of_the_embedded_engine() {
    let scene = Scene::new();
    scene.cluster().kubectl(&["label", "node", "fake-1", "disktype=ssd", "--overwrite"]);
    scene.secret("edge-tls", &json!({ "tls.crt": "certificate", "tls.key": "key" }));
    let uid = serving(
        &scene,
        "edge",
        &ROCKSDB_FULL.replace("storageClassName: fast", "storageClassName: expandable"),
    );
    assert!(!scene.owned(&uid).contains(&"secret/edge-jwt".into()));
    let workload = scene.the("statefulset", "edge");
    let pod = &workload["spec"]["template"]["spec"];
    assert_eq!(pod["nodeSelector"]["disktype"], "ssd");
    assert_eq!(pod["tolerations"][0]["key"], "dedicated");
    assert_eq!(pod["containers"][0]["readinessProbe"]["httpGet"]["scheme"], "HTTPS");
    assert_eq!(pod["containers"][0]["resources"]["limits"]["memory"], "8Gi");
    let claim = scene.the("pvc", "data-edge-0");
    assert_eq!(claim["spec"]["storageClassName"], "expandable");
    assert_eq!(claim["status"]["capacity"]["storage"], "500Gi");
    let from = scene.the("networkpolicy", "edge")["spec"]["ingress"][0]["from"].to_string();
    assert!(from.contains("monitoring"), "{from}");
}
