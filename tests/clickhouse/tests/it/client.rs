//! The `clickhouse` crate, which the storage uses.

use clickhouse::error::Error;
use clickhouse::{Client, Compression, Row};
use serde::{Deserialize, Serialize};

use crate::server::Server;

#[derive(Clone, Debug, Deserialize, PartialEq, Row, Serialize)]
struct Sample {
    fp: u64,
    ts: i64,
    value: f64,
    name: String,
    tags: Vec<(String, String)>,
}

fn sample(at: u64) -> Sample {
    let tags = vec![("region".to_owned(), format!("r{}", at % 3))];
    Sample { fp: at, ts: at as i64 * 1_000, value: at as f64 / 8.0, name: format!("it's {at}\n\n"), tags }
}

async fn table(client: &Client) {
    let sql = "CREATE TABLE samples (fp UInt64, ts Int64, value Float64, name String, tags Map(String, String)) \
               ENGINE = MergeTree ORDER BY fp SETTINGS non_replicated_deduplication_window = 100";
    client.query(sql).execute().await.expect("created");
}

async fn insert(client: &Client, rows: std::ops::Range<u64>) -> Result<(), Error> {
    let mut insert = client.insert::<Sample>("samples").await?;
    for at in rows {
        insert.write(&sample(at)).await?;
    }
    insert.end().await
}

#[tokio::test]
async fn rows_go_in_and_come_out_with_every_compression() {
    for compression in [Compression::None, Compression::Lz4] {
        let server = Server::start();
        let client = Client::default().with_url(&server.url).with_compression(compression);
        table(&client).await;
        insert(&client, 0..50_000).await.expect("inserted");
        let count: u64 = client.query("SELECT count() FROM samples").fetch_one().await.expect("counted");
        assert_eq!(count, 50_000);
        let mut rows =
            client.query("SELECT ?fields FROM samples ORDER BY fp").fetch::<Sample>().expect("asked");
        for at in 0..50_000 {
            assert_eq!(rows.next().await.expect("a row"), Some(sample(at)));
        }
        assert_eq!(rows.next().await.expect("the end"), None);
        let one: Sample = client
            .query("SELECT ?fields FROM samples WHERE fp = ? AND name = ?")
            .bind(7)
            .bind("it's 7\n\n")
            .fetch_one()
            .await
            .expect("one");
        assert_eq!(one, sample(7));
        let absent =
            client.query("SELECT ?fields FROM samples WHERE fp = 50000").fetch_optional::<Sample>().await;
        assert_eq!(absent.expect("none"), None);
    }
}

#[tokio::test]
async fn a_token_makes_a_second_insert_nothing() {
    let server = Server::start();
    let client = Client::default().with_url(&server.url);
    table(&client).await;
    for token in ["a", "a", "b"] {
        let client = client.clone().with_setting("insert_deduplication_token", token);
        insert(&client, 0..10).await.expect("inserted");
    }
    let count: u64 = client.query("SELECT count() FROM samples").fetch_one().await.expect("counted");
    assert_eq!(count, 20);
}

#[tokio::test]
async fn parameters_settings_and_query_ids() {
    let server = Server::start();
    let client = Client::default().with_url(&server.url).with_database("default");
    let text: String =
        client.query("SELECT {x:String}").param("x", "a'b\\c\td\ne").fetch_one().await.expect("asked");
    assert_eq!(text, "a'b\\c\td\ne");
    let id: String = client
        .query("SELECT query_id FROM system.processes WHERE query_id = 'an-id'")
        .with_setting("query_id", "an-id")
        .fetch_one()
        .await
        .expect("asked");
    assert_eq!(id, "an-id");
    let refused = client.query("SELECT 1").with_setting("no_such_setting", "1").execute().await;
    assert!(refused.expect_err("refused").to_string().contains("UNKNOWN_SETTING"));
}

#[tokio::test]
async fn errors_come_with_their_code_at_once_and_in_the_middle() {
    let server = Server::start();
    for compression in [Compression::None, Compression::Lz4] {
        let client = Client::default().with_url(&server.url).with_compression(compression);
        let said = |error: Error| match error {
            Error::BadResponse(text) => text,
            other => panic!("no answer of the server: {other}"),
        };
        let unknown = client.query("SELECT * FROM nothing").execute().await.expect_err("unknown");
        assert!(said(unknown).starts_with("Code: 60. DB::Exception: "));
        let sql = "SELECT number, throwIf(number = 3000000) FROM numbers(4000000)";
        let mut rows = client.query(sql).fetch::<(u64, u8)>().expect("asked");
        let mut count = 0;
        let error = loop {
            match rows.next().await {
                Ok(Some(_)) => count += 1,
                Ok(None) => panic!("an end after {count} rows"),
                Err(error) => break error,
            }
        };
        assert!(count > 0, "rows came before");
        let text = said(error);
        assert!(text.starts_with("Code: 395. DB::Exception: ") && text.contains("(version "), "{text}");
    }
}

#[tokio::test]
async fn a_wrong_password_and_a_reader_are_refused() {
    let server = Server::with(&["--user", "w", "--password", "p", "--reader", "r:p"]);
    let client = |user: &str, password: &str| {
        Client::default().with_url(&server.url).with_user(user).with_password(password)
    };
    table(&client("w", "p")).await;
    let wrong = client("w", "x").query("SELECT 1").execute().await.expect_err("refused");
    assert!(wrong.to_string().contains("AUTHENTICATION_FAILED"), "{wrong}");
    let reader = insert(&client("r", "p"), 0..1).await.expect_err("refused");
    assert!(reader.to_string().contains("READONLY"), "{reader}");
}
