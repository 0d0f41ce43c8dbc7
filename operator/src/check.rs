//! Whether the API server knows the kind and an installed operator answers: what the chart waits for, and its test.

use std::time::Duration;

use kube::{Client, Resource};
use luminate_crds::luminate::Luminate;
use reqwest::Url;
use tokio::time::{Instant, sleep, timeout};

use crate::client::REQUEST_TIMEOUT;
use crate::cluster::said;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// What isn't as it should be.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The API server can't be asked, or refuses.
    #[error("the API server doesn't serve {kind}: {reason}")]
    Kind {
        /// The kind with its version.
        kind: String,
        /// Why.
        reason: String,
    },
    /// No operator answers, or none is ready.
    #[error("no operator is ready at {url}: {reason}")]
    Operator {
        /// What was asked.
        url: Url,
        /// Why.
        reason: String,
    },
    /// There is no client for HTTP.
    #[error(transparent)]
    Client(#[from] reqwest::Error),
}

/// Looks until all is well, for `patience` at most. Without an `operator` only the kind is looked for.
///
/// # Errors
/// [`CheckError`]: what wasn't well at the last look.
pub async fn check(client: &Client, operator: Option<&Url>, patience: Duration) -> Result<(), CheckError> {
    let http = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(REQUEST_TIMEOUT)
        .build()?;
    let last = Instant::now() + patience;
    loop {
        let found = match (kind_is_served(client).await, operator) {
            (Ok(()), Some(operator)) => operator_is_ready(&http, operator).await,
            (found, _) => found,
        };
        if found.is_ok() || Instant::now() >= last {
            return found;
        }
        sleep(PAUSE).await;
    }
}

async fn kind_is_served(client: &Client) -> Result<(), CheckError> {
    let version = Luminate::api_version(&());
    let unserved =
        |reason: String| CheckError::Kind { kind: format!("{version}/{}", Luminate::kind(&())), reason };
    let served = match timeout(REQUEST_TIMEOUT, client.list_api_group_resources(&version)).await {
        Ok(Ok(served)) => served,
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
            return Err(unserved("its definition isn't installed".to_owned()));
        }
        Ok(Err(error)) => return Err(unserved(said(&error))),
        Err(_) => return Err(unserved("it doesn't answer".to_owned())),
    };
    match served.resources.iter().any(|resource| resource.kind == Luminate::kind(&())) {
        true => Ok(()),
        false => Err(unserved("its group has other kinds only".to_owned())),
    }
}

async fn operator_is_ready(http: &reqwest::Client, operator: &Url) -> Result<(), CheckError> {
    let mut url = operator.clone();
    url.set_path("/readyz");
    let unready = |reason: String| CheckError::Operator { url: url.clone(), reason };
    let answer = http.get(url.clone()).send().await.map_err(|error| unready(causes(&error)))?;
    match answer.status().is_success() {
        true => Ok(()),
        false => Err(unready(format!("it answers {}", answer.status().as_u16()))),
    }
}

/// The error with what lies below it: the first alone only says that sending failed.
fn causes(error: &reqwest::Error) -> String {
    let below = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    below.last().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::json;

    use super::*;

    /// An API server and an operator in one, with the status that its readiness has.
    async fn server(kind: &'static str, ready: u16) -> Url {
        let kinds = json!({ "kind": "APIResourceList", "groupVersion": "luminate.dev/v1alpha1", "resources": [{
            "name": "luminates", "singularName": "luminate", "namespaced": true, "kind": kind, "verbs": ["get"],
        }] });
        let readiness = async move || StatusCode::from_u16(ready).unwrap();
        let router = Router::new()
            .route("/apis/luminate.dev/v1alpha1", get(move || async { Json(kinds) }))
            .route("/readyz", get(readiness));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async { axum::serve(listener, router).await });
        url
    }

    async fn checked(url: &Url, operator: Option<&Url>) -> Result<(), String> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::try_from(kube::Config::new(url.as_str().parse().unwrap())).unwrap();
        check(&client, operator, Duration::ZERO).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn an_operator_and_its_kind_are_found() {
        let url = server("Luminate", 200).await;
        assert_eq!(checked(&url, Some(&url)).await, Ok(()));
        assert_eq!(checked(&url, None).await, Ok(()), "nobody is asked for an operator");
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let other = server("Other", 200).await;
        let said = checked(&other, Some(&other)).await.unwrap_err();
        assert_eq!(
            said,
            "the API server doesn't serve luminate.dev/v1alpha1/Luminate: its group has other kinds only"
        );

        let nothing = other.join("elsewhere").unwrap();
        let said = checked(&nothing, Some(&other)).await.unwrap_err();
        assert_eq!(
            said,
            "the API server doesn't serve luminate.dev/v1alpha1/Luminate: its definition isn't installed"
        );

        let unready = server("Luminate", 503).await;
        let said = checked(&unready, Some(&unready)).await.unwrap_err();
        assert_eq!(said, format!("no operator is ready at {unready}readyz: it answers 503"));

        let nobody = "http://127.0.0.1:1".parse().unwrap();
        let said = checked(&unready, Some(&nobody)).await.unwrap_err();
        assert!(
            said.starts_with("no operator is ready at http://127.0.0.1:1/readyz: ")
                && said.contains("refused"),
            "{said}"
        );
    }
}
