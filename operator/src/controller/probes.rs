//! Whether ClickHouse's servers answer: an unauthenticated `GET /ping` of each, twice a minute.
//!
//! It tells a person where to look. Nothing depends on it: workers may reach what the operator can't.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use luminate_crds::luminate::Luminate;
use parking_lot::Mutex;
use reqwest::{Client, Url};
use tokio::sync::Notify;

use super::references::Key;

/// How often servers are asked.
const EVERY: Duration = Duration::from_secs(30);
/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Servers that are asked at once.
const AT_ONCE: usize = 16;
/// Failures in a row until a server that answered counts as unreachable.
const STRIKES: u32 = 2;

/// Whether the servers of a resource answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// None has been asked yet.
    NotProbed,
    /// All answer.
    Reachable,
    /// These don't.
    Unreachable(Vec<String>),
    /// The names of these can't be resolved here.
    Unresolved(Vec<String>),
}

/// What one server's probe said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    NoName,
}

#[derive(Debug, Default)]
struct Inner {
    users: BTreeMap<Key, BTreeSet<String>>,
    answers: BTreeMap<String, Answer>,
    strikes: BTreeMap<String, u32>,
}

/// Which servers are asked for whom, and what they said. A server of many resources is asked once.
#[derive(Debug, Default)]
pub struct Probes {
    inner: Mutex<Inner>,
    news: Notify,
}

impl Probes {
    /// Asks the servers of `resource` from now on, and says what they answered.
    pub fn follow(&self, key: &Key, resource: &Luminate) -> Reach {
        let section = resource.spec.clickhouse.as_ref();
        let servers: BTreeSet<String> =
            section.map(|section| section.endpoints.iter().cloned().collect()).unwrap_or_default();
        let inner = &mut *self.inner.lock();
        if servers.is_empty() {
            inner.users.remove(key);
            return Reach::NotProbed;
        }
        if servers.iter().any(|server| !inner.answers.contains_key(server)) {
            self.news.notify_one();
        }
        let reach = inner.reach(&servers);
        inner.users.insert(key.clone(), servers);
        reach
    }

    /// `key` is gone.
    pub fn forget(&self, key: &Key) {
        self.inner.lock().users.remove(key);
    }

    /// Asks for ever, and calls `changed` for each resource whose reach is another than before.
    pub async fn run(self: Arc<Self>, changed: impl Fn(&Key)) {
        let client = match client() {
            Ok(client) => client,
            Err(error) => return tracing::error!(%error, "servers can't be probed"),
        };
        loop {
            let all = tokio::select! {
                () = tokio::time::sleep(EVERY) => true,
                () = self.news.notified() => false,
            };
            let servers = self.inner.lock().servers(all);
            let asked = futures_util::stream::iter(servers)
                .map(|server| async {
                    let answer = ask(&client, &server).await;
                    (server, answer)
                })
                .buffer_unordered(AT_ONCE);
            let answers: Vec<(String, Answer)> = asked.collect().await;
            let news = self.inner.lock().take(answers);
            news.iter().for_each(&changed);
        }
    }
}

impl Inner {
    fn reach(&self, servers: &BTreeSet<String>) -> Reach {
        let with = |wanted: Answer| -> Vec<String> {
            let answered = servers.iter().filter(|server| self.answers.get(*server) == Some(&wanted));
            answered.cloned().collect()
        };
        let (silent, nameless) = (with(Answer::No), with(Answer::NoName));
        if !silent.is_empty() {
            Reach::Unreachable(silent)
        } else if !nameless.is_empty() {
            Reach::Unresolved(nameless)
        } else if servers.iter().all(|server| self.answers.contains_key(server)) {
            Reach::Reachable
        } else {
            Reach::NotProbed
        }
    }

    /// The servers to ask: all that somebody uses, or those of which nothing is known.
    fn servers(&mut self, all: bool) -> Vec<String> {
        let used: BTreeSet<&String> = self.users.values().flatten().collect();
        self.answers.retain(|server, _| used.contains(server));
        self.strikes.retain(|server, _| used.contains(server));
        let wanted = used.into_iter().filter(|server| all || !self.answers.contains_key(*server));
        wanted.cloned().collect()
    }

    /// Takes answers, and says for whom they are news. A single failure of a server that answered isn't.
    fn take(&mut self, answers: Vec<(String, Answer)>) -> Vec<Key> {
        let reach = |inner: &Self| -> Vec<Reach> {
            inner.users.values().map(|servers| inner.reach(servers)).collect()
        };
        let before = reach(self);
        for (server, answer) in answers {
            let strikes = self.strikes.entry(server.clone()).or_default();
            *strikes = if answer == Answer::Yes { 0 } else { *strikes + 1 };
            if self.answers.get(&server) != Some(&Answer::Yes) || *strikes == 0 || *strikes >= STRIKES {
                self.answers.insert(server, answer);
            }
        }
        let after = reach(self);
        let changed = self.users.keys().zip(before.into_iter().zip(after));
        changed.filter(|(_, (before, after))| before != after).map(|(key, _)| key.clone()).collect()
    }
}

/// Certificates aren't checked: nothing is told to the server, and nothing that it says is believed but that
/// it answers. Redirects aren't followed: a server must not send the operator elsewhere.
fn client() -> reqwest::Result<Client> {
    Client::builder()
        .tls_danger_accept_invalid_certs(true)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(PATIENCE)
        .pool_max_idle_per_host(0)
        .build()
}

async fn ask(client: &Client, server: &str) -> Answer {
    let Ok(url) = Url::parse(server).and_then(|url| url.join("/ping")) else { return Answer::No };
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return Answer::No };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let resolved = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host, port))).await;
    if !matches!(resolved, Ok(Ok(_))) {
        return Answer::NoName;
    }
    match client.get(url).send().await {
        Ok(answer) if answer.status().is_success() => Answer::Yes,
        _ => Answer::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{clickhouse, resource, rocksdb};

    fn at(servers: &[&str]) -> Luminate {
        let mut spec = clickhouse();
        spec.clickhouse.as_mut().unwrap().endpoints = servers.iter().map(|server| (*server).into()).collect();
        resource("prod", spec)
    }

    fn answers(pairs: &[(&str, Answer)]) -> Vec<(String, Answer)> {
        pairs.iter().map(|(server, answer)| ((*server).to_owned(), *answer)).collect()
    }

    #[test]
    fn reach_is_that_of_the_worst_server() {
        let probes = Probes::default();
        let key = Key::new("a", "prod");
        let told = std::slice::from_ref(&key);
        let resource = at(&["http://one", "http://two"]);
        assert_eq!(probes.follow(&key, &resource), Reach::NotProbed);
        let take = |pairs: &[(&str, Answer)]| probes.inner.lock().take(answers(pairs));
        assert_eq!(take(&[("http://one", Answer::Yes)]), []);
        assert_eq!(take(&[("http://two", Answer::Yes)]), told);
        assert_eq!(probes.follow(&key, &resource), Reach::Reachable);
        assert_eq!(take(&[("http://two", Answer::No)]), [], "one failure is no news");
        assert_eq!(take(&[("http://two", Answer::No)]), told);
        assert_eq!(probes.follow(&key, &resource), Reach::Unreachable(vec!["http://two".into()]));
        assert_eq!(take(&[("http://two", Answer::NoName)]), told);
        assert_eq!(probes.follow(&key, &resource), Reach::Unresolved(vec!["http://two".into()]));
    }

    #[test]
    fn a_server_of_nobody_is_not_asked() {
        let probes = Probes::default();
        let key = Key::new("a", "prod");
        probes.follow(&key, &at(&["http://one"]));
        assert_eq!(probes.inner.lock().servers(false), ["http://one"]);
        probes.inner.lock().take(answers(&[("http://one", Answer::Yes)]));
        assert!(probes.inner.lock().servers(false).is_empty());
        assert_eq!(probes.inner.lock().servers(true), ["http://one"]);
        probes.follow(&key, &resource("prod", rocksdb()));
        assert!(probes.inner.lock().servers(true).is_empty());
    }
}
