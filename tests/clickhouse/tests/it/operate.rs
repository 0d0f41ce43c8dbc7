//! Running queries, killing them, sessions, users, ending and starting again.

use std::io::Write;
use std::net::TcpStream;
use std::process::Stdio;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use crate::server::{Server, answer, command, encoded};

/// A query that runs for long unless something ends it.
const LONG: &str = "SELECT sum(sleepEachRow(0.01)) FROM numbers(5000) \
    SETTINGS max_block_size = 10, function_sleep_max_microseconds_per_block = 1000000000";

/// Waits until a condition on `system.processes` has this many rows.
fn wait_for(server: &Server, condition: &str, count: usize) {
    let end = Instant::now() + Duration::from_secs(20);
    let sql = format!(
        "SELECT count() FROM system.processes WHERE {condition} AND query NOT LIKE '%system.processes%'"
    );
    while server.run(&sql) != format!("{count}\n") {
        assert!(Instant::now() < end, "{condition}: never {count}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn queries_are_listed_and_killed_by_their_clients_ids() {
    let server = Server::start();
    scope(|scope| {
        let killed = scope.spawn(|| server.post("/?query_id=tenant-a:1&log_comment=mine", LONG));
        let other = scope.spawn(|| server.post("/?query_id=tenant-b:1", LONG));
        wait_for(&server, "query_id LIKE 'tenant-%'", 2);
        let listed = server.run("SELECT query_id, user, query, Settings['log_comment'] FROM system.processes WHERE query_id = 'tenant-a:1'");
        assert_eq!(listed, format!("tenant-a:1\tdefault\t{LONG}\tmine\n"));
        let twice = server.post("/?query_id=tenant-a:1", "SELECT 1");
        assert_eq!((twice.status, twice.header("x-clickhouse-exception-code")), (500, Some("216")));

        let kill = |sql: &str| server.run(&format!("KILL QUERY WHERE {sql}"));
        assert_eq!(kill("query_id = 'nobody'"), "");
        let row = |status: &str, id: &str| format!("{status}\t{id}\tdefault\t{LONG}\n");
        assert_eq!(kill("query_id LIKE 'tenant-a:%' TEST"), row("unknown_status", "tenant-a:1"));
        assert_eq!(kill("query_id LIKE 'tenant-a:%' SYNC"), row("finished", "tenant-a:1"));
        let killed = killed.join().expect("answered");
        assert_eq!(killed.header("x-clickhouse-exception-code"), Some("394"), "{}", killed.text());
        wait_for(&server, "query_id LIKE 'tenant-%'", 1);
        let asynchronous = kill("query_id = 'tenant-b:1' ASYNC FORMAT JSONCompactEachRow");
        assert!(asynchronous.starts_with("[\"waiting\", \"tenant-b:1\", \"default\""), "{asynchronous}");
        assert_eq!(other.join().expect("answered").header("x-clickhouse-exception-code"), Some("394"));
    });
    let wrong = server.post("/", "KILL QUERY WHERE nothing = 1");
    assert_eq!(wrong.header("x-clickhouse-exception-code"), Some("47"));
    assert!(!wrong.text().contains("_mark"), "{}", wrong.text());
}

#[test]
fn a_running_query_can_be_replaced() {
    let server = Server::start();
    scope(|scope| {
        let first = scope.spawn(|| server.post("/?query_id=one", LONG));
        wait_for(&server, "query_id = 'one'", 1);
        assert_eq!(server.post("/?query_id=one&replace_running_query=1", "SELECT 1").text(), "1\n");
        assert_eq!(first.join().expect("answered").header("x-clickhouse-exception-code"), Some("394"));
    });
}

#[test]
fn a_client_who_hangs_up_ends_a_reading_query_where_it_asked_for_that() {
    let server = Server::start();
    let hang_up = |target: &str| {
        let mut curl = server.curl_command(&[], target).stdout(Stdio::null()).spawn().expect("curl");
        wait_for(&server, "query_id = 'gone'", 1);
        curl.kill().expect("killed");
        curl.wait().expect("ended");
    };
    let sql = encoded(LONG);
    hang_up(&format!("/?query={sql}&query_id=gone&cancel_http_readonly_queries_on_client_close=1"));
    wait_for(&server, "query_id = 'gone'", 0);
    hang_up(&format!("/?query={sql}&query_id=gone"));
    sleep(Duration::from_millis(500));
    wait_for(&server, "query_id = 'gone'", 1);
    server.run("KILL QUERY WHERE query_id = 'gone' SYNC");
    // Without the setting, an answer that nobody takes ends the query that makes it.
    let endless = encoded("SELECT number FROM system.numbers");
    hang_up(&format!("/?query={endless}&query_id=gone"));
    wait_for(&server, "query_id = 'gone'", 0);
}

#[test]
fn queries_run_at_the_same_time_up_to_a_limit() {
    let server = Server::with(&["--connections", "2"]);
    scope(|scope| {
        let runs: Vec<_> = (0..2).map(|at| (format!("/?query_id=q{at}"), LONG)).collect();
        let runs: Vec<_> = runs
            .into_iter()
            .map(|(target, sql)| {
                scope.spawn({
                    let server = &server;
                    move || server.post(&target, sql)
                })
            })
            .collect();
        let end = Instant::now() + Duration::from_secs(20);
        // The list itself needs a place, so it waits with everybody else: killing doesn't.
        while server.run("KILL QUERY WHERE query_id LIKE 'q%' TEST").lines().count() < 2 {
            assert!(Instant::now() < end, "both run");
        }
        let waits = server.post("/", "SELECT 1");
        assert_eq!(
            (waits.status, waits.header("x-clickhouse-exception-code")),
            (500, Some("202")),
            "{}",
            waits.text()
        );
        server.run("KILL QUERY WHERE query_id LIKE 'q%' SYNC");
        for run in runs {
            run.join().expect("answered");
        }
    });
    assert_eq!(server.run("SELECT 1"), "1\n");
}

#[test]
fn sessions_keep_settings_and_temporary_tables() {
    let server = Server::start();
    let session = |parameters: &str, sql: &str| server.post(&format!("/?session_id=s{parameters}"), sql);
    let first = session("&max_block_size=55&database=system", "CREATE TEMPORARY TABLE t (a UInt8)");
    assert_eq!(first.status, 200, "{}", first.text());
    let setting = "SELECT getSetting('max_block_size'), currentDatabase()";
    assert_eq!(session("", setting).text(), "65409\tdefault\n", "also of the first request");
    assert_eq!(session("&query=INSERT+INTO+t+FORMAT+CSV", "7").status, 200);
    assert_eq!(session("", "SELECT a FROM t").text(), "7\n");
    assert_eq!(server.post("/", "SELECT a FROM t").status, 404, "nobody else's");
    session("", "SET max_block_size = 77");
    assert_eq!(session("&max_block_size=99&database=system", setting).text(), "99\tsystem\n");
    assert_eq!(session("", setting).text(), "77\tdefault\n", "the URL's hold for one request");
    let get = server.get("/?session_id=s&query=SELECT+a+FROM+t");
    assert_eq!(get.text(), "7\n");
    let refused = server.get("/?session_id=s&query=DROP+TABLE+t");
    assert_eq!(refused.header("x-clickhouse-exception-code"), Some("164"), "{}", refused.text());
    assert_eq!(session("&query=INSERT+INTO+t+FORMAT+CSV", "8").status, 200, "and no longer");
    scope(|scope| {
        let long = scope.spawn(|| session("&query_id=long", LONG));
        wait_for(&server, "query_id = 'long'", 1);
        let locked = session("", "SELECT 1");
        assert_eq!((locked.status, locked.header("x-clickhouse-exception-code")), (500, Some("373")));
        server.run("KILL QUERY WHERE query_id = 'long' SYNC");
        long.join().expect("answered");
    });
    assert_eq!(session("&close_session=1", "SELECT 1").text(), "1\n");
    assert_eq!(session("", "SELECT a FROM t").status, 404, "a new one of the same name");
    let code = |target: &str| {
        server.post(target, "SELECT 1").header("x-clickhouse-exception-code").map(str::to_owned)
    };
    assert_eq!(code("/?session_id=new&session_check=1").as_deref(), Some("372"));
    assert_eq!(code("/?session_id=new&session_timeout=4000").as_deref(), Some("374"));
    assert_eq!(code("/?session_id=").as_deref(), Some("744"));
}

#[test]
fn users_have_passwords_and_rights() {
    let server = Server::with(&["--user", "writer", "--password", "pässword", "--reader", "reader:r"]);
    let writer = |sql: &str| server.curl(&["-u", "writer:pässword"], "/", Some(sql.as_bytes()));
    let reader = |target: &str, sql: &str| {
        let user = ["-H", "X-ClickHouse-User: reader", "-H", "X-ClickHouse-Key: r"];
        server.curl(&user, target, Some(sql.as_bytes()))
    };
    assert_eq!(writer("CREATE TABLE t (a UInt8) ENGINE = Memory").status, 200);
    assert_eq!(reader("/", "SELECT count() FROM t").text(), "0\n");
    for sql in ["INSERT INTO t VALUES (1)", "DROP TABLE t", "OPTIMIZE TABLE t"] {
        let refused = reader("/", sql);
        assert_eq!(refused.header("x-clickhouse-exception-code"), Some("164"), "{sql}: {}", refused.text());
        assert!(
            refused.text().contains("DB::Exception: reader: Cannot execute query in readonly mode"),
            "{}",
            refused.text()
        );
    }
    let setting = reader("/?max_block_size=77", "SELECT 1");
    assert_eq!(setting.header("x-clickhouse-exception-code"), Some("164"), "{}", setting.text());
    let nobody = server.post("/", "SELECT 1");
    assert_eq!(
        (nobody.status, nobody.header("www-authenticate")),
        (401, Some("Basic realm=\"ClickHouse server HTTP API\""))
    );
    let wrong = server.post("/?user=writer&password=x", "SELECT 1");
    assert_eq!((wrong.status, wrong.header("x-clickhouse-exception-code")), (403, Some("516")));
    assert!(
        wrong.text().contains(
            "writer: Authentication failed: password is incorrect, or there is no user with such name."
        ),
        "{}",
        wrong.text()
    );
    assert_eq!(server.get("/ping").status, 200, "health needs no password");
}

#[test]
fn data_survive_a_restart_and_a_folder_has_one_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::at(folder.path(), &[]);
    server.run("CREATE DATABASE d");
    server.run("CREATE TABLE d.t (a UInt8) ENGINE = MergeTree ORDER BY a");
    server.run("INSERT INTO d.t VALUES (42)");
    let second = command(folder.path(), &[]).stderr(Stdio::piped()).output().expect("it ends");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        !second.status.success()
            && said.contains("is in use by another test server")
            && said.lines().count() == 1,
        "{said}"
    );
    assert!(server.stop().success());
    let server = Server::at(folder.path(), &[]);
    assert_eq!(server.run("SELECT a FROM d.t"), "42\n");
    let curl = server
        .curl_command(&["--data-binary", LONG], "/?query_id=running")
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl");
    wait_for(&server, "query_id = 'running'", 1);
    assert!(server.terminate().success(), "a signal ends it, whatever runs");
    let answer = answer(&curl.wait_with_output().expect("answered"));
    assert_eq!(answer.header("x-clickhouse-exception-code"), Some("394"), "{}", answer.text());
    let server = Server::at(folder.path(), &[]);
    assert_eq!(server.run("SELECT a FROM d.t"), "42\n");
    assert_eq!(server.path(), folder.path());
}

#[test]
fn an_insert_is_whole_or_nothing_whatever_the_client_does() {
    let server = Server::start();
    server.run("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a");
    let send = |body: &str, length: usize| {
        let address = server.url.strip_prefix("http://").expect("an address");
        let mut stream = TcpStream::connect(address).expect("connected");
        let head = format!(
            "POST /?query=INSERT+INTO+t+FORMAT+CSV HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all((head + body).as_bytes()).expect("sent");
    };
    // The body breaks off: nothing.
    send("1\n2\n", 100);
    sleep(Duration::from_millis(500));
    assert_eq!(server.run("SELECT count() FROM t"), "0\n");
    // The client goes before the answer comes: everything.
    send("1\n2\n3\n", 6);
    let end = Instant::now() + Duration::from_secs(20);
    while server.run("SELECT count() FROM t") != "3\n" {
        assert!(Instant::now() < end, "inserted");
        sleep(Duration::from_millis(20));
    }
}
