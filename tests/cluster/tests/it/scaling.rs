//! How many workers there are is the autoscaler's business.

use serde_json::{Value, json};

use crate::scene::{CLICKHOUSE, Scene, condition};

const WORKERS: &str = "luminate.dev/backend=clickhouse";

fn replicas(deployment: &Value) -> i64 {
    deployment["spec"]["replicas"].as_i64().unwrap_or(0)
}

#[test]
fn the_autoscaler_follows_the_load_and_nobody_fights_it() {
    let mut scene = Scene::new();
    scene.make(CLICKHOUSE);
    scene.settled("prod");
    scene.until("the autoscaler has the count", "hpa", "prod", |hpa| hpa["status"]["currentReplicas"] == 1);
    scene.writes();
    // 500m are requested, 70 % of which are wanted.
    scene.simulate(WORKERS, "900m", "64Mi");
    scene.until("there are more", "deployment", "prod", |deployment| replicas(deployment) == 3);
    let resource = scene.until("the status counts them", "luminate", "prod", |resource| {
        resource["status"]["readyReplicas"] == 3 && resource["status"]["replicas"] == 3
    });
    assert_eq!(condition(&resource, "Ready").0, "True");
    // A change meanwhile doesn't bring the count down.
    let watch = scene.watch("deployment");
    scene.respec("prod", &json!({ "retention": { "default": "60d" } }));
    scene.settled("prod");
    let counts: Vec<i64> = watch.states("prod").iter().map(replicas).collect();
    assert!(!counts.is_empty() && counts.iter().all(|count| *count >= 3), "{counts:?}");
    // What the operator wrote to the Deployment: the new template, and at most its leave of the count.
    let writes: Vec<String> =
        scene.writes().into_iter().filter(|write| write.contains("deployments")).collect();
    assert!(writes.len() <= 2, "{writes:?}");
    let managers = scene.the("deployment", "prod")["metadata"]["managedFields"].clone();
    let own =
        managers.as_array().into_iter().flatten().filter(|entry| entry["manager"] == "luminate-operator");
    assert!(
        own.into_iter().all(|entry| entry["fieldsV1"]["f:spec"].get("f:replicas").is_none()),
        "{managers}"
    );
}

#[test]
fn switching_autoscaling_moves_the_count_only_where_it_must() {
    let scene = Scene::new();
    scene.make(CLICKHOUSE);
    let scaling = |fields: Value| json!({ "clickhouse": { "autoscaling": fields } });
    scene.respec("prod", &scaling(json!({ "minReplicas": 2, "maxReplicas": 4 })));
    scene.settled("prod");
    scene.until("there are two", "deployment", "prod", |deployment| replicas(deployment) == 2);

    // Off, and as many as the resource says.
    let watch = scene.watch("deployment");
    let mut off = scaling(json!({ "enabled": false }));
    off["replicas"] = 3.into();
    scene.respec("prod", &off);
    scene.settled("prod");
    scene.until_gone("hpa", "prod");
    scene.until("there are three", "deployment", "prod", |deployment| replicas(deployment) == 3);
    scene.kubectl(&["scale", "luminate", "prod", "--replicas=4"]);
    scene.settled("prod");
    scene.until("there are four", "deployment", "prod", |deployment| replicas(deployment) == 4);
    let counts =
        |watch: &luminate_cluster::Watch| -> Vec<i64> { watch.states("prod").iter().map(replicas).collect() };
    assert!(counts(&watch).iter().all(|count| (2..=4).contains(count)), "{:?}", counts(&watch));

    // On again: from four to between two and three, by no way through fewer.
    let watch = scene.watch("deployment");
    scene.respec("prod", &scaling(json!({ "enabled": true, "maxReplicas": 3 })));
    scene.settled("prod");
    scene.the("hpa", "prod");
    scene.until("there are three at most", "deployment", "prod", |deployment| replicas(deployment) <= 3);
    assert!(counts(&watch).iter().all(|count| (2..=4).contains(count)), "{:?}", counts(&watch));

    // The floor rises above the count.
    scene.respec("prod", &scaling(json!({ "minReplicas": 5, "maxReplicas": 6 })));
    scene.until("there are five", "luminate", "prod", |resource| resource["status"]["readyReplicas"] == 5);
    scene.settled("prod");
}

#[test]
fn a_person_who_scales_the_deployment_is_overruled() {
    let scene = Scene::new();
    scene.make(CLICKHOUSE);
    scene.respec("prod", &json!({ "replicas": 2, "clickhouse": { "autoscaling": { "enabled": false } } }));
    scene.settled("prod");
    scene.kubectl(&["scale", "deployment", "prod", "--replicas=5"]);
    scene.until("there are two again", "deployment", "prod", |deployment| {
        replicas(deployment) == 2 && deployment["status"]["replicas"] == 2
    });
}
